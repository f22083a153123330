"""What is no root filesystem, or would do harm, is refused in one line, and leaves nothing."""

from __future__ import annotations

import gzip
import io
import lzma
import os
import shutil
import struct
import subprocess
import tarfile
from pathlib import Path

import pytest
import zstandard

from banger.errors import Reason
from pipelines.oci.limits import Limits
from tests.oci.layers import (
    END,
    file,
    folder,
    hardlink,
    header,
    layer,
    member,
    opaque,
    symlink,
    whiteout,
    write_layout,
)
from tests.oci.register import Host

_MIB = 1 << 20
_ROOT = folder("bin") + file("bin/sh", b"shell")


@pytest.fixture
def host(tmp_path: Path) -> Host:
    return Host(tmp_path / "host")


@pytest.mark.parametrize(
    "entry",
    [
        file("../outside"),
        file("/etc/passwd"),
        file("bin/../../outside"),
        symlink("out", "..") + file("out/passwd"),
        symlink("out", "/../../etc") + file("out/../../passwd"),
        hardlink("l", "../../etc/passwd"),
        hardlink("l", "missing"),
        file("bin/sh/below"),
        file("n" * 256),
        member("x", b"8"),
    ],
)
def test_an_archive_that_would_reach_out_of_itself_is_refused(entry: bytes, host: Host) -> None:
    assert host.refuse(layer(_ROOT, entry)).reason is Reason.BAD_INPUT


def test_what_an_archive_says_does_not_reach_the_terminal_as_it_is(host: Host) -> None:
    host.refuse(layer(_ROOT, file(b"../\x1b]0;owned\x07")))
    host.refuse(layer(file(b"\x1b[31m/bin/sh"), file(b"\x1b[31m/etc/passwd")))


@pytest.mark.parametrize("pack", [gzip.compress, lzma.compress, zstandard.ZstdCompressor().compress])
def test_a_bomb_is_refused(pack: object, tmp_path: Path) -> None:
    host = Host(tmp_path, Limits(max_ratio=100, ratio_free_bytes=_MIB))
    bomb = pack(layer(_ROOT, file("x", bytes(64 * _MIB))))  # type: ignore[operator]
    assert host.refuse(bomb).reason is Reason.TOO_LARGE


def test_what_is_larger_than_the_limit_is_refused(tmp_path: Path) -> None:
    host = Host(tmp_path / "host", Limits(max_image_bytes=_MIB))
    tree = tmp_path / "tree/bin"
    tree.mkdir(parents=True)
    with (tree / "hole").open("wb") as hole:
        hole.truncate(1 << 40)
    assert host.refuse(tmp_path / "tree").reason is Reason.TOO_LARGE
    assert host.refuse(layer(_ROOT, file("x", bytes(2 * _MIB)))).reason is Reason.TOO_LARGE


def test_too_many_entries_are_refused(tmp_path: Path) -> None:
    many = [folder(f"d{number}") for number in range(101)]
    assert Host(tmp_path, Limits(max_entries=100)).refuse(layer(*many)).reason is Reason.TOO_LARGE


@pytest.mark.parametrize(
    ("tar", "why"),
    [
        (layer(), "empty"),
        (b"", "empty"),
        (layer(folder("."), folder("./")), "empty"),
        (layer(whiteout("bin"), whiteout("etc/passwd"), opaque("")), "empty"),
        (layer(file("readme"), file("hello", b"x")), "no folders"),
        (layer(folder("bin"), folder("etc")), "only folders"),
        (layer(file("rootfs/bin/sh"), file("rootfs/etc/passwd")), "'rootfs'"),
    ],
    ids=["nothing", "no-byte", "only-the-root", "only-whiteouts", "only-files", "only-folders", "a-folder-deeper"],
)
def test_an_archive_that_holds_no_root_filesystem_is_refused(tar: bytes, why: str, host: Host) -> None:
    refused = host.refuse(tar)
    assert refused.reason is Reason.BAD_INPUT
    assert why in refused.message


def test_a_tool_in_a_folder_of_its_own_is_a_root_filesystem(host: Host) -> None:
    host.register(layer(file("app/bin/tool", b"x")))
    host.register(layer(file("usr/bin/tool", b"x"), file("usr/etc/x")), "other")


@pytest.mark.parametrize("name", ["manifest.json", "oci-layout"])
def test_an_image_in_an_archive_is_told_from_a_root_filesystem(name: str, host: Host) -> None:
    refused = host.refuse(layer(file(name, b"{}"), file("blobs/sha256/0", b"x")))
    assert "image build" in refused.hint
    host.register(layer(_ROOT, file(name, b"{}")))


def test_an_image_in_a_folder_is_told_from_a_root_filesystem(host: Host, tmp_path: Path) -> None:
    write_layout(tmp_path / "layout", {"it": [layer(_ROOT)]})
    assert "image build" in host.refuse(tmp_path / "layout").hint


@pytest.mark.parametrize(
    "data",
    [
        b"x",
        b"#!/bin/sh\n" * 100,
        b"\x7fELF" + bytes(5000),
        gzip.compress(b"no tar" * 1000),
        b"BZh9" + os.urandom(1000),
        header(b"x", b"0").replace(b"x", b"y", 1),
    ],
    ids=["a-byte", "text", "elf", "gzip-of-text", "bzip2", "a-wrong-checksum"],
)
def test_what_is_nothing_that_is_known_is_refused(data: bytes, host: Host) -> None:
    refused = host.refuse(data)
    assert refused.reason is Reason.BAD_INPUT
    assert "neither" in refused.message


