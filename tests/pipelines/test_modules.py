"""Kernel modules out of a tar: where they are found, and that the real depmod reads them."""

from __future__ import annotations

import gzip
import io
import lzma
import subprocess
import tarfile
from pathlib import Path

import pytest
import zstandard

from banger.errors import BangerError, Reason
from cache import Store
from pipelines.content import measure, open_path
from pipelines.graph import build
from pipelines.modules import MAX_MODULES_BYTES, extract_files, find_folder, plan_imported_modules
from tests.pipelines.conftest import Recorder
from tests.pipelines.modules import Entry, make_module, write_tar

_RELEASE = "6.12.5-test"


def _extract(tree: Path, tar: Path) -> dict[str, bytes]:
    with tar.open("rb") as stream:
        extract_files(stream, tree, "it")
    return {str(path.relative_to(tree)): path.read_bytes() for path in tree.rglob("*") if path.is_file()}


def _build(store: Store, modules: Path | None, release: str | None = _RELEASE) -> tuple[dict[str, Path], Recorder]:
    """The files of the step, by output."""
    content = None if modules is None else measure(open_path(modules), MAX_MODULES_BYTES)
    step = plan_imported_modules("mine", content, release)
    reporter = Recorder()
    record = build(store, [step], reporter).record(step)
    assert record is not None
    return {name: store.path(made) for name, made in record.outputs.items()}, reporter


def _list_erofs(image: Path, tmp_path: Path) -> set[str]:
    tree = tmp_path / "from-erofs"
    subprocess.run(["fsck.erofs", f"--extract={tree}", image], check=True, capture_output=True)
    return {str(path.relative_to(tree)) for path in tree.rglob("*") if path.is_file()}


@pytest.mark.parametrize("top", [f"lib/modules/{_RELEASE}", f"usr/lib/modules/{_RELEASE}", "."])
def test_modules_are_found_wherever_they_lie(top: str, tmp_path: Path) -> None:
    tar = write_tar(
        tmp_path / "tar",
        (f"./{top}/kernel/fs/a.ko", b"a"),
        (f"./{top}/modules.builtin", b""),
        (f"{top}/build", "/usr/src/linux-headers"),
    )
    tree = tmp_path / "tree"
    files = _extract(tree, tar)
    folder, release = find_folder(tree, "it")
    assert {str(Path(name)) for name in files} == {
        str(Path(top, name)) for name in ("kernel/fs/a.ko", "modules.builtin")
    }
    assert folder == tree / top
    assert release == (None if top == "." else _RELEASE)


@pytest.mark.parametrize("suffix", ["", ".xz", ".zst", ".gz"])
def test_the_real_depmod_reads_modules_however_they_are_packed(suffix: str, store: Store, tmp_path: Path) -> None:
    pack = {"": bytes, ".xz": lzma.compress, ".zst": zstandard.ZstdCompressor().compress, ".gz": gzip.compress}[suffix]
    if suffix == ".xz":
        pack = lambda data: lzma.compress(data, lzma.FORMAT_XZ, check=lzma.CHECK_CRC32)  # noqa: E731
    place = tmp_path / "tree/kernel"
    place.mkdir(parents=True)
    for name in ("erofs", "snd"):
        (place / f"{name}.ko{suffix}").write_bytes(pack(make_module(name)))
    made, _reporter = _build(store, tmp_path / "tree")
    assert f"kernel/erofs.ko{suffix.replace('.gz', '')}" in _list_erofs(made["modules"], tmp_path)
    assert "kernel/erofs.ko" in (tmp_path / "from-erofs/modules.dep").read_text()
    drivers = zstandard.ZstdDecompressor().decompressobj().decompress(made["drivers"].read_bytes())
    assert b"erofs.ko\n" in drivers
    assert b"snd.ko" not in drivers


def test_a_kernel_without_modules_gets_an_empty_disk_of_them(store: Store, tmp_path: Path) -> None:
    made, _reporter = _build(store, None)
    assert "modules.dep" in _list_erofs(made["modules"], tmp_path)
    assert (tmp_path / "from-erofs/modules.dep").read_text() == ""


@pytest.mark.parametrize("packing", [gzip.compress, lzma.compress, zstandard.ZstdCompressor().compress])
def test_a_tar_may_be_packed(packing: object, store: Store, tmp_path: Path) -> None:
    plain = write_tar(tmp_path / "plain", ("kernel/a.ko", make_module("a")))
    packed = tmp_path / "packed"
    packed.write_bytes(packing(plain.read_bytes()))  # type: ignore[operator]
    assert _build(store, plain)[0]["modules"] == _build(store, packed)[0]["modules"]


def test_a_hard_link_is_one_more_name_of_a_module(tmp_path: Path) -> None:
    with tarfile.open(tmp_path / "tar", "w") as tar:
        first = tarfile.TarInfo("./kernel/a.ko")
        first.size = 4
        tar.addfile(first, io.BytesIO(b"text"))
        second = tarfile.TarInfo("./kernel/b.ko")
        second.type, second.linkname = tarfile.LNKTYPE, "./kernel/a.ko"
        tar.addfile(second)
    assert _extract(tmp_path / "tree", tmp_path / "tar") == {"kernel/a.ko": b"text", "kernel/b.ko": b"text"}


def test_modules_of_another_kernel_are_refused(store: Store, tmp_path: Path) -> None:
    tar = write_tar(tmp_path / "tar", ("lib/modules/6.1-other/kernel/a.ko", make_module("a")))
    with pytest.raises(BangerError) as caught:
        _build(store, tar)
    assert caught.value.reason is Reason.BAD_INPUT
    assert "6.1-other" in caught.value.message
    _build(store, tar, None)


def test_a_kernel_that_no_machine_can_boot_is_told_so(store: Store, tmp_path: Path) -> None:
    entries: list[Entry] = [("kernel/a.ko", make_module("a"))]
    builtin = "".join(f"kernel/{name}.ko\n" for name in ("virtio_blk", "virtio_net", "ext4", "overlay"))
    tar = write_tar(tmp_path / "tar", *entries, ("modules.builtin", builtin.encode()))
    _made, reporter = _build(store, tar)
    assert [text for what, text in reporter.told if what == "note"] == ["mine has no erofs: no machine can boot it"]


def test_modules_that_change_while_they_are_read_are_refused(store: Store, tmp_path: Path) -> None:
    tar = write_tar(tmp_path / "tar", ("kernel/a.ko", make_module("a")))
    step = plan_imported_modules("mine", measure(open_path(tar), MAX_MODULES_BYTES), _RELEASE)
    write_tar(tar, ("kernel/b.ko", make_module("b")))
    with pytest.raises(BangerError) as caught:
        build(store, [step], Recorder())
    assert caught.value.reason is Reason.WRONG_STATE
