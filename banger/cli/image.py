"""`banger image …`: what machines are made from."""

from __future__ import annotations

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import click

from banger.cli import candidates
from banger.cli.app import App, pass_app
from banger.cli.catalog import available_option, no_build_option, print_available, publish, publish_options
from banger.cli.named import build_anew, describe, print_names
from banger.cli.options import Nouns, json_option
from banger.cli.output import print_json
from banger.cli.own_image import build_recipe, promote_machine
from banger.cli.several import for_each
from banger.errors import BangerError, Reason
from catalog.bundle import Kind
from catalog.local import Named
from catalog.names import parse_name


@click.group(cls=Nouns)
def image() -> None:
    """Images: what machines are made from."""


@image.command("list")
@available_option
@json_option
@pass_app
def list_(app: App, available: bool, as_json: bool) -> None:
    """List the images that are here."""
    if available:
        print_available(app, Kind.IMAGE, app.paths.images, as_json)
        return
    columns = {
        "SOURCE": lambda each: str(each.details.get("reference") or each.details.get("source", "")),
        "DIGEST": lambda each: str(each.details.get("digest", ""))[:19],
        "KERNEL": lambda each: str(each.details.get("kernel", "")),
    }
    print_names(app.paths.images, columns, as_json)


@image.command()
@click.argument("reference", required=False, shell_complete=candidates.known_images)
@click.option("--recipe", metavar="PATH", type=click.Path(path_type=Path), help="A recipe of your own: folder or file.")
@click.option("--name", metavar="NAME", help="What it is called here; its own name when omitted.")
@click.option("--kernel", metavar="NAME", help="What its machines boot.", shell_complete=candidates.known_kernels)
@json_option
@pass_app
def build(
    app: App, reference: str | None, recipe: Path | None, name: str | None, kernel: str | None, as_json: bool
) -> None:
    """Build an image, asking what REFERENCE stands for now, or one that you describe yourself.

    REFERENCE is a recipe, an image of a registry (debian:12, ghcr.io/owner/tool@sha256:…), or one on this host:
    oci:DIR[:TAG], oci-archive:FILE[:TAG], docker-archive:FILE[:REF], or - for an archive on standard input.
    """
    if name is not None:
        parse_name(name, "an image")
    if (reference is None) == (recipe is None):
        raise click.UsageError("Name either what to build, or a --recipe of yours.")
    if recipe is not None:
        build_recipe(app, recipe, name, kernel, as_json)
        return
    build_anew(
        app,
        lambda targets: targets.plan_image(str(reference), anew=True, name=name, kernel=kernel),
        app.paths.images,
        as_json,
    )


@image.command()
@click.argument("reference", metavar="NAME", shell_complete=candidates.known_images)
@click.option("--name", metavar="NAME", help="What it is called here; its own name when omitted.")
@click.option("--kernel", metavar="NAME", help="What its machines boot.", shell_complete=candidates.known_kernels)
@no_build_option
@json_option
@pass_app
def pull(app: App, reference: str, name: str | None, kernel: str | None, no_build: bool, as_json: bool) -> None:
    """Get an image from the first catalog that has it, or from a registry (debian:12), as it is there now.

    A recipe stands in for a catalog that cannot be reached, unless the image is here or --no-build is given.
    """
    if name is not None:
        parse_name(name, "an image")
    build_anew(
        app,
        lambda targets: targets.pull_image(reference, name=name, kernel=kernel),
        app.paths.images,
        as_json,
        may_build=not no_build,
    )


@image.command()
@click.argument("machine", metavar="VM", shell_complete=candidates.stopped_machines)
@click.argument("name")
@json_option
@pass_app
def promote(app: App, machine: str, name: str, as_json: bool) -> None:
    """Make an image of a stopped machine: what it was made from, and what was changed on its system disk.

    What makes it that machine is left out (host keys, machine id, logs, histories), and so is /root.
    """
    promote_machine(app, machine, name, as_json)


@image.command("publish")
@click.argument("name", shell_complete=candidates.local_images)
@publish_options
@json_option
@pass_app
def publish_(app: App, /, name: str, as_json: bool, **where: Any) -> None:
    """Put an image that is here into a registry, signed, and into the catalog there."""
    publish(app, Kind.IMAGE, name, as_json=as_json, **where)


@image.command()
@click.argument("name", shell_complete=candidates.local_images)
@click.option("--json", is_flag=True, help="As always: the output is JSON.")
@pass_app
def show(app: App, /, name: str, **_json: bool) -> None:
    """Print everything about an image as JSON."""
    print_json({**describe(_get(app, name)), **_describe_config(_get(app, name))})


@image.command()
@click.argument("name", shell_complete=candidates.local_images)
@click.option(
    "--rootfs",
    required=True,
    metavar="FILE|DIR|TAR",
    type=click.Path(allow_dash=True),
    help="A folder, a tar (- for standard input), or an EROFS image.",
)
@click.option(
    "--kernel",
    metavar="NAME|FILE",
    shell_complete=candidates.known_kernels,
    help="What its machines boot; a file is imported under the image's name.",
)
@json_option
@pass_app
def register(app: App, name: str, rootfs: str, kernel: str | None, as_json: bool) -> None:
    """Make an image of a root filesystem that you have."""
    from banger.cli.register import register_image

    register_image(app, name, rootfs, kernel, as_json)


@image.command()
@click.argument("names", nargs=-1, required=True, shell_complete=candidates.local_images)
@pass_app
def delete(app: App, names: tuple[str, ...]) -> None:
    """Delete images. One that a machine was made from stays until that machine is gone."""

    def remove(name: str) -> None:
        found = _get(app, name)
        users = [machine.name for machine in app.records.list() if machine.image == found.name]
        if users:
            raise BangerError(
                f"the image {found.name!r} is in use by {', '.join(users)}",
                reason=Reason.IN_USE,
                hint=f"banger vm delete {' '.join(users)}",
            )
        app.paths.images.remove(found.name)

    for_each(names, remove)


def _get(app: App, name: str) -> Named:
    from pipelines.oci.sources import find_familiar_name
    from pipelines.targets import find_image, is_word

    found = find_image(app.paths.images, name)
    return found or app.paths.images.get(name if is_word(name) else find_familiar_name(name) or name)


def _describe_config(named: Named) -> Mapping[str, object]:
    """What an OCI image says about itself: the parts of its configuration that people look for."""
    if "config" not in named.files:
        return {}
    from pipelines.oci.config import parse_image_config

    config = parse_image_config(named.path("config").read_bytes())
    # One that was pulled from a catalog came without.
    answer = json.loads(named.path("answer").read_bytes()) if "answer" in named.files else {"layers": []}
    return {
        "config": {
            "env": dict(config.env),
            "working_dir": config.working_dir,
            "user": config.user,
            "entrypoint": config.entrypoint,
            "cmd": config.cmd,
            "labels": dict(config.labels),
            "exposed_ports": config.exposed_ports,
            "volumes": config.volumes,
            "stop_signal": config.stop_signal,
        },
        "created": config.created,
        "author": config.author,
        "layers": answer["layers"],
        "history": [
            {"created": each.created, "created_by": each.created_by, "comment": each.comment, "empty": each.empty_layer}
            for each in config.history
        ],
    }


image.add_command(delete, "rm")
