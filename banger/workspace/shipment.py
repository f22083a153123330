"""A workspace on its way into a machine: its files and its .git as entries of the tar that the work disk is made from.

The files stream from the work tree; only the packed history, whose size has to be known first, is made in a temporary
folder. No folder of the work tree is left by way of a symlink, and a file that changes while it is read is an error.
"""

from __future__ import annotations

import contextlib
import errno
import io
import os
import stat
import tarfile
import time
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

from banger.errors import BangerError, Reason
from banger.run import printable
from banger.workspace.history import Checkout, format_gitconfig, make_history
from banger.workspace.record import OBJECTS, Workspace, write_workspace
from banger.workspace.repository import Repository, find_author
from banger.workspace.scratch import scratch_folder
from banger.workspace.selection import File, Kind, Selection, get_kind, select
from banger.workspace.snapshot import Snapshot, list_commit, take_commit, take_snapshot
from pipelines.ext4 import Exactly

FOLDER = "repo"
_OPEN_FLAGS = os.O_RDONLY | os.O_NOFOLLOW | os.O_NONBLOCK | os.O_CLOEXEC


@dataclass(frozen=True)
class Cargo:
    """What is ready to be written into a home, for as long as the temporary folder is there."""

    repository: Repository
    selection: Selection
    git: Path
    gitconfig: str
    contents: Path | None

    def write(self, tar: tarfile.TarFile) -> None:
        """Entries at and below `repo`."""
        write_folder(tar, FOLDER)
        write_tree(tar, self.git, f"{FOLDER}/.git")
        write_files(tar, self.contents or self.repository.root, self.selection.files)


@dataclass(frozen=True)
class Shipment:
    """What a user wants to be sent: the work tree as it is, or with `start` that commit; `branch` is new there."""

    repository: Repository
    include_untracked: bool = False
    branch: str | None = None
    start: str | None = None

    @contextlib.contextmanager
    def pack(self, machine: Path) -> Iterator[Cargo]:
        """Prepare everything; it is remembered in the machine's folder when the block ends well."""
        objects = machine / OBJECTS
        (objects / "pack").mkdir(mode=0o700, parents=True, exist_ok=True)
        with scratch_folder(machine) as scratch:
            git = scratch / "git"
            git.mkdir()
            selection, snapshot, contents = self.take(objects, scratch)
            checkout = self.plan_checkout()
            make_history(self.repository, snapshot, checkout, git)
            author = format_gitconfig(find_author(self.repository))
            yield Cargo(self.repository, selection, git, author, contents)
            # Now it is there: before that, what was there before counts.
            write_workspace(
                machine,
                Workspace(
                    root=str(self.repository.root),
                    commit=checkout.commit,
                    tree=snapshot.tree,
                    branch=checkout.branch,
                    include_untracked=self.include_untracked,
                ),
            )

    def list_files(self) -> list[File]:
        """What would be sent now."""
        if self.start is None:
            return select(self.repository, include_untracked=self.include_untracked).files
        return list_commit(self.repository, self.start)

    def take(self, objects: Path, scratch: Path) -> tuple[Selection, Snapshot, Path | None]:
        """What is sent, now; the last is where the files are if not in the work tree."""
        if self.start is None:
            selection = select(self.repository, include_untracked=self.include_untracked)
            return selection, take_snapshot(self.repository, selection, objects, scratch), None
        return take_commit(self.repository, self.start, scratch)

    def plan_checkout(self) -> Checkout:
        return Checkout(self.start or self.repository.head, self.branch or self.repository.branch)


def write_files(tar: tarfile.TarFile, root: Path, files: list[File]) -> None:
    """Files below `root`, in the order of their names, with the folders that they are in."""
    with _Walker(root) as walker:
        known: set[str] = set()
        for file in files:
            parts = file.path.split("/")
            for count in range(1, len(parts)):
                folder = "/".join(parts[:count])
                if folder not in known:
                    known.add(folder)
                    write_folder(tar, f"{FOLDER}/{folder}")
            _write_file(tar, walker, file)


