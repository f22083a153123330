"""`banger vm workspace …`: what was changed in a machine comes back to the host's repository."""

from __future__ import annotations

import sys
from pathlib import Path
from typing import TYPE_CHECKING

import click

from banger.cli.app import App, pass_app
from banger.cli.options import Nouns
from banger.cli.output import TerminalText
from banger.cli.work import make_confirm
from banger.errors import BangerError, Reason

if TYPE_CHECKING:
    from banger.machine.exchange import Copy


@click.group(cls=Nouns)
def workspace() -> None:
    """The repository in a machine."""


@workspace.command()
@click.argument("name")
@click.option("-o", "--output", type=click.Path(dir_okay=False, path_type=Path), help="Write the patch to a file.")
@click.option("--base-commit", metavar="COMMIT", help="Everything since this commit instead of the one that was sent.")
@click.option("--stat", is_flag=True, help="A summary instead of the patch.")
@click.option("--apply", "as_files", is_flag=True, help="Change the host's work tree, all of it or nothing.")
@click.option("--branch", metavar="NAME", help="Put it on a new branch of the host's repository, as commits.")
@click.option("-y", "--yes", is_flag=True, help="Do not ask before applying.")
@pass_app
def export(
    app: App,
    name: str,
    output: Path | None,
    base_commit: str | None,
    stat: bool,
    as_files: bool,
    branch: str | None,
    yes: bool,
) -> None:
    """Take out what was changed in a machine: as a patch on standard output, unless told otherwise."""
    ways = {"--output": output, "--stat": stat, "--apply": as_files, "--branch": branch}
    wanted = [way for way, value in ways.items() if value]
    if len(wanted) > 1:
        raise BangerError(f"{wanted[0]} does not go with {wanted[1]}", reason=Reason.BAD_INPUT)
    if base_commit is not None and (as_files or branch):
        raise BangerError(f"--base-commit does not go with {wanted[0]}", reason=Reason.BAD_INPUT)
    confirm = make_confirm(yes) if as_files else None
    from banger.machine import exchange
    from banger.machine.run import describe_applied

    machine = app.records.get(name)
    with exchange.open_copy(app.machines, machine) as copy:
        if confirm is not None:
            applied = exchange.apply_copy(copy, app.say, confirm)
            app.say(describe_applied(applied))
            if applied is None:
                sys.exit(1)
        elif branch is not None:
            commit = exchange.branch_copy(copy, machine, branch)
            app.say("nothing was changed" if commit is None else f"{branch} is at {commit[:12]}")
        elif stat:
            click.echo(exchange.summarise(copy, base_commit), nl=False)
        elif output is not None:
            exchange.export_to_file(copy, output, base_commit)
        else:
            _print_patch(copy, base_commit)


def _print_patch(copy: Copy, base_commit: str | None) -> None:
    """As it is into a file or a pipe; a terminal gets it without what would move its cursor."""
    import tempfile

    from banger.machine.exchange import export_patch

    if not sys.stdout.isatty():
        sys.stdout.flush()
        export_patch(copy, sys.stdout.buffer, base_commit)
        return
    text = TerminalText()
    with tempfile.TemporaryFile() as file:
        export_patch(copy, file, base_commit)
        file.seek(0)
        while block := file.read(1 << 16):
            sys.stdout.write(text.clean(block))
        sys.stdout.write(text.clean(b"", is_last=True))
