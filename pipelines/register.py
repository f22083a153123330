"""An image of a root filesystem that a user has.

    layer ─ rootfs, home ─ image:NAME     a tar is the one layer of an image; a folder is read as a tar
    rootfs, home ─ image:NAME             an EROFS image is taken as it is

A tar goes the way of every layer, through the same strict reader, and so does a folder. An EROFS image is not looked
into: the guest's kernel is the first to read it. So its /root is not known, and machines begin with an empty one.
"""

from __future__ import annotations

import contextlib
import struct
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import IO

from banger.errors import BangerError, Reason
from catalog.kernels import DEFAULT_KERNEL
from catalog.names import parse_name
from pipelines.content import Content, Measured, measure
from pipelines.job import Job
from pipelines.naming import Target, plan_named
from pipelines.oci.layer import plan_layer
from pipelines.oci.rootfs import plan_rootfs
from pipelines.oci.source import Descriptor
from pipelines.oci.stream import CHUNK_BYTES
from pipelines.oci.tar_writer import END
from pipelines.step import Artifact, Step
from pipelines.survey import survey_tar
from pipelines.targets import Targets

# Linux, fs/erofs/erofs_fs.h, struct erofs_super_block: magic, size of a block as a power of two, number of blocks, and
# of further devices. A kernel for x86 takes blocks of 512 bytes to a page.
_EROFS_OFFSET = 1024
_EROFS = struct.Struct("<I8xB23xI46xH")
_EROFS_MAGIC = 0xE0F5E1E2
_EROFS_BLOCK_BITS = range(9, 13)
_SECTOR_BYTES = 512
# POSIX.1-2017 pax(1), "ustar Interchange Format".
_TAR_MAGIC_OFFSET, _TAR_MAGIC = 257, b"ustar"
_PACKED = (b"\x1f\x8b", b"\x28\xb5\x2f\xfd", b"\xfd7zXZ\0")
# Where disk images have their magic numbers (magic(5)).
_DISKS = {
    "an ext2, ext3 or ext4 image": (0x438, b"\x53\xef"),
    "a squashfs image": (0, b"hsqs"),
    "an XFS image": (0, b"XFSB"),
    "a btrfs image": (0x10040, b"_BHRfS_M"),
    "an ISO image": (0x8001, b"CD001"),
    "a qcow2 image": (0, b"QFI\xfb"),
    "an image of a disk with partitions": (0x200, b"EFI PART"),
}
_HEAD_BYTES = 0x10048


def plan_registered(targets: Targets, name: str, rootfs: Content, kernel: str | None) -> Target:
    """`kernel` is what its machines boot: else what those of an image of this name did, else the default.

    Raises `BangerError` for what is no root filesystem, or none that can be read.
    """
    parse_name(name, "an image")
    digest, artifacts = _plan_artifacts(targets, name, rootfs)
    before = targets.images.find(name, may_be_damaged=True)
    if before is not None and before.details.get("digest") != digest:
        targets.reporter.note(f"{name} is another image from now on; its machines stay what they are")
    kernel = kernel or (before.details.get("kernel") if before is not None else None) or DEFAULT_KERNEL
    details = {"kernel": kernel, "source": "register", "digest": digest}
    return plan_named(targets.store, targets.images, name, artifacts, details)


def _plan_artifacts(targets: Targets, name: str, content: Content) -> tuple[str, Mapping[str, Artifact]]:
    """With what the content is known by: a tar by what it unpacks to."""
    with content.read() as stream:
        head = stream.read(_HEAD_BYTES)
    is_tar = head[_TAR_MAGIC_OFFSET:].startswith(_TAR_MAGIC) or head.startswith(_PACKED)
    if not is_tar and head[_EROFS_OFFSET:].startswith(_EROFS_MAGIC.to_bytes(4, "little")):
        image = measure(
            content, targets.limits.max_image_bytes, "if you trust it, raise max_image_size in the configuration"
        )
        _check_erofs(head, image)
        targets.reporter.note(f"what {content.what} has in /root is not looked at: that of its machines begins empty")
        return f"blake3:{image.digest}", _plan_erofs(name, image)
    kind = None if is_tar else next((kind for kind, (at, magic) in _DISKS.items() if head[at:].startswith(magic)), None)
    if kind is not None:
        raise BangerError(
            f"{content.what} is {kind}",
            reason=Reason.BAD_INPUT,
            hint="mount it and hand over a tar: sudo mount -o ro FILE DIR; sudo tar -C DIR -c . | "
            f"banger image register {name} --rootfs -",
        )
    layer = survey_tar(content, targets.limits)
    return layer.diff_id, plan_rootfs(name, [plan_layer(layer, _Tar(content), targets.limits)], targets.limits)


@dataclass(frozen=True)
class _Tar:
    """The source of a single blob."""

    content: Content
    name: str | None = None

    @property
    def reference(self) -> str:
        return self.content.what

    def read_root(self) -> tuple[Descriptor, bytes]:
        raise AssertionError("a tar has no manifest")

    def read_manifest(self, descriptor: Descriptor) -> bytes:
        raise AssertionError("a tar has no manifest")

    @contextlib.contextmanager
    def open_blob(self, descriptor: Descriptor, offset: int = 0) -> Iterator[IO[bytes]]:
        assert offset == 0, "it does not break off"
        with self.content.read() as stream:
            yield stream


def _check_erofs(head: bytes, image: Measured) -> None:
    _magic, bits, blocks, devices = _EROFS.unpack_from(head.ljust(_HEAD_BYTES, b"\0"), _EROFS_OFFSET)
    if bits not in _EROFS_BLOCK_BITS:
        raise BangerError(
            f"{image.what} is an EROFS image with blocks of {1 << min(bits, 64)} bytes, which x86 kernels cannot read",
            reason=Reason.BAD_INPUT,
            hint="make it with: mkfs.erofs -b4096",
        )
    if devices:
        raise BangerError(f"{image.what} is an EROFS image with parts in other files", reason=Reason.BAD_INPUT)
    if blocks << bits > image.size_bytes or image.size_bytes % _SECTOR_BYTES:
        raise BangerError(f"{image.what} is an EROFS image that is cut off", reason=Reason.CORRUPT)


def _plan_erofs(name: str, image: Measured) -> dict[str, Artifact]:
    def keep(job: Job) -> None:
        with image.open() as stream, job.create("rootfs") as sink:
            done = 0
            while chunk := stream.read(CHUNK_BYTES):
                sink.write(chunk)
                done += len(chunk)
                job.progress("copying", done, image.size_bytes)
            stream.finish()

    def make_home(job: Job) -> None:
        with job.create("home") as sink:
            sink.write(END)

    rootfs = Step(f"rootfs:{name}", "given-rootfs", 1, keep, ("rootfs",), {"content": image.digest})
    home = Step(f"home:{name}", "empty-home", 1, make_home, ("home",))
    return {"rootfs": rootfs.output("rootfs"), "home": home.output("home")}
