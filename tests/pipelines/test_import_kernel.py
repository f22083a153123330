"""A kernel of a user's own becomes what a machine boots, under a name; the default kernel's runtime comes with it."""

from __future__ import annotations

import io
import os
import shutil
import subprocess
from dataclasses import replace
from pathlib import Path

import pytest
import zstandard

from banger.errors import BangerError, Reason
from banger.run import resume
from cache import Store
from catalog.kernels import DEFAULT_KERNEL
from catalog.local import Named, Names
from pipelines.content import open_file, open_path
from pipelines.cpio import CpioWriter
from pipelines.graph import build
from pipelines.import_kernel import KernelFiles, plan_imported_kernel
from pipelines.initramfs import TAIL, runtime_version
from pipelines.targets import Targets
from tests.pipelines.conftest import Recorder
from tests.pipelines.kernels import ELF, PACKERS, RELEASE, give_default_kernel, make_bzimage, make_elf
from tests.pipelines.modules import make_module, write_tar


@pytest.fixture
def targets(tmp_path: Path) -> Targets:
    """With a default kernel that is here, so that no packages are asked for."""
    resume()
    store = Store.open(tmp_path / "store")
    targets = Targets(
        store, Names(tmp_path / "images", "image"), Names(tmp_path / "kernels", "kernel"), reporter=Recorder()
    )
    give_default_kernel(store, targets.kernels)
    return targets


def _write(path: Path, data: bytes) -> Path:
    path.write_bytes(data)
    return path


def _import(targets: Targets, files: KernelFiles, name: str = "mine") -> Named:
    build(targets.store, [plan_imported_kernel(targets, name, files).naming], targets.reporter)
    return targets.kernels.get(name)


def _refuse(targets: Targets, files: KernelFiles, name: str = "mine") -> BangerError:
    with pytest.raises(BangerError) as caught:
        _import(targets, files, name)
    assert [each.name for each in targets.kernels.list()] == [DEFAULT_KERNEL]
    assert list((targets.store.root / "tmp").iterdir()) == []
    assert caught.value.message.isprintable()
    return caught.value


def _read_archives(initramfs: bytes) -> list[bytes]:
    """The names and contents of each zstd archive, as they are."""
    found = []
    assert initramfs.endswith(TAIL)
    initramfs = initramfs.removesuffix(TAIL)
    while initramfs:
        frame = zstandard.ZstdDecompressor().decompressobj()
        found.append(frame.decompress(initramfs))
        initramfs = frame.unused_data
    return found


def _notes(targets: Targets) -> list[str]:
    assert isinstance(targets.reporter, Recorder)
    return [text for what, text in targets.reporter.told if what == "note"]


@pytest.mark.parametrize("image", [ELF, make_bzimage(PACKERS["zstd"](ELF))], ids=["vmlinux", "bzImage"])
def test_a_kernel_gets_a_name_and_the_runtime_of_the_default_kernel(
    image: bytes, targets: Targets, tmp_path: Path
) -> None:
    module = make_module("erofs")
    tar = write_tar(tmp_path / "tar", (f"./lib/modules/{RELEASE}/kernel/fs/erofs.ko", module))
    made = _import(targets, KernelFiles(open_file(_write(tmp_path / "image", image)), modules=open_path(tar)))
    assert made.path("vmlinux").read_bytes() == ELF
    assert made.details == {"source": "import", "version": RELEASE, "runtime": runtime_version()}
    runtime, drivers = _read_archives(made.path("initramfs").read_bytes())
    assert b"runtime" in runtime
    assert module in drivers
    assert b"erofs.ko\n" in drivers
    subprocess.run(["fsck.erofs", made.path("modules")], check=True, capture_output=True)
    assert _notes(targets) == []


def test_a_kernel_with_everything_built_in_needs_no_modules(targets: Targets, tmp_path: Path) -> None:
    made = _import(targets, KernelFiles(open_file(_write(tmp_path / "image", ELF))))
    _runtime, drivers = _read_archives(made.path("initramfs").read_bytes())
    assert b"of the default kernel" not in drivers
    assert b"modules/order" in drivers


def test_an_initrd_comes_in_front_and_the_runtime_has_the_last_word(targets: Targets, tmp_path: Path) -> None:
    sink = io.BytesIO()
    archive = CpioWriter(sink)
    archive.add_file("init", b"of the user", executable=True)
    archive.add_file("kernel/firmware/acpi/table.aml", b"table", executable=False)
    archive.close()
    files = KernelFiles(open_file(_write(tmp_path / "image", ELF)), open_file(_write(tmp_path / "i", sink.getvalue())))
    initramfs = _import(targets, files).path("initramfs").read_bytes()
    assert initramfs.startswith(sink.getvalue())
    unpacked = tmp_path / "unpacked"
    unpacked.mkdir()
    for one in [sink.getvalue(), *_read_archives(initramfs[len(sink.getvalue()) + -len(sink.getvalue()) % 4 :])]:
        subprocess.run(["cpio", "-idu", "--quiet"], input=one, cwd=unpacked, check=True)
    assert (unpacked / "init").read_bytes() == b"runtime"
    assert (unpacked / "kernel/firmware/acpi/table.aml").read_bytes() == b"table"


def test_importing_the_same_again_does_nothing_wherever_it_lies(targets: Targets, tmp_path: Path) -> None:
    folder = tmp_path / "modules/kernel"
    folder.mkdir(parents=True)
    _write(folder / "a.ko", make_module("a"))
    first = _import(
        targets, KernelFiles(open_file(_write(tmp_path / "one", ELF)), modules=open_path(tmp_path / "modules"))
    )
    assert isinstance(targets.reporter, Recorder)
    targets.reporter.told.clear()
    (tmp_path / "modules").rename(tmp_path / "elsewhere")
    (tmp_path / "one").rename(tmp_path / "two")
    again = _import(targets, KernelFiles(open_file(tmp_path / "two"), modules=open_path(tmp_path / "elsewhere")))
    assert again == first
    assert not any(what == "started" for what, _step in targets.reporter.told)


