"""Several names on one command line."""

from __future__ import annotations

import sys
from collections.abc import Callable, Sequence

import click

from banger.cli.output import print_error
from banger.errors import BangerError


def for_each(names: Sequence[str], act: Callable[[str], object]) -> None:
    """Do it for every name, and print each that it was done for; the bad ones are reported, and the status is 1."""
    failed = False
    for name in dict.fromkeys(names):
        try:
            act(name)
            click.echo(name)
        except BangerError as error:
            print_error(error, as_json=False)
            failed = True
    if failed:
        sys.exit(1)
