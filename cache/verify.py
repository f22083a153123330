"""Read everything in the store again and say what is not as it should be; with `repair`, take it out.

Promised: every object whose bytes do not hash to its name is found, at the pace of the disk, in memory that does not
grow with the number of objects. One that goes away or is replaced meanwhile is no finding, and neither are strangers
such as `lost+found`; what is missing is not looked for, since a cache may lack anything. Any number may run at once,
beside builds and gc; one that is interrupted can be gone on with, and forgets no finding that it did not repair.

Not promised: that an object is seen which gc has aside in that instant, or which comes into the store meanwhile; that
what was read before an interruption is read again; that what was built from bad bytes, before they were found, is any
good: nobody can tell when they went bad. A running program that uses a bad object has a link of its own and reads on;
it is named.
"""

from __future__ import annotations

import errno
import os
import stat
import threading
import time
from collections import deque
from collections.abc import Callable, Generator, Iterator, Mapping
from contextlib import suppress
from dataclasses import dataclass, replace
from enum import StrEnum
from pathlib import Path
from typing import TYPE_CHECKING

from cache import locks, quarantine
from cache.actions import parse_record
from cache.checkpoint import drop_checkpoint, find_checkpoint, measure_place, put_checkpoint
from cache.digests import Digest, Object
from cache.failures import explain, explained
from cache.files import hash_file
from cache.layout import gc_path, iterate_objects, iterate_records
from cache.leases import list_leases
from cache.locks import Holder
from cache.survey import name_owners
from cache.trace import Point, reach

if TYPE_CHECKING:
    from concurrent.futures import Future

_MAX_THREADS = 8
# So many are read or wait for one that comes before them. A large one may keep the others waiting.
_WINDOW = 1024
_SAVE_S = 1.0
_TELL_S = 0.1
# With more of them, an interrupted verification goes on from the first that was too many.
_MOST_BAD = 1000
_PLACE_LENGTH = len("ab/") + 64
# Refusals that say nothing of the file.
_SHORTAGES = {errno.EMFILE, errno.ENFILE, errno.ENOMEM}


class Problem(StrEnum):
    WRONG_SIZE = "wrong-size"
    WRONG_HASH = "wrong-hash"
    WRONG_NAME = "wrong-name"
    UNREADABLE = "unreadable"
    BAD_RECORD = "bad-record"
    QUARANTINED = "quarantined"


@dataclass(frozen=True)
class Finding:
    """One bad file. `digest` is what it is called, also when it is a record; `path` is where it was found.

    `owners` have a link to it and are as bad, `users` are running programs that read it. QUARANTINED is what was taken
    out earlier while an owner still has it.
    """

    path: Path
    digest: Digest
    problem: Problem
    detail: str
    owners: tuple[str, ...] = ()
    users: tuple[str, ...] = ()
    repaired: bool = False


