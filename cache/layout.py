"""The folders of a store, and the number of their format.

    CACHEDIR.TAG          tells backup programs to pass by (https://bford.info/cachedir/)
    version               the format, a decimal number; written last when a store is made
    objects/ab/<digest>   immutable files, mode 0400
    actions/ab/<key>      records: which step, on which inputs, gave which objects
    locks/<key>           flocks, see `locks`
    leases/<random>       hard links to what running programs use, see `leases`
    quarantine/<digest>   what `verify` took out, to be looked at by a person
    tmp/<random>          what is being written, see `temporary`
    growth                how much came since somebody counted, see `growth`
    gc, verify            who does that now, and how far the last verification came
    gc-<digest>, gc-<key> what gc has in its hand, see `collect`

Everything is in one folder with mode 0700 on one filesystem, so that a finished file gets its name by link or rename.
A folder that is missing is made again when something is to be put into it: somebody may wipe the cache beside us.

A store has one user. Root is refused, too, where another owns the folder: what root left there (`sudo` with HOME kept)
that user could neither read nor remove.
"""

from __future__ import annotations

import os
import pwd
from collections.abc import Iterator
from contextlib import suppress
from pathlib import Path

from banger.errors import BangerError, Reason
from cache.digests import Digest, is_digest, parse_digest
from cache.failures import explained
from cache.files import make_folder
from cache.temporary import replace_file

FORMAT = 1

# The first line is the specification's; readers compare its 43 bytes.
_TAG = b"""Signature: 8a477f597d28d172789f06886806bc55
# This folder is a cache: everything in it can be made again.
"""


def object_path(root: Path, digest: Digest) -> Path:
    return root.joinpath("objects", digest[:2], parse_digest(digest))


def record_path(root: Path, key: Digest) -> Path:
    return root.joinpath("actions", key[:2], parse_digest(key))


def lock_path(root: Path, key: Digest) -> Path:
    return locks_folder(root) / parse_digest(key)


def objects_folder(root: Path) -> Path:
    return root / "objects"


def actions_folder(root: Path) -> Path:
    return root / "actions"


def locks_folder(root: Path) -> Path:
    return root / "locks"


def leases_folder(root: Path) -> Path:
    return root / "leases"


def quarantine_folder(root: Path) -> Path:
    return root / "quarantine"


def gc_path(root: Path) -> Path:
    return root / "gc"


def verify_path(root: Path) -> Path:
    return root / "verify"


def growth_path(root: Path) -> Path:
    return root / "growth"


def tmp_folder(root: Path) -> Path:
    return root / "tmp"


def ensure_layout(root: Path) -> None:
    """Make what is missing; refuse a store of another user, or that a newer program wrote.

    Several processes may do it at once.
    """
    with explained("open the store", root):
        _refuse_foreign(root)
        found = find_format(root)
        if found is None:
            make_folder(root)
            root.chmod(0o700)
        for folder in (objects_folder(root), actions_folder(root), locks_folder(root), tmp_folder(root)):
            make_folder(folder)
        if found is None:
            # Two processes that make the same store write the same bytes, so the last one may win.
            replace_file(tmp_folder(root), root / "CACHEDIR.TAG", _TAG)
            replace_file(tmp_folder(root), root / "version", b"%d\n" % FORMAT)


def _refuse_foreign(root: Path) -> None:
    """What counts is whose the folder is, not whose a link to it."""
    try:
        owner = root.stat().st_uid
    except FileNotFoundError:
        return
    if owner != os.geteuid():
        raise BangerError(
            f"the store at {root} belongs to {_name_user(owner)}, and this is {_name_user(os.geteuid())}",
            reason=Reason.NO_PERMISSION,
            hint="run this as that user, or with a cache folder of your own (with sudo: `sudo -H`)",
        )


def _name_user(uid: int) -> str:
    try:
        return pwd.getpwuid(uid).pw_name
    except KeyError:
        return f"user {uid}"


def is_read_only(root: Path) -> bool:
    """Whether its filesystem is mounted so that nobody can write there. Mode bits are another matter."""
    with suppress(OSError):
        return bool(os.statvfs(root).f_flag & os.ST_RDONLY)
    return False


def find_format(root: Path) -> int | None:
    """The number of a store's format; None where there is no store. Raises for one that this program cannot use."""
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


def iterate_objects(root: Path) -> Iterator[os.DirEntry[str]]:
    """Every file under `objects/` that is named like an object. Strangers (`lost+found`, notes) are passed by."""
    return _iterate_shelves(objects_folder(root))


def iterate_records(root: Path) -> Iterator[os.DirEntry[str]]:
    return _iterate_shelves(actions_folder(root))


def _iterate_shelves(folder: Path) -> Iterator[os.DirEntry[str]]:
    """In the order of names, and holding no more than one of the 256 shelves."""
    shelves = [shelf for shelf in _list(folder) if len(shelf.name) == 2]
    for shelf in shelves:
        yield from (file for file in _list(Path(shelf.path)) if is_digest(file.name))


def _list(folder: Path) -> list[os.DirEntry[str]]:
    with explained("list the store", folder):
        try:
            with os.scandir(folder) as entries:
                return sorted(entries, key=lambda entry: entry.name)
        except (FileNotFoundError, NotADirectoryError):
            return []
