"""`banger kernel …`: what machines boot."""

from __future__ import annotations

import click

from banger.cli.app import App, pass_app
from banger.cli.named import build_anew, print_names
from banger.cli.options import Nouns, json_option


@click.group(cls=Nouns)
def kernel() -> None:
    """Kernels: what machines boot."""


@kernel.command("list")
@json_option
@pass_app
def list_(app: App, as_json: bool) -> None:
    """List the kernels that are here."""
    print_names(app.paths.kernels, {"SOURCE": lambda each: str(each.details.get("source", ""))}, as_json)


@kernel.command()
@click.argument("name")
@json_option
@pass_app
def build(app: App, name: str, as_json: bool) -> None:
    """Build a kernel and its guest runtime anew, asking what its packages are now."""
    build_anew(app, lambda targets: targets.plan_kernel(name, anew=True), app.paths.kernels, as_json)
