"""Images of a user's own making: from a recipe, and from a machine."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import click

from banger.cli.app import App
from banger.cli.named import build_anew, describe
from banger.cli.output import print_json


def build_recipe(app: App, path: Path, name: str | None, kernel: str | None, as_json: bool) -> None:
    from banger.machine.builder import Builders
    from pipelines.recipe import read_recipe
    from pipelines.recipe_image import plan_own_recipe

    recipe = read_recipe(path, name)
    if kernel is not None:
        recipe = replace(recipe, kernel=kernel)
    # A builder that a killed banger left behind goes first.
    builders = Builders(app.machines.paths, app.settings)
    build_anew(app, lambda targets: plan_own_recipe(targets, recipe, builders), app.paths.images, as_json)


def promote_machine(app: App, machine: str, name: str, as_json: bool) -> None:
    from banger.machine.builder import Builders
    from banger.machine.promote import promote

    builders = Builders(app.paths, app.settings)
    targets = app.targets(app.reporter(as_json))
    target = promote(app.machines, app.records.get(machine), name, targets, builders)
    if as_json:
        print_json(describe(app.paths.images.get(target.name)))
    else:
        click.echo(target.name)
