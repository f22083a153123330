"""`banger vm …`: machines."""

from __future__ import annotations

import sys
from typing import Any

import click

from banger.cli import candidates
from banger.cli.app import App, check_seconds, pass_app
from banger.cli.describe import show_name
from banger.cli.options import (
    ORDER,
    CommandAfterDashes,
    Nouns,
    json_option,
    machine_options,
    parse_run_as,
    user_option,
)
from banger.cli.vm_enter import exec_, ssh
from banger.cli.vm_power import delete, kill, prune, restart, set_, start, stop
from banger.cli.vm_view import list_, logs, ports, show, stats
from banger.cli.work import plan_work, workspace_options
from banger.cli.workspace import workspace
from banger.errors import BangerError, Reason


@click.group(cls=Nouns)
def vm() -> None:
    """Machines."""


@vm.command(cls=CommandAfterDashes)
@click.argument("path", required=False, type=click.Path(), shell_complete=candidates.folders)
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
            run_as=parse_run_as(user),
            remove=remove,
            ssh_timeout_s=ssh_timeout,
            on_detached=(lambda made: show_name(made, as_json)) if detach else None,
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
    show_name(machine, as_json)


for each in (list_, show, ports, stats, logs, start, stop, restart, kill, delete, prune, set_, ssh, exec_, workspace):
    vm.add_command(each)
vm.add_command(list_, "ps")
vm.add_command(delete, "rm")
