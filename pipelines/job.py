"""One run of one step: where its inputs are, where its outputs go, and how it tells of its progress."""

from __future__ import annotations

import contextlib
import json
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import IO, Any

from banger.run import is_cancelled
from cache import Object, ObjectWriter, Store
from pipelines.reporter import Reporter
from pipelines.step import Step

_BLOCK_BYTES = 1 << 20


class Job:
    """Handed to a step's `build`. `directory` is empty, private, on the store's filesystem, and goes with the job."""

    def __init__(
        self, step: Step, store: Store, inputs: Mapping[str, Object], directory: Path, reporter: Reporter
    ) -> None:
        self.step = step
        self.directory = directory
        self._store = store
        self._inputs = inputs
        self._reporter = reporter
        self._made: dict[str, Object] = {}

    @property
    def parameters(self) -> Mapping[str, Any]:
        return self.step.parameters

    def input(self, name: str) -> Path:
        """The path of an input's object: immutable, to be read only."""
        return self._store.path(self._inputs[name])

    def get_input(self, name: str) -> Object:
        """What the file at `input` has to be."""
        return self._inputs[name]

    def read_json(self, name: str) -> Any:
        """A small input, parsed."""
        return json.loads(self.input(name).read_bytes())

    @contextlib.contextmanager
    def create(self, output: str) -> Iterator[ObjectWriter]:
        """A file to write an output into; it is hashed while it is written and kept when the block ends well."""
        with self._store.writer() as writer:
            yield writer
            self._keep(output, writer.commit())

    def take(self, output: str, path: Path) -> None:
        """Take over a finished file that a program made under `directory`."""
        self._keep(output, self._store.put_file(path))

    def write_json(self, output: str, value: object) -> None:
        text = json.dumps(value, sort_keys=True, indent=1, ensure_ascii=True) + "\n"
        self._keep(output, self._store.put_bytes(text.encode()))

    def copy(self, source: IO[bytes], sink: IO[bytes] | ObjectWriter, what: str, total: int | None = None) -> int:
        """Stream `source` into `sink`, telling the bytes; ends early with KeyboardInterrupt when cancelled."""
        done = 0
        while block := source.read(_BLOCK_BYTES):
            if is_cancelled():
                raise KeyboardInterrupt
            sink.write(block)
            done += len(block)
            self.progress(what, done, total)
        return done

    def progress(self, what: str, done: int | None = None, total: int | None = None) -> None:
        self._reporter.progress(self.step.name, what, done, total)

    def note(self, text: str) -> None:
        self._reporter.note(text)

    def finish(self) -> dict[str, Object]:
        """The outputs; a step that forgot one has a bug."""
        missing = set(self.step.outputs) - set(self._made)
        assert not missing, f"{self.step.name} did not make {sorted(missing)}"
        return dict(self._made)

    def _keep(self, output: str, made: Object) -> None:
        assert output in self.step.outputs, f"{self.step.name} has no output {output!r}"
        self._made[output] = made
