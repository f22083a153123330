"""The options of `vm run` that send a repository along, and say what becomes of the changes."""

from __future__ import annotations

import os
import sys
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from banger.cli.output import print_json, say
from banger.errors import BangerError, Reason
from banger.run import printable
from banger.sizes import format_bytes

if TYPE_CHECKING:
    from banger.machine.exchange import Confirm
    from banger.machine.run import Work
    from banger.workspace.selection import File


def workspace_options(function: Callable[..., Any]) -> Callable[..., Any]:
    """Those of `vm run` that have a meaning only with a repository."""
    for option in reversed(
        (
            click.option("--branch", metavar="NAME", help="In the machine, on a new branch."),
            click.option("--from", "start", metavar="REF", help="That branch begins at REF, without local changes."),
            click.option("--include-untracked", is_flag=True, help="Send untracked files too, but no ignored ones."),
            click.option("--dry-run", is_flag=True, help="Print which files would be sent; no machine is made."),
            click.option("--no-bootstrap", is_flag=True, help="Do not install the tools that mise finds there."),
            click.option("--export", type=click.Path(dir_okay=False, path_type=Path), help="Write changes as a patch."),
            click.option("--apply", "as_files", is_flag=True, help="At the end, bring changes into the repository."),
            click.option("-y", "--yes", is_flag=True, help="Do not ask before applying."),
        )
    ):
        function = option(function)
    return function


def plan_work(path: str | None, as_json: bool, detach: bool, options: dict[str, Any]) -> Work | None:
    """The workspace that the options ask for; exits after a dry run. None without one: the options are refused then."""
    start, branch, export_to = options["start"], options["branch"], options["export"]
    names = {
        "--branch": branch,
        "--from": start,
        "--include-untracked": options["include_untracked"],
        "--dry-run": options["dry_run"],
        "--no-bootstrap": options["no_bootstrap"],
        "--export": export_to,
        "--apply": options["as_files"],
        "--yes": options["yes"],
    }
    given = [name for name, value in names.items() if value]
    if path is None:
        if given:
            raise BangerError(
                f"{given[0]} is for a workspace",
                reason=Reason.BAD_INPUT,
                hint=f"name a repository: banger vm run ./repo {given[0]} …",
            )
        return None
    _check_combinations(names, detach)
    if not path:
        # Not the current folder, which an empty Path would be.
        raise BangerError("the path of a repository is empty", reason=Reason.BAD_INPUT, hint="for this folder: .")
    from banger.workspace.repository import check_branch_name, get_commit, open_repository
    from banger.workspace.shipment import Shipment

    repository = open_repository(Path(path))
    if branch is not None:
        check_branch_name(repository, branch)
    commit = None if start is None else get_commit(repository, start)
    if branch is not None and repository.head is None:
        raise BangerError(f"there is no commit yet for {branch!r} to begin at", reason=Reason.BAD_INPUT)
    shipment = Shipment(repository, options["include_untracked"], branch, commit)
    files = shipment.list_files()
    if options["dry_run"]:
        _print_files(files, as_json)
        sys.exit(0)
    from banger.machine.run import Work
    from banger.machine.tooling import find_config

    return Work(
        shipment,
        None if options["no_bootstrap"] else find_config([file.path for file in files]),
        export_to,
        options["as_files"],
        make_confirm(options["yes"]) if options["as_files"] else lambda _summary: True,
    )


def _check_combinations(names: dict[str, Any], detach: bool) -> None:
    def refuse(one: str, other: str, hint: str = "") -> BangerError:
        return BangerError(f"{one} {other}", reason=Reason.BAD_INPUT, hint=hint)

    if names["--from"] and not names["--branch"]:
        raise refuse("--from", "goes only with --branch")
    if names["--from"] and names["--include-untracked"]:
        raise refuse("--include-untracked", "does not go with --from: the files are those of a commit")
    if names["--yes"] and not names["--apply"]:
        raise refuse("--yes", "goes only with --apply")
    for name in ("--apply", "--export"):
        if names[name] and detach:
            raise refuse(name, "does not go with --detach", "later: banger vm workspace export NAME")


def _print_files(files: Sequence[File], as_json: bool) -> None:
    """The exact list, on standard output; how much it is, on standard error."""
    total = sum(file.size_bytes for file in files)
    if as_json:
        entries = [
            {
                "path": os.fsencode(file.path).decode("utf-8", "backslashreplace"),
                "kind": file.kind,
                "size_bytes": file.size_bytes,
            }
            for file in files
        ]
        print_json({"files": entries, "count": len(files), "size_bytes": total})
        return
    is_terminal = sys.stdout.isatty()
    for file in files:
        name = os.fsencode(file.path)
        # A line each, also for a name of several: as git shows it.
        if is_terminal or b"\n" in name:
            click.echo(printable(_show(file)))
        else:
            sys.stdout.buffer.write(name + b"\n")
            sys.stdout.buffer.flush()
    say(f"{len(files)} files, {format_bytes(total)}")


def _show(file: File) -> str:
    return os.fsencode(file.path).decode("utf-8", "backslashreplace")


def make_confirm(yes: bool) -> Confirm:
    """Shows what is about to be applied, and asks; refused at once where nobody could answer."""
    if not yes and not sys.stdin.isatty():
        raise BangerError(
            "--apply asks before it changes anything, and there is nobody to ask",
            reason=Reason.BAD_INPUT,
            hint="add --yes, or take the changes as a patch (--export, vm workspace export)",
        )

    def confirm(summary: str) -> bool:
        click.echo(summary, nl=False, err=True)
        return yes or click.confirm("Apply?", err=True)

    return confirm
