"""`banger image …`: what machines are made from."""

from __future__ import annotations

import click

from banger.cli.app import App, pass_app
from banger.cli.named import build_anew, print_names
from banger.cli.options import Nouns, json_option


@click.group(cls=Nouns)
def image() -> None:
    """Images: what machines are made from."""


@image.command("list")
@json_option
@pass_app
def list_(app: App, as_json: bool) -> None:
    """List the images that are here."""
    print_names(app.paths.images, "kernel", as_json)


@image.command()
@click.argument("name")
@json_option
@pass_app
def build(app: App, name: str, as_json: bool) -> None:
    """Build an image anew, asking what its packages are now."""
    build_anew(app, app.targets.plan_image(name, anew=True), app.paths.images, as_json)
