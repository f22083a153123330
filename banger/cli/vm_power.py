"""`banger vm start`, `stop` and what else changes the state of machines that are there."""

from __future__ import annotations

import signal
import sys

import click

from banger.cli import candidates
from banger.cli.app import App, check_seconds, pass_app
from banger.cli.describe import describe
from banger.cli.options import json_option
from banger.cli.output import print_json, say
from banger.cli.several import find_machines, for_each
from banger.errors import BangerError, Reason
from banger.machine.record import State

_names = click.argument("names", nargs=-1, required=True, shell_complete=candidates.machines)
_running_names = click.argument("names", nargs=-1, required=True, shell_complete=candidates.running_machines)
_stopped_names = click.argument("names", nargs=-1, required=True, shell_complete=candidates.stopped_machines)
_timeout = click.option("--timeout", type=float, metavar="SECONDS", help="Kill it when it has not shut down by then.")


@click.command()
@_stopped_names
@json_option
@pass_app
def start(app: App, names: tuple[str, ...], as_json: bool) -> None:
    """Boot machines that are stopped, and wait until they can be used."""
    from banger.machine.run import start_machine

    _, say = app.voices(as_json)
    for_each(names, lambda name: start_machine(app.machines, app.records.get(name), say), as_json=as_json)


@click.command()
@_running_names
@_timeout
@json_option
@pass_app
def stop(app: App, names: tuple[str, ...], timeout: float | None, as_json: bool) -> None:
    """Shut machines down cleanly."""
    check_seconds("--timeout", timeout)
    from banger.machine import lifecycle

    if len(names) > 1:
        # They go down side by side; each is waited for below.
        found, _ = find_machines(app, names, report=False)
        lifecycle.ask_to_stop(app.machines, found)
    for_each(names, lambda name: lifecycle.stop(app.machines, app.records.get(name), timeout), as_json=as_json)


@click.command()
@_names
@_timeout
@json_option
@pass_app
def restart(app: App, names: tuple[str, ...], timeout: float | None, as_json: bool) -> None:
    """Shut machines down and boot them again; one that is stopped is booted."""
    check_seconds("--timeout", timeout)
    from banger.machine import lifecycle
    from banger.machine.run import start_machine

    _, say = app.voices(as_json)
    for_each(
        names,
        lambda name: start_machine(app.machines, lifecycle.stop(app.machines, app.records.get(name), timeout), say),
        as_json=as_json,
    )


@click.command()
@_running_names
@click.option("-s", "--signal", "number", default="KILL", show_default=True, help="What is sent to the monitor.")
@json_option
@pass_app
def kill(app: App, names: tuple[str, ...], number: str, as_json: bool) -> None:
    """End machines at once, without a word to what runs in them."""
    from banger.machine import lifecycle

    sent = _parse_signal(number)
    for_each(names, lambda name: lifecycle.kill(app.machines, app.records.get(name), sent), as_json=as_json)


@click.command()
@_names
@json_option
@pass_app
def delete(app: App, names: tuple[str, ...], as_json: bool) -> None:
    """Delete machines, running or not, with their disks."""
    from banger.machine import lifecycle

    for_each(names, lambda name: lifecycle.delete(app.machines, app.records.get(name)), as_json=as_json)


@click.command()
@click.option("-f", "--force", is_flag=True, help="Do not ask.")
@json_option
@pass_app
def prune(app: App, force: bool, as_json: bool) -> None:
    """Delete all machines that are stopped."""
    from banger.machine import lifecycle

    stopped = {each.name: each for each in app.machines.records.list() if each.state is State.STOPPED}
    if not stopped and not as_json:
        app.say("no machine is stopped")
        return
    if stopped and not force:
        if not sys.stdin.isatty():
            raise BangerError(
                f"prune would delete {' '.join(stopped)}, and nobody is there to be asked",
                reason=Reason.BAD_INPUT,
                hint="banger vm prune --force",
            )
        say("stopped: " + " ".join(stopped))
        if not click.confirm("Delete them, with their disks?", err=True):
            raise BangerError("nothing was deleted", reason=Reason.BAD_INPUT)

    def delete_stopped(name: str) -> None:
        if not lifecycle.delete(app.machines, stopped[name], only_if=lambda found: found.state is State.STOPPED):
            raise BangerError(f"{name!r} has been started meanwhile", reason=Reason.WRONG_STATE)

    for_each(tuple(stopped), delete_stopped, as_json=as_json)


@click.command("set")
@click.argument("name", shell_complete=candidates.machines)
@click.option("--vcpu", metavar="N", help="Number of virtual processors.")
@click.option("--memory", metavar="SIZE", help='Such as "4G", "512M"; a bare number is MiB.')
@click.option("--disk-size", metavar="SIZE", help="Of its system disk and of /root, each. They only grow.")
@click.option("--nat/--no-nat", default=None, help="Whether it reaches the outside; counts at once.")
@json_option
@pass_app
def set_(
    app: App,
    name: str,
    vcpu: str | None,
    memory: str | None,
    disk_size: str | None,
    nat: bool | None,
    as_json: bool,
) -> None:
    """Change a machine; all but --nat while it is stopped."""
    from banger.cli.app import parse_disk_size, parse_memory, parse_vcpus
    from banger.machine.reshape import Change, reshape

    change = Change(
        vcpus=None if vcpu is None else parse_vcpus(vcpu),
        memory_mib=None if memory is None else parse_memory(memory),
        disk_mib=None if disk_size is None else parse_disk_size(disk_size),
        nat=nat,
    )
    if change == Change():
        raise BangerError(
            "nothing was asked to be changed",
            reason=Reason.BAD_INPUT,
            hint="--vcpu, --memory, --disk-size, --nat or --no-nat",
        )
    machine = reshape(app.machines, app.records.get(name), change)
    if as_json:
        print_json(describe(app, machine))
    else:
        click.echo(machine.name)


def _parse_signal(text: str) -> signal.Signals:
    """`KILL`, `SIGKILL` or 9."""
    try:
        if text.isdigit():
            return signal.Signals(int(text))
        name = text.upper()
        return signal.Signals[name if name.startswith("SIG") else f"SIG{name}"]
    except (KeyError, ValueError) as error:
        raise BangerError(
            f"{text!r} is no signal", reason=Reason.BAD_INPUT, hint="use a name or a number: TERM, KILL, 9"
        ) from error
