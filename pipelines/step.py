"""A step: one thing that is made from other things, described before anything is made.

A step is data. Its key (see `cache.key_of`) is a function of its kind, version, parameters and the digests of its
inputs, never of its name, of paths, of the clock or of the network; so two names that need the same thing share it.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import TYPE_CHECKING

from cache import JSON, Digest, Object, Record

if TYPE_CHECKING:
    from pipelines.job import Job


@dataclass(frozen=True, eq=False)
class Step:
    """`name` is what people see and doit runs (`rootfs:debian-bookworm`); `kind` and `version` enter the key.

    `build` makes every output named in `outputs` through its `Job`. A step that `resolves` asks the outside what
    is there now (a tag, a suite); its answer is kept like any other result until somebody asks to refresh it.
    """

    name: str
    kind: str
    version: int
    build: Callable[[Job], None]
    outputs: tuple[str, ...]
    parameters: Mapping[str, JSON] = field(default_factory=dict)
    inputs: Mapping[str, Artifact | Digest] = field(default_factory=dict)
    resolves: bool = False

    def output(self, name: str) -> Artifact:
        assert name in self.outputs, f"{self.name} has no output {name!r}"
        return Artifact(self, name)


@dataclass(frozen=True)
class Artifact:
    """One output of a step, as an input of others."""

    step: Step
    name: str


@dataclass(frozen=True, eq=False)
class Effect:
    """The end of a line: something done with artifacts outside the store (a name given, a machine booted).

    `is_done` is asked with the digests of the inputs; an effect that is never done (a boot) always runs.
    """

    name: str
    inputs: Mapping[str, Artifact]
    act: Callable[[Mapping[str, Result]], None]
    is_done: Callable[[Mapping[str, Digest]], bool] = lambda _digests: False
    after: tuple[Effect, ...] = ()


@dataclass(frozen=True)
class Result:
    """A finished artifact as an effect receives it: the object, and the record (with its key) of what made it."""

    made: Object
    key: Digest
    record: Record


def walk(targets: Sequence[Step | Effect]) -> Iterator[Step | Effect]:
    """Every node that the targets need, each once, dependencies first."""
    seen: set[str] = set()
    # With whether what it needs came before. No recursion: a chain may be longer than Python's stack.
    todo = [(target, False) for target in reversed(targets)]
    while todo:
        node, is_next = todo.pop()
        if is_next:
            yield node
        elif node.name not in seen:
            seen.add(node.name)
            todo.append((node, True))
            todo += [(needed, False) for needed in reversed(dependencies(node))]


def dependencies(node: Step | Effect) -> list[Step | Effect]:
    """The nodes that come directly before one, each once."""
    before: dict[str, Step | Effect] = {
        value.step.name: value.step for value in node.inputs.values() if isinstance(value, Artifact)
    }
    if isinstance(node, Effect):
        before.update({effect.name: effect for effect in node.after})
    return list(before.values())
