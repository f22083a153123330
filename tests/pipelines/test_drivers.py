"""Which modules a guest loads before it has its disks, in which order, and what of them is in its initramfs."""

from __future__ import annotations

import gzip
import io
import lzma
import subprocess
from collections.abc import Callable
from pathlib import Path

import pytest
import zstandard

from banger.errors import BangerError, Reason
from pipelines.drivers import list_missing, plan_load_order, read_module, write_drivers

_PACKERS: dict[str, Callable[[bytes], bytes]] = {
    "": bytes,
    ".xz": lambda data: lzma.compress(data, lzma.FORMAT_XZ),
    ".zst": zstandard.ZstdCompressor().compress,
    ".gz": gzip.compress,
}


def test_modules_are_loaded_after_what_they_need() -> None:
    modules_dep = (
        "kernel/drivers/virtio-net.ko.xz: kernel/net/net_failover.ko.xz kernel/net/failover.ko.xz\n"
        "kernel/net/net_failover.ko.xz: kernel/net/failover.ko.xz\n"
        "kernel/net/failover.ko.xz:\n"
        "kernel/fs/overlay.ko.xz:\n"
    )
    assert plan_load_order(modules_dep, ["overlay", "virtio_net", "built_in", "overlay"]) == [
        "kernel/fs/overlay.ko.xz",
        "kernel/net/failover.ko.xz",
        "kernel/net/net_failover.ko.xz",
        "kernel/drivers/virtio-net.ko.xz",
    ]


@pytest.mark.parametrize("suffix", _PACKERS)
def test_a_module_is_unpacked(suffix: str, tmp_path: Path) -> None:
    path = tmp_path / f"ext4.ko{suffix}"
    path.write_bytes(_PACKERS[suffix](b"\x7fELF" + bytes(5000)))
    assert read_module(path) == b"\x7fELF" + bytes(5000)


@pytest.mark.parametrize("suffix", list(_PACKERS)[1:])
def test_a_module_that_is_cut_off_is_refused(suffix: str, tmp_path: Path) -> None:
    path = tmp_path / f"ext4.ko{suffix}"
    path.write_bytes(_PACKERS[suffix](b"\x7fELF" + bytes(range(256)) * 50)[:-1])
    with pytest.raises(BangerError) as caught:
        read_module(path)
    assert caught.value.reason is Reason.CORRUPT


@pytest.mark.parametrize("suffix", list(_PACKERS)[1:])
def test_a_module_that_unpacks_to_more_than_any_module_has_is_refused(suffix: str, tmp_path: Path) -> None:
    path = tmp_path / f"ext4.ko{suffix}"
    path.write_bytes(_PACKERS[suffix](bytes(80 << 20)))
    with pytest.raises(BangerError) as caught:
        read_module(path)
    assert caught.value.reason is Reason.TOO_LARGE


def test_the_drivers_of_a_guest_are_an_archive_with_their_order(tmp_path: Path) -> None:
    folder, unpacked = tmp_path / "modules", tmp_path / "unpacked"
    for name, suffix in (("fs/ext4", ".xz"), ("fs/jbd2", ".zst"), ("sound/snd", "")):
        path = folder / f"kernel/{name}.ko{suffix}"
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(_PACKERS[suffix](name.encode()))
    (folder / "modules.dep").write_text(
        "kernel/fs/ext4.ko.xz: kernel/fs/jbd2.ko.zst\nkernel/fs/jbd2.ko.zst:\nkernel/sound/snd.ko:\n"
    )
    packed = io.BytesIO()
    write_drivers(packed, folder)
    archive = zstandard.ZstdDecompressor().decompressobj().decompress(packed.getvalue())
    unpacked.mkdir()
    subprocess.run(["cpio", "-id", "--quiet"], input=archive, cwd=unpacked, check=True)
    assert {path.name: path.read_text() for path in (unpacked / "modules").iterdir()} == {
        "order": "jbd2.ko\next4.ko\n",
        "jbd2.ko": "fs/jbd2",
        "ext4.ko": "fs/ext4",
    }


def test_what_a_kernel_lacks_that_every_guest_needs_is_told() -> None:
    modules_dep = "kernel/fs/overlayfs/overlay.ko.xz:\nkernel/drivers/net/virtio_net.ko: kernel/x/failover.ko\n"
    builtin = "kernel/fs/ext4/ext4.ko\nkernel/drivers/block/virtio-blk.ko\n"
    assert list_missing(modules_dep, builtin) == ["erofs"]
    assert list_missing(modules_dep, builtin + "kernel/fs/erofs/erofs.ko\n") == []
