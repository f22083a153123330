"""The folders of a store, and the number of their format.

    CACHEDIR.TAG          tells backup programs to pass by (https://bford.info/cachedir/)
    version               the format, a decimal number; written last when a store is made
    objects/ab/<digest>   immutable files, mode 0400
    actions/ab/<key>      records: which step, on which inputs, gave which objects
    locks/<key>           flocks, see `locks`; never removed
    tmp/<random>          what is being written, see `temporary`

Everything is under one folder with mode 0700 on one filesystem, so that a finished file gets its name by link or rename.
A folder that is missing is made again when something is to be put into it: somebody may wipe the cache beside us.
"""

from __future__ import annotations

import os
from pathlib import Path

from banger.errors import BangerError, Reason
from cache.digests import Digest, parse_digest
from cache.failures import explained
from cache.files import make_folder, sync_folder, write_all

FORMAT = 1

# The first line is the specification's; readers compare its 43 bytes.
_TAG = b"""Signature: 8a477f597d28d172789f06886806bc55
# This folder is a cache: everything in it can be made again.
"""


def object_path(root: Path, digest: Digest) -> Path:
    return objects_folder(root) / digest[:2] / parse_digest(digest)


def record_path(root: Path, key: Digest) -> Path:
    return actions_folder(root) / key[:2] / parse_digest(key)


def lock_path(root: Path, key: Digest) -> Path:
    return root / "locks" / parse_digest(key)


def objects_folder(root: Path) -> Path:
    return root / "objects"


def actions_folder(root: Path) -> Path:
    return root / "actions"


def temporary_folder(root: Path) -> Path:
    return root / "tmp"


def ensure_layout(root: Path) -> None:
    """Make the folders where they are missing; refuse a store that a newer program wrote. Idempotent, also beside others."""
    with explained("open the store", root):
        found = _find_format(root)
        if found is None:
            make_folder(root)
            root.chmod(0o700)
        for folder in (objects_folder(root), actions_folder(root), root / "locks", temporary_folder(root)):
            make_folder(folder)
        if found is None:
            _write_once(root / "CACHEDIR.TAG", _TAG)
            _write_once(root / "version", b"%d\n" % FORMAT)


def _find_format(root: Path) -> int | None:
    try:
        text = (root / "version").read_bytes()
    except FileNotFoundError:
        return None
    try:
        found = int(text)
    except ValueError:
        found = 0
    if found > FORMAT:
        raise BangerError(
            f"the store at {root} has format {found}; this program knows formats up to {FORMAT}",
            reason=Reason.WRONG_STATE,
            hint="a newer version made it: use that one, or another folder",
        )
    if found < 1:
        raise BangerError(
            f"the store at {root} has an unreadable format number",
            reason=Reason.CORRUPT,
            hint=f"it is only a cache: remove {root} and it is made anew",
        )
    return found


def _write_once(path: Path, content: bytes) -> None:
    """Whole or not at all. Two processes that make the same store write the same bytes, so the last one may win."""
    new = path.with_name(f".{path.name}.{os.getpid()}.{os.urandom(4).hex()}")
    fd = os.open(new, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC, 0o600)
    try:
        write_all(fd, content)
        os.fsync(fd)
        new.replace(path)
        sync_folder(path.parent)
    except BaseException:
        new.unlink(missing_ok=True)
        raise
    finally:
        os.close(fd)
