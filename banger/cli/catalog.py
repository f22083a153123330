"""What images and kernels have in common beyond this host: what the catalogs offer, and publishing to one."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import asdict
from pathlib import Path
from typing import TYPE_CHECKING, Any, TypeVar

import click

from banger.cli.app import App
from banger.cli.output import print_json, print_table
from banger.sizes import format_bytes
from catalog.local import Names

if TYPE_CHECKING:
    from catalog.bundle import Kind

_Function = TypeVar("_Function", bound=Callable[..., Any])

available_option = click.option(
    "--available", is_flag=True, help="Also what the catalogs and recipes have, and what stands for which name."
)
no_build_option = click.option("--no-build", is_flag=True, help="Take it as it is published; build nothing.")


def publish_options(function: _Function) -> _Function:
    for option in reversed(
        (
            click.option(
                "--to",
                required=True,
                metavar="HOST/PREFIX[:TAG]",
                envvar="BANGER_PUBLISH_TO",
                show_envvar=True,
                help="A folder of a registry, and the tag of the catalog in it (stable).",
            ),
            click.option(
                "--version",
                metavar="TEXT",
                envvar="BANGER_PUBLISH_VERSION",
                show_envvar=True,
                help="What people call this one; its content's own when omitted.",
            ),
            click.option(
                "--key",
                type=click.Path(path_type=Path),
                metavar="FILE",
                help="The private key to sign with; else BANGER_SIGNING_KEY, a path or PEM. COSIGN_PASSWORD opens it.",
            ),
        )
    ):
        function = option(function)
    return function


def print_available(app: App, kind: Kind, names: Names, as_json: bool) -> None:
    from banger.targets import make_catalogs
    from pipelines.available import list_available

    catalogs = make_catalogs(app.paths, app.settings, app.store)
    found = list_available(kind, names, catalogs, app.reporter(as_json))
    if as_json:
        print_json([asdict(each) for each in found])
        return
    rows = [
        (
            each.name,
            each.version,
            "" if each.size_bytes is None else format_bytes(each.size_bytes),
            "yes" if each.is_local else "no",
            each.origin,
            each.shadowed_by or "",
        )
        for each in found
    ]
    print_table(("NAME", "VERSION", "SIZE", "LOCAL", "FROM", "SHADOWED BY"), rows)


def publish(app: App, kind: Kind, name: str, to: str, version: str | None, key: Path | None, as_json: bool) -> None:
    from banger.targets import make_catalogs
    from pipelines.oci.signatures import load_signing_key
    from pipelines.publish import describe_published, parse_place, parse_version, publish_named

    place = parse_place(to)
    reporter = app.reporter(as_json)
    published = publish_named(
        app.targets(reporter),
        kind,
        name,
        place,
        make_catalogs(app.paths, app.settings, app.store),
        load_signing_key(path=key),
        None if version is None else parse_version(version),
        reporter,
    )
    if as_json:
        print_json(asdict(published))
    else:
        click.echo(describe_published(published))
