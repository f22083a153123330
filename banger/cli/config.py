"""`banger config …`: what counts, and a file to begin with."""

from __future__ import annotations

import os
from collections.abc import Callable
from typing import Any, TypeVar

import click

from banger.cli.app import App, pass_app
from banger.cli.options import Nouns, json_option
from banger.cli.output import print_json, print_table
from banger.settings import config_path, load_configuration
from banger.settings.explain import Row, explain
from banger.settings.table import SCALARS

_Function = TypeVar("_Function", bound=Callable[..., Any])

# The options of a new machine that take the place of a key, by the names that they have as parameters.
_OPTIONS = {
    setting.option.removeprefix("--").replace("-", "_"): setting for setting in reversed(SCALARS) if setting.option
}


def _machine_options(function: _Function) -> _Function:
    for name, setting in _OPTIONS.items():
        says = f"Show what counts with it, in place of {setting.key}."
        function = click.option(setting.option, name, metavar="VALUE", help=says)(function)
    return function


@click.group(cls=Nouns)
def config() -> None:
    """The configuration: what counts, from the file, the environment, the host and banger's defaults."""


@config.command()
@json_option
@_machine_options
@pass_app
def show(app: App, /, as_json: bool, **options: str | None) -> None:
    """Print the effective values, and where each of them comes from."""
    given = {_OPTIONS[name].option: text for name, text in options.items() if text is not None}
    path = config_path(app.paths)
    rows = list(explain(load_configuration(app.paths, os.environ, given), os.environ))
    if as_json:
        print_json([_describe(row, str(path)) for row in rows])
        return
    print_table(("KEY", "VALUE", "ORIGIN"), [(row.key, row.words, _tell_origin(row)) for row in rows])
    if not path.exists():
        app.say(f"there is no file {path}; banger config init writes one to begin with")


@config.command()
@click.option("--force", is_flag=True, help="Overwrite the file that is there.")
@click.option("--stdout", "is_printed", is_flag=True, help="Print it, and write nothing.")
@pass_app
def init(app: App, force: bool, is_printed: bool) -> None:
    """Write a configuration file in which every key is explained and commented out."""
    from banger.settings.pages import format_file
    from banger.settings.write import write_file

    if is_printed:
        click.echo(format_file(), nl=False)
        return
    path = config_path(app.paths)
    write_file(path, format_file(), overwrite=force)
    click.echo(path)


@config.command(hidden=True)
def docs() -> None:
    """Print docs/config.md."""
    from banger.settings.pages import format_page

    click.echo(format_page(), nl=False)


def _describe(row: Row, path: str) -> dict[str, object]:
    place = row.given_by or None if row.line is None else f"{path}:{row.line}"
    return {"key": row.key, "value": row.value, "origin": row.origin, "place": place}


def _tell_origin(row: Row) -> str:
    place = row.given_by if row.line is None else f"line {row.line}"
    return f"{row.origin}, {place}" if place else row.origin
