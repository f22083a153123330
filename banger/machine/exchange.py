"""A machine's workspace and the host's repository: what was changed in the one comes into the other, either way."""

from __future__ import annotations

import contextlib
import os
import tempfile
from collections.abc import Callable, Iterator
from dataclasses import dataclass, replace
from pathlib import Path
from typing import IO

from banger.errors import BangerError, Reason
from banger.machine.machine_lock import locked
from banger.machine.machines import Machines
from banger.machine.record import Machine
from banger.machine.session import refuse_stopped
from banger.workspace.apply import Applied, apply_changes
from banger.workspace.branch import check_new_branch, make_branch
from banger.workspace.changes import check_sizes, format_paths, list_changes
from banger.workspace.collect import GuestState, collect, get_base
from banger.workspace.history import Checkout
from banger.workspace.patch import format_summary, write_patch
from banger.workspace.prepare import make_update_history, plan_update, send_all, send_update
from banger.workspace.record import OBJECTS, Workspace, find_workspace, write_workspace
from banger.workspace.repository import Repository, get_commit, open_repository
from banger.workspace.shipment import Shipment
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
    """The whole patch, or no file. What is there and is no file (a device, a pipe) is written into."""
    with explained(f"write {path.name}", path.parent):
        if path.exists() and not path.is_file():
            with path.open("wb") as file:
                export_patch(copy, file, base_commit)
            return
        descriptor, name = tempfile.mkstemp(dir=path.parent, prefix=".banger-")
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
    check_sizes(copy.state.git, changes)
    if not confirm(format_summary(copy.state.git, copy.workspace.tree, copy.state.tree)):
        return None
    return apply_changes(copy.repository, copy.state.git, copy.state.tree, changes)


def branch_copy(copy: Copy, machine: Machine, name: str) -> str | None:
    """Put everything on a new branch; gives the commit, None when nothing was changed."""
    check_new_branch(copy.repository, name)
    list_changes(copy.state.git, copy.workspace.tree, copy.state.tree)
    is_same = copy.state.head == copy.workspace.commit and copy.state.tree == copy.workspace.tree
    return None if is_same else make_branch(copy.repository, copy.state, name, f"Work tree of {machine.name}")


@dataclass(frozen=True)
class Prepared:
    """What was sent: how many files, how many bytes, how many paths were removed."""

    files: int
    size_bytes: int
    gone: int


def prepare(
    machines: Machines,
    machine: Machine,
    shipment: Shipment,
    *,
    is_full: bool,
    readonly: bool,
    confirm: Confirm,
) -> Prepared | None:
    """Bring the machine's copy to what the host has now; None when `confirm` says no to what would be lost there.

    A repository that the machine has no copy of is sent whole.
    """
    refuse_stopped(machine)
    objects = machines.folder(machine) / OBJECTS
    # Without the machine's folder the lock says that it is gone.
    with contextlib.suppress(FileNotFoundError):
        objects.mkdir(mode=0o700, exist_ok=True)
    # One at a time; stopping and deleting the machine need not wait for it.
    with locked(objects):
        return _prepare(machines, machine, shipment, is_full=is_full, readonly=readonly, confirm=confirm)


def _prepare(
    machines: Machines, machine: Machine, shipment: Shipment, *, is_full: bool, readonly: bool, confirm: Confirm
) -> Prepared | None:
    workspace = find_workspace(machines.folder(machine))
    if workspace is None or workspace.root != str(shipment.repository.root):
        if workspace is not None and not confirm(f"/root/repo in {machine.name} is a copy of {workspace.root}\n"):
            return None
        return _send_whole(machines, machine, shipment, readonly=readonly)
    with open_copy(machines, machine) as copy:
        objects = machines.folder(machine) / OBJECTS
        scratch = copy.state.git.parent / "prepare"
        git = scratch / "git"
        git.mkdir(parents=True)
        selection, snapshot, _contents = shipment.take(objects, scratch)
        update = plan_update(copy.state, workspace, selection, snapshot.tree)
        changed, _skipped = list_changes(copy.state.git, workspace.tree, copy.state.tree)
        lost = [change.path for change in changed] if is_full else update.overwritten
        if not _confirm_loss(machine, lost, update.moves_head, confirm):
            return None
        if is_full:
            return _send_whole(machines, machine, shipment, readonly=readonly)
        checkout = Checkout(shipment.repository.head, workspace.branch)
        make_update_history(shipment.repository, snapshot, checkout, workspace.commit, git)
        send_update(machines.access(machine), shipment.repository, update, git, checkout, readonly=readonly)
        write_workspace(
            machines.folder(machine),
            replace(
                workspace,
                commit=checkout.commit,
                tree=snapshot.tree,
                include_untracked=shipment.include_untracked,
            ),
        )
    return Prepared(len(update.files), update.size_bytes, len(update.gone))


def _send_whole(machines: Machines, machine: Machine, shipment: Shipment, *, readonly: bool) -> Prepared:
    with shipment.pack(machines.folder(machine)) as cargo:
        send_all(machines.access(machine), cargo.write, readonly=readonly)
        return Prepared(len(cargo.selection.files), cargo.selection.size_bytes, 0)


def _confirm_loss(machine: Machine, paths: list[str], moves_head: bool, confirm: Confirm) -> bool:
    told = ""
    if paths:
        told += f"these files were changed in {machine.name}, and would be overwritten:\n{format_paths(paths)}\n"
    if moves_head:
        told += f"its branch would lose commits made in {machine.name} (ORIG_HEAD keeps them)\n"
    return not told or confirm(told)


def _find_base(copy: Copy, base_commit: str | None) -> str:
    """Looked at first: git would take as much memory as a guest likes for a comparison."""
    if base_commit is not None:
        base = get_commit(copy.repository, base_commit)
    else:
        base = get_base(copy.state.git, copy.workspace)
    changes, _skipped = list_changes(copy.state.git, base, copy.state.tree)
    check_sizes(copy.state.git, changes)
    return base
