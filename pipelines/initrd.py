"""An initramfs of a user's own, which goes in front of the guest runtime: tables, firmware, files for the kernel.

The runtime comes behind it, so that of files with the same name the runtime's count, /init above all. Only its
beginning is looked at; the kernel unpacks it (Documentation/driver-api/early-userspace/buffer-format.rst).
"""

from __future__ import annotations

from typing import IO

from banger.errors import BangerError, Reason
from pipelines.content import Measured
from pipelines.oci.limits import Limits
from pipelines.oci.stream import CHUNK_BYTES, unpack

MAX_INITRD_BYTES = 512 << 20

# "newc" and "crc" (buffer-format.rst).
_CPIO = (b"070701", b"070702")
# Linux, lib/decompress.c: what a kernel may have been built to unpack.
_UNPACKED_HERE = (b"\x1f\x8b", b"\x28\xb5\x2f\xfd", b"\xfd7zXZ\0")
_PACKED = {b"BZh": "bzip2", b"\x5d\0\0": "lzma", b"\x89LZO": "lzo", b"\x02\x21\x4c\x18": "lz4"}


def check_initrd(content: Measured) -> None:
    """Refuse as BAD_INPUT what does not begin as an initramfs does."""
    with content.content.read() as stream:
        begin = stream.read(8)
        if begin.startswith(_CPIO) or begin.startswith(tuple(_PACKED)):
            return
        if begin.startswith(_UNPACKED_HERE):
            stream.seek(0)
            chunks = unpack(stream, Limits(max_image_bytes=MAX_INITRD_BYTES), content.what)
            if next(chunks, b"").startswith(_CPIO):
                return
    raise BangerError(
        f"{content.what} is no initramfs: it is neither a cpio archive nor a compressed one",
        reason=Reason.BAD_INPUT,
        hint="make one: find . | cpio -o -H newc >FILE",
    )


def write_initrd(content: Measured, sink: IO[bytes]) -> None:
    """The whole of it, filled up to four bytes, from where the next archive may begin."""
    with content.open() as stream:
        while chunk := stream.read(CHUNK_BYTES):
            sink.write(chunk)
        stream.finish()
    sink.write(bytes(-content.size_bytes % 4))
