"""`banger doctor`: what this host has, what it lacks, and what to do."""

from __future__ import annotations

import os
import sys
from typing import TYPE_CHECKING

import click

from banger.cli.app import App, pass_app
from banger.cli.options import json_option
from banger.cli.output import print_json, printable_lines

if TYPE_CHECKING:
    from banger.doctor import Row

_COLOURS = {"PASS": "green", "WARN": "yellow", "FAIL": "red"}


@click.command(context_settings={"help_option_names": ["-h", "--help"]})
@json_option
@pass_app
def doctor(app: App, as_json: bool) -> None:
    """Say what this host has and what it lacks, and what mends it; exit with 1 if something does not work.

    Nothing is changed by it.
    """
    from banger.doctor import Status, examine

    rows = examine(app.paths)
    if as_json:
        print_json([_describe(row) for row in rows])
    else:
        _print(rows)
    if any(row.finding.status is Status.FAIL for row in rows):
        sys.exit(1)


def _describe(row: Row) -> dict[str, object]:
    found = row.finding
    return {"check": row.check, "status": found.status, "detail": found.detail, "fix": found.fix}


def _print(rows: list[Row]) -> None:
    width = max(len(row.check) for row in rows)
    for row in rows:
        found = row.finding
        # A hint may have several lines; each row has one, and one for what to do.
        detail, fix = (printable_lines(text).replace("\n", "; ") for text in (found.detail, found.fix))
        click.echo(f"{_paint(found.status)}  {row.check.ljust(width)}  {detail}")
        if fix:
            click.echo(f"{' ' * (width + 8)}{fix}")


def _paint(word: str) -> str:
    want_colour = sys.stdout.isatty() and not os.environ.get("NO_COLOR") and os.environ.get("TERM") != "dumb"
    return click.style(word, fg=_COLOURS[word], bold=True) if want_colour else word
