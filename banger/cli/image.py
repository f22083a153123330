"""`banger image …`: what machines are made from."""

from __future__ import annotations

import json
import sys
from collections.abc import Mapping

import click

from banger.cli.app import App, pass_app
from banger.cli.named import build_anew, describe, print_names
from banger.cli.options import Nouns, json_option
from banger.cli.output import print_error, print_json
from banger.errors import BangerError, Reason
from catalog.local import Named
from catalog.names import parse_name


@click.group(cls=Nouns)
def image() -> None:
    """Images: what machines are made from."""


@image.command("list")
@json_option
@pass_app
def list_(app: App, as_json: bool) -> None:
    """List the images that are here."""
    columns = {
        "SOURCE": lambda each: str(each.details.get("reference") or each.details.get("source", "")),
        "DIGEST": lambda each: str(each.details.get("digest", ""))[:19],
        "KERNEL": lambda each: str(each.details.get("kernel", "")),
    }
    print_names(app.paths.images, columns, as_json)


@image.command()
@click.argument("reference")
@click.option("--name", metavar="NAME", help="What it is called here; its own name when omitted.")
@click.option("--kernel", metavar="NAME", help="What its machines boot.")
@json_option
@pass_app
def build(app: App, reference: str, name: str | None, kernel: str | None, as_json: bool) -> None:
    """Build an image, asking what REFERENCE stands for now.

    REFERENCE is a recipe, an image of a registry (debian:12, ghcr.io/owner/tool@sha256:…), or one on this host:
    oci:DIR[:TAG], oci-archive:FILE[:TAG], docker-archive:FILE[:REF], or - for an archive on standard input.
    """
    if name is not None:
        parse_name(name, "an image")
    build_anew(
        app,
        lambda targets: targets.plan_image(reference, anew=True, name=name, kernel=kernel),
        app.paths.images,
        as_json,
    )


@image.command()
@click.argument("name")
@click.option("--json", is_flag=True, help="As always: the output is JSON.")
@pass_app
def show(app: App, /, name: str, **_json: bool) -> None:
    """Print everything about an image as JSON."""
    print_json({**describe(_get(app, name)), **_describe_config(_get(app, name))})


@image.command()
@click.argument("names", nargs=-1, required=True)
@pass_app
def delete(app: App, names: tuple[str, ...]) -> None:
    """Delete images. One that a machine was made from stays until that machine is gone."""
    failed = False
    for name in dict.fromkeys(names):
        try:
            found = _get(app, name)
            users = [machine.name for machine in app.records.list() if machine.image == found.name]
            if users:
                raise BangerError(
                    f"the image {found.name!r} is in use by {', '.join(users)}",
                    reason=Reason.IN_USE,
                    hint=f"banger vm delete {' '.join(users)}",
                )
            app.paths.images.remove(found.name)
            click.echo(found.name)
        except BangerError as error:
            print_error(error, as_json=False)
            failed = True
    if failed:
        sys.exit(1)


def _get(app: App, name: str) -> Named:
    from pipelines.oci.sources import find_familiar_name
    from pipelines.targets import find_image, is_word

    found = find_image(app.paths.images, name)
    return found or app.paths.images.get(name if is_word(name) else find_familiar_name(name) or name)


def _describe_config(named: Named) -> Mapping[str, object]:
    """What an OCI image says about itself: the parts of its configuration that people look for."""
    if "config" not in named.files:
        return {}
    from pipelines.oci.config import parse_image_config

    config = parse_image_config(named.path("config").read_bytes())
    answer = json.loads(named.path("answer").read_bytes())
    return {
        "config": {
            "env": dict(config.env),
            "working_dir": config.working_dir,
            "user": config.user,
            "entrypoint": config.entrypoint,
            "cmd": config.cmd,
            "labels": dict(config.labels),
            "exposed_ports": config.exposed_ports,
            "volumes": config.volumes,
            "stop_signal": config.stop_signal,
        },
        "created": config.created,
        "author": config.author,
        "layers": answer["layers"],
        "history": [
            {"created": each.created, "created_by": each.created_by, "comment": each.comment, "empty": each.empty_layer}
            for each in config.history
        ],
    }


image.add_command(build, "pull")
