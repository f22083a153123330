"""`banger cache push`: results for others."""

from __future__ import annotations

from dataclasses import asdict
from typing import TYPE_CHECKING

import click

from banger.cli.app import App, pass_app
from banger.cli.options import json_option
from banger.cli.output import print_json
from banger.errors import BangerError, Reason
from banger.sizes import format_bytes
from catalog.names import nearest

if TYPE_CHECKING:
    from catalog.local import Named
    from catalog.signatures import PrivateKey


@click.command()
@click.argument("names", nargs=-1)
@json_option
@pass_app
def push(app: App, names: tuple[str, ...], as_json: bool) -> None:
    """Send the results of the steps that made images and kernels to the remote cache: all that are here, or NAMES.

    The repository is `cache.remote` of the configuration. With BANGER_SIGNING_KEY, a file or the key itself, all of it
    is signed.
    """
    from pipelines.oci.push import open_pusher
    from pipelines.remote_push import push_named

    remote = app.settings.cache_remote
    if remote is None:
        raise BangerError(
            "there is no remote cache to push to",
            reason=Reason.BAD_INPUT,
            hint='name a repository in the configuration: [cache] remote = "registry.example.com/team/cache"',
        )
    key = _load_key(app)
    named = _find_named(app, names)
    reporter = app.reporter(as_json)
    try:
        with open_pusher(remote, app.settings.registries) as pusher:
            pushed = push_named(pusher, app.store, named, key, reporter)
    finally:
        reporter.close()
    if as_json:
        print_json({"remote": remote, **asdict(pushed)})
        return
    size = format_bytes(pushed.bytes) if pushed.bytes else "nothing"
    click.echo(
        f"{remote}: {pushed.sent_steps} of {pushed.steps} steps sent ({pushed.blobs} blobs, {size}), "
        f"{pushed.signatures} signed"
    )


def _load_key(app: App) -> PrivateKey | None:
    """What to sign with. Where readers want signatures, nothing is pushed that they would refuse."""
    from pipelines.oci.signatures import load_public_key, load_signing_key

    key, path = load_signing_key(), app.settings.cache_remote_key
    if path is None:
        return key
    if key is None:
        raise BangerError(
            "the results of this cache have to be signed, and there is no key to sign with",
            reason=Reason.BAD_INPUT,
            hint="set BANGER_SIGNING_KEY to the file of the private key, and COSIGN_PASSWORD to its password",
        )
    if load_public_key(path) != key.public:
        raise BangerError(
            f"BANGER_SIGNING_KEY is not the private key of {path}",
            reason=Reason.BAD_INPUT,
            hint="cache.remote_key is the key that the results have to be signed with",
        )
    return key


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
