"""What images and kernels have in common: they are listed, described and built anew by name."""

from __future__ import annotations

import time

import click

from banger.cli.app import App
from banger.cli.output import format_age, format_time, print_json, print_table
from banger.sizes import format_bytes
from catalog.local import Named, Names
from pipelines.targets import Target


def print_names(names: Names, detail: str, as_json: bool) -> None:
    """A table with one of the details as its own column, or everything as JSON."""
    found = list(names.list())
    if as_json:
        print_json([describe(each) for each in found])
        return
    now = time.time()
    rows = [
        (each.name, format_bytes(each.size_bytes), str(each.details.get(detail, "")), format_age(now - each.made_at))
        for each in found
    ]
    print_table(("NAME", "SIZE", detail.upper(), "AGE"), rows)


def build_anew(app: App, target: Target, names: Names, as_json: bool) -> None:
    """Build a target whatever is here under its name, and print what came of it."""
    from pipelines.graph import build

    build(app.store, [target.naming], app.reporter(as_json), refresh=True)
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
