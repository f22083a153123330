"""Quarantine: bad objects that `verify` took out of the store, kept for a while to be looked at by a person.

An object is moved away first, and looked at again where nobody replaces it. Its records go afterwards, since a record
whose object is missing is a miss: killed at any point, none is a hit on bad bytes any more. What is in quarantine and
not in the store tells which records are left to be dropped, so the next repair ends what was begun.

Promised: no bytes come back from here under the name of an object unless they are what the name says.
Not promised: anything for those who hold links of their own; they keep the bad bytes, and are named.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import suppress
from pathlib import Path

from cache.actions import parse_record
from cache.digests import Digest, Object, is_digest
from cache.failures import explained
from cache.files import find_file, make_folder, sync_folder
from cache.layout import iterate_records, object_path, quarantine_folder
from cache.leases import note_use
from cache.objects import install_name
from cache.trace import Point, reach

KEPT_S = 30 * 24 * 3600.0
_DIGEST_LENGTH = 64


def take_out(root: Path, path: Path, digest: Digest) -> Path | None:
    """Move a file of the store's to quarantine; gives where it is. None when it is not there any more.

    For one who holds the lock of gc, which would put back what it has aside.
    """
    folder = quarantine_folder(root)
    with explained("move a bad object to quarantine", root):
        make_folder(folder)
        aside, number = folder / digest, 1
        while aside.is_symlink() or aside.exists():  # the same object went bad before
            aside, number = folder / f"{digest}.{number}", number + 1
        # How long it is here is counted from now on.
        note_use(path)
        try:
            path.rename(aside)
        except FileNotFoundError:
            return None
        reach(Point.VERIFY_QUARANTINED)
        with suppress(FileNotFoundError):  # the whole cache was wiped
            sync_folder(folder)
            sync_folder(path.parent)
    return aside


def put_back(root: Path, aside: Path, obj: Object) -> None:
    """Undo `take_out` for one that turned out to be good: another had just replaced the bad one."""
    with explained("put an object back", root):
        install_name(root, aside, obj)
        aside.unlink(missing_ok=True)


def iterate_quarantined(root: Path) -> Iterator[tuple[Path, Digest]]:
    """In the order of names."""
    with explained("list the quarantine", root):
        try:
            paths = sorted(quarantine_folder(root).iterdir())
        except (FileNotFoundError, NotADirectoryError):
            return
    for path in paths:
        if is_digest(path.name[:_DIGEST_LENGTH]):
            yield path, Digest(path.name[:_DIGEST_LENGTH])


def drop_records(root: Path) -> int:
    """Drop the records that speak of what is in quarantine and was not made again; gives how many there were."""
    taken_out = {digest for _, digest in iterate_quarantined(root)}
    count = 0
    with explained("drop records", root):
        for entry in iterate_records(root) if taken_out else ():
            path = Path(entry.path)
            try:
                outputs = parse_record(path.read_bytes()).outputs.values()
            except (OSError, ValueError):
                continue
            if any(made.digest in taken_out and not _is_there(root, made.digest) for made in outputs):
                path.unlink(missing_ok=True)
                count += 1
                reach(Point.VERIFY_RECORD_DROPPED)
    return count


def drop_old(root: Path, now: float) -> None:
    """Remove what was here for long enough, unless somebody holds it: that would free nothing.

    Never fails; what cannot be removed stays.
    """
    with suppress(OSError):
        for path in list(quarantine_folder(root).iterdir()):
            with suppress(OSError):
                found = path.lstat()
                if found.st_mtime > now + KEPT_S:
                    # The clock was wrong, or is now.
                    note_use(path)
                elif found.st_nlink == 1 and now - found.st_mtime > KEPT_S:
                    path.unlink()


def _is_there(root: Path, digest: Digest) -> bool:
    return find_file(object_path(root, digest)) is not None
