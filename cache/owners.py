"""Owners: images and machines that live outside the store and hold hard links to the objects they use.

The link count is the reference count: an object with one link is held by nobody. Wiping the store takes nothing from an
owner, and an owner can give an object back. Where no hard link is possible, the owner gets a copy and counts for nothing.

Not promised: that an owner's new name survives a power cut (it syncs its folder once, when all is there), or that
a crash during a copy leaves no hidden `.part` file beside the destination; under the name itself there is all or nothing.
"""

from __future__ import annotations

import os
import stat
from pathlib import Path

from banger.errors import BangerError, Reason
from cache.digests import Object
from cache.failures import explained
from cache.files import copy_file, hash_file, try_link, try_reflink
from cache.layout import temporary_folder
from cache.objects import get_path, has, install_name
from cache.temporary import temporary_file

_READ = os.O_RDONLY | os.O_NOFOLLOW | os.O_NONBLOCK | os.O_CLOEXEC


def link(root: Path, obj: Object, destination: Path) -> None:
    """Give an owner the object as `destination`. A file of the same content that is there already is fine."""
    source = get_path(root, obj)
    with explained("link an object", destination.parent):
        try:
            if try_link(source, destination):
                return
            _link_copy(source, obj, destination)
        except FileExistsError:
            if not _is_content(destination, source, obj):
                raise BangerError(
                    f"{destination} exists and is something else", reason=Reason.ALREADY_EXISTS
                ) from None


def adopt(root: Path, owner_file: Path, obj: Object) -> None:
    """Put an owner's file back under its digest when the object is missing or cut short.

    A read-only file on the same filesystem is linked, and trusted by its size. Everything else is copied and hashed: a file
    that can still be written must not become an object.
    """
    if has(root, obj):
        return
    with explained("adopt a file", root):
        try:
            fd = os.open(owner_file, _READ)
        except FileNotFoundError:
            raise BangerError(f"no such file: {owner_file}", reason=Reason.NOT_FOUND) from None
        try:
            found = os.fstat(fd)
            if not stat.S_ISREG(found.st_mode) or found.st_size != obj.size_bytes:
                raise _not_the_object(owner_file, obj)
            with temporary_file(temporary_folder(root)) as (path, new):
                _link_or_copy(owner_file, fd, path, new, obj)
                install_name(root, path, obj)
        finally:
            os.close(fd)


def _link_or_copy(owner_file: Path, fd: int, path: Path, new: int, obj: Object) -> None:
    """Fill the temporary file `path`, which is open as `new`, or put a link in its place."""
    if not os.fstat(fd).st_mode & 0o222:
        # A second name first, because a link cannot replace and the object's name may be taken by a truncated file.
        second = path.with_name(f"{path.name}.link")
        if try_link(owner_file, second):
            second.replace(path)
            return
    _copy(fd, new, obj, owner_file)


def _link_copy(source: Path, obj: Object, destination: Path) -> None:
    part = destination.with_name(f".{destination.name[:200]}.{os.urandom(8).hex()}.part")
    fd = os.open(source, _READ)
    try:
        new = os.open(part, os.O_RDWR | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC, 0o600)
        try:
            if not try_reflink(fd, new):
                _copy(fd, new, obj, source)
            os.fchmod(new, 0o400)
            os.fsync(new)
            if not try_link(part, destination):  # a filesystem without hard links
                if destination.exists():
                    raise FileExistsError
                part.replace(destination)
        finally:
            os.close(new)
            part.unlink(missing_ok=True)
    finally:
        os.close(fd)


def _copy(fd: int, new: int, obj: Object, source: Path) -> None:
    if copy_file(fd, new) != (obj.digest, obj.size_bytes):
        raise _not_the_object(source, obj)
    os.fchmod(new, 0o400)
    os.fsync(new)


def _is_content(destination: Path, source: Path, obj: Object) -> bool:
    """Whether the existing `destination` is the object: the same file, or a copy of it."""
    found = destination.lstat()
    if os.path.samestat(found, source.lstat()):
        return True
    if not stat.S_ISREG(found.st_mode) or found.st_size != obj.size_bytes:
        return False
    fd = os.open(destination, _READ)
    try:
        return hash_file(fd)[0] == obj.digest
    finally:
        os.close(fd)


def _not_the_object(path: Path, obj: Object) -> BangerError:
    return BangerError(
        f"{path} is not object {obj.digest[:12]}: its size or content differs",
        reason=Reason.CORRUPT,
        hint="remove it and build again what needs it",
    )
