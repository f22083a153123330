"""What this user has under a name: images and kernels, each a folder of hard links to the store's objects.

The links keep the content when the cache is wiped; `manifest.json` beside them says what each file is, and carries
the records of the steps that made it, so that the store can be told again what it once knew. A name is replaced as
a whole (rename), so a reader sees the old content or the new, never a mix, and it is on the disk before it is there.

What is being made lies in `.unfinished`, each in a folder that its maker holds locked; what a maker that died left
there goes when the next name is given.
"""

from __future__ import annotations

import contextlib
import errno
import json
import os
import time
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from banger.errors import BangerError, Reason
from cache import Digest, Object, Record, Store, format_record, parse_record
from cache.failures import explain, explained
from cache.files import find_file, hash_file, make_folder, sync_folder, try_exchange
from cache.temporary import remove_stale, temporary_folder
from cache.trace import Point, reach
from catalog.names import format_folder, nearest
from catalog.origin import tell_remake

_FORMAT = 1


@dataclass(frozen=True)
class Named:
    """An image or a kernel, as `what` says.

    `files` are the objects by role; `details` is free for the kind (`kernel`, `summary`).
    """

    what: str
    name: str
    folder: Path
    files: Mapping[str, Object]
    records: Mapping[Digest, Record]
    details: Mapping[str, Any]
    made_at: float

    def path(self, role: str) -> Path:
        return self.folder / role

    @property
    def size_bytes(self) -> int:
        return sum(made.size_bytes for made in self.files.values())

    def restore(self, store: Store) -> None:
        """Give the store back what it may have lost: the objects by hard link, and the records that name them.

        CORRUPT when a file that the store lacks is not what it was: often the store lacks it for that reason, since its
        bytes are those of the store. Then no record is given back either.
        """
        for role, made in self.files.items():
            if not store.has(made):
                try:
                    store.adopt(self.path(role), made)
                except BangerError as error:
                    if error.reason not in (Reason.CORRUPT, Reason.NOT_FOUND):
                        raise
                    raise BangerError(
                        f"the {self.what} {self.name!r} is damaged: its file {role!r} is not what it was",
                        reason=Reason.CORRUPT,
                        hint=tell_remake(self.what, self.name, self.details),
                    ) from error
        for key, record in self.records.items():
            if store.find_record(key) is None:
                store.put_record(key, record)

    def is_whole(self, store: Store, *, read: bool) -> bool:
        """Whether all of its files are there in their size; with `read`, whether they are what the store has.

        Those that are links to the store's objects are not read: `verify` reads them there.
        """
        return all(self._has_file(store, role, made, read=read) for role, made in self.files.items())

    def _has_file(self, store: Store, role: str, made: Object, *, read: bool) -> bool:
        path = self.path(role)
        try:
            found = find_file(path)
            if found is None or found.st_size != made.size_bytes:
                return False
            if not read or (store.has(made) and path.samefile(store.path(made))):
                return True
            with path.open("rb") as file:
                return hash_file(file.fileno()) == (made.digest, made.size_bytes)
        except OSError:
            return False


