"""Writable disks: ext4 images born with their content, from a tar stream, without mounting anything.

`mke2fs -d -` reads a tar from e2fsprogs 1.47.1 on, where libarchive is at hand. Older hosts get the same filesystem by
a second path: the tar is unpacked into a folder (in a user namespace, so that owners are kept) that `mke2fs -d` reads.
The image is a sparse file of mode 0600: it takes as much of the host's disk as was written to it.
"""

from __future__ import annotations

import contextlib
import os
import subprocess
import tarfile
import tempfile
from collections.abc import Callable
from pathlib import Path
from typing import Protocol

from banger.errors import BangerError, Reason
from banger.run import check, run, start
from pipelines.namespace import plan_user_namespace


class Reads(Protocol):
    def read(self, size: int, /) -> bytes | None: ...


WriteTar = Callable[[tarfile.TarFile], None]

_MIB = 1 << 20
# What mke2fs says when it cannot read a tar: 1.47.1 and later without libarchive, and earlier versions.
_NO_TAR = (b"libarchive", b"while populating file system", b"No such file or directory")


def make_ext4(image: Path, size_mib: int, write: WriteTar) -> None:
    """Make `image` with what `write` puts into a tar: every parent folder must have an entry before its content.

    Raises `BangerError`; no image is left behind then.
    """
    try:
        _make_empty(image, size_mib)
        if not make_from_stream(image, write):
            _make_empty(image, size_mib)
            make_from_folder(image, write)
    except BaseException:
        image.unlink(missing_ok=True)
        raise


def make_from_stream(image: Path, write: WriteTar) -> bool:
    """The quick path; False when this host's mke2fs cannot read a tar."""
    argv = _plan_mke2fs(image, "-")
    with tempfile.TemporaryFile() as said:
        with start(argv, stdin=subprocess.PIPE, stderr=said) as child:
            assert child.stdin is not None
            # mke2fs that ends early says why itself; the broken pipe only follows from it.
            with contextlib.suppress(BrokenPipeError):
                write_tar(child.stdin, write)
                child.stdin.close()
            status = child.wait()
        said.seek(0)
        words = said.read()
    if status != 0 and any(sign in words for sign in _NO_TAR) and b"No space left" not in words:
        return False
    check(argv, status, words)
    return True


def make_from_folder(image: Path, write: WriteTar) -> None:
    """The path for older e2fsprogs."""
    inside = plan_user_namespace()
    prefix = ["unshare", *inside, "--"] if inside else []
    with tempfile.TemporaryDirectory(prefix=".ext4-", dir=image.parent) as scratch:
        # Made inside the namespace, so that the folder that becomes the filesystem's root belongs to its root.
        folder = str(Path(scratch) / "root")
        unpack = [
            *prefix,
            "tar",
            "--extract",
            "--file=-",
            "--numeric-owner",
            "--same-permissions",
            f"--directory={folder}",
        ]
        try:
            run([*prefix, "mkdir", "--mode=0755", folder])
            with tempfile.TemporaryFile(dir=scratch) as archive:
                write_tar(archive, write)
                archive.seek(0)
                run(unpack, stdin=archive)
            run([*prefix, *_plan_mke2fs(image, folder)])
            # mke2fs copies what is in the folder, not the mode of the folder itself.
            mode = os.stat(folder).st_mode  # noqa: PTH116 - a str for the commands
            run(["debugfs", "-w", "-R", f"set_inode_field <2> mode 0{mode:o}", str(image)])
        finally:
            # The folder's files may belong to subordinate uids, which only the namespace can remove.
            run([*prefix, "rm", "-rf", folder], must_succeed=False)


def _make_empty(image: Path, size_mib: int) -> None:
    image.unlink(missing_ok=True)
    try:
        with open(image, "xb", opener=lambda path, flags: os.open(path, flags, 0o600)) as file:
            file.truncate(size_mib * _MIB)
    except OSError as error:
        raise BangerError(f"cannot make the disk {image}: {error.strerror}", reason=Reason.IO) from error


def write_tar(sink: object, write: WriteTar) -> None:
    """A tar of what `write` puts into it, as a stream in GNU form, which busybox and mke2fs read."""
    # GNU form: mke2fs fails on pax headers with names that are not ASCII.
    with tarfile.open(
        fileobj=sink,  # type: ignore[call-overload]
        mode="w|",
        format=tarfile.GNU_FORMAT,
        encoding="utf-8",
        errors="surrogateescape",
        copybufsize=_MIB,
    ) as tar:
        write(tar)


class Exactly:
    """The content of an entry as the tar reads it: as many bytes as its header says, or it fails with these errors."""

    def __init__(
        self, source: Reads, changed: Callable[[], BangerError], unreadable: Callable[[OSError], BangerError]
    ) -> None:
        self._source = source
        self._changed = changed
        self._unreadable = unreadable

    def read(self, size: int = -1, /) -> bytes:
        parts = bytearray()
        while len(parts) < size:
            block = self._read(size - len(parts))
            if not block:
                raise self._changed()
            parts += block
        return bytes(parts)

    def expect_end(self) -> None:
        if self._read(1):
            raise self._changed()

    def _read(self, size: int) -> bytes | None:
        try:
            return self._source.read(size)
        except OSError as error:
            raise self._unreadable(error) from error


def _plan_mke2fs(image: Path, source: str) -> list[str]:
    # No reserved blocks: nobody but root uses these disks. The tables are zero already in a new sparse file.
    options = "lazy_itable_init=1,lazy_journal_init=1,nodiscard,root_owner=0:0"
    return ["mke2fs", "-q", "-F", "-t", "ext4", "-m", "0", "-E", options, "-d", source, str(image)]
