"""`banger kernel …`: what machines boot."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import click

from banger.cli import candidates
from banger.cli.app import App, pass_app
from banger.cli.catalog import available_option, no_build_option, print_available, publish, publish_options
from banger.cli.named import build_anew, describe, print_names
from banger.cli.options import Nouns, json_option
from banger.cli.output import print_json
from banger.cli.several import for_each
from catalog.bundle import Kind


@click.group(cls=Nouns)
def kernel() -> None:
    """Kernels: what machines boot."""


@kernel.command("list")
@available_option
@json_option
@pass_app
def list_(app: App, available: bool, as_json: bool) -> None:
    """List the kernels that are here."""
    if available:
        print_available(app, Kind.KERNEL, app.paths.kernels, as_json)
        return
    print_names(app.paths.kernels, {"SOURCE": lambda each: str(each.details.get("source", ""))}, as_json)


@kernel.command()
@click.argument("name", shell_complete=candidates.known_kernels)
@json_option
@pass_app
def build(app: App, name: str, as_json: bool) -> None:
    """Build a kernel and its guest runtime anew, asking what its packages are now."""
    build_anew(app, lambda targets: targets.plan_kernel(name, anew=True), app.paths.kernels, as_json)


@kernel.command()
@click.argument("name", shell_complete=candidates.known_kernels)
@no_build_option
@json_option
@pass_app
def pull(app: App, name: str, no_build: bool, as_json: bool) -> None:
    """Get a kernel, with its guest runtime, from the first catalog that has it, as it is there now."""
    build_anew(app, lambda targets: targets.pull_kernel(name), app.paths.kernels, as_json, may_build=not no_build)


@kernel.command("publish")
@click.argument("name", shell_complete=candidates.local_kernels)
@publish_options
@json_option
@pass_app
def publish_(app: App, /, name: str, as_json: bool, **where: Any) -> None:
    """Put a kernel that is here into a registry, signed, and into the catalog there."""
    publish(app, Kind.KERNEL, name, as_json=as_json, **where)


@kernel.command("import")
@click.argument("name", shell_complete=candidates.local_kernels)
@click.argument("file", metavar="KERNEL", type=click.Path(path_type=Path))
@click.option("--initrd", metavar="FILE", type=click.Path(path_type=Path), help="Goes in front of the guest runtime.")
@click.option("--modules", metavar="DIR|TAR", type=click.Path(path_type=Path), help="/lib/modules/RELEASE, or above.")
@json_option
@pass_app
def import_(app: App, name: str, file: Path, initrd: Path | None, modules: Path | None, as_json: bool) -> None:
    """Make a kernel of your own one that machines can boot: KERNEL is a vmlinux or a bzImage.

    Without --modules, all that a machine needs has to be built into it.
    """
    from banger.cli.import_kernel import import_kernel

    import_kernel(app, name, file, initrd, modules, as_json)


@kernel.command()
@click.argument("name", shell_complete=candidates.local_kernels)
@click.option("--json", is_flag=True, help="As always: the output is JSON.")
@pass_app
def show(app: App, /, name: str, **_json: bool) -> None:
    """Print everything about a kernel as JSON."""
    print_json(describe(app.paths.kernels.get(name)))


@kernel.command()
@click.argument("names", nargs=-1, required=True, shell_complete=candidates.local_kernels)
@pass_app
def rm(app: App, names: tuple[str, ...]) -> None:
    """Remove kernels. One that a machine boots stays, and an imported one that an image names."""
    from banger.cli.import_kernel import remove_kernel

    for_each(names, lambda name: remove_kernel(app, name))


kernel.add_command(rm, "delete")
