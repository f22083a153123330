"""A layer of our own making: the same `blob` and `index` as of one that was downloaded (`layer.py`).

The tar is packed with zstd. Holes are filled: they cost nothing there, and who reads the layer wants them filled.
"""

from __future__ import annotations

import contextlib
import hashlib
from collections.abc import Iterable, Iterator
from dataclasses import replace
from typing import IO

from banger.errors import BangerError, Reason
from banger.run import is_cancelled
from pipelines.job import Job
from pipelines.oci.index import format_entry, format_head
from pipelines.oci.limits import Limits
from pipelines.oci.tar import BLOCK_BYTES, Entry, Kind
from pipelines.oci.tar_writer import END, format_header

OUTPUTS = ("blob", "index")
# Quick rather than small: it is read again each time that an image is joined.
_ZSTD_LEVEL = 1


class LayerWriter:
    """Made by `open_layer`. Folders need not come before what is in them; links come after what they lead to."""

    def __init__(self, sink: IO[bytes], limits: Limits, what: str) -> None:
        self._sink = sink
        self._limits = limits
        self._what = what
        self._hash = hashlib.sha256()
        self._lines: list[bytes] = []
        self._names_bytes = 0
        self.size_bytes = 0

    def add(self, entry: Entry, content: Iterable[bytes] = ()) -> None:
        """One entry, and of a file its content: exactly `entry.size` bytes."""
        size = entry.size if entry.kind is Kind.FILE else 0
        self._write(format_header(entry))
        begin = self.size_bytes
        self._limits.check_size(begin + size, self._what)
        for data in content:
            if is_cancelled():
                raise KeyboardInterrupt
            self._write(data)
        if self.size_bytes != begin + size:
            raise BangerError(f"{self._what}: {entry.path!r} changed while it was read", reason=Reason.WRONG_STATE)
        self._write(bytes(-size % BLOCK_BYTES))
        self._lines.append(format_entry(replace(entry, offset=begin, segments=None)).encode())
        self._names_bytes += len(self._lines[-1])
        self._limits.check_entries(len(self._lines), self._what)
        self._limits.check_names(self._names_bytes, self._what)

    def finish(self) -> list[bytes]:
        """The lines of the index."""
        self._write(END)
        return [format_head(f"sha256:{self._hash.hexdigest()}", self.size_bytes).encode(), *self._lines]

    def _write(self, data: bytes) -> None:
        self._sink.write(data)
        self._hash.update(data)
        self.size_bytes += len(data)


@contextlib.contextmanager
def open_layer(job: Job, limits: Limits, what: str) -> Iterator[LayerWriter]:
    """Entries that are added become the outputs `blob` and `index` of the job. Raises TOO_LARGE past a limit."""
    import zstandard

    with job.create("blob") as blob:
        # One thread: the number of threads would change the bytes.
        with zstandard.ZstdCompressor(level=_ZSTD_LEVEL).stream_writer(blob, closefd=False) as packed:
            layer = LayerWriter(packed, limits, what)
            yield layer
            lines = layer.finish()
        # What is refused when it is read is refused now.
        limits.check_ratio(blob.tell(), layer.size_bytes, what)
    with job.create("index") as index:
        for line in lines:
            index.write(line)
