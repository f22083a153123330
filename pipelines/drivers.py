"""The few kernel modules that a guest needs before it has its disks, as an archive that is a part of its initramfs.

`modules/order` says in which order /init loads what is in `modules/`.
"""

from __future__ import annotations

from collections.abc import Iterable
from pathlib import Path, PurePosixPath
from typing import IO

from pipelines.cpio import CpioWriter, compress_archive
from pipelines.oci.limits import Limits
from pipelines.oci.stream import unpack

# What reaches disks, network, agent and console on both monitors; what a kernel has built in is not looked for.
NEEDED = (
    "virtio_pci",
    "virtio_mmio",
    "virtio_blk",
    "virtio_net",
    "virtio_console",
    "virtio_rng",
    "vmw_vsock_virtio_transport",
    "ext4",
    "erofs",
    "overlay",
)
# Without these no guest comes up, whatever monitor runs it.
_VITAL = ("virtio_blk", "virtio_net", "ext4", "erofs", "overlay")
_MODULE_LIMITS = Limits(max_image_bytes=64 << 20)


def write_drivers(sink: IO[bytes], folder: Path) -> None:
    """The archive for a folder of modules (/lib/modules/RELEASE) that depmod(8) has been through."""
    order = plan_load_order((folder / "modules.dep").read_text(), NEEDED)
    names = [PurePosixPath(path).name.partition(".ko")[0] + ".ko" for path in order]
    with compress_archive(sink) as packed:
        archive = CpioWriter(packed)
        archive.add_folder("modules")
        archive.add_file("modules/order", "".join(f"{name}\n" for name in names).encode(), executable=False)
        for name, path in zip(names, order, strict=True):
            archive.add_file(f"modules/{name}", read_module(folder / path), executable=False)
        archive.close()


def plan_load_order(modules_dep: str, wanted: Iterable[str]) -> list[str]:
    """Paths of modules to load, each after what it needs (modules.dep(5)); names not listed are built in."""
    needs: dict[str, list[str]] = {}
    by_name: dict[str, str] = {}
    for line in modules_dep.splitlines():
        path, _, needed = line.partition(":")
        needs[path] = needed.split()
        by_name[_module_name(path)] = path
    order: list[str] = []
    for name in wanted:
        if name not in by_name:
            continue
        wanted_path = by_name[name]
        # The dependencies stand nearest first: the last one must be loaded first.
        for each in [*reversed(needs[wanted_path]), wanted_path]:
            if each not in order:
                order.append(each)
    return order


def list_missing(modules_dep: str, modules_builtin: str) -> list[str]:
    """What a guest can not do without and a kernel has neither as a module nor built in (kbuild, modules.builtin)."""
    paths = [line.partition(":")[0] for line in (modules_dep + "\n" + modules_builtin).splitlines()]
    return sorted(set(_VITAL) - set(map(_module_name, paths)))


def read_module(path: Path) -> bytes:
    """A kernel module, unpacked: the initramfs is compressed as a whole."""
    with path.open("rb") as packed:
        return b"".join(unpack(packed, _MODULE_LIMITS, f"the kernel module {path.name}"))


def _module_name(path: str) -> str:
    return PurePosixPath(path).name.split(".")[0].replace("-", "_")
