"""A folder of this host as a tar stream: the same tree gives the same bytes.

Owners, modes, times, devices, fifos, hard links and xattrs are those on the disk, as far as whoever reads may see them.
Symlinks are never followed. The folder itself only holds the tree: its own owner and mode are not part of it. Sockets,
which no archive can hold, are left out, as by GNU tar.
"""

from __future__ import annotations

import errno
import os
import stat
from collections.abc import Generator, Iterator
from pathlib import Path

from banger.errors import BangerError, Reason
from banger.run import is_cancelled
from pipelines.oci.tar import BLOCK_BYTES, Entry, Kind
from pipelines.oci.tar_writer import END, format_header

_CHUNK_BYTES = 1 << 20
_READ = os.O_RDONLY | os.O_NOFOLLOW | os.O_NONBLOCK | os.O_CLOEXEC
_KINDS = {
    stat.S_IFREG: Kind.FILE,
    stat.S_IFDIR: Kind.FOLDER,
    stat.S_IFLNK: Kind.SYMLINK,
    stat.S_IFCHR: Kind.CHAR,
    stat.S_IFBLK: Kind.BLOCK,
    stat.S_IFIFO: Kind.FIFO,
}
# xattr(7). Others are the host's own business: its security labels, say.
_XATTRS = ("user.", "trusted.", "security.capability", "system.posix_acl_")
_NO_XATTRS = {errno.ENOTSUP, errno.EPERM}


def read_folder(top: Path) -> Generator[bytes, None, None]:
    """Chunks of a tar of what is below `top`. Raises `BangerError` with the name of what cannot be read."""
    device = os.lstat(f"{top}/").st_dev
    inodes: dict[tuple[int, int], str] = {}
    todo = _list(top, "")
    while todo:
        if is_cancelled():
            raise KeyboardInterrupt
        path = todo.pop()
        full = f"{top}/{path}"
        try:
            found = os.lstat(full)
            kind = _KINDS.get(stat.S_IFMT(found.st_mode))
            if kind is None:
                continue
            if found.st_dev != device:
                raise _mounted(full)
            entry = _describe(full, path, kind, found, inodes)
            if entry.kind is Kind.FILE:
                yield from _read_file(full, entry)
            else:
                yield format_header(entry)
            if kind is Kind.FOLDER:
                todo += _list(top, path)
        except OSError as error:
            raise _unreadable(full, error) from error
    yield END


def _list(top: Path, path: str) -> list[str]:
    """What is in a folder, last first."""
    try:
        names = os.listdir(f"{top}/{path}")  # noqa: PTH208 - names need not be text
    except OSError as error:
        raise _unreadable(f"{top}/{path}", error) from error
    return sorted((f"{path}/{name}" if path else name for name in names), reverse=True)


def _describe(full: str, path: str, kind: Kind, found: os.stat_result, inodes: dict[tuple[int, int], str]) -> Entry:
    if kind is not Kind.FOLDER and found.st_nlink > 1:
        first = inodes.setdefault((found.st_dev, found.st_ino), path)
        if first != path:
            return Entry(path, Kind.LINK, target=first)
    return Entry(
        path=path,
        kind=kind,
        mode=stat.S_IMODE(found.st_mode),
        uid=found.st_uid,
        gid=found.st_gid,
        mtime_ns=found.st_mtime_ns,
        size=found.st_size if kind is Kind.FILE else 0,
        target=os.readlink(full) if kind is Kind.SYMLINK else "",  # noqa: PTH115
        device=(os.major(found.st_rdev), os.minor(found.st_rdev)) if kind in (Kind.CHAR, Kind.BLOCK) else (0, 0),
        xattrs=_read_xattrs(full),
    )


def _read_xattrs(full: str) -> dict[str, bytes]:
    try:
        names = os.listxattr(full, follow_symlinks=False)
        return {
            name: os.getxattr(full, name, follow_symlinks=False) for name in sorted(names) if name.startswith(_XATTRS)
        }
    except OSError as error:
        if error.errno in _NO_XATTRS:
            return {}
        raise


def _read_file(full: str, entry: Entry) -> Iterator[bytes]:
    yield format_header(entry)
    left = entry.size
    with open(os.open(full, _READ), "rb", buffering=0) as file:  # noqa: PTH123
        while left:
            chunk = file.read(min(left, _CHUNK_BYTES))
            if not chunk:
                raise BangerError(f"{full!r} was changed while it was read", reason=Reason.WRONG_STATE)
            left -= len(chunk)
            yield chunk
    yield bytes(-entry.size % BLOCK_BYTES)


def _unreadable(full: str, error: OSError) -> BangerError:
    refused = error.errno in (errno.EACCES, errno.EPERM)
    return BangerError(
        f"cannot read {full!r}: {error.strerror}",
        reason=Reason.NO_PERMISSION if refused else Reason.IO,
        hint="whoever can read it can make a tar: sudo tar -C FOLDER -cf FILE ." if refused else "",
    )


def _mounted(full: str) -> BangerError:
    return BangerError(
        f"another filesystem is mounted at {full!r}",
        reason=Reason.BAD_INPUT,
        hint="unmount it, or make a tar: tar --one-file-system -C FOLDER -cf FILE .",
    )