class Names:
    """All names of one kind (`what`: "image" or "kernel") below a folder."""

    def __init__(self, folder: Path, what: str) -> None:
        self.folder = folder
        self.what = what

    def find(self, name: str, *, may_be_damaged: bool = False) -> Named | None:
        """None for a name that is not there; an unreadable manifest is an error, not a miss.

        To somebody who is about to replace it, that is the same: `may_be_damaged`.
        """
        try:
            return self._read(self.folder / format_folder(name, self.what), name)
        except BangerError as error:
            if may_be_damaged and error.reason is Reason.CORRUPT:
                return None
            raise

    def _read(self, folder: Path, name: str) -> Named | None:
        try:
            manifest = json.loads((folder / "manifest.json").read_text())
        except FileNotFoundError:
            return None
        except OSError as error:
            raise explain(error, f"read the {self.what} {name!r}", folder) from error
        except ValueError as error:
            raise self._damaged(name) from error
        if not isinstance(manifest, dict) or "format" not in manifest:
            raise self._damaged(name)
        if manifest["format"] != _FORMAT:
            raise BangerError(
                f"the {self.what} {name!r} was made by another version of banger",
                reason=Reason.WRONG_STATE,
                hint=f"remove {folder} and build it again",
            )
        try:
            return Named(
                what=self.what,
                name=manifest.get("name", name),
                folder=folder,
                files={role: Object(Digest(made[0]), made[1]) for role, made in manifest["files"].items()},
                records={
                    Digest(key): parse_record(text.encode("utf-8", "surrogatepass"))
                    for key, text in manifest["records"].items()
                },
                details=manifest["details"],
                made_at=manifest["made_at"],
            )
        except (KeyError, IndexError, TypeError, AttributeError, ValueError, BangerError) as error:
            raise self._damaged(name) from error

    def get(self, name: str) -> Named:
        found = self.find(name)
        if found is None:
            known = [each.name for each in self.list()]
            raise BangerError(
                f"there is no {self.what} {name!r} here",
                reason=Reason.NOT_FOUND,
                hint=nearest(name, known) or f"what can be had: banger {self.what} list --available",
            )
        return found

    def list(self, on_damaged: Callable[[BangerError], None] | None = None) -> Iterator[Named]:
        """Sorted by name. One that cannot be read is an error, or told and left out."""
        for folder in self._list_folders():
            try:
                found = self._read(folder, folder.name)
            except BangerError as error:
                if on_damaged is None:
                    raise
                on_damaged(error)
                continue
            if found is not None:
                yield found

    def list_words(self) -> Iterator[str]:
        """All that are no references, also those whose manifest cannot be read."""
        return (folder.name for folder in self._list_folders() if "%" not in folder.name)

    def _list_folders(self) -> Iterator[Path]:
        if not self.folder.is_dir():
            return
        for folder in sorted(self.folder.iterdir()):
            # One with a leading dot is being made, or was when somebody died.
            if not folder.name.startswith(".") and (folder / "manifest.json").exists():
                yield folder

    def put(
        self,
        name: str,
        store: Store,
        files: Mapping[str, Object],
        records: Mapping[Digest, Record],
        details: Mapping[str, Any],
    ) -> Named:
        """Give objects a name, or move a name to other objects: wholly, or not at all when the disk refuses."""
        folder = self.folder / format_folder(name, self.what)
        manifest = {
            "format": _FORMAT,
            "name": name,
            "files": {role: [made.digest, made.size_bytes] for role, made in files.items()},
            "records": {key: format_record(record).decode("utf-8", "surrogatepass") for key, record in records.items()},
            "details": dict(details),
            "made_at": time.time(),
        }
        unfinished = self.folder / ".unfinished"
        with explained(f"name the {self.what} {name!r}", self.folder):
            make_folder(self.folder)
            remove_stale(unfinished)
            try:
                with temporary_folder(unfinished) as work:
                    fresh = work / "new"
                    fresh.mkdir(mode=0o700)
                    for role, made in files.items():
                        store.link(made, fresh / role)
                    _write_synced(fresh / "manifest.json", json.dumps(manifest, indent=1, sort_keys=True) + "\n")
                    sync_folder(fresh)
                    reach(Point.NAME_FILLED)
                    _exchange(fresh, folder, work / "old")
                    reach(Point.NAME_MOVED)
                    sync_folder(self.folder)
            finally:
                # It stays while another name is being made.
                with contextlib.suppress(OSError):
                    unfinished.rmdir()
        return self.get(name)

    def remove(self, name: str) -> None:
        """Take a name away, with its files; objects that nobody else holds stay in the store until it is cleaned."""
        folder = self.get(name).folder
        unfinished = self.folder / ".unfinished"
        with explained(f"remove the {self.what} {name!r}", self.folder), temporary_folder(unfinished) as work:
            folder.rename(work / "old")
            sync_folder(self.folder)
        with contextlib.suppress(OSError):
            unfinished.rmdir()

    def _damaged(self, name: str) -> BangerError:
        return BangerError(
            f"the manifest of {self.what} {name!r} is damaged",
            reason=Reason.CORRUPT,
            hint=f"remove {self.folder / format_folder(name, self.what)} and build it again",
        )


def _write_synced(path: Path, text: str) -> None:
    with path.open("w", encoding="utf-8") as file:
        file.write(text)
        file.flush()
        os.fsync(file.fileno())


def _exchange(fresh: Path, folder: Path, old: Path) -> None:
    """Put `fresh` in the place of `folder`; what was there is at `old` afterwards, or at `fresh`."""
    try:
        fresh.rename(folder)
    except OSError as error:
        if error.errno not in (errno.ENOTEMPTY, errno.EEXIST, errno.ENOTDIR):
            raise
        # There is an old one, not empty.
        if try_exchange(fresh, folder):
            return
        # Two renames: in between the name is missing for an instant, and a crash there leaves it missing, which the
        # next build mends; a mix of both is never seen.
        folder.rename(old)
        try:
            fresh.rename(folder)
        except BaseException:
            old.rename(folder)
            raise
