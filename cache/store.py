"""The store: one folder of objects named by their content, and of records which step gave which objects.

It can be wiped at any time; what is missing is made again. Several processes and threads may use one store at once. All
that is in it is on the disk before its name is there (fsync, then link), so a power cut loses work but breaks nothing.
A store belongs to one user on a filesystem of one host: flock over a network is not relied upon.

A Store holds nothing open: it is a path and may be copied into threads, forks and other processes. One that is
`leased` is a path with a lease: for as long as that lasts, nothing that it was told of goes away.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from contextlib import AbstractContextManager, contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import IO, TYPE_CHECKING

from blake3 import blake3

from cache import actions, growth, layout, leases, locks, objects, owners, temporary
from cache.actions import Record
from cache.digests import Digest, Object
from cache.growth import Growth
from cache.locks import Holder
from cache.objects import ObjectWriter

if TYPE_CHECKING:
    from cache.collect import Collection, Policy
    from cache.usage import Usage
    from cache.verify import Verification

_CHUNK_BYTES = 1 << 20


@dataclass(frozen=True)
class Store:
    """Every method raises BangerError for what the disk refuses: NO_SPACE, NO_PERMISSION, or IO for the rest."""

    root: Path
    lease: Path | None = None

    @classmethod
    def open(cls, root: Path) -> Store:
        """Make the store where it is missing, and remove what dead processes left half-done."""
        root = root.absolute()
        layout.ensure_layout(root)
        temporary.remove_stale(layout.tmp_folder(root))
        temporary.remove_stale(layout.leases_folder(root))
        return cls(root)

    @contextmanager
    def leased(self, what: str) -> Iterator[Store]:
        """The store for one who builds: what it puts there or was told is there stays until the block ends.

        `what` is for people who ask why something cannot go. On a read-only filesystem nothing goes, and nobody has to
        be told.
        """
        if layout.is_read_only(self.root):
            yield self
            return
        with leases.lease(self.root, what) as lease:
            yield Store(self.root, lease)

    def writer(self) -> AbstractContextManager[ObjectWriter]:
        """A file object to write to and then `commit()`. Left without a commit, nothing remains."""
        return objects.writer(self.root, self.lease)

    def put_file(self, path: Path) -> Object:
        """Take over a finished file made under `temporary_dir()`, without a copy. Its name there is gone afterwards."""
        return objects.put_file(self.root, self.lease, path)

    def put_stream(self, source: IO[bytes]) -> Object:
        """Store what `source` gives up to its end. Its own errors pass through as they are."""
        with self.writer() as new:
            while data := source.read(_CHUNK_BYTES):
                new.write(data)
            return new.commit()

    def put_bytes(self, data: bytes) -> Object:
        obj = Object(Digest(blake3(data).hexdigest()), len(data))
        if self.has(obj):
            return obj
        with self.writer() as new:
            new.write(data)
            return new.commit()

    def has(self, obj: Object) -> bool:
        """Present and of the right size."""
        return objects.has(self.root, obj) if self.lease is None else leases.hold(self.root, self.lease, obj)

    def has_outputs(self, record: Record) -> bool:
        """Whether a record is a hit: all that it speaks of is still here."""
        return all(self.has(obj) for obj in record.outputs.values())

    def path(self, obj: Object) -> Path:
        """Where to read the object: NOT_FOUND when it is missing, CORRUPT when its size is wrong. Never write there."""
        if self.lease is not None and leases.hold(self.root, self.lease, obj):
            held = leases.find_held(self.lease, obj)
            if held is not None:
                return held
        return objects.get_path(self.root, obj)

    def link(self, obj: Object, destination: Path) -> None:
        """Hard-link the object for an owner, or copy it verified where no link can be. There whole or not at all."""
        owners.link(self.path(obj), obj, destination)

    def adopt(self, owner_file: Path, obj: Object) -> None:
        """Put an owner's file back when the object is missing. CORRUPT when it is not that object."""
        while not self.has(obj):  # and then it is held, if there is a lease
            owners.adopt(self.root, owner_file, obj)

    def temporary_dir(self) -> AbstractContextManager[Path]:
        """A folder on the store's filesystem, removed with its content at the end or after our death."""
        return temporary.temporary_folder(layout.tmp_folder(self.root))

    def find_record(self, key: Digest) -> Record | None:
        """The record, whether or not its objects still exist; None also when it cannot be read."""
        return actions.find_record(self.root, key)

    def put_record(self, key: Digest, record: Record) -> None:
        actions.put_record(self.root, key, record)

    def lock(
        self,
        key: Digest,
        what: str,
        on_wait: Callable[[Holder], None] | None = None,
        cancelled: Callable[[], bool] | None = None,
    ) -> AbstractContextManager[None]:
        """Be the one builder of `key`. `on_wait` is told once who is; WaitAbandoned soon after `cancelled` is true."""
        return locks.hold(layout.lock_path(self.root, key), what, on_wait, cancelled)

    def verify(
        self,
        owners: Mapping[str, Path] | None = None,
        *,
        repair: bool = False,
        resume: bool = False,
        on_progress: Callable[[Verification], None] | None = None,
        on_wait: Callable[[Holder], None] | None = None,
    ) -> Verification:
        """Read everything again, or what an interrupted one left; iterate over it for what is bad as it is found.

        `owners` as for `collect`. With `repair`, bad objects go to quarantine; records of them and bad ones go.
        """
        from cache.verify import Verification

        return Verification(
            self.root, owners or {}, repair=repair, resume=resume, on_progress=on_progress, on_wait=on_wait
        )

    def usage(self) -> Usage:
        from cache import usage

        return usage.measure(self.root)

    def growth(self) -> Growth | None:
        """What the store has grown by since somebody counted, without looking at it. None when nobody can tell."""
        return growth.find_growth(self.root)

    def collect(
        self,
        policy: Policy,
        owners: Mapping[str, Path],
        *,
        dry_run: bool = False,
        on_wait: Callable[[Holder], None] | None = None,
        cancelled: Callable[[], bool] | None = None,
    ) -> Collection:
        """Remove what nobody holds or uses. `owners` are folders that may hold links, under what people call them."""
        from cache import collect

        return collect.collect(self.root, policy, owners, dry_run=dry_run, on_wait=on_wait, cancelled=cancelled)
