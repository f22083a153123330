"""The index of a layer: all its entries, without their content, one JSON list a line.

The first line is the layer's own: format, diff id, unpacked size. It is an artifact of its own, so that images are
merged from metadata alone.
"""

from __future__ import annotations

import json
from dataclasses import dataclass
from pathlib import Path

from pipelines.oci.tar import Entry, Kind

_FORMAT = 1


@dataclass(frozen=True)
class LayerIndex:
    """Entries in the order of the archive."""

    diff_id: str
    size_bytes: int
    entries: list[Entry]


def format_entry(entry: Entry) -> str:
    # Bytes as text, one character each: JSON has no bytes.
    xattrs = {name: value.decode("latin-1") for name, value in entry.xattrs.items()}
    fields = (
        entry.path,
        entry.kind,
        entry.mode,
        entry.uid,
        entry.gid,
        entry.mtime_ns,
        entry.size,
        entry.offset,
        entry.target,
        entry.device,
        xattrs,
        entry.segments,
    )
    return json.dumps(fields) + "\n"


def format_head(diff_id: str, size_bytes: int) -> str:
    return json.dumps({"format": _FORMAT, "diff_id": diff_id, "size_bytes": size_bytes}) + "\n"


def read_index(path: Path) -> LayerIndex:
    with path.open(encoding="ascii") as file:
        head = json.loads(next(file))
        return LayerIndex(head["diff_id"], head["size_bytes"], [_parse_entry(line) for line in file])


def _parse_entry(line: str) -> Entry:
    path, kind, mode, uid, gid, mtime_ns, size, offset, target, device, xattrs, segments = json.loads(line)
    return Entry(
        path,
        Kind(kind),
        mode,
        uid,
        gid,
        mtime_ns,
        size,
        offset,
        target,
        (device[0], device[1]),
        {name: value.encode("latin-1") for name, value in xattrs.items()},
        None if segments is None else [(offset, length) for offset, length in segments],
    )
