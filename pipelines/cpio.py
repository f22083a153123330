"""The archive format of an initramfs: cpio "newc" (the kernel's driver-api/early-userspace/buffer-format.rst).

Only what an initramfs of ours holds: folders and files of root, with time zero, in the order given.
"""

from __future__ import annotations

import contextlib
import stat
from collections.abc import Iterator
from typing import IO


@contextlib.contextmanager
def compress_archive(sink: IO[bytes]) -> Iterator[IO[bytes]]:
    """What is written comes out as one zstd frame: the kernel reads such archives one after the other as one."""
    import zstandard

    # One thread: the number of threads would change the bytes.
    compressor = zstandard.ZstdCompressor(level=19)
    with compressor.stream_writer(sink, closefd=False) as packed:
        yield packed


class CpioWriter:
    """Writes entries to a stream; `close` writes the trailer."""

    def __init__(self, sink: IO[bytes]) -> None:
        self._sink = sink
        self._inode = 0

    def add_folder(self, name: str) -> None:
        self._add(name, stat.S_IFDIR | 0o755, b"")

    def add_file(self, name: str, content: bytes, *, executable: bool) -> None:
        self._add(name, stat.S_IFREG | (0o755 if executable else 0o644), content)

    def close(self) -> None:
        self._add("TRAILER!!!", 0, b"")

    def _add(self, name: str, mode: int, content: bytes) -> None:
        self._inode += 1
        links = 2 if stat.S_ISDIR(mode) else 1
        encoded = name.encode() + b"\0"
        # ino mode uid gid nlink mtime filesize devmajor devminor rdevmajor rdevminor namesize check
        fields = (self._inode, mode, 0, 0, links, 0, len(content), 0, 0, 0, 0, len(encoded), 0)
        header = b"070701" + b"".join(b"%08X" % field for field in fields)
        self._write_padded(header + encoded)
        self._write_padded(content)

    def _write_padded(self, data: bytes) -> None:
        self._sink.write(data + b"\0" * (-len(data) % 4))
