"""A store to look at: nothing is written, locked or tidied, and what is not there yet is not made.

What an image or a kernel would give back to the store (`Named.restore`) is remembered here instead, for as long as this
lasts: so the store looks as it will once that name is used, and stays as it is.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from pathlib import Path
from typing import NoReturn

from cache import Digest, Object, Record, Store
from cache.failures import explained
from cache.files import find_file
from cache.layout import find_format


@dataclass(frozen=True)
class ReadOnlyStore(Store):
    """`given` are the files that owners would give back, `told` the records."""

    given: dict[Object, Path] = field(default_factory=dict)
    told: dict[Digest, Record] = field(default_factory=dict)

    @classmethod
    def open(cls, root: Path) -> ReadOnlyStore:
        """Raises for a store that this program cannot use. Where there is none, everything is missing."""
        root = root.absolute()
        with explained("open the store", root):
            find_format(root)
        return cls(root)

    def has(self, obj: Object) -> bool:
        return obj in self.given or super().has(obj)

    def path(self, obj: Object) -> Path:
        return self.given.get(obj) or super().path(obj)

    def find_record(self, key: Digest) -> Record | None:
        return super().find_record(key) or self.told.get(key)

    def adopt(self, owner_file: Path, obj: Object) -> None:
        """Looked at for its size alone; one that the owner lost is a miss."""
        found = find_file(owner_file)
        if found is not None and found.st_size == obj.size_bytes:
            self.given[obj] = owner_file

    def put_record(self, key: Digest, record: Record) -> None:
        self.told[key] = record

    def _refuse(self, *_words: object, **_options: object) -> NoReturn:
        raise AssertionError("this store is only looked at")

    # What every writing begins with.
    writer = put_file = temporary_dir = lock = leased = collect = _refuse
