"""Layers as streams: unpacking what travels compressed, and a cursor over the chunks that come out.

Nothing is held but one chunk; who reads chooses what to keep. Decompression releases the interpreter's lock, so
several layers unpack side by side.
"""

from __future__ import annotations

import contextlib
import lzma
import queue
import threading
import zlib
from collections.abc import Generator, Iterator
from typing import Protocol

from banger.errors import BangerError, Reason
from pipelines.oci.limits import Limits

CHUNK_BYTES = 1 << 20
_CHUNKS_AHEAD = 8
# What a kilobyte of zstd may stand for is 32 MiB.
ZSTD_PIECE_BYTES = 1 << 10
_GZIP, _ZSTD, _XZ = b"\x1f\x8b", b"\x28\xb5\x2f\xfd", b"\xfd7zXZ\0"
# The largest dictionary of the presets of xz(1) takes 65 MiB to unpack.
_XZ_MEMORY_BYTES = 128 << 20


class Reads(Protocol):
    def read(self, size: int, /) -> bytes: ...


class Sink(Protocol):
    def write(self, data: memoryview, /) -> object: ...


def unpack(packed: Reads, limits: Limits, what: str) -> Iterator[bytes]:
    """The chunks of a layer or an archive, whatever of gzip, zstd, xz or nothing it is packed with.

    Its own first bytes tell: media types are known to be wrong in the wild, and the diff id is checked in any case.
    Raises CORRUPT for broken data and TOO_LARGE for a bomb.
    """
    first = packed.read(CHUNK_BYTES)
    while len(first) < len(_XZ) and (more := packed.read(CHUNK_BYTES)):
        first += more
    counted = _Counted(packed, first)
    if first.startswith(_GZIP):
        chunks = _gunzip(counted, what)
    elif first.startswith(_ZSTD):
        chunks = _unzstd(counted, what)
    elif first.startswith(_XZ):
        chunks = _unxz(counted, what)
    else:
        chunks = iter(lambda: counted.read(CHUNK_BYTES), b"")
    done = 0
    for chunk in chunks:
        done += len(chunk)
        limits.check_size(done, what)
        limits.check_ratio(counted.count, done, what)
        yield chunk


def read_ahead(chunks: Iterator[bytes]) -> Generator[bytes, None, None]:
    """The same chunks, made by a thread of their own while those before them are being used."""
    made: queue.Queue[tuple[bytes, BaseException | None]] = queue.Queue(_CHUNKS_AHEAD)
    is_over = threading.Event()

    def make() -> None:
        try:
            for chunk in chunks:
                made.put((chunk, None))
                if is_over.is_set():
                    return
        except BaseException as error:  # noqa: BLE001 - raised again by who reads
            made.put((b"", error))
        made.put((b"", None))

    thread = threading.Thread(target=make, daemon=True)
    thread.start()
    try:
        while True:
            chunk, failure = made.get()
            if failure is not None:
                raise failure
            if not chunk:
                return
            yield chunk
    finally:
        is_over.set()
        # It may wait for room.
        while thread.is_alive():
            with contextlib.suppress(queue.Empty):
                made.get(timeout=0.01)


class _Counted:
    def __init__(self, source: Reads, first: bytes) -> None:
        self._source = source
        self._first = first
        self.count = 0

    def read(self, size: int) -> bytes:
        data, self._first = self._first or self._source.read(size), b""
        self.count += len(data)
        return data


def _gunzip(packed: Reads, what: str) -> Iterator[bytes]:
    """All members of a gzip file (RFC 1952, 2.2), then nothing but zeros, as tools pad with."""
    from isal import isal_zlib

    data = packed.read(CHUNK_BYTES)
    while data:
        inflater = isal_zlib.decompressobj(wbits=16 + zlib.MAX_WBITS)
        while not inflater.eof:
            data = data or packed.read(CHUNK_BYTES)
            try:
                chunk = inflater.decompress(data, CHUNK_BYTES)
            except isal_zlib.error as error:  # type: ignore[misc]
                raise _broken(what, str(error)) from error
            if chunk:
                yield chunk
            elif not data and not inflater.eof:
                raise _broken(what, "it ends too early")
            data = inflater.unconsumed_tail
        data = inflater.unused_data or packed.read(CHUNK_BYTES)
        while data and not data.startswith(_GZIP):
            if data.strip(b"\0") and not (len(data) < len(_GZIP) and _GZIP.startswith(data)):
                raise _broken(what, "something stands after its end")
            more = packed.read(CHUNK_BYTES)
            if not more and data.strip(b"\0"):
                raise _broken(what, "it ends too early")
            data = (data if data.strip(b"\0") else b"") + more


