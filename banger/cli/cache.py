"""`banger cache …`: the store of what was built."""

from __future__ import annotations

import sys

import click

from banger.cli.app import App, pass_app
from banger.cli.options import Nouns, json_option
from banger.cli.output import print_json, print_table, say
from banger.sizes import format_bytes


@click.group(cls=Nouns)
def cache() -> None:
    """The store: what was built is kept here and found again by its inputs."""


@cache.command()
@json_option
@pass_app
def du(app: App, as_json: bool) -> None:
    """How much there is. What images and machines hold stays with them when the cache goes."""
    usage = app.store.usage()
    if as_json:
        print_json(
            {
                "path": str(app.paths.store),
                "objects": usage.object_count,
                "size_bytes": usage.size_bytes,
                "held_objects": usage.held_count,
                "held_bytes": usage.held_bytes,
                "records": usage.record_count,
            }
        )
        return
    rows = [
        ("held by images and machines", str(usage.held_count), format_bytes(usage.held_bytes)),
        ("held by nobody", str(usage.object_count - usage.held_count), format_bytes(usage.free_bytes)),
        ("all", str(usage.object_count), format_bytes(usage.size_bytes)),
    ]
    print_table(("WHAT", "OBJECTS", "SIZE"), rows)


@cache.command()
@json_option
@pass_app
def verify(app: App, as_json: bool) -> None:
    """Read everything again; exit with 1 if anything is not what its name says."""
    findings = list(app.store.verify())
    if as_json:
        print_json(
            [
                {"path": str(each.path), "digest": each.digest, "problem": each.problem, "detail": each.detail}
                for each in findings
            ]
        )
    else:
        for each in findings:
            click.echo(f"{each.problem}: {each.path}: {each.detail}")
        if not findings:
            say("everything is as it should be")
    if findings:
        sys.exit(1)
