"""`banger vm ssh` and `exec`: into a machine that runs."""

from __future__ import annotations

import sys

import click

from banger.cli import candidates
from banger.cli.app import App, pass_app
from banger.cli.options import CommandAfterName, parse_run_as, user_option
from banger.errors import BangerError, Reason


@click.command()
@click.argument("name", shell_complete=candidates.running_machines)
@user_option
@pass_app
def ssh(app: App, name: str, user: str | None) -> None:
    """Open a shell in a machine."""
    from banger.machine.image_config import RunAs
    from banger.machine.session import open_shell

    sys.exit(open_shell(app.machines, app.records.get(name), parse_run_as(user) or RunAs.ROOT))


@click.command(
    "exec",
    cls=CommandAfterName,
    context_settings={"ignore_unknown_options": True, "allow_interspersed_args": False},
)
@click.argument("name", shell_complete=candidates.running_machines)
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
    sys.exit(run_command(app.machines, app.records.get(name), words, parse_run_as(user) or RunAs.ROOT))
