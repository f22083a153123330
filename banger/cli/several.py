"""Several names on one command line: the good ones are done, the bad ones reported."""

from __future__ import annotations

import sys
from collections.abc import Callable, Sequence

import click

from banger.cli.app import App
from banger.cli.output import explain_refusal, print_error, print_json
from banger.errors import BangerError
from banger.machine.record import Machine


def for_each(names: Sequence[str], act: Callable[[str], object], *, as_json: bool = False) -> None:
    """Do it for every name, and print each that it was done for: at once, or as one list of JSON, also after Ctrl-C.

    The status is 1 when one failed.
    """
    done: list[str] = []
    failed = False
    try:
        for name in dict.fromkeys(names):
            try:
                act(name)
                done.append(name)
                if not as_json:
                    click.echo(name)
            except (BangerError, OSError) as error:
                print_error(error if isinstance(error, BangerError) else explain_refusal(error), as_json=as_json)
                failed = True
    finally:
        if as_json:
            print_json(done)
    if failed:
        sys.exit(1)


def find_machines(
    app: App, names: Sequence[str], *, report: bool = True, as_json: bool = False
) -> tuple[list[Machine], bool]:
    """The machines that there are, and whether one of the names was bad."""
    found, failed = [], False
    for name in dict.fromkeys(names):
        try:
            found.append(app.records.get(name))
        except BangerError as error:
            if report:
                print_error(error, as_json=as_json)
            failed = True
    return found, failed
