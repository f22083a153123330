"""One layer: downloaded, verified, and indexed while it comes in.

A single pass: bytes are hashed and kept as they travel (`blob`), unpacked, hashed again for the diff id, and their tar
headers read into an `index`. Both digests are checked before either output is kept.
"""

from __future__ import annotations

import hashlib
from collections.abc import Iterator

from banger.errors import BangerError, Reason
from banger.run import is_cancelled
from banger.sizes import format_bytes
from pipelines.job import Job
from pipelines.oci.blob import open_verified
from pipelines.oci.index import format_entry, format_head
from pipelines.oci.limits import Limits
from pipelines.oci.manifest import Layer
from pipelines.oci.source import Source
from pipelines.oci.stream import Cursor, Reads, unpack
from pipelines.oci.tar import read_entries
from pipelines.step import Step

_VERSION = 1


def plan_layer(layer: Layer, source: Source, limits: Limits) -> Step:
    """Outputs: `blob`, the layer as it travels, and `index`. What it is does not depend on where it comes from."""
    short = layer.diff_id.partition(":")[2][:12]
    return Step(
        name=f"layer:{short}-{layer.descriptor.digest.partition(':')[2][:12]}",
        kind="layer",
        version=_VERSION,
        build=lambda job: _build(job, layer, source, limits),
        outputs=("blob", "index"),
        parameters={"diff_id": layer.diff_id, "digest": layer.descriptor.digest},
    )


def _build(job: Job, layer: Layer, source: Source, limits: Limits) -> None:
    what = f"layer {layer.descriptor.digest[:19]}"
    limits.check_size(layer.descriptor.size_bytes, what)
    with (
        open_verified(source, layer.descriptor) as packed,
        job.create("blob") as blob,
        job.create("index") as index,
    ):
        kept = _Keeping(job, packed, blob, layer.descriptor.size_bytes)
        unpacked = _Hashing(unpack(kept, limits, what), layer.diff_id)
        cursor = Cursor(iter(unpacked), what)
        lines: list[bytes] = []
        names_bytes = files_bytes = 0
        for entry in read_entries(cursor, is_digested=True):
            lines.append(format_entry(entry).encode())
            names_bytes += len(lines[-1])
            files_bytes += entry.size
            limits.check_entries(len(lines), what)
            limits.check_names(names_bytes, what)
        cursor.drain()
        while kept.read(1 << 20):
            # What a packer left after its last member is part of the blob all the same.
            pass
        packed.finish()
        # With its holes filled, which cost nothing in a layer.
        limits.check_ratio(kept.done, files_bytes, what)
        unpacked.check(what)
        index.write(format_head(layer.diff_id, unpacked.size_bytes).encode())
        for encoded in lines:
            index.write(encoded)


class _Keeping:
    """Hands on what it reads and keeps a copy."""

    def __init__(self, job: Job, source: Reads, sink: object, total: int) -> None:
        self._job = job
        self._source = source
        self._sink = sink
        self.done = 0
        self._total = total

    def read(self, size: int) -> bytes:
        if is_cancelled():
            raise KeyboardInterrupt
        data = self._source.read(size)
        self._sink.write(data)  # type: ignore[attr-defined]
        self.done += len(data)
        self._job.progress("downloading", self.done, self._total if self._total >= 0 else None)
        return data


class _Hashing:
    """Hands on chunks and hashes them, with the algorithm of the digest that is expected."""

    def __init__(self, chunks: Iterator[bytes], expected: str) -> None:
        self._chunks = chunks
        self._expected = expected
        self._hash = hashlib.new(expected.partition(":")[0])
        self.size_bytes = 0

    def __iter__(self) -> Iterator[bytes]:
        for chunk in self._chunks:
            self._hash.update(chunk)
            self.size_bytes += len(chunk)
            yield chunk

    def check(self, what: str) -> None:
        algorithm = self._expected.partition(":")[0]
        if f"{algorithm}:{self._hash.hexdigest()}" != self._expected:
            raise BangerError(
                f"{what} does not unpack to what its image promises ({format_bytes(self.size_bytes)})",
                reason=Reason.CORRUPT,
                hint="the image is damaged where it is kept, or not meant well",
            )
