"""Tars of kernel modules that would get out of their folder, or into a shell, a terminal or somebody's memory."""

from __future__ import annotations

import io
from pathlib import Path

import pytest

from banger.errors import BangerError, Reason
from pipelines.modules import extract_files, find_folder
from tests.oci.layers import device, fifo, file, folder, hardlink, header, layer, pad, symlink

_MODULE = file("kernel/good.ko", b"good")


def _refuse(tmp_path: Path, tar: bytes) -> BangerError:
    """The refusal; what is in no good module is nowhere."""
    with pytest.raises(BangerError) as caught:
        _read(io.BytesIO(tar), tmp_path / "a/b/tree")
    assert caught.value.message.isprintable()
    assert not any(path.read_bytes() == b"evil" for path in tmp_path.rglob("*") if path.is_file())
    return caught.value


def _read(tar: io.BytesIO, tree: Path) -> None:
    extract_files(tar, tree, "it")
    find_folder(tree, "it")


@pytest.mark.parametrize(
    "name",
    [
        "../outside",
        "lib/modules/6.1-x/../../../../../outside",
        "lib/modules/../modules/6.1-x/a.ko",
        "/etc/outside",
        "kernel/new\nline.ko",
        "kernel/at-the-end\n",
        "kernel/\x1b[31m.ko",
        "kernel/two words.ko",
        "kernel/\udcff.ko",
        "kernel/ü.ko",
        "n" * 256 + ".ko",
    ],
)
def test_a_module_with_an_odd_name_is_refused(name: str, tmp_path: Path) -> None:
    assert _refuse(tmp_path, layer(_MODULE, file(name, b"evil"))).reason in (Reason.CORRUPT, Reason.BAD_INPUT)


@pytest.mark.parametrize(
    "entries",
    {
        "twice": file("kernel/good.ko", b"evil"),
        "below a file": file("kernel/good.ko/x.ko", b"evil"),
        "in the place of a folder": file("kernel", b"evil"),
        "a link to what is not there": hardlink("kernel/l.ko", "kernel/missing.ko"),
        "a link outside": hardlink("kernel/l.ko", "../../../etc/passwd"),
        "a link in the place of a module": hardlink("kernel/good.ko", "kernel/good.ko"),
    }.items(),
    ids=lambda pair: pair[0],
)
def test_members_that_do_not_fit_each_other_are_refused(entries: tuple[str, bytes], tmp_path: Path) -> None:
    assert _refuse(tmp_path, layer(_MODULE, entries[1])).reason in (Reason.CORRUPT, Reason.BAD_INPUT)


def test_a_hard_link_to_what_was_no_file_is_refused(tmp_path: Path) -> None:
    links = symlink("kernel/out", "/etc/passwd"), hardlink("kernel/l.ko", "kernel/out")
    assert _refuse(tmp_path, layer(_MODULE, *links)).reason is Reason.CORRUPT


def test_what_is_no_file_is_left_out_and_never_followed(tmp_path: Path) -> None:
    outside = tmp_path / "outside"
    outside.mkdir()
    tar = tmp_path / "tar"
    tar.write_bytes(
        layer(
            symlink("build", "/usr/src"),
            fifo("kernel/fifo"),
            device("kernel/null", b"3", 1, 3),
            folder("kernel"),
            symlink("away", str(outside)),
            file("away/a.ko", b"good"),
        )
    )
    with tar.open("rb") as stream:
        extract_files(stream, tmp_path / "tree", "it")
    assert [str(path.relative_to(tmp_path / "tree")) for path in (tmp_path / "tree").rglob("*")] == [
        "away",
        "away/a.ko",
    ]
    assert list(outside.iterdir()) == []


@pytest.mark.parametrize("release", ["x", "..x", "6", "6.1;id", "-6.1", "6.1" + "0" * 70, "6.1$(id)"])
def test_a_release_that_is_none_is_refused(release: str, tmp_path: Path) -> None:
    assert _refuse(tmp_path, layer(file(f"lib/modules/{release}/a.ko", b"good"))).reason is Reason.CORRUPT


@pytest.mark.parametrize(
    "tar",
    {
        "nothing": layer(),
        "two kernels": layer(file("lib/modules/6.1/a.ko", b"good"), file("usr/lib/modules/6.2/a.ko", b"good")),
        "no modules": layer(file("kernel/readme", b"good")),
        "no tar": b"#!/bin/sh\n" * 200,
        "cut off": layer(_MODULE, file("kernel/b.ko", b"good"))[:700],
        "gzip of nothing": b"\x1f\x8b\x08" + bytes(50),
    }.items(),
    ids=lambda pair: pair[0],
)
def test_what_holds_no_modules_of_one_kernel_is_refused(tar: tuple[str, bytes], tmp_path: Path) -> None:
    assert _refuse(tmp_path, tar[1]).reason is Reason.CORRUPT


def test_a_module_of_nothing_but_hole_is_refused(tmp_path: Path) -> None:
    records = {"GNU.sparse.size": str(1 << 40), "GNU.sparse.numblocks": "1", "GNU.sparse.map": "0,4"}
    assert _refuse(tmp_path, layer(file("kernel/a.ko", b"good", pax=records))).reason is Reason.CORRUPT


def test_a_header_of_a_module_larger_than_all_there_is_is_refused(tmp_path: Path) -> None:
    assert _refuse(tmp_path, header(b"kernel/a.ko", b"0", 1 << 30) + pad(b"")).reason is Reason.CORRUPT
