"""Why a thing would be made again: its steps, what is known of each, and what changed since it was last made.

Nothing is built or written; what a step would do is told from records alone. Records of other builds are read only
when a step is missing, all of them once.

Promised: with nothing else running, a step that is a hit or not needed would not run. Not promised that a miss would:
what it waits for may come out as it was before, or be had from a remote cache.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from enum import StrEnum
from functools import cached_property

from cache import Digest
from pipelines.changes import Change, find_changes
from pipelines.graph import Graph
from pipelines.past import Past, find_digests
from pipelines.recorded import Found, RecordedTargets
from pipelines.reporter import Silent
from pipelines.step import Artifact, Effect, Step, dependencies, walk


class State(StrEnum):
    """NOT_NEEDED: its bytes are gone, its record says what they were, and nothing that is missing reads them."""

    HIT = "hit"
    MISS = "miss"
    NOT_NEEDED = "not-needed"


NEVER_BUILT = "never built"
CHANGED = "changed since the last build"
NEAREST = "never built; changed against the nearest of its kind"
LOST = "nothing changed, its record is gone"
_MOST_NAMES = 3


@dataclass(frozen=True)
class Explanation:
    """A step, or a name that is given (which has no key). `inputs` says which step an input comes from."""

    name: str
    kind: str
    key: Digest | None
    state: State
    why: str = ""
    changes: Sequence[Change] = ()
    inputs: Mapping[str, str] = field(default_factory=dict)


def explain(targets: RecordedTargets, found: Found) -> list[Explanation]:
    """The root and all that it is made from, each once: from the root down, and inputs in their order."""
    return _Explainer(targets, found).explain()


class _Explainer:
    def __init__(self, targets: RecordedTargets, found: Found) -> None:
        self._targets = targets
        self._root = found.root
        self._details = {target.naming.name: target.details for target in found.targets}
        ends: list[Step | Effect] = [target.naming for target in found.targets]
        self._graph = Graph(targets.store, ends, Silent())
        self._nodes = list(walk([found.root]))
        self._records = {node.name: self._graph.record(node) for node in self._nodes if isinstance(node, Step)}
        self._states: dict[str, State] = {}

    def explain(self) -> list[Explanation]:
        wanted = {self._root.name}
        # Who reads comes before what is read.
        for node in reversed(self._nodes):
            state = self._states[node.name] = self._find_state(node, is_wanted=node.name in wanted)
            if isinstance(node, Effect) or state is State.MISS:
                wanted.update(needed.name for needed in dependencies(node))
        return [
            self._explain_effect(node) if isinstance(node, Effect) else self._explain(node) for node in self._list()
        ]

    def _list(self) -> Iterator[Step | Effect]:
        """From the root down."""
        seen: set[str] = set()
        waiting = [self._root]
        while waiting:
            node = waiting.pop()
            if node.name not in seen:
                seen.add(node.name)
                yield node
                waiting += reversed(dependencies(node))

    def _find_state(self, node: Step | Effect, *, is_wanted: bool) -> State:
        if isinstance(node, Effect):
            return State.HIT if self._graph.is_current(node) else State.MISS
        record = self._records[node.name]
        if record is None:
            return State.MISS
        if self._targets.store.has_outputs(record):
            return State.HIT
        return State.MISS if is_wanted else State.NOT_NEEDED

    def _explain(self, step: Step) -> Explanation:
        state, key = self._states[step.name], self._graph.key(step)
        why, changes = ("", []) if state is State.HIT else self._find_reason(step, key, state)
        inputs = {name: source.step.name for name, source in step.inputs.items() if isinstance(source, Artifact)}
        return Explanation(step.name, step.kind, key, state, why, changes, inputs)

    def _find_reason(self, step: Step, key: Digest | None, state: State) -> tuple[str, Sequence[Change]]:
        record = self._records[step.name]
        if record is not None:
            store = self._targets.store
            lost = ", ".join(name for name, made in record.outputs.items() if not store.has(made))
            if state is State.MISS:
                return f"its record is there, its objects are missing: {lost}", ()
            return f"its objects are gone, and nothing reads them: {lost}", ()
        inputs = find_digests(self._graph, step)
        if key is None:
            missing = [
                source.step.name
                for name, source in step.inputs.items()
                if isinstance(source, Artifact) and inputs[name] is None
            ]
            last = self._past.find_last(step)
            return _format_wait(missing), () if last is None else find_changes(step, inputs, last)
        told = self._targets.store.find_record(key)
        if told is not None:
            return f"its record has {', '.join(sorted(told.outputs))} instead of {', '.join(sorted(step.outputs))}", ()
        last = self._past.find_last(step)
        if last is not None:
            changes = find_changes(step, inputs, last)
            return (CHANGED if changes else LOST), changes
        near = self._past.find_nearest(step)
        return (NEVER_BUILT, ()) if near is None else (NEAREST, find_changes(step, inputs, near))

    def _explain_effect(self, effect: Effect) -> Explanation:
        state = self._states[effect.name]
        why, changes = ("", []) if state is State.HIT else self._find_effect_reason(effect)
        inputs = {name: artifact.step.name for name, artifact in effect.inputs.items()}
        inputs |= {other.name: other.name for other in effect.after}
        return Explanation(effect.name, "name", None, state, why, changes, inputs)

    def _find_effect_reason(self, effect: Effect) -> tuple[str, list[Change]]:
        missing = [made.step.name for made in effect.inputs.values() if self._states[made.step.name] is not State.HIT]
        if missing:
            return _format_wait(missing), []
        named = self._past.named.get(effect.name)
        if named is None:
            return "nothing has this name", []
        results = self._graph.results(effect)
        changes = [
            Change(role, None if role not in named.files else named.files[role].digest, result.made.digest)
            for role, result in results.items()
            if role not in named.files or named.files[role].digest != result.made.digest
        ]
        details = self._details.get(effect.name, named.details)
        for name in sorted({*details, *named.details}):
            if details.get(name) != named.details.get(name):
                changes.append(Change(name, named.details.get(name), details.get(name)))
        return "the name stands for something else", changes

    @cached_property
    def _past(self) -> Past:
        # Of what is above the root, too: the way to what was there before leads down from the name.
        kinds = {node.kind for node in self._graph.nodes if isinstance(node, Step) and self._graph.record(node) is None}
        return Past(self._targets, self._graph, kinds)


def _format_wait(steps: Sequence[str]) -> str:
    names = list(dict.fromkeys(steps))
    more = f" and {len(names) - _MOST_NAMES} more" if len(names) > _MOST_NAMES else ""
    return f"waits for {', '.join(names[:_MOST_NAMES])}{more}"
