"""Owners: images and machines that live outside the store and hold hard links to the objects they use.

The link count is the reference count: an object with one link is held by nobody. Wiping the store takes nothing from an
owner, and an owner can give an object back. Where no hard link is possible, the owner gets a copy and does not count.

Promised: under the owner's name there is the whole object or nothing.
Not promised: that the name survives a power cut (an owner syncs its folder once, when all is there), or that a crash
during a copy leaves no hidden `.part` file beside it.
"""

from __future__ import annotations

import os
import stat
from pathlib import Path

from banger.errors import BangerError, Reason
from cache.digests import Object
from cache.failures import explained
from cache.files import copy_file, hash_file, try_link, try_reflink
from cache.layout import tmp_folder
from cache.objects import has, install_name
from cache.temporary import temporary_folder
from cache.trace import Point, reach

_READ = os.O_RDONLY | os.O_NOFOLLOW | os.O_NONBLOCK | os.O_CLOEXEC


def link(source: Path, obj: Object, destination: Path) -> None:
    """Give an owner the object at `source` as `destination`. A file of the same content that is there is fine."""
    with explained("link an object", destination.parent):
        try:
            if try_link(source, destination):
                reach(Point.OWNER_LINKED)
                return
            _link_copy(source, obj, destination)
        except FileExistsError:
            if not _is_content(destination, source, obj):
                raise BangerError(f"{destination} exists and is something else", reason=Reason.ALREADY_EXISTS) from None


def adopt(root: Path, owner_file: Path, obj: Object) -> None:
    """Put an owner's file back under its digest when the object is missing or cut short.

    It is read once more in any case: what was damaged in the store is damaged with its owner, too. A read-only file on
    the same filesystem is linked then, everything else copied: what can still be written must not become an object.
    """
    if has(root, obj):
        return
    with explained("adopt a file", root), temporary_folder(tmp_folder(root)) as folder:
        try:
            is_link = try_link(owner_file, folder / "link")
        except FileNotFoundError:
            raise BangerError(f"no such file: {owner_file}", reason=Reason.NOT_FOUND) from None
        source = folder / "link" if is_link else owner_file
        found = source.lstat()
        if not stat.S_ISREG(found.st_mode) or found.st_size != obj.size_bytes:
            raise _not_the_object(owner_file, obj)
        if is_link and not found.st_mode & 0o222:
            if not _has_content(source, obj):
                raise _not_the_object(owner_file, obj)
            install_name(root, source, obj)
        else:
            _make_copy(source, folder / "copy", obj)
            install_name(root, folder / "copy", obj)


def _link_copy(source: Path, obj: Object, destination: Path) -> None:
    part = destination.with_name(f".{destination.name[:200]}.{os.urandom(8).hex()}.part")
    try:
        _make_copy(source, part, obj)
        reach(Point.OWNER_COPIED)
        if not try_link(part, destination):  # a filesystem without hard links
            if destination.exists():
                raise FileExistsError
            part.replace(destination)
    finally:
        part.unlink(missing_ok=True)


def _make_copy(source: Path, new: Path, obj: Object) -> None:
    """A synced, read-only copy that was compared with the digest while it was made."""
    fd = os.open(source, _READ)
    try:
        copy = os.open(new, os.O_RDWR | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC, 0o600)
        try:
            copied = hash_file(copy) if try_reflink(fd, copy) else copy_file(fd, copy)
            if copied != (obj.digest, obj.size_bytes):
                raise _not_the_object(source, obj)
            os.fchmod(copy, 0o400)
            os.fsync(copy)
        finally:
            os.close(copy)
    finally:
        os.close(fd)


def _is_content(destination: Path, source: Path, obj: Object) -> bool:
    """Whether the existing `destination` is the object: the same file, or a copy of it."""
    found = destination.lstat()
    if os.path.samestat(found, source.lstat()):
        return True
    return stat.S_ISREG(found.st_mode) and found.st_size == obj.size_bytes and _has_content(destination, obj)


def _has_content(path: Path, obj: Object) -> bool:
    fd = os.open(path, _READ)
    try:
        return hash_file(fd) == (obj.digest, obj.size_bytes)
    finally:
        os.close(fd)


def _not_the_object(path: Path, obj: Object) -> BangerError:
    return BangerError(
        f"{path} is not object {obj.digest[:12]}: its size or content differs",
        reason=Reason.CORRUPT,
        hint="remove it and build again what needs it",
    )
