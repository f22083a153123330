"""A host on which images are built under a name, and what must be left of one that is refused: nothing.

`refuse` is the whole claim of requirement C4: a clear refusal, nothing under the name, nothing half-done in the store.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import pytest

from banger.errors import BangerError
from cache import Store
from cache.actions import parse_record
from catalog.local import Named, Names
from pipelines.graph import build
from pipelines.oci.limits import Limits
from pipelines.reporter import Silent
from pipelines.targets import Targets
from tests.oci.layers import write_layout

NAME = "machine"


@dataclass
class Host:
    folder: Path
    limits: Limits = field(default_factory=Limits)
    compression: tuple[str, ...] = ("gzip", "zstd", "none")

    @property
    def layout(self) -> Path:
        return self.folder / "layout"

    @property
    def store(self) -> Store:
        return Store.open(self.folder / "store")

    @property
    def images(self) -> Names:
        return Names(self.folder / "images", "image")

    def names(self) -> list[str]:
        return [each.name for each in self.images.list()]

    def write(self, *layers: bytes, **wrong: Any) -> None:
        write_layout(self.layout, {"tag": layers}, self.compression, **wrong)

    def build(self) -> Named:
        """As `banger image build oci:LAYOUT:tag --name machine` does it."""
        names = Names(self.folder / "kernels", "kernel")
        targets = Targets(self.store, self.images, names, limits=self.limits)
        target = targets.plan_image(f"oci:{self.layout}:tag", anew=True, name=NAME)
        build(targets.store, [target.naming], Silent())
        return self.images.get(NAME)

    def refuse(self) -> BangerError:
        """The refusal of what `write` wrote."""
        before = self._visible()
        with pytest.raises(BangerError) as refusal:
            self.build()
        assert self._visible() == before, "something is under a name"
        assert list((self.store.root / "tmp").iterdir()) == [], "something half-done is in the store"
        assert list(self.store.verify()) == []
        assert self._disks() == len(before), "a disk of it was kept"
        assert refusal.value.message.isprintable(), "what an archive says reaches the terminal as it is"
        assert len(refusal.value.message) < 1000
        return refusal.value

    def _visible(self) -> Mapping[str, tuple[Mapping[str, Any], Mapping[str, Any]]]:
        return {each.name: (each.files, each.details) for each in self.images.list()}

    def _disks(self) -> int:
        records = [
            parse_record(path.read_bytes()) for path in (self.store.root / "actions").rglob("*") if path.is_file()
        ]
        return sum("rootfs" in record.outputs for record in records)


def refuse(folder: Path, *layers: bytes, limits: Limits | None = None) -> BangerError:
    host = Host(folder, limits or Limits())
    host.write(*layers)
    return host.refuse()


def accept(folder: Path, *layers: bytes, limits: Limits | None = None) -> Named:
    host = Host(folder, limits or Limits())
    host.write(*layers)
    return host.build()
