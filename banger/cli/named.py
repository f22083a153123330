"""What images and kernels have in common: they are listed, described and built anew by name."""

from __future__ import annotations

import time
from collections.abc import Callable, Mapping
from typing import TYPE_CHECKING

import click

from banger.cli.app import App
from banger.cli.output import format_age, format_time, print_json, print_table
from banger.sizes import format_bytes
from catalog.local import Named, Names

if TYPE_CHECKING:
    from pipelines.naming import Target
    from pipelines.targets import Targets


def print_names(names: Names, columns: Mapping[str, Callable[[Named], str]], as_json: bool) -> None:
    """A table with columns of the kind's own, or everything as JSON."""
    found = list(names.list())
    if as_json:
        print_json([describe(each) for each in found])
        return
    now = time.time()
    rows = [
        (
            each.name,
            format_bytes(each.size_bytes),
            *(column(each) for column in columns.values()),
            format_age(now - each.made_at),
        )
        for each in found
    ]
    print_table(("NAME", "SIZE", *columns, "AGE"), rows)


def build_anew(
    app: App, plan: Callable[[Targets], Target], names: Names, as_json: bool, *, may_build: bool = True
) -> None:
    """Build a target whatever is here under its name, and print what came of it."""
    from pipelines.graph import build

    reporter = app.reporter(as_json)
    targets = app.targets(reporter, may_build=may_build)
    target = plan(targets)
    build(app.store, [target.naming], reporter, refresh=True, remote=targets.remote)
    print_made(names.get(target.name), as_json)


def print_made(made: Named, as_json: bool) -> None:
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
        **_describe_origin(named),
    }


def _describe_origin(named: Named) -> dict[str, object]:
    """Of what came from a catalog: what it was made from there, and by which steps."""
    from catalog.bundle import DOCUMENT, Kind, parse_bundle

    if DOCUMENT not in named.files:
        return {}
    kind = Kind.KERNEL if "vmlinux" in named.files else Kind.IMAGE
    bundle = parse_bundle(named.path(DOCUMENT).read_bytes(), kind)
    return {
        "built_from": dict(bundle.source),
        "provenance": {key: record.step for key, record in sorted(bundle.provenance.items())},
    }