def test_another_kernel_takes_the_name_over(targets: Targets, tmp_path: Path) -> None:
    first = _import(targets, KernelFiles(open_file(_write(tmp_path / "one", ELF))))
    other = make_elf(b"other", release="6.13.0")
    second = _import(targets, KernelFiles(open_file(_write(tmp_path / "two", other))))
    assert second.files["vmlinux"] != first.files["vmlinux"]
    assert second.details["version"] == "6.13.0"
    assert _notes(targets) == []


def test_an_imported_kernel_does_not_become_the_source_of_the_runtime(targets: Targets, tmp_path: Path) -> None:
    before = targets.kernels.get(DEFAULT_KERNEL)
    _import(targets, KernelFiles(open_file(_write(tmp_path / "one", ELF))), DEFAULT_KERNEL)
    assert DEFAULT_KERNEL in _notes(targets)[0]
    assert targets.kernels.get(DEFAULT_KERNEL).files["initramfs"] != before.files["initramfs"]
    # Building one needs packages: which is asked for, but may not be.
    with pytest.raises(BangerError) as caught:
        plan_imported_kernel(
            replace(targets, may_build=False), "other", KernelFiles(open_file(_write(tmp_path / "two", ELF)))
        )
    assert DEFAULT_KERNEL in caught.value.message


def test_an_imported_kernel_works_after_the_store_was_wiped(targets: Targets, tmp_path: Path) -> None:
    _import(targets, KernelFiles(open_file(_write(tmp_path / "one", ELF))))
    shutil.rmtree(targets.store.root)
    Store.open(targets.store.root)
    target = targets.plan_kernel("mine")
    build(targets.store, [target.naming], Recorder())
    assert set(target.artifacts) == {"vmlinux", "modules", "initramfs"}
    assert targets.store.has(targets.kernels.get("mine").files["vmlinux"])


def test_an_imported_kernel_cannot_be_built_again(targets: Targets, tmp_path: Path) -> None:
    _import(targets, KernelFiles(open_file(_write(tmp_path / "one", ELF))))
    with pytest.raises(BangerError) as caught:
        targets.plan_kernel("mine", anew=True)
    assert caught.value.reason is Reason.BAD_INPUT
    assert "kernel import mine" in caught.value.hint


def test_a_kernel_that_qemu_cannot_enter_is_told_so(targets: Targets, tmp_path: Path) -> None:
    image = make_elf().replace(b"Xen\0", b"xen\0")
    _import(targets, KernelFiles(open_file(_write(tmp_path / "one", image))))
    assert "CONFIG_PVH" in _notes(targets)[0]


@pytest.mark.parametrize("name", ["../x", "Mine", "", "a=b", "debian:12", "-x"])
def test_a_bad_name_is_refused(name: str, targets: Targets, tmp_path: Path) -> None:
    assert _refuse(targets, KernelFiles(open_file(_write(tmp_path / "one", ELF))), name).reason is Reason.BAD_INPUT


def test_a_program_is_no_kernel(targets: Targets) -> None:
    assert _refuse(targets, KernelFiles(open_file(Path("/usr/bin/busybox")))).reason is Reason.BAD_INPUT


@pytest.mark.parametrize("image", [b"", b"text" * 500, make_bzimage(PACKERS["xz"](ELF))[:9000], ELF[:-1]])
def test_what_is_no_kernel_or_not_whole_is_refused(image: bytes, targets: Targets, tmp_path: Path) -> None:
    path = _write(tmp_path / "one", image)
    refused = _refuse(targets, KernelFiles(open_file(path)))
    assert refused.reason is Reason.CORRUPT
    assert str(path) in refused.message


def test_a_kernel_with_all_its_symbols_is_refused_with_a_way_out(targets: Targets, tmp_path: Path) -> None:
    path = _write(tmp_path / "one", ELF)
    os.truncate(path, 600 << 20)
    refused = _refuse(targets, KernelFiles(open_file(path)))
    assert refused.reason is Reason.TOO_LARGE
    assert "strip" in refused.hint


@pytest.mark.parametrize("part", ["initrd", "modules"])
def test_what_is_no_initrd_or_no_modules_is_refused(part: str, targets: Targets, tmp_path: Path) -> None:
    files = KernelFiles(
        open_file(_write(tmp_path / "one", ELF)), **{part: open_file(_write(tmp_path / "two", b"text" * 500))}
    )
    assert str(tmp_path / "two") in _refuse(targets, files).message


def test_modules_of_another_release_are_refused(targets: Targets, tmp_path: Path) -> None:
    tar = write_tar(tmp_path / "tar", ("lib/modules/6.1.0/kernel/a.ko", make_module("a")))
    refused = _refuse(targets, KernelFiles(open_file(_write(tmp_path / "one", ELF)), modules=open_path(tar)))
    assert refused.reason is Reason.BAD_INPUT
    assert RELEASE in refused.message


@pytest.mark.parametrize("kind", ["missing", "folder", "device", "fifo"])
def test_what_is_no_file_is_refused_without_waiting(kind: str, tmp_path: Path) -> None:
    path = {"missing": tmp_path / "x", "folder": tmp_path, "device": Path("/dev/zero"), "fifo": tmp_path / "fifo"}[kind]
    if kind == "fifo":
        os.mkfifo(path)
    with pytest.raises(BangerError) as caught:
        open_file(path)
    assert caught.value.reason is (Reason.NOT_FOUND if kind == "missing" else Reason.BAD_INPUT)
