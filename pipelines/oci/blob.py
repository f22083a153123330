"""Blobs, read as if the connection could not break: resumed where they stopped, and verified.

Nothing that is read is trustworthy before `finish` returns: it is hashed on the way, and only the end shows whether
it was what the manifest spoke of. So a reader gives nothing a name before that. What is known early is told early:
never does a reader see more bytes than the descriptor says.
"""

from __future__ import annotations

import contextlib
import hashlib
from collections.abc import Iterator
from typing import IO

from banger.errors import BangerError, Reason
from banger.run import is_cancelled
from pipelines.oci.retry import PATIENCE, Patience, pause
from pipelines.oci.source import Descriptor, Source, TemporaryFailure

_CHUNK_BYTES = 1 << 20
# A server that gives less at a time is not on the way of giving all.
_PROGRESS_BYTES = 1 << 16


class VerifiedBlob:
    """A blob as a stream of bytes in order. For one thread at a time; made by `open_verified`.

    After a `TemporaryFailure` the source is asked again for the rest, at most `patience.attempts` times in a row
    without 64 KiB of progress.
    """

    def __init__(self, source: Source, descriptor: Descriptor, patience: Patience) -> None:
        self.descriptor = descriptor
        self.position = 0
        self._source = source
        self._patience = patience
        self._hash = hashlib.new(descriptor.digest.partition(":")[0])
        self._stream: IO[bytes] | None = None
        self._opened = contextlib.ExitStack()
        self._opened_at = 0
        self._failures = 0
        self._failed_at = 0
        self._ended = False

    def read(self, n: int = -1) -> bytes:
        """`n` bytes, fewer only at the end; everything that is left for -1. Large pieces are fast, small ones slow."""
        parts = []
        got = 0
        while n < 0 or got < n:
            part = self._read_some(_CHUNK_BYTES if n < 0 else min(n - got, _CHUNK_BYTES))
            if not part:
                break
            parts.append(part)
            got += len(part)
        return parts[0] if len(parts) == 1 else b"".join(parts)

    def finish(self) -> None:
        """Read what is left; raises CORRUPT unless size and digest are those of the descriptor."""
        while self._read_some(_CHUNK_BYTES):
            pass
        found = f"{self._hash.name}:{self._hash.hexdigest()}"
        if found != self.descriptor.digest:
            raise self._corrupt(f"its digest is {found}")

    def close(self) -> None:
        self._stream = None
        self._opened.close()

    def _read_some(self, n: int) -> bytes:
        """Up to `n` bytes; none at the end only."""
        if self._ended:
            return b""
        left = self.descriptor.size_bytes - self.position
        if self.descriptor.size_bytes < 0:
            left = n
        elif left == 0:
            self._check_end()
            return b""
        data = self._ask(min(n, left))
        if not data:
            if self.descriptor.size_bytes >= 0:
                raise self._corrupt(f"it ends after {self.position} of {self.descriptor.size_bytes} bytes")
            self._ended = True
            self.close()
        elif len(data) > min(n, left):
            raise self._corrupt("it holds more than its descriptor says")
        self._hash.update(data)
        self.position += len(data)
        return data

    def _ask(self, n: int) -> bytes:
        while True:
            if is_cancelled():
                raise KeyboardInterrupt
            try:
                if self._stream is None:
                    self._opened_at = self.position
                    self._stream = self._opened.enter_context(self._source.open_blob(self.descriptor, self.position))
                data = self._stream.read(n)
                if data or self.descriptor.size_bytes < 0 or self.position == self._opened_at:
                    return data
                # Where a server tells no length, a broken connection looks like the end.
                raise TemporaryFailure(f"{self._source.reference}: the connection ended too early")
            except TemporaryFailure as failure:
                self.close()
                self._failures = 1 if self.position - self._failed_at >= _PROGRESS_BYTES else self._failures + 1
                self._failed_at = self.position
                if self._failures >= self._patience.attempts:
                    raise
                pause(self._patience.delay_s(self._failures, failure.retry_after_s))

    def _check_end(self) -> None:
        self._ended = True
        # A blob that was never opened is an empty one. A connection that breaks here takes nothing away that was
        # promised: the digest decides.
        with contextlib.suppress(TemporaryFailure):
            if self._stream is not None and self._stream.read(1):
                raise self._corrupt("it holds more than its descriptor says")
        self.close()

    def _corrupt(self, what: str) -> BangerError:
        return BangerError(
            f"{self._source.reference}: the blob {self.descriptor.digest} is not what the manifest says: {what}",
            reason=Reason.CORRUPT,
            hint="the registry or archive is damaged, or something on the way alters it",
        )


@contextlib.contextmanager
def open_verified(source: Source, descriptor: Descriptor, patience: Patience = PATIENCE) -> Iterator[VerifiedBlob]:
    """A blob for the length of a `with` block; call `finish` before trusting what was read."""
    blob = VerifiedBlob(source, descriptor, patience)
    try:
        yield blob
    finally:
        blob.close()


def read_verified(source: Source, descriptor: Descriptor, limit_bytes: int, patience: Patience = PATIENCE) -> bytes:
    """A small blob whole. Raises TOO_LARGE past the limit (before reading, where the size is told), or CORRUPT."""
    if descriptor.size_bytes > limit_bytes:
        raise _too_large(source, descriptor, limit_bytes)
    with open_verified(source, descriptor, patience) as blob:
        data = blob.read(limit_bytes + 1)
        if len(data) > limit_bytes:
            raise _too_large(source, descriptor, limit_bytes)
        blob.finish()
    return data


def _too_large(source: Source, descriptor: Descriptor, limit_bytes: int) -> BangerError:
    return BangerError(
        f"{source.reference}: the blob {descriptor.digest} is larger than {limit_bytes} bytes",
        reason=Reason.TOO_LARGE,
    )