_WHOLE = layer(_ROOT, file("etc/passwd", os.urandom(5000)))


@pytest.mark.parametrize(
    "cut",
    [
        _WHOLE[: -len(END)],
        _WHOLE[:3000],
        gzip.compress(_WHOLE)[:-9],
        gzip.compress(_WHOLE[: -len(END)]),
        zstandard.ZstdCompressor().compress(_WHOLE)[:-1],
        lzma.compress(_WHOLE)[:-30],
    ],
    ids=["without-end", "in-a-file", "gzip", "gzip-of-one-without-end", "zstd", "xz"],
)
def test_an_archive_that_is_cut_off_is_refused(cut: bytes, host: Host) -> None:
    assert host.refuse(cut).reason is Reason.CORRUPT


@pytest.mark.parametrize("kind", ["missing", "fifo", "device"])
def test_what_is_neither_file_nor_folder_is_refused_without_waiting(kind: str, host: Host, tmp_path: Path) -> None:
    path = {"missing": tmp_path / "x", "fifo": tmp_path / "fifo", "device": Path("/dev/zero")}[kind]
    if kind == "fifo":
        os.mkfifo(path)
    assert host.refuse(path).reason is (Reason.NOT_FOUND if kind == "missing" else Reason.BAD_INPUT)


def test_an_empty_folder_is_refused(host: Host, tmp_path: Path) -> None:
    (tmp_path / "tree").mkdir()
    assert "empty" in host.refuse(tmp_path / "tree").message


@pytest.mark.parametrize("name", ["../x", "Mine", "", "a=b", "debian:12", "-x", "a/b"])
def test_a_bad_name_is_refused(name: str, host: Host) -> None:
    assert host.refuse(layer(_ROOT), name).reason is Reason.BAD_INPUT


@pytest.mark.parametrize(
    ("at", "magic", "what"),
    [
        (0, b"hsqs", "squashfs"),
        (0, b"XFSB", "XFS"),
        (0x10040, b"_BHRfS_M", "btrfs"),
        (0, b"QFI\xfb", "qcow2"),
        (0x200, b"EFI PART", "partitions"),
        (0x8001, b"CD001", "ISO"),
    ],
)
def test_an_image_of_another_filesystem_is_refused_with_a_way_out(
    at: int, magic: bytes, what: str, host: Host, tmp_path: Path
) -> None:
    image = bytearray(1 << 17)
    image[at : at + len(magic)] = magic
    (tmp_path / "image").write_bytes(image)
    refused = host.refuse(tmp_path / "image")
    assert refused.reason is Reason.BAD_INPUT
    assert what in refused.message
    assert "--rootfs -" in refused.hint


def test_a_real_ext4_image_is_refused_with_a_way_out(host: Host, tmp_path: Path) -> None:
    with (tmp_path / "image").open("wb") as image:
        image.truncate(4 * _MIB)
    mke2fs = shutil.which("mke2fs", path=f"{os.environ['PATH']}:/usr/sbin")
    assert mke2fs is not None
    subprocess.run([mke2fs, "-q", "-t", "ext4", tmp_path / "image"], check=True)
    assert "ext4" in host.refuse(tmp_path / "image").message


def test_a_tar_that_holds_the_sign_of_another_filesystem_is_a_tar(host: Host) -> None:
    sign = bytes(0x438 - 512) + b"\x53\xef"
    host.register(layer(file("signs/ext4", sign), _ROOT))


def _make_erofs(tmp_path: Path, *options: str) -> bytearray:
    (tmp_path / "tree/bin").mkdir(parents=True)
    (tmp_path / "tree/bin/sh").write_bytes(os.urandom(20_000))
    subprocess.run(["mkfs.erofs", *options, tmp_path / "i", tmp_path / "tree"], check=True, capture_output=True)
    return bytearray((tmp_path / "i").read_bytes())


@pytest.mark.parametrize(
    ("alter", "reason"),
    [
        (lambda image: image[:-4096], Reason.CORRUPT),
        (lambda image: image[:-1], Reason.CORRUPT),
        (lambda image: image[:1030], Reason.BAD_INPUT),
        (lambda image: image[:1036] + b"\x00" + image[1037:], Reason.BAD_INPUT),
        (lambda image: image[:1036] + b"\x10" + image[1037:], Reason.BAD_INPUT),
        (lambda image: image[:1036] + b"\xff" + image[1037:], Reason.BAD_INPUT),
        (lambda image: image[:1060] + struct.pack("<I", 0xFFFFFFFF) + image[1064:], Reason.CORRUPT),
        (lambda image: image[:1110] + b"\x01\x00" + image[1112:], Reason.BAD_INPUT),
    ],
    ids=[
        "a-block-less",
        "a-byte-less",
        "cut-in-the-head",
        "tiny-blocks",
        "large-blocks",
        "huge-blocks",
        "long",
        "parts",
    ],
)
def test_an_erofs_image_that_no_guest_can_mount_is_refused(
    alter: object, reason: Reason, host: Host, tmp_path: Path
) -> None:
    (tmp_path / "image").write_bytes(alter(_make_erofs(tmp_path)))  # type: ignore[operator]
    assert host.refuse(tmp_path / "image").reason is reason


def test_a_tar_that_the_real_program_made_of_nothing_is_empty(host: Host, tmp_path: Path) -> None:
    subprocess.run(["tar", "-cf", tmp_path / "tar", "-T", "/dev/null"], check=True)
    assert "empty" in host.refuse(tmp_path / "tar").message
    sink = io.BytesIO()
    tarfile.open(fileobj=sink, mode="w").close()
    assert "empty" in host.refuse(sink.getvalue()).message
