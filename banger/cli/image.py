"""`banger image …`: what machines are made from."""

from __future__ import annotations

import time

import click

from banger.cli.app import App, pass_app
from banger.cli.options import Nouns, json_option
from banger.cli.output import format_age, format_time, print_json, print_table
from banger.sizes import format_bytes
from catalog.local import Named, Names
from pipelines.targets import Target


@click.group(cls=Nouns)
def image() -> None:
    """Images: what machines are made from."""


@image.command("list")
@json_option
@pass_app
def list_(app: App, as_json: bool) -> None:
    """List the images that are here."""
    images = list(app.paths.images.list())
    if as_json:
        print_json([describe(each) for each in images])
        return
    now = time.time()
    rows = [
        (each.name, format_bytes(each.size_bytes), str(each.details.get("kernel", "")), format_age(now - each.made_at))
        for each in images
    ]
    print_table(("NAME", "SIZE", "KERNEL", "AGE"), rows)


@image.command()
@click.argument("name")
@json_option
@pass_app
def build(app: App, name: str, as_json: bool) -> None:
    """Build an image anew, asking what its packages are now."""
    build_anew(app, app.targets.plan_image(name, anew=True), app.paths.images, as_json)


def build_anew(app: App, target: Target, names: Names, as_json: bool) -> None:
    """Build a target whatever is here under its name, and print what came of it."""
    from pipelines.graph import build as build_targets

    build_targets(app.store, [target.naming], app.reporter(as_json), refresh=True)
    made = names.get(target.name)
    if as_json:
        print_json(describe(made))
    else:
        click.echo(made.name)


def describe(named: Named) -> dict[str, object]:
    return {
        "name": named.name,
        "size_bytes": named.size_bytes,
        "made_at": format_time(named.made_at),
        "objects": {role: made.digest for role, made in sorted(named.files.items())},
        **named.details,
    }
