"""The objects: immutable files, named by the BLAKE3 of their content.

Promised: a name in `objects/` appears only after the content is whole and on the disk; a crash, a full disk or a
failing step leaves nothing there. An existing file of the right size is kept, so that its hard links keep counting.
Not promised: that content still is what it was. Looking costs a stat, which finds truncation; bit rot is for `verify`.
"""

from __future__ import annotations

import io
import os
import stat
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING

from blake3 import blake3

from banger.errors import BangerError, Reason
from cache.digests import Digest, Object
from cache.failures import explained
from cache.files import BLOCK_BYTES, find_file, hash_file, make_folder, sync_folder, try_link, write_all
from cache.growth import note_growth
from cache.layout import object_path, tmp_folder
from cache.leases import hold
from cache.temporary import temporary_file
from cache.trace import Point, reach

if TYPE_CHECKING:
    from _typeshed import ReadableBuffer

# BLAKE3 is at its fastest from some 16 KiB up, and writers of archives hand over 512 bytes at a time.
_BUFFER_BYTES = 1 << 20


class ObjectWriter(io.BufferedWriter):
    """A file object, opened "wb", whose content becomes an object with `commit`. Without it, nothing remains."""

    def __init__(self, root: Path, lease: Path | None, path: Path, fd: int) -> None:
        self._sink = _HashingSink(fd, root)
        self._root = root
        self._lease = lease
        self._path = path
        super().__init__(self._sink, _BUFFER_BYTES)

    def commit(self) -> Object:
        """Make what was written an object. Ends the writing; a library may have closed the file object before."""
        if not self.closed:
            self.flush()
        obj = self._sink.finish()
        reach(Point.OBJECT_WRITTEN)
        with explained("store an object", self._root):
            _install(self._root, self._lease, self._path, self._sink.fileno(), obj)
        self.close()
        return obj

    def abandon(self) -> None:
        """End the writing; what is still buffered goes nowhere. Nothing happens after a commit."""
        self._sink.abandoned = True
        self.close()


class _HashingSink(io.RawIOBase):
    """Writes and hashes in one pass. The descriptor belongs to the one who made it."""

    def __init__(self, fd: int, root: Path) -> None:
        self._fd = fd
        self._root = root
        self._hasher = blake3()
        self._size_bytes = 0
        self._broken = False
        self.abandoned = False

    def writable(self) -> bool:
        return True

    def fileno(self) -> int:
        return self._fd

    def tell(self) -> int:
        return self._size_bytes

    def write(self, data: ReadableBuffer) -> int:
        view = memoryview(data).cast("B")
        size_bytes = len(view)
        if self.abandoned:
            return size_bytes
        self._refuse_broken()
        # After a failed or interrupted write the file may hold a part that was not hashed. The buffer above us would
        # try the same bytes again, so from here on nothing is taken any more.
        self._broken = True
        with explained("write an object", self._root):
            write_all(self._fd, view)
        self._hasher.update(view)
        self._size_bytes += size_bytes
        self._broken = False
        return size_bytes

    def finish(self) -> Object:
        self._refuse_broken()
        if self.abandoned:
            raise ValueError("commit after the writing was abandoned")
        return Object(Digest(self._hasher.hexdigest()), self._size_bytes)

    def _refuse_broken(self) -> None:
        if self._broken:
            raise BangerError("an earlier write of this object failed", reason=Reason.IO)


@contextmanager
def writer(root: Path, lease: Path | None) -> Iterator[ObjectWriter]:
    with temporary_file(tmp_folder(root)) as (path, fd):
        new = ObjectWriter(root, lease, path, fd)
        try:
            yield new
        finally:
            new.abandon()


def put_file(root: Path, lease: Path | None, path: Path) -> Object:
    """Take over a finished file of this filesystem, holes and all, without a copy. Its name is gone afterwards."""
    with explained("store a file", root):
        fd = os.open(path, os.O_RDONLY | os.O_NOFOLLOW | os.O_NONBLOCK | os.O_CLOEXEC)
        try:
            if not stat.S_ISREG(os.fstat(fd).st_mode):
                raise BangerError(f"not a regular file: {path}", reason=Reason.BAD_INPUT)
            obj = Object(*hash_file(fd))
            if os.fstat(fd).st_size != obj.size_bytes:
                raise BangerError(f"{path} changed while it was read", reason=Reason.CHANGED)
            _install(root, lease, path, fd, obj)
        finally:
            os.close(fd)
    return obj


def has(root: Path, obj: Object) -> bool:
    with explained("look for an object", root):
        found = find_file(object_path(root, obj.digest))
        return found is not None and found.st_size == obj.size_bytes


def get_path(root: Path, obj: Object) -> Path:
    path = object_path(root, obj.digest)
    with explained("look for an object", root):
        found = find_file(path)
    if found is None:
        raise BangerError(
            f"object {obj.digest[:12]} is not in the store at {root}",
            reason=Reason.NOT_FOUND,
            hint="it was removed, and is made again by building what needs it",
        )
    if found.st_size != obj.size_bytes:
        raise BangerError(
            f"object {obj.digest[:12]} has {found.st_size} bytes and should have {obj.size_bytes}: {path}",
            reason=Reason.CORRUPT,
            hint="remove the file; it is made again by building what needs it",
        )
    return path


def install_name(root: Path, path: Path, obj: Object) -> None:
    """Give the whole and synced file at `path` its name in `objects/`. `path` may stay; the caller removes it."""
    destination = object_path(root, obj.digest)
    make_folder(destination.parent)
    try:
        # A link and not a rename: it never takes the place of a file to which owners hold links.
        linked = try_link(path, destination)
    except FileExistsError:
        found = find_file(destination)
        if found is not None and found.st_size == obj.size_bytes:
            return
        linked = False
    if not linked:
        path.replace(destination)
    sync_folder(destination.parent)


def _install(root: Path, lease: Path | None, path: Path, fd: int, obj: Object) -> None:
    while not has(root, obj) or (lease is not None and not hold(root, lease, obj)):
        # Under its temporary name it has a second link: nobody takes it away before it is held.
        os.fchmod(fd, 0o400)
        os.fsync(fd)
        reach(Point.OBJECT_SYNCED)
        install_name(root, path, obj)
        reach(Point.OBJECT_NAMED)
        note_growth(root, os.fstat(fd).st_blocks * BLOCK_BYTES)
    path.unlink(missing_ok=True)
    reach(Point.OBJECT_DONE)
