"""Leases: what a running program has seen in the store stays there for it, whatever `gc` or another does meanwhile.

A lease is a folder in `leases/` with a hard link to each object that its program was told of. So an object in use has
more than one link, as one that an owner holds, and is read by that link: even one that is taken away in the same
instant is there to the end. The folder is locked by its program; when that ends in whatever way, the next one that
opens the store removes it (see `temporary`). No clock and no process id plays a part.

Promised: once `hold` said that an object is there, it is there until the lease ends.
Not promised on a filesystem without hard links: there `gc` does nothing while anybody has a lease. Nor when somebody
wipes the whole cache: the lease goes with it, and its program sees what there is from then on, without holding it.
"""

from __future__ import annotations

import os
import time
from collections.abc import Iterator, Mapping, Set
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path

from cache.digests import Digest, Object, is_digest
from cache.failures import explained
from cache.files import find_file, try_link
from cache.layout import leases_folder, object_path
from cache.locks import Holder, format_holder, parse_holder
from cache.temporary import is_claimed, temporary_folder
from cache.trace import Point, reach

_ABOUT = "about"
# How exact the time of the last use is. Finer would be a write for every look.
USE_PRECISION_S = 600.0


@dataclass(frozen=True)
class Lease:
    """Somebody's, as `gc` sees it. No holder is one who did not (yet) say; one that is not live holds nothing.

    `inodes` are those of its links: a file that was put anew under the same digest is not the one that it holds.
    """

    holder: Holder | None
    inodes: Mapping[Digest, int]
    is_live: bool

    @property
    def digests(self) -> Set[Digest]:
        return self.inodes.keys()


@contextmanager
def lease(root: Path, what: str) -> Iterator[Path]:
    """A folder for what is held until the block ends."""
    with temporary_folder(leases_folder(root)) as folder:
        with suppress(OSError):  # a courtesy, as with locks
            (folder / _ABOUT).write_bytes(format_holder(what))
        reach(Point.LEASE_MADE)
        yield folder


def hold(root: Path, folder: Path, obj: Object) -> bool:
    """Whether the object is there with the right size; then it stays. Says also that it was used now."""
    place, source = folder / obj.digest, object_path(root, obj.digest)
    with explained("hold an object", root):
        found = find_file(place)
        if found is not None and found.st_size == obj.size_bytes:
            return True
        if found is not None:
            # It was cut short when it was linked, and may be whole now.
            place.unlink(missing_ok=True)
        found = find_file(source)
        if found is None or found.st_size != obj.size_bytes:
            return False
        try:
            is_linked = try_link(source, place)
        except FileExistsError:  # another thread of ours
            is_linked = True
        except FileNotFoundError:
            if folder.exists():
                return False
            is_linked = False  # the cache was wiped, and this lease with it
        found = find_file(place if is_linked else source)
        if found is None or found.st_size != obj.size_bytes:
            return False
        reach(Point.LEASE_HELD)
        if not 0 <= time.time() - found.st_mtime < USE_PRECISION_S:
            note_use(place if is_linked else source)
    return True


def find_held(folder: Path, obj: Object) -> Path | None:
    """Its link; None on a filesystem without hard links."""
    place = folder / obj.digest
    return place if find_file(place) is not None else None


def note_use(path: Path) -> None:
    """The time of a file's last change is that of its last use, since its content never changes."""
    with suppress(OSError):  # a store that can only be read serves, too
        os.utime(path, follow_symlinks=False)


def list_leases(root: Path) -> list[Lease]:
    found: list[Lease] = []
    for name in _list_leases(root):
        folder = leases_folder(root) / name
        try:
            is_live = is_claimed(folder)
            inodes = _list_links(folder)
        except FileNotFoundError:
            continue
        except OSError:
            # Nobody can tell, so somebody may use anything.
            is_live, inodes = True, {}
        found.append(Lease(_find_holder(folder), inodes, is_live))
    return found


def _list_leases(root: Path) -> list[str]:
    with explained("see who uses the store", root):
        try:
            return _list_names(leases_folder(root))
        except FileNotFoundError:
            return []


def _list_links(folder: Path) -> dict[Digest, int]:
    with os.scandir(folder) as entries:
        # Not `inode()`: what a folder says of it is not everywhere what stat(2) says.
        return {
            Digest(entry.name): entry.stat(follow_symlinks=False).st_ino for entry in entries if is_digest(entry.name)
        }


def _list_names(folder: Path) -> list[str]:
    with os.scandir(folder) as entries:
        return [entry.name for entry in entries]


def _find_holder(folder: Path) -> Holder | None:
    try:
        return parse_holder((folder / _ABOUT).read_bytes())
    except OSError:
        return None
