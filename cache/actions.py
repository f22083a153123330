"""Actions: the key of a step on its inputs, and the record of which objects that step gave.

A key is the BLAKE3 of one canonical JSON text, so that it can be looked at when two keys differ and nobody knows why:
keys sorted, no white space, no floats (they have no one spelling), UTF-8. JSON's own types keep "1", 1 and true apart.

Promised: a record is there whole or not at all. Whatever else is found in its place is a miss and never an error.
Not promised: that its objects are still there; ask the store.
"""

from __future__ import annotations

import json
import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TypeAlias, TypeVar

from blake3 import blake3

from banger.errors import BangerError
from cache.digests import Digest, Object, parse_digest
from cache.failures import explained
from cache.files import read_file
from cache.layout import record_path, tmp_folder
from cache.temporary import replace_file

JSON: TypeAlias = "bool | int | str | Sequence[JSON] | Mapping[str, JSON] | None"

_T = TypeVar("_T")

_SCALARS = (str, int)  # bool is an int

# Part of every key: with another canonical form, another number, and no key of the one is a key of the other.
_FORM = 1


@dataclass(frozen=True)
class Record:
    """What a step gave. `made_at` is in seconds since the epoch; `duration_s` is what a hit saves."""

    step: str
    version: int
    parameters: Mapping[str, JSON]
    inputs: Mapping[str, Digest]
    outputs: Mapping[str, Object]
    made_at: float
    duration_s: float


def key_of(step: str, version: int, parameters: Mapping[str, JSON], inputs: Mapping[str, Digest]) -> Digest:
    """The key of one action. `step` names the kind of step, never a target or a path; `version` is that of its code."""
    for digest in inputs.values():
        parse_digest(digest)
    return Digest(blake3(_canonical([_FORM, step, version, parameters, inputs])).hexdigest())


def format_record(record: Record) -> bytes:
    # The two floats are ours and in no key, so they bypass the canonical form's refusal.
    document = {
        "step": record.step,
        "version": record.version,
        "parameters": _plain(record.parameters),
        "inputs": _plain(record.inputs),
        "outputs": {name: [obj.digest, obj.size_bytes] for name, obj in record.outputs.items()},
        "made_at": float(record.made_at),
        "duration_s": float(record.duration_s),
    }
    return _encode(document) + b"\n"


def parse_record(data: bytes) -> Record:
    """The inverse of `format_record`; ValueError for everything else."""
    try:
        document = _DECODER.decode(data.decode("utf-8", "surrogatepass"))
        return Record(
            step=_expect(document["step"], str),
            version=_expect(document["version"], int),
            parameters=_parse_parameters(document["parameters"]),
            inputs={name: parse_digest(text) for name, text in document["inputs"].items()},
            outputs={name: _parse_object(pair) for name, pair in document["outputs"].items()},
            made_at=_parse_seconds(document["made_at"]),
            duration_s=_parse_seconds(document["duration_s"]),
        )
    except (KeyError, TypeError, AttributeError, RecursionError, BangerError) as error:
        raise ValueError(f"not a record: {error}") from error


def find_record(root: Path, key: Digest) -> Record | None:
    try:
        return parse_record(read_file(record_path(root, key)))
    except (OSError, ValueError):
        return None


def put_record(root: Path, key: Digest, record: Record) -> None:
    """A record that is there already is replaced: the later one is as true, and its objects are there now."""
    with explained("write a record", root):
        replace_file(tmp_folder(root), record_path(root, key), format_record(record))


def _canonical(value: JSON) -> bytes:
    return _encode(_plain(value))


def _encode(plain: object) -> bytes:
    # Names that are not UTF-8 come as lone surrogates; escaped, two of them would read like one other character.
    return _ENCODER.encode(plain).encode("utf-8", "surrogatepass")


def _plain(value: JSON) -> JSON:
    """Nothing but JSON's own types. Others are refused here, since `json` would quietly make "1" of a key 1."""
    if isinstance(value, _SCALARS) or value is None:
        return value
    if isinstance(value, (dict, Mapping)):  # the first is the quicker question
        for name in value:
            _expect(name, str)
        return {name: _plain(inner) for name, inner in value.items()}
    if isinstance(value, list | tuple):
        return [_plain(inner) for inner in value]
    raise TypeError(f"neither a key nor a record can hold a {type(value).__name__}: {value!r}")


def _parse_parameters(value: object) -> Mapping[str, JSON]:
    plain = _plain(_expect(value, dict))
    assert isinstance(plain, dict)
    return plain


def _parse_object(pair: object) -> Object:
    digest, size_bytes = _expect(pair, list)
    return Object(digest, _expect(size_bytes, int))


def _parse_seconds(value: object) -> float:
    seconds = _expect(value, float)
    if not math.isfinite(seconds):  # JSON has no infinity, but 1e999 reads as one
        raise TypeError(f"expected a time, found {seconds}")
    return seconds


def _expect(value: object, kind: type[_T]) -> _T:
    # bool is an int to isinstance, and a version is not True
    if not isinstance(value, kind) or (kind is not bool and isinstance(value, bool)):
        raise TypeError(f"expected {kind.__name__}, found {value!r}")
    return value


def _refuse_constant(name: str) -> float:
    raise ValueError(f"not JSON: {name}")


# Made once: a graph of a thousand steps reads and writes as many texts before it does anything.
_ENCODER = json.JSONEncoder(sort_keys=True, separators=(",", ":"), ensure_ascii=False, allow_nan=False)
_DECODER = json.JSONDecoder(parse_constant=_refuse_constant)
