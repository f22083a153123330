"""What a user hands over from this host: a file, a folder as the tar of it, or standard input.

It is known by what it holds, never by where it lies: it is read once to be measured, and each time it is read again it
has to be the same still. So a step may take it by its digest, and asks for it only when its result is not there yet.
"""

from __future__ import annotations

import contextlib
import io
import os
import stat
import tempfile
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager
from dataclasses import dataclass
from pathlib import Path
from typing import IO, TYPE_CHECKING

from blake3 import blake3

from banger.errors import BangerError, Reason
from banger.run import is_cancelled, printable
from banger.sizes import format_bytes
from cache import Digest
from cache.failures import explain, explained
from pipelines.folder import read_folder
from pipelines.oci.limits import Limits
from pipelines.oci.stream import CHUNK_BYTES, Reads

if TYPE_CHECKING:
    from _typeshed import WriteableBuffer


@dataclass(frozen=True)
class Content:
    """`what` is what to call it in messages; `read` begins anew each time."""

    what: str
    read: Callable[[], AbstractContextManager[IO[bytes]]]


@dataclass(frozen=True)
class Measured:
    """Content with the digest and size that it had."""

    content: Content
    digest: Digest
    size_bytes: int

    @property
    def what(self) -> str:
        return self.content.what

    @contextlib.contextmanager
    def open(self) -> Iterator[Rereading]:
        """Call `finish` before trusting what was read."""
        with self.content.read() as stream:
            yield Rereading(stream, self)


class Rereading:
    """Hands on what it reads, and knows at the end whether it still was the same."""

    def __init__(self, stream: Reads, expected: Measured) -> None:
        self._stream = stream
        self._expected = expected
        self._hash = blake3()

    def read(self, size: int, /) -> bytes:
        if is_cancelled():
            raise KeyboardInterrupt
        data = self._stream.read(size)
        self._hash.update(data)
        return data

    def finish(self) -> None:
        """Read what is left. Raises WRONG_STATE when something else was read than was measured."""
        while self.read(CHUNK_BYTES):
            pass
        if self._hash.hexdigest() != self._expected.digest:
            raise BangerError(f"{self._expected.what} was changed while it was read", reason=Reason.WRONG_STATE)


def measure(content: Content, limit_bytes: int, hint: str = "") -> Measured:
    """Raises TOO_LARGE past the limit, with the hint."""
    hashed, size_bytes = blake3(), 0
    with content.read() as stream:
        while chunk := stream.read(CHUNK_BYTES):
            hashed.update(chunk)
            size_bytes += len(chunk)
            if size_bytes > limit_bytes:
                message = f"{content.what} is larger than {format_bytes(limit_bytes)}"
                raise BangerError(message, reason=Reason.TOO_LARGE, hint=hint)
    return Measured(content, Digest(hashed.hexdigest()), size_bytes)


def open_path(path: Path) -> Content:
    """A file, or a folder. Raises NOT_FOUND or BAD_INPUT for what is neither."""
    return open_folder(path) if path.is_dir() else open_file(path)


def open_folder(path: Path) -> Content:
    @contextlib.contextmanager
    def read() -> Iterator[IO[bytes]]:
        with contextlib.closing(read_folder(path)) as chunks:
            yield io.BufferedReader(_Chunks(chunks), CHUNK_BYTES)

    return Content(printable(str(path)), read)


def open_file(path: Path, what: str | None = None) -> Content:
    what = what or printable(str(path))

    def read() -> IO[bytes]:
        return _open_regular(path, what)

    read().close()
    return Content(what, read)


def spool(stdin: IO[bytes], scratch: Path, limit_bytes: int) -> Content:
    """Standard input, kept in a file without a name in `scratch` as long as the content is."""
    limits = Limits(max_image_bytes=limit_bytes)
    with explained("keep standard input", scratch):
        file = tempfile.TemporaryFile(dir=scratch)  # noqa: SIM115
        done = 0
        while chunk := stdin.read(CHUNK_BYTES):
            done += len(chunk)
            limits.check_size(done, "standard input")
            file.write(chunk)
        file.flush()

    def read() -> IO[bytes]:
        # Opened once more, with a position of its own.
        return _open_regular(Path(f"/proc/self/fd/{file.fileno()}"), "standard input")

    return Content("standard input", read)


def _open_regular(path: Path, what: str) -> IO[bytes]:
    try:
        # Not to wait for the other end of a fifo.
        fd = os.open(path, os.O_RDONLY | os.O_NONBLOCK | os.O_CLOEXEC)
    except FileNotFoundError as error:
        raise BangerError(f"there is no file {what}", reason=Reason.NOT_FOUND) from error
    except OSError as error:
        raise explain(error, f"read {what}", path) from error
    if not stat.S_ISREG(os.fstat(fd).st_mode):
        os.close(fd)
        raise BangerError(f"{what} is no regular file", reason=Reason.BAD_INPUT)
    return open(fd, "rb")  # noqa: PTH123


class _Chunks(io.RawIOBase):
    """Chunks as a file that can be read."""

    def __init__(self, chunks: Iterator[bytes]) -> None:
        self._chunks = chunks
        self._left = memoryview(b"")

    def readable(self) -> bool:
        return True

    def readinto(self, buffer: WriteableBuffer) -> int:
        while not self._left:
            chunk = next(self._chunks, None)
            if chunk is None:
                return 0
            self._left = memoryview(chunk)
        part = self._left[: len(memoryview(buffer))]
        memoryview(buffer)[: len(part)] = part
        self._left = self._left[len(part) :]
        return len(part)
