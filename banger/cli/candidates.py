"""What Tab offers for an argument: names of machines, images and kernels as they are at this moment, and folders.

It is asked at a prompt: nothing is written, nothing waited for, and what cannot be read is not offered.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Iterable
from pathlib import Path

import click
from click.shell_completion import CompletionItem

from banger.errors import BangerError
from banger.machine.record import State
from banger.paths import Paths

Completer = Callable[[click.Context, click.Parameter, str], list[CompletionItem]]


def _offer(find: Callable[[Paths], Iterable[str]]) -> Completer:
    """Those that begin so; of an argument that takes several, each is offered once."""

    def complete(context: click.Context, parameter: click.Parameter, begin: str) -> list[CompletionItem]:
        given = context.params.get(parameter.name or "")
        try:
            found = sorted(set(find(Paths.from_environment())))
        except (BangerError, OSError):
            return []
        left = [name for name in found if not isinstance(given, tuple) or name not in given]
        return [CompletionItem(name) for name in left if name.startswith(begin)]

    return complete


def _machines(*states: State) -> Completer:
    def find(paths: Paths) -> Iterable[str]:
        from banger.machine.glance import glance

        return [machine.name for machine in glance(paths.database) if machine.state in states]

    return _offer(find)


def _list_names(folder: Path) -> Iterable[str]:
    """Names that are here (`catalog/local.py`), read no further than for that."""
    for each in folder.glob("[!.]*/manifest.json"):
        try:
            name = json.loads(each.read_bytes())["name"]
        except (OSError, ValueError, KeyError, TypeError):
            continue
        if isinstance(name, str):
            yield name


def _list_known_images(paths: Paths) -> Iterable[str]:
    from catalog.recipes import list_recipe_names

    return [*_list_names(paths.images.folder), *list_recipe_names()]


def _list_known_kernels(paths: Paths) -> Iterable[str]:
    from catalog.kernels import list_kernel_recipes

    return [*_list_names(paths.kernels.folder), *(recipe.name for recipe in list_kernel_recipes())]


machines = _machines(*State)
running_machines = _machines(State.RUNNING)
stopped_machines = _machines(State.STOPPED)
# Those that are here, and those that could be.
local_images = _offer(lambda paths: _list_names(paths.images.folder))
known_images = _offer(_list_known_images)
local_kernels = _offer(lambda paths: _list_names(paths.kernels.folder))
known_kernels = _offer(_list_known_kernels)


def folders(_context: click.Context, _parameter: click.Parameter, begin: str) -> list[CompletionItem]:
    """The shell lists them itself."""
    return [CompletionItem(begin, type="dir")]
