"""Objects on their way into a registry and out of it: compressed with zstd, one frame each (RFC 8878, 3.1).

Both ways the BLAKE3 decides: what does not have it any more is not sent, and what does not have it is not kept. Equal
objects packed at equal levels give equal bytes.
"""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Protocol

from blake3 import blake3

from banger.errors import BangerError, Reason
from banger.run import is_cancelled
from cache import Object
from pipelines.oci.blob import VerifiedBlob, open_verified
from pipelines.oci.limits import Limits
from pipelines.oci.retry import PATIENCE, Patience
from pipelines.oci.source import Descriptor, Source

# Bytes done: of the object when it is packed, of what travels when it is downloaded.
Tell = Callable[[int], None]

_CHUNK_BYTES = 1 << 20
# What `zstd --ultra` makes; ours need 4 MiB at most.
_MAX_WINDOW_BYTES = 1 << 27
# What does not compress grows by three bytes for each block of at most 128 KiB (RFC 8878, 3.1.1.2): this part and
# these bytes are far more.
_GROWTH = 1024
_GROWTH_BYTES = 1 << 20
_PACKED = "+zstd"


class Sink(Protocol):
    def write(self, data: bytes, /) -> object: ...


@dataclass(frozen=True)
class PackedObject:
    """What a registry knows an object by: as it is, and packed."""

    whole_digest: str
    digest: str
    size_bytes: int


def pack_object(path: Path, made: Object, level: int, sink: Sink, tell: Tell) -> PackedObject:
    """Write the object at `path` to `sink`, compressed.

    Raises CORRUPT when the file is not the object any more; what was written is worth nothing then.
    """
    import zstandard

    # One thread: the number of threads would change the bytes.
    chunker = zstandard.ZstdCompressor(level=level).chunker(size=made.size_bytes, chunk_size=_CHUNK_BYTES)
    own, as_it_is, as_packed = blake3(), hashlib.sha256(), hashlib.sha256()
    done = size_bytes = 0

    def write(chunks: Iterable[bytes]) -> None:
        nonlocal size_bytes
        for chunk in chunks:
            as_packed.update(chunk)
            sink.write(chunk)
            size_bytes += len(chunk)

    try:
        with path.open("rb") as file:
            while data := file.read(_CHUNK_BYTES):
                if is_cancelled():
                    raise KeyboardInterrupt
                own.update(data)
                as_it_is.update(data)
                write(chunker.compress(data))
                done += len(data)
                tell(done)
        write(chunker.finish())  # type: ignore[no-untyped-call]
    except zstandard.ZstdError as error:
        # It has another size than it was told.
        raise _damaged(path) from error
    if (own.hexdigest(), done) != (made.digest, made.size_bytes):
        raise _damaged(path)
    return PackedObject(f"sha256:{as_it_is.hexdigest()}", f"sha256:{as_packed.hexdigest()}", size_bytes)


def _damaged(path: Path) -> BangerError:
    return BangerError(f"{path} is damaged", reason=Reason.CORRUPT, hint="banger cache verify")


def check_download(layer: Descriptor, made: Object, limits: Limits, what: str) -> None:
    """Refuse as TOO_LARGE what is larger than allowed, or travels as more than the object can have become."""
    limits.check_size(made.size_bytes, what)
    if not 0 <= layer.size_bytes <= made.size_bytes + made.size_bytes // _GROWTH + _GROWTH_BYTES:
        raise BangerError(
            f"{what} is a download of {layer.size_bytes} bytes for a file of {made.size_bytes}",
            reason=Reason.TOO_LARGE,
            hint="it was not made well, or is not meant well; ask who publishes it",
        )


def download_object(
    source: Source,
    layer: Descriptor,
    made: Object,
    sink: Sink,
    tell: Tell,
    *,
    what: str,
    limits: Limits,
    patience: Patience = PATIENCE,
) -> None:
    """Write the object that a layer holds, compressed or as it is, to `sink`; `what` is its name in messages.

    What was written is the object only if this returns. Raises TOO_LARGE as `check_download` does and for more than
    the object has, as soon as that shows; CORRUPT for anything else than the object.
    """
    check_download(layer, made, limits, what)
    with open_verified(source, layer, patience) as blob:
        found, done = blake3(), 0
        for chunk in _read_chunks(blob, what):
            if is_cancelled():
                raise KeyboardInterrupt
            done += len(chunk)
            if done > made.size_bytes:
                raise BangerError(
                    f"{what} unpacks to more than the {made.size_bytes} bytes that are told of it",
                    reason=Reason.TOO_LARGE,
                    hint="this is how decompression bombs look",
                )
            found.update(chunk)
            sink.write(chunk)
            tell(blob.position)
        blob.finish()
    if (found.hexdigest(), done) != (made.digest, made.size_bytes):
        raise BangerError(
            f"{what} does not unpack to what is told of it",
            reason=Reason.CORRUPT,
            hint="it was not made well, or is not meant well; ask who publishes it",
        )


def _read_chunks(blob: VerifiedBlob, what: str) -> Iterator[bytes]:
    if not blob.descriptor.media_type.endswith(_PACKED):
        while chunk := blob.read(_CHUNK_BYTES):
            yield chunk
        return
    import zstandard

    unpacked = zstandard.ZstdDecompressor(max_window_size=_MAX_WINDOW_BYTES).stream_reader(blob)  # type: ignore[arg-type]
    try:
        while chunk := unpacked.read(_CHUNK_BYTES):
            yield chunk
    except zstandard.ZstdError as error:
        raise BangerError(f"{what} is damaged: {error}", reason=Reason.CORRUPT) from error
