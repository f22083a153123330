"""`banger vm …`: machines."""

from __future__ import annotations

import sys
import time
from collections.abc import Callable
from dataclasses import asdict
from typing import TYPE_CHECKING, Any

import click

from banger.cli.app import App, check_seconds, pass_app
from banger.cli.options import ORDER, CommandAfterDashes, Nouns, json_option, machine_options, user_option
from banger.cli.output import TerminalText, format_age, format_time, print_error, print_json, print_table
from banger.cli.work import plan_work, workspace_options
from banger.cli.workspace import workspace
from banger.errors import BangerError, Reason
from banger.machine.record import Machine, State
from banger.workspace.record import find_workspace

if TYPE_CHECKING:
    from banger.machine.image_config import RunAs

_FOLLOW_S = 0.2


@click.group(cls=Nouns)
def vm() -> None:
    """Machines."""


@vm.command(cls=CommandAfterDashes)
@click.argument("path", required=False, type=click.Path())
@machine_options
@workspace_options
@click.option("--rm", "remove", is_flag=True, help="Delete the machine when the session or command ends.")
@click.option("-d", "--detach", is_flag=True, help="Print the machine's name and leave it running.")
@click.option("--entrypoint", is_flag=True, help="Run the image's own command; COMMAND are its arguments.")
@user_option
@click.option(
    "--ssh-timeout", type=float, metavar="SECONDS", help="How long to wait for ssh at first (90; emulated 360)."
)
@json_option
@pass_app
def run(
    app: App,
    /,
    command: tuple[str, ...],
    path: str | None,
    remove: bool,
    detach: bool,
    entrypoint: bool,
    user: str | None,
    ssh_timeout: float | None,
    as_json: bool,
    **more: Any,
) -> None:
    """Boot a new machine and open a shell in it, or run COMMAND there and exit with its status.

    With PATH, a folder of a git repository, its files are in the machine at /root/repo, and that is where it starts.
    """
    sessions = {"--rm": remove, "--entrypoint": entrypoint, "--user": user, "a command": command}
    if detach and any(sessions.values()):
        raise BangerError(
            f"--detach does not go with {next(name for name, wanted in sessions.items() if wanted)}",
            reason=Reason.BAD_INPUT,
            hint="a detached machine stays until: banger vm delete NAME",
        )
    check_seconds("--ssh-timeout", ssh_timeout)
    wish = {name: more.pop(name) for name in ORDER}
    order = app.order(**wish)
    work = plan_work(path, as_json, detach, more)
    from banger.machine.run import run_machine

    reporter, say = app.voices(as_json)
    sys.exit(
        run_machine(
            app.machines,
            app.store,
            order,
            reporter,
            say,
            command=command,
            entrypoint=entrypoint,
            run_as=_parse_run_as(user),
            remove=remove,
            ssh_timeout_s=ssh_timeout,
            on_detached=(lambda made: _show_name(made, as_json)) if detach else None,
            work=work,
        )
    )


@vm.command()
@machine_options
@click.option("--no-start", is_flag=True, help="Only make it.")
@json_option
@pass_app
def create(app: App, /, no_start: bool, as_json: bool, **wish: Any) -> None:
    """Make a machine and start it; prints its name."""
    from banger.machine.run import create_machine

    reporter, say = app.voices(as_json)
    machine = create_machine(app.machines, app.store, app.order(**wish), reporter, say, start=not no_start)
    _show_name(machine, as_json)


@vm.command()
@click.argument("names", nargs=-1, required=True)
@pass_app
def start(app: App, names: tuple[str, ...]) -> None:
    """Boot machines that are stopped, and wait until they can be used."""
    from banger.machine.run import start_machine

    _each(app, names, lambda machine: start_machine(app.machines, machine, app.say))


@vm.command()
@click.argument("names", nargs=-1, required=True)
@click.option("--timeout", type=float, metavar="SECONDS", help="Kill it when it has not shut down by then.")
@pass_app
def stop(app: App, names: tuple[str, ...], timeout: float | None) -> None:
    """Shut machines down cleanly."""
    check_seconds("--timeout", timeout)
    from banger.machine import lifecycle

    _each(app, names, lambda machine: lifecycle.stop(app.machines, machine, timeout))


@vm.command()
@click.argument("names", nargs=-1, required=True)
@pass_app
def delete(app: App, names: tuple[str, ...]) -> None:
    """Delete machines, running or not, with their disks."""
    from banger.machine import lifecycle

    _each(app, names, lambda machine: lifecycle.delete(app.machines, machine))


@vm.command("list")
@click.option("-a", "--all", "everything", is_flag=True, help="Stopped machines too.")
@click.option("-q", "--quiet", "only_names", is_flag=True, help="Names only.")
@json_option
@pass_app
def list_(app: App, everything: bool, only_names: bool, as_json: bool) -> None:
    """List the machines that run (`ps` for short)."""
    machines = [each for each in app.records.list() if everything or each.state is not State.STOPPED]
    if as_json:
        print_json([_describe(app, machine) for machine in machines])
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