def _unzstd(packed: Reads, what: str) -> Iterator[bytes]:
    """All frames (RFC 8878, 3.1), with windows up to 128 MiB, which is what `zstd --ultra` makes."""
    import zstandard

    # Not its reader, which takes a frame that is cut off for a whole one.
    unpacker = zstandard.ZstdDecompressor(max_window_size=1 << 27)
    frame = unpacker.decompressobj()
    is_inside = False
    made = bytearray()
    while data := packed.read(CHUNK_BYTES):
        at = 0
        while at < len(data):
            piece = data[at : at + ZSTD_PIECE_BYTES]
            try:
                made += frame.decompress(piece)
            except zstandard.ZstdError as error:
                raise _broken(what, str(error)) from error
            at += len(piece) - len(frame.unused_data)
            is_inside = not frame.eof
            if frame.eof:
                frame = unpacker.decompressobj()
            if len(made) >= CHUNK_BYTES:
                yield bytes(made)
                made.clear()
    if is_inside:
        raise _broken(what, "it ends too early")
    if made:
        yield bytes(made)


def _unxz(packed: Reads, what: str) -> Iterator[bytes]:
    """All streams of an .xz file (The .xz File Format, 1.2.1, section 2), and the zeros that may stand between them."""
    data = packed.read(CHUNK_BYTES)
    while data:
        inflater = lzma.LZMADecompressor(lzma.FORMAT_XZ, memlimit=_XZ_MEMORY_BYTES)
        while not inflater.eof:
            if inflater.needs_input:
                data = data or packed.read(CHUNK_BYTES)
                if not data:
                    raise _broken(what, "it ends too early")
            try:
                chunk = inflater.decompress(data, CHUNK_BYTES)
            except lzma.LZMAError as error:
                raise BangerError(f"{what} cannot be unpacked: {error}", reason=Reason.CORRUPT) from error
            data = b""
            if chunk:
                yield chunk
        data = inflater.unused_data or packed.read(CHUNK_BYTES)
        while data and not data.strip(b"\0"):
            data = packed.read(CHUNK_BYTES)
        data = data.lstrip(b"\0")


def _broken(what: str, why: str) -> BangerError:
    return BangerError(f"{what} is damaged: {why}", reason=Reason.CORRUPT)


class Cursor:
    """A place in a stream that only moves forward. `position` counts bytes from its beginning."""

    def __init__(self, chunks: Iterator[bytes], what: str) -> None:
        self._chunks = chunks
        self._what = what
        self._chunk = memoryview(b"")
        self.position = 0

    def take(self, size: int) -> bytes:
        """Exactly `size` bytes, which must be few. CORRUPT when the stream ends before."""
        if len(self._chunk) >= size:
            taken = bytes(self._chunk[:size])
            self._chunk = self._chunk[size:]
            self.position += size
            return taken
        parts = bytearray()
        for part in self._parts(size):
            parts += part
        return bytes(parts)

    def take_block(self, size: int) -> bytes | None:
        """As `take`, but None at the very end of the stream."""
        return self.take(size) if self._fill() else None

    def skip(self, size: int) -> None:
        for _part in self._parts(size):
            pass

    def skip_padding(self, size: int) -> None:
        """As `skip`, but the stream may end before."""
        while size and self._fill():
            part = self._chunk[:size]
            self._chunk = self._chunk[len(part) :]
            self.position += len(part)
            size -= len(part)

    def copy(self, size: int, *sinks: Sink) -> None:
        for part in self._parts(size):
            for sink in sinks:
                sink.write(part)

    def drain(self) -> None:
        """Read what is left, so that it is hashed."""
        while self._fill():
            self.position += len(self._chunk)
            self._chunk = memoryview(b"")

    def _parts(self, size: int) -> Iterator[memoryview]:
        while size:
            if not self._fill():
                raise _broken(self._what, "it ends in the middle of an entry")
            part = self._chunk[:size]
            self._chunk = self._chunk[len(part) :]
            self.position += len(part)
            size -= len(part)
            yield part

    def _fill(self) -> bool:
        while not self._chunk:
            chunk = next(self._chunks, None)
            if chunk is None:
                return False
            self._chunk = memoryview(chunk)
        return True
