"""The kernel that a monitor boots: an ELF file, as it is or out of a bzImage, checked while it streams by.

What comes out whole is a 64-bit kernel for x86 by its headers, of bounded size; nothing is held but a block of it.
Which drivers it has is not looked at.
"""

from __future__ import annotations

import lzma
import re
import struct
import zlib
from collections.abc import Iterator
from typing import Protocol

from banger.errors import BangerError, Reason
from banger.sizes import format_bytes
from pipelines.oci.stream import CHUNK_BYTES, Reads

MAX_VMLINUX_BYTES = 512 << 20
STRIP_HINT = "one with debugging symbols gets small by: strip --strip-debug FILE"

# Of "struct setup_header" in the kernel's Documentation/arch/x86/boot.rst, "Details of Header Fields".
_HEADER_MAGIC_OFFSET = 0x202
_VERSION_OFFSET = 0x206
_SETUP_SECTS_OFFSET = 0x1F1
_PAYLOAD_OFFSET = 0x248
_SETUP_BYTES = 0x250
_MIN_VERSION = 0x0208

# System V ABI, chapter 4, "ELF Header" and chapter 5, "Program Header": Elf64_Ehdr and Elf64_Phdr.
_ELF_MAGIC = b"\x7fELF"
_ELF_HEADER = struct.Struct("<16sHHIQQQIHHHHHH")
_PROGRAM_HEADER = struct.Struct("<IIQQQQQQ")
_CLASS_64, _LITTLE_ENDIAN, _CURRENT = 2, 1, 1
_EXECUTABLE, _SHARED = 2, 3
_X86_64 = 62
_LOAD = 1
# The linker puts program headers right behind the ELF header.
_HEAD_BYTES = 64 << 10

# A kilobyte of zstd may stand for 32 MiB, and its streaming interface knows no limit.
_PIECE_BYTES = 1 << 10
# The kernel's build takes dictionaries of up to 128 MiB (scripts/xz_wrap.sh).
_XZ_MEMORY_BYTES = 256 << 20

# "linux_banner" in the kernel's init/version.c. A release fits into utsname, 64 bytes with its NUL.
_NAME = b"Linux version "
_BANNER = re.compile(rb"Linux version ([0-9]{1,4}\.[0-9]{1,6}[0-9A-Za-z.+_~-]{0,50}) \(")
# XEN_ELFNOTE_PHYS32_ENTRY, 18: where a loader enters that knows ELF only (xen/interface/elfnote.h).
_PVH = re.compile(rb"\x04\0\0\0[\x04\x08]\0\0\0\x12\0\0\0Xen\0")
_OVERLAP_BYTES = 128


def unpack_vmlinux(image: Reads) -> Iterator[bytes]:
    """The uncompressed ELF kernel out of an x86 bzImage (or the ELF itself, as it is), in blocks.

    Raises `BangerError` for anything that is not a 64-bit kernel with a payload that unpacks whole: CORRUPT, or
    TOO_LARGE past `MAX_VMLINUX_BYTES`.
    """
    head = _read(image, _SETUP_BYTES)
    if head.startswith(_ELF_MAGIC):
        yield from _check_elf(_chain(head, iter(lambda: image.read(CHUNK_BYTES), b"")), "it")
        return
    if len(head) < _SETUP_BYTES or head[_HEADER_MAGIC_OFFSET:][:4] != b"HdrS":
        raise _bad_kernel("it is neither an ELF file nor a bzImage")
    if struct.unpack_from("<H", head, _VERSION_OFFSET)[0] < _MIN_VERSION:
        raise _bad_kernel("its boot protocol is too old")
    # A zero means four, for historical reasons.
    setup_sectors = head[_SETUP_SECTS_OFFSET] or 4
    offset, length = struct.unpack_from("<II", head, _PAYLOAD_OFFSET)
    before = (setup_sectors + 1) * 512 + offset - len(head)
    while before:
        before -= len(image.read(min(before, CHUNK_BYTES)) or _cut_short())
    yield from _check_elf(_decompress(image, length), "its payload")


class Facts:
    """What a kernel says about itself: that it `is_linux`, its `release` as `uname -r` prints it, and its `pvh` entry.

    Fed with the kernel block by block. A release of odd characters is none.
    """

    def __init__(self) -> None:
        self.is_linux = False
        self.release: str | None = None
        self.pvh = False
        self._end = b""

    def feed(self, block: bytes) -> None:
        text = self._end + block
        self.is_linux = self.is_linux or _NAME in text
        if self.release is None and (found := _BANNER.search(text)):
            self.release = found[1].decode("ascii")
        self.pvh = self.pvh or _PVH.search(text) is not None
        self._end = text[-_OVERLAP_BYTES:]


