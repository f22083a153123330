"""A kernel from Debian's packages: the ELF a monitor boots, its modules as a read-only disk, and the guest runtime.

One archive call fetches the kernel and the runtime's packages together (`packages:` step); three steps take it apart.
"""

from __future__ import annotations

import lzma
import re
import shutil
import struct
import tarfile
import zlib
from collections.abc import Iterator
from pathlib import Path, PurePosixPath
from typing import IO, Protocol

from banger.errors import BangerError, Reason
from banger.run import run
from catalog.kernels import KernelRecipe
from pipelines.apt import find_mirrors, plan_lock
from pipelines.erofs import make_erofs
from pipelines.initramfs import RUNTIME_PACKAGES, plan_initramfs
from pipelines.job import Job
from pipelines.mmdebstrap import make_system
from pipelines.step import Artifact, Step

# Of "struct setup_header" in the kernel's Documentation/arch/x86/boot.rst, "Details of Header Fields".
_HEADER_MAGIC_OFFSET = 0x202
_VERSION_OFFSET = 0x206
_SETUP_SECTS_OFFSET = 0x1F1
_PAYLOAD_OFFSET = 0x248
_MIN_VERSION = 0x0208
_ELF_MAGIC = b"\x7fELF\x02\x01"
_MODULE_FOLDER = re.compile(r"^(?:usr/)?lib/modules/(?P<release>[^/]+)/(?P<path>.+)$", re.DOTALL)


def plan_kernel(recipe: KernelRecipe, debian_mirror: str | None = None) -> dict[str, Artifact]:
    """The artifacts of a kernel: `vmlinux`, `modules` and `initramfs`."""
    lock = plan_lock(
        f"kernel-{recipe.name}", recipe.suite, [recipe.package, *RUNTIME_PACKAGES], "?essential", debian_mirror
    )

    def fetch(job: Job) -> None:
        make_system(job, "system", find_mirrors(debian_mirror), "extract")

    packages = Step(
        name=f"packages:{recipe.name}",
        kind="debian-packages",
        version=1,
        build=fetch,
        outputs=("system",),
        inputs={"lock": lock.output("lock")},
    )
    system = packages.output("system")
    vmlinux = Step(
        name=f"vmlinux:{recipe.name}",
        kind="vmlinux",
        version=1,
        build=_build_vmlinux,
        outputs=("vmlinux",),
        inputs={"system": system},
    )
    modules = Step(
        name=f"modules:{recipe.name}",
        kind="modules",
        version=2,
        build=_build_modules,
        outputs=("modules", "dependencies"),
        inputs={"system": system, "lock": lock.output("lock")},
    )
    initramfs = plan_initramfs(recipe.name, system, modules.output("dependencies"))
    return {
        "vmlinux": vmlinux.output("vmlinux"),
        "modules": modules.output("modules"),
        "initramfs": initramfs.output("initramfs"),
    }


def _build_vmlinux(job: Job) -> None:
    with tarfile.open(job.input("system")) as tar:
        images = [member for member in tar if member.isreg() and re.fullmatch(r"\./boot/vmlinuz-[^/]+", member.name)]
        if len(images) != 1:
            raise BangerError(f"the packages hold {len(images)} kernels, not one", reason=Reason.CORRUPT)
        image = tar.extractfile(images[0])
        assert image is not None
        with job.create("vmlinux") as sink:
            for block in unpack_vmlinux(image):
                sink.write(block)


def unpack_vmlinux(image: IO[bytes]) -> Iterator[bytes]:
    """The uncompressed ELF kernel out of an x86 bzImage (or the ELF itself, as it is), in blocks.

    Raises `BangerError` for anything that is not a 64-bit kernel with a payload that unpacks whole.
    """
    data = image.read(1 << 28)
    if data[: len(_ELF_MAGIC)] == _ELF_MAGIC:
        yield data
        return
    if len(data) < 0x250 or data[_HEADER_MAGIC_OFFSET:][:4] != b"HdrS":
        raise _bad_kernel("it is neither an ELF file nor a bzImage")
    if struct.unpack_from("<H", data, _VERSION_OFFSET)[0] < _MIN_VERSION:
        raise _bad_kernel("its boot protocol is too old")
    # A zero means four, for historical reasons.
    setup_sectors = data[_SETUP_SECTS_OFFSET] or 4
    offset, length = struct.unpack_from("<II", data, _PAYLOAD_OFFSET)
    begin = (setup_sectors + 1) * 512 + offset
    payload = data[begin : begin + length]
    if len(payload) != length or length < 8:
        raise _bad_kernel("its payload is cut short")
    first = True
    for block in _decompress(payload):
        if first and block[: len(_ELF_MAGIC)] != _ELF_MAGIC:
            raise _bad_kernel("its payload is not a 64-bit ELF kernel")
        first = False
        yield block


class _Unpacker(Protocol):
    @property
    def eof(self) -> bool: ...
    def decompress(self, data: bytes, /) -> bytes: ...


def _decompress(payload: bytes) -> Iterator[bytes]:
    """By the payload's magic number; the four bytes of size that the kernel's build appends are left over."""
    import zstandard

    unpacker: _Unpacker
    if payload.startswith(b"\x28\xb5\x2f\xfd"):
        unpacker = zstandard.ZstdDecompressor().decompressobj()
    elif payload.startswith(b"\xfd7zXZ\x00"):
        unpacker = lzma.LZMADecompressor(lzma.FORMAT_XZ)
    elif payload.startswith(b"\x1f\x8b"):
        unpacker = zlib.decompressobj(wbits=31)
    else:
        raise _bad_kernel(f"its payload's compression is unknown (starts with {payload[:4].hex()})")
    try:
        yield unpacker.decompress(payload)
    except (lzma.LZMAError, zlib.error, zstandard.ZstdError) as error:
        raise _bad_kernel(f"its payload does not unpack: {error}") from error
    if not unpacker.eof:
        raise _bad_kernel("its payload ends in the middle")


def _bad_kernel(why: str) -> BangerError:
    return BangerError(f"not a usable x86_64 kernel: {why}", reason=Reason.CORRUPT)


def _build_modules(job: Job) -> None:
    tree = job.directory / "tree"
    release = extract_modules(job.input("system"), tree)
    run(["depmod", "--basedir", str(tree), release])
    folder = tree / "lib/modules" / release
    with job.create("dependencies") as sink:
        sink.write((folder / "modules.dep").read_bytes())
    # Links into a kernel's source tree, which no guest has, were not unpacked; everything else is as in the package.
    make_erofs(job, "modules", folder, epoch=job.read_json("lock")["epoch"])


def extract_modules(system: Path, tree: Path) -> str:
    """Unpack the kernel modules of a system tar under `tree`/lib/modules; gives the kernel's release."""
    releases = set()
    with tarfile.open(system) as tar:
        for member in tar:
            match = _MODULE_FOLDER.match(member.name.removeprefix("./"))
            if match is None or not member.isreg():
                continue
            if ".." in PurePosixPath(member.name).parts or not member.name.isprintable():
                raise BangerError(f"a module has a bad name: {member.name!r}", reason=Reason.CORRUPT)
            releases.add(match["release"])
            target = tree / "lib/modules" / match["release"] / match["path"]
            target.parent.mkdir(parents=True, exist_ok=True)
            source = tar.extractfile(member)
            assert source is not None
            with target.open("xb") as sink:
                shutil.copyfileobj(source, sink, 1 << 20)
    if len(releases) != 1:
        raise BangerError(f"the packages hold modules of {len(releases)} kernels, not one", reason=Reason.CORRUPT)
    return releases.pop()
