"""`banger cache push`: results for others."""

from __future__ import annotations

from dataclasses import asdict
from typing import TYPE_CHECKING

import click

from banger.cli.app import App, pass_app
from banger.cli.options import json_option
from banger.cli.output import print_json
from banger.errors import BangerError, Reason
from catalog.names import nearest

if TYPE_CHECKING:
    from catalog.local import Named


@click.command()
@click.argument("names", nargs=-1)
@json_option
@pass_app
def push(app: App, names: tuple[str, ...], as_json: bool) -> None:
    """Send the results of the steps that made images and kernels to the remote cache: all that are here, or NAMES.

    The repository is `cache.remote` of the configuration. With BANGER_SIGNING_KEY, a file or the key itself, all of it
    is signed.
    """
    from banger.push import describe_pushed, push_results

    reporter = app.reporter(as_json)
    try:
        pushed = push_results(app.settings, app.store, lambda: _find_named(app, names), reporter)
    finally:
        reporter.close()
    if as_json:
        print_json({"remote": app.settings.cache_remote, **asdict(pushed)})
    else:
        click.echo(describe_pushed(app.settings, pushed))


def _find_named(app: App, names: tuple[str, ...]) -> list[Named]:
    """The images and kernels of these names; all of them when there are no names."""
    from pipelines.targets import find_image

    if not names:
        return [*app.paths.images.list(), *app.paths.kernels.list()]
    found: list[Named] = []
    for name in dict.fromkeys(names):
        image = find_image(app.paths.images, name)
        kernel = app.paths.kernels.find(name)
        if image is None and kernel is None:
            known = [each.name for kind in (app.paths.images, app.paths.kernels) for each in kind.list()]
            raise BangerError(
                f"there is no image or kernel {name!r} here", reason=Reason.NOT_FOUND, hint=nearest(name, known)
            )
        found += [each for each in (image, kernel) if each is not None]
    return found
