"""`banger kernel …`: what machines boot."""

from __future__ import annotations

import time

import click

from banger.cli.app import App, pass_app
from banger.cli.image import build_anew, describe
from banger.cli.options import Nouns, json_option
from banger.cli.output import format_age, print_json, print_table
from banger.sizes import format_bytes


@click.group(cls=Nouns)
def kernel() -> None:
    """Kernels: what machines boot."""


@kernel.command("list")
@json_option
@pass_app
def list_(app: App, as_json: bool) -> None:
    """List the kernels that are here."""
    kernels = list(app.paths.kernels.list())
    if as_json:
        print_json([describe(each) for each in kernels])
        return
    now = time.time()
    rows = [
        (each.name, format_bytes(each.size_bytes), str(each.details.get("source", "")), format_age(now - each.made_at))
        for each in kernels
    ]
    print_table(("NAME", "SIZE", "SOURCE", "AGE"), rows)


@kernel.command()
@click.argument("name")
@json_option
@pass_app
def build(app: App, name: str, as_json: bool) -> None:
    """Build a kernel and its guest runtime anew, asking what its packages are now."""
    build_anew(app, app.targets.plan_kernel(name, anew=True), app.paths.kernels, as_json)
