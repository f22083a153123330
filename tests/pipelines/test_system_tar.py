"""What is found in the tar of a Debian system, and what is refused there."""

from __future__ import annotations

import io
import lzma
import subprocess
import tarfile
from collections.abc import Callable
from pathlib import Path

import pytest

from banger.errors import BangerError, Reason
from pipelines.initramfs import System, plan_load_order
from pipelines.kernel import extract_modules

Entry = tuple[str, bytes | str]
_MODULE: Entry = ("./usr/lib/modules/6.1-x/kernel/fs/ext4.ko", b"ext4")


def _write(path: Path, *entries: Entry) -> Path:
    """Files (bytes) and symbolic links (text) in a tar."""
    with tarfile.open(path, "w", format=tarfile.PAX_FORMAT) as tar:
        for name, content in entries:
            entry = tarfile.TarInfo(name)
            if isinstance(content, str):
                entry.type, entry.linkname = tarfile.SYMTYPE, content
                tar.addfile(entry)
            else:
                entry.size = len(content)
                tar.addfile(entry, io.BytesIO(content))
    return path


@pytest.fixture
def open_system(tmp_path: Path) -> Callable[..., System]:
    def open_one(*entries: Entry) -> System:
        return System(tarfile.open(_write(tmp_path / "system.tar", _MODULE, *entries)))

    return open_one


@pytest.mark.parametrize(
    ("link", "target"),
    [
        ("usr/bin/vi", "vim"),
        ("usr/bin/vi", "./vim"),
        ("usr/sbin/vi", "../bin/vim"),
        ("etc/vi", "/usr/bin/vim"),
        ("etc/vi", "//usr/bin/vim"),
        ("etc/vi", "/etc/../usr/bin/./vim"),
        ("vi", "../../../usr/bin/vim"),
    ],
)
def test_a_link_is_followed_inside_the_system(open_system: Callable[..., System], link: str, target: str) -> None:
    assert open_system(("./usr/bin/vim", b"vim"), (f"./{link}", target)).read(link) == b"vim"


def test_a_link_to_a_link_is_followed(open_system: Callable[..., System]) -> None:
    system = open_system(("./a", "b"), ("./b", "/c"), ("./c", b"content"))
    assert system.read("a") == b"content"


@pytest.mark.parametrize("target", ["a", "b", "/etc/passwd", "../../../../etc/passwd", "", "/"])
def test_a_link_to_nowhere_or_in_a_circle_is_refused(open_system: Callable[..., System], target: str) -> None:
    system = open_system(("./a", target), ("./b", "a"))
    with pytest.raises(BangerError) as caught:
        system.read("a")
    assert caught.value.reason is Reason.CORRUPT


def test_a_library_is_found_in_any_of_the_usual_folders(open_system: Callable[..., System]) -> None:
    system = open_system(
        ("./usr/lib64/ld.so", "../lib/x86_64-linux-gnu/ld-2.so"),
        ("./usr/lib/x86_64-linux-gnu/ld-2.so", b"loader"),
        ("./lib/x86_64-linux-gnu/libc.so.6", b"libc"),
    )
    assert system.read_library("ld.so") == b"loader"
    assert system.read_library("libc.so.6") == b"libc"
    with pytest.raises(BangerError):
        system.read_library("libm.so.6")


def test_a_module_is_unpacked(open_system: Callable[..., System]) -> None:
    packed = lzma.compress(b"virtio", lzma.FORMAT_XZ)
    system = open_system(("./usr/lib/modules/6.1-x/kernel/drivers/virtio.ko.xz", packed))
    assert system.read_module("kernel/drivers/virtio.ko.xz") == b"virtio"
    assert system.read_module("kernel/fs/ext4.ko") == b"ext4"


def test_a_system_without_modules_is_refused(tmp_path: Path) -> None:
    with tarfile.open(_write(tmp_path / "system.tar", ("./bin/sh", b""))) as tar, pytest.raises(BangerError) as caught:
        System(tar)
    assert caught.value.reason is Reason.CORRUPT


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


def test_the_real_depmod_reads_the_modules_that_were_unpacked(tmp_path: Path) -> None:
    system = _write(
        tmp_path / "system.tar",
        ("./usr/lib/modules/6.1-x/kernel/fs/a.ko", b""),
        ("./usr/lib/modules/6.1-x/modules.builtin", b""),
        ("./usr/lib/modules/6.1-x/modules.order", b"kernel/fs/a.ko\n"),
        ("./usr/lib/modules/6.1-x/build", "/usr/src/linux-headers"),
        ("./etc/passwd", b"root"),
    )
    tree = tmp_path / "tree"
    assert extract_modules(system, tree) == "6.1-x"
    files = {str(path.relative_to(tree)) for path in tree.rglob("*") if not path.is_dir()}
    assert files == {f"lib/modules/6.1-x/{name}" for name in ("kernel/fs/a.ko", "modules.builtin", "modules.order")}
    subprocess.run(["/usr/sbin/depmod", "--basedir", tree, "6.1-x"], check=True, stderr=subprocess.DEVNULL)
    assert (tree / "lib/modules/6.1-x/modules.dep").exists()


@pytest.mark.parametrize(
    "name",
    [
        "./usr/lib/modules/6.1-x/../../../../../outside",
        "./lib/modules/../modules/6.1-x/a.ko",
        "usr/lib/modules/6.1-x/kernel/../../../../../outside",
        "./usr/lib/modules/6.1-x/new\nline.ko",
        "./usr/lib/modules/6.1-x/at-the-end\n",
        "./usr/lib/modules/6.1-x/\x1b[31m.ko",
    ],
)
def test_a_module_with_an_odd_name_is_refused(tmp_path: Path, name: str) -> None:
    system = _write(tmp_path / "system.tar", _MODULE, (name, b"evil"))
    with pytest.raises(BangerError) as caught:
        extract_modules(system, tmp_path / "a" / "b" / "tree")
    assert caught.value.reason is Reason.CORRUPT
    assert not any(path.read_bytes() == b"evil" for path in tmp_path.rglob("*") if path.is_file() and path != system)


@pytest.mark.parametrize("entries", [(), (_MODULE, ("./lib/modules/6.2-y/kernel/a.ko", b""))], ids=["none", "two"])
def test_modules_of_one_kernel_are_wanted(tmp_path: Path, entries: tuple[Entry, ...]) -> None:
    system = _write(tmp_path / "system.tar", *entries)
    with pytest.raises(BangerError) as caught:
        extract_modules(system, tmp_path / "tree")
    assert caught.value.reason is Reason.CORRUPT
