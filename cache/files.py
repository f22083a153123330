"""The few things the store does with files: read them hole by hole, hash them, copy them, make names last.

Raises plain OSError; the callers know which folder and purpose to speak of.
"""

from __future__ import annotations

import errno
import fcntl
import os
import stat
from collections.abc import Callable, Iterator
from pathlib import Path

from blake3 import blake3

from cache.digests import Digest

_CHUNK_BYTES = 1 << 20
_ZEROS = memoryview(bytes(_CHUNK_BYTES))
# st_blocks counts these, whatever the block size of the filesystem (stat(3type)).
BLOCK_BYTES = 512

# _IOW(0x94, 9, int), <linux/fs.h>; the fcntl module does not name it in Python 3.11.
_FICLONE = 0x40049409
# <fcntl.h> and <linux/fs.h>.
_AT_FDCWD = -100
_RENAME_EXCHANGE = 1 << 1

# Why a hard link may be impossible where a copy is not: another filesystem, one without hard links,
# somebody else's file under fs.protected_hardlinks, or too many links.
_NO_LINK = {errno.EXDEV, errno.EPERM, errno.ENOTSUP, errno.EOPNOTSUPP, errno.ENOSYS, errno.EMLINK}


def find_file(path: Path) -> os.stat_result | None:
    """None also for what is no regular file."""
    try:
        found = path.lstat()
    except (FileNotFoundError, NotADirectoryError):
        return None
    return found if stat.S_ISREG(found.st_mode) else None


def read_file(path: Path | str) -> bytes:
    """A small one. `Path.read_bytes` takes more than twice as long, which a graph of a thousand records would feel."""
    fd = os.open(path, os.O_RDONLY | os.O_CLOEXEC)
    try:
        data = b""
        while more := os.read(fd, _CHUNK_BYTES):
            data += more
        return data
    finally:
        os.close(fd)


def make_folder(path: Path) -> None:
    """Ensure `path`; it and every parent that had to be made are for the owner only, and their names last."""
    try:
        path.mkdir(mode=0o700)
    except FileExistsError:
        if not path.is_dir():
            raise
        return
    except FileNotFoundError:
        make_folder(path.parent)
        path.mkdir(mode=0o700, exist_ok=True)
    sync_folder(path.parent)


def sync_folder(path: Path) -> None:
    """Make the names in a folder survive a power cut."""
    fd = os.open(path, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
    try:
        os.fsync(fd)
    except OSError as error:
        if error.errno != errno.EINVAL:  # a filesystem that cannot sync folders
            raise
    finally:
        os.close(fd)


def write_all(fd: int, data: bytes | memoryview) -> None:
    rest = memoryview(data)
    while rest:
        rest = rest[os.write(fd, rest) :]


def hash_file(fd: int, on_bytes: Callable[[int], None] | None = None) -> tuple[Digest, int]:
    """Digest and number of the bytes read. One thread only: BLAKE3's pool does not survive a fork, which would hang.

    `on_bytes` is told of so many more; what it raises ends the reading.
    """
    hasher, size_bytes = blake3(), 0
    for _, data, _ in _chunks(fd):
        hasher.update(data)
        size_bytes += len(data)
        if on_bytes is not None:
            on_bytes(len(data))
    return Digest(hasher.hexdigest()), size_bytes


def copy_file(source: int, destination: int) -> tuple[Digest, int]:
    """Copy into the empty file `destination`, holes as holes, and say what was copied."""
    hasher, size_bytes = blake3(), 0
    for offset, data, is_hole in _chunks(source):
        hasher.update(data)
        size_bytes += len(data)
        if not is_hole:
            os.lseek(destination, offset, os.SEEK_SET)
            write_all(destination, data)
    os.ftruncate(destination, size_bytes)
    return Digest(hasher.hexdigest()), size_bytes


def try_reflink(source: int, destination: int) -> bool:
    """Let `destination` share the blocks of `source`, where the filesystem can."""
    try:
        fcntl.ioctl(destination, _FICLONE, source)
    except OSError:
        return False
    return True


def try_exchange(one: Path, other: Path) -> bool:
    """Let two names of one filesystem change places, in one step (renameat2(2)); False where that cannot be done."""
    import ctypes  # only what replaces an image gets here

    try:
        renameat2 = ctypes.CDLL(None, use_errno=True).renameat2
    except AttributeError:  # an old libc, or another one
        return False
    if renameat2(_AT_FDCWD, os.fsencode(one), _AT_FDCWD, os.fsencode(other), _RENAME_EXCHANGE) == 0:
        return True
    number = ctypes.get_errno()
    # A filesystem, or a kernel, that cannot; and one in user space that overlooks what is asked for.
    if number in (errno.EINVAL, errno.ENOSYS, errno.ENOTEMPTY, errno.EEXIST):
        return False
    raise OSError(number, os.strerror(number), str(one), None, str(other))


def try_link(source: Path, destination: Path) -> bool:
    """Hard-link; False where only a copy can do. An existing destination raises FileExistsError."""
    try:
        os.link(source, destination, follow_symlinks=False)
    except OSError as error:
        if error.errno in _NO_LINK:
            return False
        raise
    return True


def _chunks(fd: int) -> Iterator[tuple[int, memoryview, bool]]:
    """(offset, bytes, whether they are a hole), from the start. The bytes are good until the next step only."""
    size_bytes = os.fstat(fd).st_size
    buffer = memoryview(bytearray(min(_CHUNK_BYTES, size_bytes)))
    for start, end, is_hole in _extents(fd, size_bytes):
        offset = start
        while offset < end:
            want = min(_CHUNK_BYTES, end - offset)
            if is_hole:
                yield offset, _ZEROS[:want], True
                offset += want
                continue
            got = os.preadv(fd, [buffer[:want]], offset)
            if got == 0:  # cut short while we read; the caller sees it by the size
                return
            yield offset, buffer[:got], False
            offset += got


def _extents(fd: int, size_bytes: int) -> Iterator[tuple[int, int, bool]]:
    offset = 0
    while offset < size_bytes:
        try:
            data = os.lseek(fd, offset, os.SEEK_DATA)
        except OSError as error:
            if error.errno == errno.ENXIO:  # nothing but a hole up to the end
                yield offset, size_bytes, True
                return
            if error.errno != errno.EINVAL:
                raise
            yield offset, size_bytes, False  # a filesystem that does not tell
            return
        if data > offset:
            yield offset, min(data, size_bytes), True
        end = os.lseek(fd, data, os.SEEK_HOLE)
        yield data, min(end, size_bytes), False
        offset = end