def _write_file(tar: tarfile.TarFile, walker: _Walker, file: File) -> None:
    entry = tarfile.TarInfo(f"{FOLDER}/{file.path}")
    if file.kind is Kind.FOLDER:
        write_folder(tar, entry.name)
        return
    try:
        folder, name = walker.enter(file.path)
        found = os.stat(name, dir_fd=folder, follow_symlinks=False)
        if get_kind(found.st_mode) is not file.kind or file.mtime_ns not in (None, found.st_mtime_ns):
            # Since it was listed: what is remembered as sent would be something else.
            raise _changed(file)
        entry.mtime = max(0, found.st_mtime_ns // 1_000_000_000)
        if file.kind is Kind.SYMLINK:
            entry.type, entry.mode = tarfile.SYMTYPE, 0o777
            entry.linkname = os.readlink(name, dir_fd=folder)
            tar.addfile(entry)
            return
        descriptor = os.open(name, _OPEN_FLAGS, dir_fd=folder)
    except OSError as error:
        raise _explain(file, error) from error
    with io.FileIO(descriptor) as content:
        before = os.fstat(content.fileno())
        if not stat.S_ISREG(before.st_mode) or (before.st_ino, before.st_mtime_ns) != (found.st_ino, found.st_mtime_ns):
            raise _changed(file)
        entry.size, entry.mode = before.st_size, stat.S_IMODE(before.st_mode) & 0o777
        tar.addfile(entry, Exactly(content, lambda: _changed(file), lambda error: _explain(file, error)))
        after = os.fstat(content.fileno())
        if (after.st_size, after.st_mtime_ns) != (before.st_size, before.st_mtime_ns):
            raise _changed(file)


class _Walker:
    """Opens the folders on the way to a file one by one, so that none of them is a symlink."""

    def __init__(self, root: Path) -> None:
        self._names: list[str] = []
        self._open = [os.open(root, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)]

    def __enter__(self) -> _Walker:
        return self

    def __exit__(self, *_exception: object) -> None:
        for descriptor in self._open:
            os.close(descriptor)

    def enter(self, path: str) -> tuple[int, str]:
        """A descriptor of the folder, and the name in it. Folders of the file before are used again."""
        *wanted, name = path.split("/")
        same = 0
        while same < min(len(wanted), len(self._names)) and wanted[same] == self._names[same]:
            same += 1
        for descriptor in self._open[same + 1 :]:
            os.close(descriptor)
        del self._open[same + 1 :], self._names[same:]
        for part in wanted[same:]:
            flags = os.O_RDONLY | os.O_DIRECTORY | os.O_NOFOLLOW | os.O_CLOEXEC
            self._open.append(os.open(part, flags, dir_fd=self._open[-1]))
            self._names.append(part)
        return self._open[-1], name


def write_tree(tar: tarfile.TarFile, git: Path, place: str) -> None:
    """A folder of ours, made a moment ago."""
    for folder, folders, names in os.walk(git):
        folders.sort()
        inside = f"{place}/{os.path.relpath(folder, git)}".removesuffix("/.")
        write_folder(tar, inside)
        for name in sorted(names):
            path = Path(folder) / name
            entry = tarfile.TarInfo(f"{inside}/{name}")
            # An index has to be younger than the files that it is about, or git reads all those again.
            entry.size, entry.mtime = path.stat().st_size, int(time.time()) + 1
            entry.mode = 0o444 if "/objects/pack" in inside else 0o644
            with path.open("rb") as content:
                tar.addfile(entry, content)


def write_folder(tar: tarfile.TarFile, path: str) -> None:
    entry = tarfile.TarInfo(path)
    entry.type, entry.mode, entry.mtime = tarfile.DIRTYPE, 0o755, int(time.time())
    tar.addfile(entry)


def _explain(file: File, error: OSError) -> BangerError:
    # ENXIO is a socket's, EINVAL that of what is no link.
    if error.errno in (errno.ENOENT, errno.ENOTDIR, errno.ELOOP, errno.ENXIO, errno.EINVAL):
        return _changed(file)
    return BangerError(f"cannot read {printable(file.path)}: {error.strerror}", reason=Reason.IO)


def _changed(file: File) -> BangerError:
    return BangerError(
        f"{printable(file.path)} has changed while it was sent",
        reason=Reason.CHANGED,
        hint="try again when nothing writes to the repository",
    )
