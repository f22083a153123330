"""What was built before: the record that a step had when its name was given last, or else the one that is most like it.

All records of the store are read, once, and only when they are asked for.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from functools import cached_property
from pathlib import Path

from cache import Digest, Record
from cache.actions import parse_record
from cache.layout import iterate_records
from catalog.local import Named
from pipelines.changes import count_common, find_changes
from pipelines.graph import Graph
from pipelines.recorded import RecordedTargets
from pipelines.step import Artifact, Effect, Step


class Past:
    """What was built before. `named` is what is here now under the names that the graph gives."""

    def __init__(self, targets: RecordedTargets, graph: Graph, kinds: set[str]) -> None:
        self._targets = targets
        self._graph = graph
        self._kinds = kinds
        self._last: dict[str, Record | None] = {}
        self._users: dict[str, list[tuple[Step | Effect, str]]] = {node.name: [] for node in graph.nodes}
        for node in graph.nodes:
            for name, source in node.inputs.items():
                if isinstance(source, Artifact):
                    self._users[source.step.name].append((node, name))

    @cached_property
    def named(self) -> Mapping[str, Named]:
        names = {each.what: each for each in (self._targets.images, self._targets.kernels)}
        found: dict[str, Named] = {}
        for node in self._graph.nodes:
            what, _, name = node.name.partition(":")
            local = names[what].find(name) if isinstance(node, Effect) and what in names else None
            if local is not None:
                found[node.name] = local
        return found

    def find_last(self, step: Step) -> Record | None:
        """What gave the input that was there when the name was given last: from the name's manifest on, downwards."""
        if step.name not in self._last:
            found: list[Record] = []
            for user, name in self._users[step.name]:
                if isinstance(user, Effect):
                    local = self.named.get(user.name)
                    found += [] if local is None else local.records.values()
                else:
                    before = self._graph.record(user) or self.find_last(user)
                    digest = None if before is None else before.inputs.get(name)
                    found += [] if digest is None else self._makers.get(digest, [])
            self._last[step.name] = self._choose(step, found)
        return self._last[step.name]

    def find_nearest(self, step: Step) -> Record | None:
        """Of all records the one that differs least; one that is about something else altogether is none."""
        return self._choose(step, [record for record in self._all if _is_alike(step, record)])

    def _choose(self, step: Step, records: Iterable[Record]) -> Record | None:
        same = [record for record in records if record.step == step.kind]
        inputs = find_digests(self._graph, step)
        return min(same, key=lambda record: (len(find_changes(step, inputs, record)), -record.made_at), default=None)

    @cached_property
    def _all(self) -> list[Record]:
        """The records of the kinds in question."""
        found = []
        for entry in iterate_records(self._targets.store.root):
            try:
                record = parse_record(Path(entry.path).read_bytes())
            except (OSError, ValueError):
                continue
            if record.step in self._kinds:
                found.append(record)
        return found

    @cached_property
    def _makers(self) -> Mapping[Digest, list[Record]]:
        """The records by what they gave."""
        makers: dict[Digest, list[Record]] = {}
        for record in self._all:
            for made in record.outputs.values():
                makers.setdefault(made.digest, []).append(record)
        return makers


def _is_alike(step: Step, record: Record) -> bool:
    """What has inputs is known by their names; what has none, by half of its parameters."""
    if step.kind != record.step or set(step.inputs) != set(record.inputs):
        return False
    return bool(step.inputs) or 2 * count_common(step, record) >= len(step.parameters)


def find_digests(graph: Graph, step: Step) -> dict[str, Digest | None]:
    """The digests of a step's inputs; None for one that is not known yet."""
    digests: dict[str, Digest | None] = {}
    for name, source in step.inputs.items():
        if isinstance(source, Artifact):
            record = graph.record(source.step)
            digests[name] = None if record is None else record.outputs[source.name].digest
        else:
            digests[name] = source
    return digests
