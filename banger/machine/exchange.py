"""A machine's workspace and the host's repository: what was changed in the one comes into the other, either way."""

from __future__ import annotations

import contextlib
import os
import tempfile
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import IO

from banger.errors import BangerError, Reason
from banger.machine.lifecycle import Machines
from banger.machine.record import Machine
from banger.machine.session import refuse_stopped
from banger.workspace.apply import Applied, apply_changes
from banger.workspace.branch import check_new_branch, make_branch
from banger.workspace.changes import format_paths, list_changes
from banger.workspace.collect import GuestState, collect, get_base
from banger.workspace.patch import format_summary, write_patch
from banger.workspace.record import Workspace, find_workspace
from banger.workspace.repository import Repository, get_commit, open_repository
from cache.failures import explained

Say = Callable[[str], None]
Confirm = Callable[[str], bool]


@dataclass(frozen=True)
class Copy:
    """A workspace on both sides: what was sent, the host's repository, and the guest's state now."""

    workspace: Workspace
    repository: Repository
    state: GuestState


def get_workspace(machines: Machines, machine: Machine) -> Workspace:
    workspace = find_workspace(machines.folder(machine))
    if workspace is None:
        raise BangerError(
            f"{machine.name!r} has no workspace",
            reason=Reason.NOT_FOUND,
            hint=f"send one: banger vm workspace prepare {machine.name} ./repo",
        )
    return workspace


@contextlib.contextmanager
def open_copy(machines: Machines, machine: Machine) -> Iterator[Copy]:
    """Look at the guest's copy; nothing in it, and nothing of the host's, is changed by that."""
    workspace = get_workspace(machines, machine)
    refuse_stopped(machine)
    repository = open_repository(Path(workspace.root))
    folder = machines.folder(machine)
    with collect(machines.access(machine), workspace, repository, folder) as state:
        yield Copy(workspace, repository, state)


def export_patch(copy: Copy, sink: IO[bytes], base_commit: str | None = None) -> None:
    """Everything since the commit that was sent, or since another."""
    write_patch(copy.state.git, _find_base(copy, base_commit), copy.state.tree, sink)


def export_to_file(copy: Copy, path: Path, base_commit: str | None = None) -> None:
    """The whole patch, or no file."""
    with explained(f"write {path.name}", path.parent):
        descriptor, name = tempfile.mkstemp(dir=path.parent, prefix=f".{path.name}-")
        try:
            with os.fdopen(descriptor, "wb") as file:
                export_patch(copy, file, base_commit)
            Path(name).replace(path)
        except BaseException:
            Path(name).unlink()
            raise


def summarise(copy: Copy, base_commit: str | None = None) -> str:
    return format_summary(copy.state.git, _find_base(copy, base_commit), copy.state.tree)


def apply_copy(copy: Copy, say: Say, confirm: Confirm) -> Applied | None:
    """Bring what was changed since it was sent into the host's work tree; None when `confirm` says no."""
    changes, skipped = list_changes(copy.state.git, copy.workspace.tree, copy.state.tree)
    if skipped:
        say(f"left out, since they are repositories of their own:\n{format_paths(skipped)}")
    if not changes:
        return Applied([], [])
    if not confirm(format_summary(copy.state.git, copy.workspace.tree, copy.state.tree)):
        return None
    return apply_changes(copy.repository, copy.state.git, copy.state.tree, changes)


def branch_copy(copy: Copy, machine: Machine, name: str) -> str | None:
    """Put everything on a new branch; gives the commit, None when nothing was changed."""
    check_new_branch(copy.repository, name)
    is_same = copy.state.head == copy.workspace.commit and copy.state.tree == copy.workspace.tree
    return None if is_same else make_branch(copy.repository, copy.state, name, f"Work tree of {machine.name}")


def _find_base(copy: Copy, base_commit: str | None) -> str:
    if base_commit is not None:
        return get_commit(copy.repository, base_commit)
    return get_base(copy.state.git, copy.workspace)