def _check_elf(blocks: Iterator[bytes], what: str) -> Iterator[bytes]:
    head = b""
    while len(head) < _HEAD_BYTES and (block := next(blocks, None)) is not None:
        head += block
    end = _parse_head(head[:_HEAD_BYTES], what)
    size = 0
    for block in _chain(head, blocks):
        size += len(block)
        if size > MAX_VMLINUX_BYTES:
            raise BangerError(
                f"the kernel is larger than {format_bytes(MAX_VMLINUX_BYTES)}",
                reason=Reason.TOO_LARGE,
                hint=STRIP_HINT,
            )
        yield block
    if size < end:
        raise _bad_kernel(f"{what} ends before its last segment does")


def _parse_head(head: bytes, what: str) -> int:
    """How many bytes the segments of an ELF kernel reach to. Refuses what is none."""
    if not head.startswith(_ELF_MAGIC) or len(head) < _ELF_HEADER.size:
        raise _bad_kernel(f"{what} is no ELF kernel")
    ident, kind, machine, _version, _entry, offset, _, _, _, entry_size, count, *_ = _ELF_HEADER.unpack_from(head)
    if tuple(ident[4:7]) != (_CLASS_64, _LITTLE_ENDIAN, _CURRENT):
        raise _bad_kernel(f"{what} is not a 64-bit little-endian ELF file")
    if machine != _X86_64:
        raise _bad_kernel(f"{what} is for another machine (ELF machine {machine})")
    if kind not in (_EXECUTABLE, _SHARED):
        raise _bad_kernel(f"{what} is an ELF file that cannot be run (ELF type {kind})")
    if entry_size != _PROGRAM_HEADER.size or offset + count * entry_size > len(head):
        raise _bad_kernel(f"{what} has no program headers at its beginning")
    end = 0
    for number in range(count):
        kind, _flags, place, _, _, size, _, _ = _PROGRAM_HEADER.unpack_from(head, offset + number * entry_size)
        if kind == _LOAD and size:
            end = max(end, place + size)
    if not end:
        raise _bad_kernel(f"{what} has no segment that would be loaded")
    return end


class _Unpacker(Protocol):
    @property
    def eof(self) -> bool: ...
    def decompress(self, data: bytes, /) -> bytes: ...


def _decompress(image: Reads, length: int) -> Iterator[bytes]:
    """By the payload's magic number; the four bytes of size that the kernel's build appends are left over."""
    import zstandard

    first = _read(image, min(length, CHUNK_BYTES))
    unpacker: _Unpacker
    if first.startswith(b"\x28\xb5\x2f\xfd"):
        unpacker = zstandard.ZstdDecompressor().decompressobj()
    elif first.startswith(b"\xfd7zXZ\x00"):
        unpacker = lzma.LZMADecompressor(lzma.FORMAT_XZ, memlimit=_XZ_MEMORY_BYTES)
    elif first.startswith(b"\x1f\x8b"):
        unpacker = zlib.decompressobj(wbits=31)
    else:
        raise BangerError(
            f"not a usable x86_64 kernel: its payload's compression is unknown (starts with {first[:4].hex()})",
            reason=Reason.CORRUPT,
            hint="unpack it with scripts/extract-vmlinux of the kernel's sources, and give the vmlinux",
        )
    block = first
    while block:
        length -= len(block)
        for at in range(0, len(block), _PIECE_BYTES):
            if unpacker.eof:
                break
            try:
                unpacked = unpacker.decompress(block[at : at + _PIECE_BYTES])
            except (lzma.LZMAError, zlib.error, zstandard.ZstdError) as error:
                raise _bad_kernel(f"its payload does not unpack: {error}") from error
            if unpacked:
                yield unpacked
        block = _read(image, min(length, CHUNK_BYTES))
    if length:
        _cut_short()
    if not unpacker.eof:
        raise _bad_kernel("its payload ends in the middle")


def _read(image: Reads, size: int) -> bytes:
    """Less only at the end."""
    data = b""
    while len(data) < size and (more := image.read(size - len(data))):
        data += more
    return data


def _chain(first: bytes, rest: Iterator[bytes]) -> Iterator[bytes]:
    yield first
    yield from rest


def _cut_short() -> bytes:
    raise _bad_kernel("its payload is cut short")


def _bad_kernel(why: str) -> BangerError:
    return BangerError(f"not a usable x86_64 kernel: {why}", reason=Reason.CORRUPT)
