"""What differs between a step as it is planned and the record of one that ran: its code, its inputs, its parameters."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass
from difflib import SequenceMatcher

from cache import JSON, Digest, Record
from pipelines.step import Step

CODE = "the step's code"


@dataclass(frozen=True)
class Change:
    """`what` is `CODE`, `input NAME` or `parameter PATH`; None is what was not there, or is not there any more."""

    what: str
    old: JSON
    new: JSON


def find_changes(step: Step, inputs: Mapping[str, Digest | None], record: Record) -> list[Change]:
    """From the record to the step. An input whose digest is not known (None) says nothing."""
    changes: list[Change] = []
    if step.version != record.version:
        changes.append(Change(CODE, record.version, step.version))
    for name in sorted({*inputs, *record.inputs}):
        old, new = record.inputs.get(name), inputs.get(name)
        if old != new and (new is not None or name not in inputs):
            changes.append(Change(f"input {name}", old, new))
    changes += _compare("parameter ", record.parameters, step.parameters)
    return changes


def count_common(step: Step, record: Record) -> int:
    """How many of the step's parameters have the same value in the record."""
    old = record.parameters
    return sum(name in old and _freeze(old[name]) == _freeze(value) for name, value in step.parameters.items())


def _compare(path: str, old: JSON, new: JSON) -> Iterator[Change]:
    if isinstance(old, Mapping) and isinstance(new, Mapping):
        # The first names stand behind a word, those below behind a name.
        stem = path if not path or path.endswith(" ") else f"{path}."
        for name in sorted({*old, *new}):
            if name in old and name in new:
                yield from _compare(f"{stem}{name}", old[name], new[name])
            else:
                yield Change(f"{stem}{name}", old.get(name), new.get(name))
    elif isinstance(old, list | tuple) and isinstance(new, list | tuple):
        yield from _compare_lists(path, old, new)
    elif type(old) is not type(new) or old != new:  # to Python, 1 is True
        yield Change(path, old, new)


def _compare_lists(path: str, old: Iterable[JSON], new: Iterable[JSON]) -> Iterator[Change]:
    """One more in the middle is one change, not one of all that follow. Numbered as they are now, or as they were."""
    before, after = list(old), list(new)
    matcher = SequenceMatcher(None, list(map(_freeze, before)), list(map(_freeze, after)), autojunk=False)
    for kind, begin, end, new_begin, new_end in matcher.get_opcodes():
        if kind == "equal":
            continue
        both = min(end - begin, new_end - new_begin)
        for number in range(both):
            yield from _compare(f"{path}[{new_begin + number}]", before[begin + number], after[new_begin + number])
        for number in range(begin + both, end):
            yield Change(f"{path}[{number}]", before[number], None)
        for number in range(new_begin + both, new_end):
            yield Change(f"{path}[{number}]", None, after[number])


def _freeze(value: JSON) -> object:
    """Hashable, and equal for what is equal as JSON."""
    if isinstance(value, Mapping):
        return tuple(sorted((name, _freeze(inner)) for name, inner in value.items()))
    if isinstance(value, list | tuple):
        return tuple(map(_freeze, value))
    return type(value).__name__, value
