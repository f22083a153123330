"""An initramfs of a user's own in front of the guest runtime."""

from __future__ import annotations

import bz2
import gzip
import io
import lzma
import subprocess
from collections.abc import Callable
from pathlib import Path

import pytest
import zstandard

from banger.errors import BangerError, Reason
from pipelines.content import Measured, measure, open_file
from pipelines.cpio import CpioWriter
from pipelines.initrd import MAX_INITRD_BYTES, check_initrd, write_initrd


def _archive() -> bytes:
    sink = io.BytesIO()
    archive = CpioWriter(sink)
    archive.add_folder("kernel")
    archive.add_file("kernel/table", b"content", executable=False)
    archive.close()
    return sink.getvalue()


_PACKERS: dict[str, Callable[[bytes], bytes]] = {
    "cpio": bytes,
    "gzip": gzip.compress,
    "xz": lzma.compress,
    "zstd": zstandard.ZstdCompressor().compress,
    "bzip2": bz2.compress,
    "lzma": lambda data: lzma.compress(data, lzma.FORMAT_ALONE),
    "microcode first": lambda data: data + bytes(100) + gzip.compress(data),
}


def _measure(tmp_path: Path, data: bytes) -> Measured:
    path = tmp_path / "initrd"
    path.write_bytes(data)
    return measure(open_file(path), MAX_INITRD_BYTES)


@pytest.mark.parametrize("packer", _PACKERS)
def test_what_the_kernel_unpacks_is_taken(packer: str, tmp_path: Path) -> None:
    check_initrd(_measure(tmp_path, _PACKERS[packer](_archive())))


def test_what_the_real_cpio_writes_is_taken(tmp_path: Path) -> None:
    done = subprocess.run(["cpio", "-o", "-H", "newc"], input=b"/etc/passwd\n", capture_output=True, check=True)
    check_initrd(_measure(tmp_path, done.stdout))


@pytest.mark.parametrize(
    "data",
    [
        b"",
        b"0",
        b"#!/bin/sh\n" * 100,
        b"070707" + bytes(500),
        gzip.compress(b"no archive" * 100),
        lzma.compress(b""),
        zstandard.ZstdCompressor().compress(b"\x7fELF" + bytes(500)),
    ],
    ids=["empty", "a-byte", "text", "old-cpio", "gzip-of-text", "xz-of-nothing", "zstd-of-elf"],
)
def test_what_is_no_initramfs_is_refused(data: bytes, tmp_path: Path) -> None:
    with pytest.raises(BangerError) as caught:
        check_initrd(_measure(tmp_path, data))
    assert caught.value.reason is Reason.BAD_INPUT


def test_a_packed_one_that_is_damaged_is_refused(tmp_path: Path) -> None:
    with pytest.raises(BangerError) as caught:
        check_initrd(_measure(tmp_path, gzip.compress(_archive())[:11]))
    assert caught.value.reason is Reason.CORRUPT


@pytest.mark.parametrize("size", range(4))
def test_the_next_archive_begins_where_the_kernel_looks_for_it(size: int, tmp_path: Path) -> None:
    sink = io.BytesIO()
    write_initrd(_measure(tmp_path, _archive() + bytes(size)), sink)
    assert sink.getvalue().startswith(_archive() + bytes(size))
    assert len(sink.getvalue()) % 4 == 0
    assert len(sink.getvalue()) - len(_archive()) < 8


def test_one_that_changes_while_it_is_read_is_refused(tmp_path: Path) -> None:
    measured = _measure(tmp_path, _archive())
    (tmp_path / "initrd").write_bytes(_archive()[:-4] + b"more")
    with pytest.raises(BangerError) as caught:
        write_initrd(measured, io.BytesIO())
    assert caught.value.reason is Reason.WRONG_STATE
