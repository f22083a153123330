"""Real stores, and a bench on which small steps are built and counted."""

from __future__ import annotations

import threading
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path

import pytest

from banger.errors import BangerError
from banger.run import resume
from cache import JSON, Object, Store
from pipelines.graph import Graph, build
from pipelines.job import Job
from pipelines.reporter import Silent
from pipelines.step import Artifact, Effect, Step

Content = Callable[[Job], bytes]


class Recorder(Silent):
    """Remembers what a build told."""

    def __init__(self) -> None:
        self.told: list[tuple[str, str]] = []

    def cached(self, step: str) -> None:
        self.told.append(("cached", step))

    def started(self, step: str) -> None:
        self.told.append(("started", step))

    def waiting(self, step: str, on_what: str) -> None:
        self.told.append(("waiting", step))

    def finished(self, step: str, duration_s: float, size_bytes: int) -> None:
        self.told.append(("finished", step))

    def failed(self, step: str, error: BangerError) -> None:
        self.told.append(("failed", step))

    def note(self, text: str) -> None:
        self.told.append(("note", text))

    def close(self) -> None:
        self.told.append(("close", ""))


@dataclass
class Bench:
    """Makes steps whose runs are counted by name, and builds them."""

    store: Store
    runs: list[str] = field(default_factory=list)
    reporter: Recorder = field(default_factory=Recorder)
    _guard: threading.Lock = field(default_factory=threading.Lock)

    def step(
        self,
        name: str,
        *needed: Step,
        content: Content | None = None,
        parameters: Mapping[str, JSON] | None = None,
        version: int = 1,
        resolves: bool = False,
    ) -> Step:
        """One output, `out`: by default the step's name, its parameters and its inputs."""

        def make(job: Job) -> None:
            with self._guard:
                self.runs.append(name)
            made = content(job) if content is not None else _describe(job)
            with job.create("out") as sink:
                sink.write(made)

        def _describe(job: Job) -> bytes:
            parts = [name, str(sorted(job.parameters.items())), *(job.input(each.name).read_text() for each in needed)]
            return "\n".join(parts).encode()

        return Step(
            name=name,
            kind=name,
            version=version,
            build=make,
            outputs=("out",),
            parameters=parameters or {},
            inputs={each.name: each.output("out") for each in needed},
            resolves=resolves,
        )

    def build(self, *targets: Step | Effect, refresh: bool = False) -> list[str]:
        """The names of the steps that ran, in their order."""
        self.runs.clear()
        build(self.store, targets, self.reporter, refresh=refresh)
        return list(self.runs)

    def graph(self, *targets: Step | Effect) -> Graph:
        return Graph(self.store, targets, Silent())

    def object(self, step: Step, *targets: Step | Effect) -> Object:
        record = self.graph(*(targets or (step,))).record(step)
        assert record is not None
        return record.outputs["out"]

    def forget(self, step: Step) -> None:
        """What a collection of the store does: the bytes go, the record stays."""
        self.store.path(self.object(step)).unlink()

    def read(self, artifact: Artifact) -> bytes:
        return self.store.path(self.object(artifact.step)).read_bytes()

    def leftovers(self) -> Sequence[Path]:
        return list((self.store.root / "tmp").iterdir())


@pytest.fixture
def store(tmp_path: Path) -> Store:
    return Store.open(tmp_path / "store")


@pytest.fixture
def bench(store: Store) -> Iterator[Bench]:
    resume()
    yield Bench(store)
    resume()