@vm.command()
@click.argument("name")
@click.option("--json", is_flag=True, help="As always: the output is JSON.")
@pass_app
def show(app: App, /, name: str, **_json: bool) -> None:
    """Print everything about a machine as JSON."""
    print_json(_describe(app, app.records.get(name)))


@vm.command()
@click.argument("name")
@user_option
@pass_app
def ssh(app: App, name: str, user: str | None) -> None:
    """Open a shell in a machine."""
    from banger.machine.image_config import RunAs
    from banger.machine.session import open_shell

    sys.exit(open_shell(app.machines, app.records.get(name), _parse_run_as(user) or RunAs.ROOT))


@vm.command("exec", context_settings={"ignore_unknown_options": True, "allow_interspersed_args": False})
@click.argument("name")
@click.argument("command", nargs=-1, required=True, type=click.UNPROCESSED)
@user_option
@pass_app
def exec_(app: App, name: str, command: tuple[str, ...], user: str | None) -> None:
    """Run COMMAND in a machine and exit with its status."""
    from banger.machine.image_config import RunAs
    from banger.machine.session import run_command

    if command[0].startswith("-") and command[0] != "--":
        raise BangerError(
            f"{command[0]!r} after the name is neither an option nor a command",
            reason=Reason.BAD_INPUT,
            hint="options come first: banger vm exec [OPTIONS] NAME -- COMMAND [ARG]...",
        )
    words = command[1:] if command[0] == "--" else command
    if not words:
        raise BangerError("there is no command to run", reason=Reason.BAD_INPUT)
    sys.exit(run_command(app.machines, app.records.get(name), words, _parse_run_as(user) or RunAs.ROOT))


@vm.command()
@click.argument("name")
@click.option("-f", "--follow", is_flag=True, help="Go on printing what comes.")
@pass_app
def logs(app: App, name: str, follow: bool) -> None:
    """Print the console of a machine and what its monitor said."""
    machine = app.records.get(name)
    path = app.machines.log(machine)
    if not path.exists():
        return
    # A guest writes this: no control character of its may reach a terminal. A file gets it as it is.
    text = TerminalText() if sys.stdout.isatty() else None
    with path.open("rb") as log:
        while True:
            # Looked at before reading: what comes in between (a panic) is read in the next turn, or in this one.
            is_over = not follow or machine.state is not State.RUNNING
            while block := log.read(1 << 16):
                if text is None:
                    sys.stdout.buffer.write(block)
                else:
                    sys.stdout.write(text.clean(block))
            if is_over and text is not None:
                sys.stdout.write(text.clean(b"", is_last=True))
            sys.stdout.flush()
            if is_over:
                return
            time.sleep(_FOLLOW_S)


def _parse_run_as(user: str | None) -> RunAs | None:
    from banger.machine.image_config import RunAs

    return None if user is None else RunAs(user)


def _each(app: App, names: tuple[str, ...], act: Callable[[Machine], object]) -> None:
    """Do it for every name; the good ones are done, the bad ones reported, and the status is 1."""
    failed = False
    for name in dict.fromkeys(names):
        try:
            act(app.records.get(name))
            click.echo(name)
        except BangerError as error:
            print_error(error, as_json=False)
            failed = True
    if failed:
        sys.exit(1)


def _show_name(machine: Machine, as_json: bool) -> None:
    if as_json:
        print_json(_describe_record(machine))
    else:
        click.echo(machine.name)


def _describe(app: App, machine: Machine) -> dict[str, object]:
    described = _describe_record(machine)
    folder = app.machines.folder(machine)
    described["disks"] = {
        name: {"path": str(path), "size_bytes": path.stat().st_size, "used_bytes": path.stat().st_blocks * 512}
        for name in ("system", "work")
        if (path := folder / f"{name}.ext4").exists()
    }
    described["log"] = str(app.machines.log(machine))
    workspace = find_workspace(folder)
    described["workspace"] = None if workspace is None else asdict(workspace)
    return described


def _describe_record(machine: Machine) -> dict[str, object]:
    return {
        "id": machine.id,
        "name": machine.name,
        "state": machine.state,
        "address": str(machine.address),
        "image": machine.image,
        "kernel": machine.kernel,
        "vcpus": machine.vcpus,
        "memory_mib": machine.memory_mib,
        "disk_mib": machine.disk_mib,
        "nat": machine.nat,
        "monitor": machine.monitor,
        "pid": machine.process.pid if machine.process is not None and machine.state is State.RUNNING else None,
        "created_at": format_time(machine.created_at),
    }


vm.add_command(list_, "ps")
vm.add_command(workspace)
