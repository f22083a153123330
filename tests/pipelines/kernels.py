"""Kernels made byte by byte: ELF files that say what a test wants, and bzImages of them.

And a default kernel that is here already, so that no packages are asked for.
"""

from __future__ import annotations

import gzip
import lzma
import os
import struct
import subprocess
from collections.abc import Callable
from typing import IO

import zstandard

from cache import Store
from catalog.kernels import DEFAULT_KERNEL
from catalog.local import Names
from pipelines.cpio import CpioWriter, compress_archive
from pipelines.graph import build
from pipelines.initramfs import runtime_version
from pipelines.job import Job
from pipelines.naming import plan_named
from pipelines.reporter import Silent
from pipelines.step import Step

RELEASE = "6.12.5-test"
PVH_NOTE = struct.pack("<III4sQ", 4, 8, 18, b"Xen\0", 0x1000000)


def make_elf(
    content: bytes = b"",
    *,
    release: str | None = RELEASE,
    kind: int = 2,
    machine: int = 62,
    ident: bytes = b"\x7fELF\x02\x01\x01",
    segments: list[tuple[int, int, int]] | None = None,
    entry_size: int = 56,
    offset: int = 64,
) -> bytes:
    """System V ABI, chapters 4 and 5. `segments` are (type, offset, size); by default one of all there is."""
    banner = b"" if release is None else f"Linux version {release} (who@where) (gcc 14) #1 SMP\n".encode() + PVH_NOTE
    body = bytes(4096 - 64 - 56) + banner + content
    if segments is None:
        segments = [(1, 4096, len(body) - (4096 - 64 - 56))]
    header = struct.pack(
        "<16sHHIQQQIHHHHHH",
        ident.ljust(16, b"\0"),
        kind,
        machine,
        1,
        0x1000000,
        offset,
        0,
        0,
        64,
        entry_size,
        len(segments),
        64,
        0,
        0,
    )
    table = b"".join(struct.pack("<IIQQQQQQ", kind, 5, at, 0, 0, size, size, 4096) for kind, at, size in segments)
    return header + table + body


ELF = make_elf(os.urandom(200_000))


def _zstd_of_the_program(data: bytes) -> bytes:
    """As the kernel's build does it: a frame that does not say how long it is."""
    return subprocess.run(["zstd", "-q", "-c"], input=data, capture_output=True, check=True).stdout


PACKERS: dict[str, Callable[[bytes], bytes]] = {
    "zstd": zstandard.ZstdCompressor().compress,
    "zstd-program": _zstd_of_the_program,
    "xz": lambda data: lzma.compress(data, lzma.FORMAT_XZ, check=lzma.CHECK_CRC32),
    "gzip": gzip.compress,
}


def make_bzimage(payload: bytes, *, sectors: int = 3, version: int = 0x20F, length: int | None = None) -> bytes:
    """A setup part and a payload, by the kernel's Documentation/arch/x86/boot.rst."""
    setup = bytearray(((sectors or 4) + 1) * 512)
    setup[0x1F1] = sectors
    setup[0x202:0x206] = b"HdrS"
    struct.pack_into("<H", setup, 0x206, version)
    before = b"decompressor"
    struct.pack_into("<II", setup, 0x248, len(before), len(payload) if length is None else length)
    return bytes(setup) + before + payload + b"after"


def give_default_kernel(store: Store, kernels: Names) -> None:
    """Its initramfs holds an init, "runtime", and modules of its own."""

    def make(job: Job) -> None:
        with job.create("initramfs") as sink:
            _write_archive(sink, "init", b"runtime")
            _write_archive(sink, "modules-order", b"of the default kernel")

    initramfs = Step("initramfs", "initramfs", 1, make, ("initramfs",)).output("initramfs")
    details = {"source": "test", "runtime": runtime_version()}
    target = plan_named(store, kernels, DEFAULT_KERNEL, {"initramfs": initramfs}, details)
    build(store, [target.naming], Silent())


def _write_archive(sink: IO[bytes], name: str, content: bytes) -> None:
    with compress_archive(sink) as packed:
        archive = CpioWriter(packed)
        archive.add_file(name, content, executable=False)
        archive.close()