class Verification:
    """One verification. Iterating over it, once, does the work and gives the findings; the counts grow meanwhile."""

    def __init__(
        self,
        root: Path,
        owners: Mapping[str, Path],
        *,
        repair: bool,
        resume: bool,
        on_progress: Callable[[Verification], None] | None,
        on_wait: Callable[[Holder], None] | None,
    ) -> None:
        self.resumed = find_checkpoint(root) if resume else None
        self.object_count = 0
        self.size_bytes = 0
        self.dropped_records = 0
        self._place = self._done = self.resumed.done if self.resumed is not None else ""
        self._bad = set(self.resumed.bad) if self.resumed is not None else set()
        self._is_full = False
        self._root = root
        self._owners = owners
        self._repair = repair
        self._on_progress = on_progress
        self._on_wait = on_wait
        self._sizes: dict[Digest, int] = {}
        self._guard = threading.Lock()
        self._stopped = False
        self._saved_at = self._told_at = time.monotonic()

    @property
    def fraction(self) -> float:
        return measure_place(self._place)

    def __iter__(self) -> Generator[Finding, None, None]:
        if self._repair:
            # What an earlier one was killed over.
            self.dropped_records += quarantine.drop_records(self._root)
        yield from self._check_quarantine()
        # Records before objects: they tell the right sizes, so that truncation is called so.
        yield from self._check_records()
        has_taken_out = False
        for finding in self._check_objects():
            has_taken_out |= finding.repaired
            yield finding
        if has_taken_out:
            self.dropped_records += quarantine.drop_records(self._root)
        drop_checkpoint(self._root)

    def _check_quarantine(self) -> Iterator[Finding]:
        names = name_owners(self._root, self._owners) if self._owners else {}
        for path, digest in quarantine.iterate_quarantined(self._root):
            with suppress(OSError):
                owners = names.get(path.lstat().st_ino)
                if owners and self._look(path, digest) is not None:
                    yield Finding(path, digest, Problem.QUARANTINED, "it was taken out earlier", tuple(sorted(owners)))

    def _check_records(self) -> Iterator[Finding]:
        for entry in iterate_records(self._root):
            path = Path(entry.path)
            finding = self._look_at_record(path)
            if finding is None:
                continue
            # Looked at again: somebody may just have written a good one.
            if self._repair and not path.is_dir() and self._look_at_record(path) is not None:
                with explained("drop a bad record", self._root):
                    path.unlink(missing_ok=True)
                self.dropped_records += 1
                finding = replace(finding, repaired=True)
                reach(Point.VERIFY_RECORD_DROPPED)
            yield finding

    def _look_at_record(self, path: Path) -> Finding | None:
        try:
            record = parse_record(path.read_bytes())
        except FileNotFoundError:
            return None
        except OSError as error:
            return self._tell_unreadable(path, Digest(path.name), error)
        except ValueError as error:
            return Finding(path, Digest(path.name), Problem.BAD_RECORD, str(error))
        self._sizes.update((made.digest, made.size_bytes) for made in record.outputs.values())
        return None

    def _check_objects(self) -> Iterator[Finding]:
        """Several are read at once; results come in the order of names."""
        from concurrent.futures import ThreadPoolExecutor  # brings logging, and every command imports this module

        pool = ThreadPoolExecutor(min(_MAX_THREADS, len(os.sched_getaffinity(0))), "verify")
        window: deque[tuple[str, Future[Finding | None]]] = deque()
        try:
            for place, path in self._list_places():
                window.append((place, pool.submit(self._read, path)))
                if len(window) == _WINDOW:
                    yield from self._finish(*window.popleft())
            while window:
                yield from self._finish(*window.popleft())
        except BaseException:
            self._save()
            raise
        finally:
            self._stopped = True
            pool.shutdown(cancel_futures=True)

    def _list_places(self) -> Iterator[tuple[str, Path]]:
        """All, or what an interrupted one left: what comes after it, and what was bad."""
        done, bad = self._done, frozenset(self._bad)
        for entry in iterate_objects(self._root):
            place = entry.path[-_PLACE_LENGTH:]
            if place > done or place in bad:
                yield place, Path(entry.path)

    def _finish(self, place: str, result: Future[Finding | None]) -> Iterator[Finding]:
        from concurrent.futures import wait

        while not result.done():
            wait([result], timeout=_TELL_S)
            self._tell()
        finding = result.result()
        if finding is not None:
            finding = self._judge(finding)
        if finding is None or finding.repaired:
            self._bad.discard(place)
        elif len(self._bad) < _MOST_BAD:
            self._bad.add(place)
        elif place not in self._bad:
            self._is_full = True
        self._place = max(self._place, place)
        if not self._is_full:
            self._done = self._place
        self._tell()
        if time.monotonic() - self._saved_at >= _SAVE_S:
            self._save()
        reach(Point.VERIFY_CHECKED)
        if finding is not None:
            yield finding

    def _judge(self, suspect: Finding) -> Finding | None:
        """What looked bad is looked at again before anything is said or done: it may have gone or been replaced."""
        try:
            if not self._repair:
                return self._name_holders(suspect.path, self._look_again(suspect.path, suspect))
            # One that gc has aside comes back before this begins.
            with locks.hold(gc_path(self._root), "cache verify --repair", self._on_wait):
                return self._take_out(suspect)
        except FileNotFoundError:
            return None

    def _take_out(self, suspect: Finding) -> Finding | None:
        aside = quarantine.take_out(self._root, suspect.path, suspect.digest)
        if aside is None:
            return None
        found = self._look_again(aside, suspect)
        if found is None:
            quarantine.put_back(self._root, aside, Object(suspect.digest, aside.lstat().st_size))
            return None
        return self._name_holders(aside, replace(found, path=suspect.path, repaired=True))

    def _name_holders(self, path: Path, finding: Finding | None) -> Finding | None:
        """`path` is where it is now."""
        if finding is None:
            return None
        found = path.lstat()
        leases = [lease for lease in list_leases(self._root) if finding.digest in lease.digests]
        owners = name_owners(self._root, self._owners).get(found.st_ino, [])
        if not owners and found.st_nlink - 1 > len(leases) and stat.S_ISREG(found.st_mode):
            owners = ["somebody outside"]
        users = [
            f"process {lease.holder.pid} ({lease.holder.what})" if lease.holder is not None else "a running program"
            for lease in leases
            if lease.is_live
        ]
        return replace(finding, owners=tuple(sorted(owners)), users=tuple(sorted(users)))

    def _look_again(self, path: Path, suspect: Finding) -> Finding | None:
        return suspect if suspect.problem is Problem.WRONG_NAME else self._look(path, suspect.digest)

    def _read(self, path: Path) -> Finding | None:
        """In a thread."""
        digest = Digest(path.name)
        try:
            if path.parent.name != digest[:2]:
                finding: Finding | None = Finding(path, digest, Problem.WRONG_NAME, f"belongs into {digest[:2]}")
            else:
                finding = self._look(path, digest, self._count)
        except (FileNotFoundError, _StoppedError):
            return None
        with self._guard:
            self.object_count += 1
        return finding

    def _look(self, path: Path, digest: Digest, on_bytes: Callable[[int], None] | None = None) -> Finding | None:
        try:
            fd = os.open(path, os.O_RDONLY | os.O_NOFOLLOW | os.O_NONBLOCK | os.O_CLOEXEC)
            try:
                # What is in memory says nothing of the disk.
                with suppress(OSError):
                    os.posix_fadvise(fd, 0, 0, os.POSIX_FADV_DONTNEED)
                found_digest, found_size_bytes = hash_file(fd, on_bytes)
            finally:
                os.close(fd)
        except FileNotFoundError:
            raise
        except OSError as error:
            return self._tell_unreadable(path, digest, error)
        if found_digest == digest:
            return None
        right_size_bytes = self._sizes.get(digest)
        if right_size_bytes is not None and found_size_bytes != right_size_bytes:
            return Finding(path, digest, Problem.WRONG_SIZE, f"{found_size_bytes} bytes instead of {right_size_bytes}")
        return Finding(path, digest, Problem.WRONG_HASH, f"its content is {found_digest}")

    def _tell_unreadable(self, path: Path, digest: Digest, error: OSError) -> Finding:
        if error.errno in _SHORTAGES:
            raise explain(error, "read the store", self._root) from error
        return Finding(path, digest, Problem.UNREADABLE, error.strerror or str(error))

    def _count(self, size_bytes: int) -> None:
        with self._guard:
            self.size_bytes += size_bytes
        if self._stopped:
            raise _StoppedError

    def _tell(self) -> None:
        now = time.monotonic()
        if self._on_progress is not None and now - self._told_at >= _TELL_S:
            self._told_at = now
            self._on_progress(self)

    def _save(self) -> None:
        if self._done:
            put_checkpoint(self._root, self._done, frozenset(self._bad))
        self._saved_at = time.monotonic()


class _StoppedError(Exception):
    """A thread was told to stop reading."""
