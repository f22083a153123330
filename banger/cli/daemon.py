"""`banger daemon …`: what runs beside the machines."""

from __future__ import annotations

import sys
import time

import click

from banger.cli.app import App, pass_app
from banger.cli.options import Nouns, json_option
from banger.cli.output import TerminalText, format_age, print_json
from banger.errors import BangerError, Reason


@click.group(cls=Nouns)
def daemon() -> None:
    """bangerd: serves names, tidies up after machines that died.

    It starts by itself when a machine is started, and no machine notices when it ends.
    """


@daemon.command()
@json_option
@pass_app
def start(app: App, as_json: bool) -> None:
    """Start it, unless it runs."""
    from banger.daemon import client

    _print(client.start(app.paths), as_json)


@daemon.command()
@pass_app
def stop(app: App) -> None:
    """End it. Machines go on."""
    from banger.daemon import client

    if not client.stop(app.paths):
        app.say("bangerd was not running")


@daemon.command()
@json_option
@pass_app
def status(app: App, as_json: bool) -> None:
    """Say whether it runs, and how it is; exit with 1 if it does not."""
    from banger.daemon import client

    found = client.find_status(app.paths)
    if found is None:
        raise BangerError("bangerd is not running", reason=Reason.UNAVAILABLE, hint="banger daemon start")
    _print(found, as_json)


@daemon.command()
@click.option("-f", "--follow", is_flag=True, help="Go on printing what comes, until Ctrl-C.")
@pass_app
def logs(app: App, follow: bool) -> None:
    """Print what it has noted."""
    from banger.daemon.place import Place
    from banger.machine.console_log import read_log

    text = TerminalText()
    for block in read_log(Place.of(app.paths).log, lambda: not follow):
        sys.stdout.write(text.clean(block))
        if not block:
            sys.stdout.flush()
            time.sleep(0.2)
    sys.stdout.write(text.clean(b"", is_last=True))


@daemon.command()
@pass_app
def install(app: App) -> None:
    """Have systemd start it with your session, and again when it fails."""
    from banger.daemon import client
    from banger.daemon.place import Place
    from banger.daemon.unit import install_unit

    place = Place.of(app.paths)
    place.prepare()
    # One that is there already would keep systemd's from starting.
    click.echo(install_unit(place.log, lambda: client.stop(app.paths)))


@daemon.command()
def uninstall() -> None:
    """Take back what install did."""
    from banger.daemon.unit import uninstall_unit

    uninstall_unit()


def _print(status: dict[str, object], as_json: bool) -> None:
    if as_json:
        print_json(status)
        return
    dns = status["dns"]
    assert isinstance(dns, dict)
    started_at = status["started_at"]
    assert isinstance(started_at, float)
    serves = f"answers for .vm at {dns['listen']}" if dns["serves"] else f"no names: {dns['trouble'] or 'not yet'}"
    click.echo(f"bangerd {status['version']} runs (pid {status['pid']}, for {format_age(time.time() - started_at)})")
    click.echo(f"{status['running']} of {status['machines']} machines run; {serves}")
