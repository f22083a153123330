"""`banger vm list`, `show`, `ports`, `stats` and `logs`: looking at machines."""

from __future__ import annotations

import sys
import time
from dataclasses import asdict
from typing import TYPE_CHECKING

import click

from banger.cli import candidates
from banger.cli.app import App, pass_app
from banger.cli.describe import describe
from banger.cli.options import json_option
from banger.cli.output import TerminalText, format_age, print_error, print_json, print_table
from banger.cli.several import find_machines
from banger.errors import BangerError, Reason
from banger.machine.record import Machine, State
from banger.sizes import format_bytes

if TYPE_CHECKING:
    from banger.machine.stats import Stats

_FOLLOW_S = 0.2
_RATE_S = 0.5


@click.command("list")
@click.option("-a", "--all", "everything", is_flag=True, help="Stopped machines too.")
@click.option("-q", "--quiet", "only_names", is_flag=True, help="Names only.")
@json_option
@pass_app
def list_(app: App, everything: bool, only_names: bool, as_json: bool) -> None:
    """List the machines that run (`ps` for short)."""
    machines = [
        each
        for each in app.records.list()
        # What a creator that died has left goes with the next command that changes something.
        if not each.is_half_made and (everything or each.state is not State.STOPPED)
    ]
    if as_json:
        print_json([describe(app, machine) for machine in machines])
    elif only_names:
        for machine in machines:
            click.echo(machine.name)
    else:
        now = time.time()
        rows = [
            (each.name, each.state, str(each.address), each.image, format_age(now - each.created_at), each.id)
            for each in machines
        ]
        print_table(("NAME", "STATE", "ADDRESS", "IMAGE", "AGE", "ID"), rows)


@click.command()
@click.argument("names", nargs=-1, required=True, shell_complete=candidates.machines)
@click.option("--json", is_flag=True, help="As always: the output is JSON.")
@pass_app
def show(app: App, /, names: tuple[str, ...], **more: bool) -> None:
    """Print everything about a machine as JSON; of several machines, a list."""
    found, failed = find_machines(app, names, as_json=more["json"])
    described = [describe(app, each) for each in found]
    if len(names) > 1:
        print_json(described)
    elif described:
        print_json(described[0])
    if failed:
        sys.exit(1)


@click.command()
@click.argument("names", nargs=-1, shell_complete=candidates.running_machines)
@json_option
@pass_app
def ports(app: App, names: tuple[str, ...], as_json: bool) -> None:
    """Print what machines listen on; of all that run when no NAME is given.

    A port that only the machine itself can reach has no address.
    """
    from banger.machine.ports import list_ports

    rows, values = [], []
    chosen, failed = _choose(app, names, as_json)
    for machine in chosen:
        try:
            found = list_ports(app.machines, machine)
        except BangerError as error:
            print_error(error, as_json=as_json)
            failed = True
            continue
        for port in found:
            address = "" if port.is_local else f"{machine.name}.vm:{port.number}"
            rows.append((machine.name, str(port.number), port.protocol, address))
            values.append({"name": machine.name, "port": port.number, "protocol": port.protocol, "address": address})
    if as_json:
        print_json(values)
    else:
        print_table(("NAME", "PORT", "PROTOCOL", "ADDRESS"), rows)
    if failed:
        sys.exit(1)


@click.command()
@click.argument("names", nargs=-1, shell_complete=candidates.running_machines)
@json_option
@pass_app
def stats(app: App, names: tuple[str, ...], as_json: bool) -> None:
    """Print what machines use of this host; of all that run when no NAME is given.

    CPU is of one processor: a machine with four may use 400 %. DISK is what its two disks take here, of what they may.
    """
    chosen, failed = _choose(app, names, as_json)
    found = _measure(app, chosen)
    rows = [
        (
            each.name,
            each.state,
            f"{each.cpu_percent:.1f} %",
            f"{format_bytes(each.memory_bytes)} / {format_bytes(each.memory_size_bytes)}",
            f"{format_bytes(each.disk_bytes)} / {format_bytes(each.disk_size_bytes)}",
            f"{format_bytes(each.received_bytes)} / {format_bytes(each.sent_bytes)}",
        )
        for each in found
    ]
    if as_json:
        print_json([asdict(each) for each in found])
    else:
        print_table(("NAME", "STATE", "CPU", "MEMORY", "DISK", "NET IN / OUT"), rows)
    if failed:
        sys.exit(1)


@click.command()
@click.argument("name", shell_complete=candidates.machines)
@click.option("-f", "--follow", is_flag=True, help="Go on printing what comes, also after a restart, until Ctrl-C.")
@pass_app
def logs(app: App, name: str, follow: bool) -> None:
    """Print the console of a machine and what its monitor said."""
    from banger.machine.console_log import read_log

    machine = app.records.get(name)
    # A guest writes this: no control character of its may reach a terminal. A file gets it as it is.
    text = TerminalText() if sys.stdout.isatty() else None
    for block in read_log(app.machines.log(machine), lambda: not follow or _is_deleted(app, machine)):
        if text is None:
            sys.stdout.buffer.write(block)
        else:
            sys.stdout.write(text.clean(block))
        if not block:
            sys.stdout.flush()
            time.sleep(_FOLLOW_S)
    if text is not None:
        sys.stdout.write(text.clean(b"", is_last=True))
    sys.stdout.flush()


def _choose(app: App, names: tuple[str, ...], as_json: bool) -> tuple[list[Machine], bool]:
    if names:
        return find_machines(app, names, as_json=as_json)
    return [each for each in app.records.list() if each.state is State.RUNNING], False


def _measure(app: App, chosen: list[Machine]) -> list[Stats]:
    """As the daemon has counted, which looks all the time; without it, over half a second of our own."""
    from banger.daemon.client import ask
    from banger.machine.stats import Stats, make_stats, take_sample

    try:
        told = {each["name"]: Stats(**{**each, "state": State(each["state"])}) for each in ask(app.paths, "stats")}
        if all(each.name in told for each in chosen):
            return [told[each.name] for each in chosen]
    except (BangerError, TypeError, KeyError, ValueError):
        # None there, or one of another version.
        pass
    before = {each.id: take_sample(app.machines, each) for each in chosen}
    if any(before.values()):
        time.sleep(_RATE_S)
    return [make_stats(app.machines, each, before[each.id], take_sample(app.machines, each)) for each in chosen]


def _is_deleted(app: App, machine: Machine) -> bool:
    try:
        app.records.refresh(machine)
    except BangerError as error:
        if error.reason is not Reason.NOT_FOUND:
            raise
        return True
    return False
