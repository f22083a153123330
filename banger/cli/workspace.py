"""`banger vm workspace …`: what was changed in a machine comes back to the host's repository."""

from __future__ import annotations

import sys
from pathlib import Path
from typing import TYPE_CHECKING

import click

from banger.cli import candidates
from banger.cli.app import App, pass_app
from banger.cli.options import Nouns
from banger.cli.output import TerminalText
from banger.cli.work import make_confirm
from banger.errors import BangerError, Reason
from banger.sizes import format_bytes

if TYPE_CHECKING:
    from banger.machine.exchange import Confirm, Copy


@click.group(cls=Nouns)
def workspace() -> None:
    """The repository in a machine."""


@workspace.command()
@click.argument("name", shell_complete=candidates.running_machines)
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


@workspace.command()
@click.argument("name", shell_complete=candidates.running_machines)
@click.argument("path", required=False, type=click.Path(), shell_complete=candidates.folders)
@click.option("--mode", type=click.Choice(["update", "full_copy"]), default="update", help="What differs, or all anew.")
@click.option("--readonly", is_flag=True, help="Nothing in the machine can change it, until it is stopped.")
@click.option("--include-untracked", is_flag=True, help="Send untracked files too, but no ignored ones.")
@click.option("-y", "--yes", is_flag=True, help="Do not ask before changes made in the machine are overwritten.")
@pass_app
def prepare(
    app: App, name: str, path: str | None, mode: str, readonly: bool, include_untracked: bool, yes: bool
) -> None:
    """Send a repository again, or for the first time: the machine's /root/repo becomes what PATH is now."""
    from banger.machine import exchange
    from banger.workspace.repository import open_repository
    from banger.workspace.shipment import Shipment

    machine = app.records.get(name)
    root = Path(path) if path is not None else Path(exchange.get_workspace(app.machines, machine).root)
    shipment = Shipment(open_repository(root), include_untracked)
    done = exchange.prepare(
        app.machines, machine, shipment, is_full=mode == "full_copy", readonly=readonly, confirm=_make_warning(yes)
    )
    if done is None:
        app.say("nothing was sent")
        sys.exit(1)
    removed = f", {done.gone} removed" if done.gone else ""
    app.say(f"{done.files} files sent, {format_bytes(done.size_bytes)}{removed}")


def _make_warning(yes: bool) -> Confirm:
    def confirm(told: str) -> bool:
        click.echo(told, nl=False, err=True)
        if yes:
            return True
        if not sys.stdin.isatty():
            raise BangerError("there is nobody to ask", reason=Reason.BAD_INPUT, hint="if that may go: --yes")
        return click.confirm("Overwrite?", err=True)

    return confirm


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
