"""A host on which root filesystems are registered, and what must be left of one that is refused: nothing."""

from __future__ import annotations

import io
from dataclasses import dataclass, field
from pathlib import Path

import pytest

from banger.errors import BangerError
from cache import Store
from catalog.local import Named, Names
from pipelines.content import open_path, spool
from pipelines.graph import build
from pipelines.oci.limits import Limits
from pipelines.register import plan_registered
from pipelines.reporter import Silent
from pipelines.targets import Targets

NAME = "mine"


class Notes(Silent):
    """Remembers what was noted, and which steps ran."""

    def __init__(self) -> None:
        self.notes: list[str] = []
        self.started_steps: list[str] = []

    def note(self, text: str) -> None:
        self.notes.append(text)

    def started(self, step: str) -> None:
        self.started_steps.append(step)


@dataclass
class Host:
    folder: Path
    limits: Limits = field(default_factory=Limits)
    reporter: Notes = field(default_factory=Notes)

    @property
    def targets(self) -> Targets:
        return Targets(
            Store.open(self.folder / "store"),
            Names(self.folder / "images", "image"),
            Names(self.folder / "kernels", "kernel"),
            limits=self.limits,
            reporter=self.reporter,
        )

    def register(self, rootfs: Path | bytes, name: str = NAME, kernel: str | None = None) -> Named:
        """A path, or what comes on standard input."""
        targets = self.targets
        if isinstance(rootfs, bytes):
            content = spool(io.BytesIO(rootfs), targets.store.root, self.limits.max_image_bytes)
        else:
            content = open_path(rootfs)
        build(targets.store, [plan_registered(targets, name, content, kernel).naming], self.reporter)
        return targets.images.get(name)

    def refuse(self, rootfs: Path | bytes, name: str = NAME) -> BangerError:
        with pytest.raises(BangerError) as caught:
            self.register(rootfs, name)
        targets = self.targets
        assert list(targets.images.list()) == []
        assert list((targets.store.root / "tmp").iterdir()) == []
        assert list(targets.store.verify()) == []
        assert caught.value.message.isprintable()
        assert len(caught.value.message) < 1000
        return caught.value
