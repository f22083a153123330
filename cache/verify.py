"""Read everything in the store again and say what is not as it should be. Repairs nothing.

Promised: every object whose bytes do not hash to its name is found, at the pace of the disk and in constant memory.
An object that goes away meanwhile is no finding, and neither are strangers such as `lost+found`; what is missing is not
looked for, since a cache may lack anything.
"""

from __future__ import annotations

import os
from collections.abc import Iterator
from dataclasses import dataclass
from enum import StrEnum
from pathlib import Path

from cache.actions import Record, parse_record
from cache.digests import Digest
from cache.files import hash_file
from cache.layout import iterate_objects, iterate_records


class Problem(StrEnum):
    WRONG_SIZE = "wrong-size"
    WRONG_HASH = "wrong-hash"
    WRONG_NAME = "wrong-name"
    UNREADABLE = "unreadable"
    BAD_RECORD = "bad-record"


@dataclass(frozen=True)
class Finding:
    """One bad file. `digest` is what it is called, also when it is a record."""

    path: Path
    digest: Digest
    problem: Problem
    detail: str


def verify(root: Path) -> Iterator[Finding]:
    """Records first: they tell the right sizes, so that truncation is called so."""
    sizes: dict[Digest, int] = {}
    for entry in iterate_records(root):
        path = Path(entry.path)
        try:
            record = parse_record(path.read_bytes())
        except FileNotFoundError:
            continue
        except OSError as error:
            yield Finding(path, Digest(path.name), Problem.UNREADABLE, error.strerror or str(error))
        except ValueError as error:
            yield Finding(path, Digest(path.name), Problem.BAD_RECORD, str(error))
        else:
            sizes.update(_sizes(record))
    for entry in iterate_objects(root):
        path, digest = Path(entry.path), Digest(entry.name)
        try:
            finding = _check(path, digest, sizes.get(digest))
        except FileNotFoundError:
            continue
        except OSError as error:
            finding = Finding(path, digest, Problem.UNREADABLE, error.strerror or str(error))
        if finding is not None:
            yield finding


def _check(path: Path, digest: Digest, right_size_bytes: int | None) -> Finding | None:
    if path.parent.name != digest[:2]:
        return Finding(path, digest, Problem.WRONG_NAME, f"belongs into {digest[:2]}")
    fd = os.open(path, os.O_RDONLY | os.O_NOFOLLOW | os.O_NONBLOCK | os.O_CLOEXEC)
    try:
        found_digest, found_size_bytes = hash_file(fd)
    finally:
        os.close(fd)
    if found_digest == digest:
        return None
    if right_size_bytes is not None and found_size_bytes != right_size_bytes:
        return Finding(path, digest, Problem.WRONG_SIZE, f"{found_size_bytes} bytes instead of {right_size_bytes}")
    return Finding(path, digest, Problem.WRONG_HASH, f"its content is {found_digest}")


def _sizes(record: Record) -> dict[Digest, int]:
    return {obj.digest: obj.size_bytes for obj in record.outputs.values()}
