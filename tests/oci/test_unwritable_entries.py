"""What no Linux filesystem could hold is refused, rather than dropped or bent into something else."""

from __future__ import annotations

from pathlib import Path

import pytest

from banger.errors import Reason
from tests.oci.layers import (
    GNU,
    device,
    fifo,
    file,
    folder,
    hardlink,
    header,
    layer,
    member,
    pad,
    seal,
    symlink,
    whiteout,
)
from tests.oci.refusals import accept, refuse


@pytest.mark.parametrize(
    "entries",
    {
        "nowhere": hardlink("l", "missing"),
        "nowhere, deep": hardlink("l", "a/b/c"),
        "a folder": folder("d") + hardlink("l", "d"),
        "the root": hardlink("l", "."),
        "nothing": hardlink("l", ""),
        "itself": hardlink("l", "l"),
        "itself, there before": file("l") + hardlink("l", "l"),
        "below a file": file("f") + hardlink("l", "f/x"),
        "what comes later": hardlink("l", "f") + file("f"),
    }.items(),
    ids=lambda pair: pair[0],
)
def test_a_hard_link_to_what_is_not_there_is_refused(entries: tuple[str, bytes], tmp_path: Path) -> None:
    assert refuse(tmp_path, layer(entries[1])).reason is Reason.BAD_INPUT


def test_a_hard_link_to_what_a_layer_took_away_is_refused(tmp_path: Path) -> None:
    assert refuse(tmp_path, layer(file("f")), layer(whiteout("f"), hardlink("l", "f"))).reason is Reason.BAD_INPUT


@pytest.mark.parametrize("below", [file("x"), symlink("x", "nowhere/else"), fifo("x"), device("x", b"3", 1, 3)])
def test_an_entry_below_what_is_no_folder_is_refused(below: bytes, tmp_path: Path) -> None:
    kept = symlink("nowhere", "f") + file("f")
    assert refuse(tmp_path, layer(kept, below), layer(file("x/y"))).reason is Reason.BAD_INPUT


@pytest.mark.parametrize(
    "entry",
    [
        file("n" * 256),
        file("d/" + "é" * 128),
        folder("n" * 256 + "/x"),
        file("n" * 256, magic=GNU),
        whiteout("n" * 256),
        file("/".join(["d" * 250] * 17)),
        hardlink("l", "n" * 256),
        symlink("l", "t" * 4096),
    ],
)
def test_a_name_too_long_for_linux_is_refused(entry: bytes, tmp_path: Path) -> None:
    assert refuse(tmp_path, layer(entry)).reason is Reason.BAD_INPUT


def test_the_longest_names_there_can_be_are_kept(tmp_path: Path) -> None:
    accept(tmp_path, layer(file("n" * 255), file("é" * 127 + "e"), symlink("l", "t" * 4095)))


@pytest.mark.parametrize("record", ["path", "linkpath"])
def test_a_name_with_a_nul_in_it_is_refused(record: str, tmp_path: Path) -> None:
    assert refuse(tmp_path, layer(symlink("l", "t", pax={record: b"etc/pass\0wd"}))).reason is Reason.BAD_INPUT


@pytest.mark.parametrize(
    "entry", [file(""), symlink("", "t"), symlink("l", ""), folder("x", pax={"uid": "4294967295"})]
)
def test_an_entry_without_a_name_or_with_an_owner_out_of_range_is_refused(entry: bytes, tmp_path: Path) -> None:
    assert refuse(tmp_path, layer(entry)).reason is Reason.BAD_INPUT


@pytest.mark.parametrize(("major", "minor"), [(4096, 0), (0, 1 << 20), (1 << 24, 3), (1 << 40, 5)])
def test_a_device_that_linux_cannot_have_is_refused(major: int, minor: int, tmp_path: Path) -> None:
    assert refuse(tmp_path, layer(device("x", b"3", major, minor, magic=GNU))).reason is Reason.BAD_INPUT


@pytest.mark.parametrize("name", ["user.", ".x", "user", "user." + "x" * 251, "user.a\0b"])
def test_an_xattr_without_a_proper_name_is_refused(name: str, tmp_path: Path) -> None:
    assert refuse(tmp_path, layer(file("x", xattrs={name: b"1"}))).reason is Reason.BAD_INPUT


def test_more_xattrs_than_a_filesystem_holds_are_refused(tmp_path: Path) -> None:
    one = {"user.large": bytes(40_000)}
    many = {f"user.{number}": bytes(12_000) for number in range(3)}
    for number, xattrs in enumerate((one, many)):
        assert refuse(tmp_path / str(number), layer(file("x", xattrs=xattrs))).reason is Reason.BAD_INPUT
    accept(tmp_path / "most", layer(file("x", xattrs={"user.large": bytes(30_000)})))


def test_the_whiteout_of_an_overlay_filesystem_is_no_device_of_an_image(tmp_path: Path) -> None:
    """It would be one in the machine, whose root is an overlay."""
    with_device = accept(tmp_path / "a", layer(file("x"), file("y")), layer(device("x", b"3", 0, 0)))
    without = accept(tmp_path / "b", layer(file("y")))
    assert with_device.files["rootfs"] == without.files["rootfs"]


@pytest.mark.parametrize("kind", [b"8", b"A", b"D", b"M", b"\xff", b"S"])
def test_a_member_of_an_unknown_type_is_refused(kind: bytes, tmp_path: Path) -> None:
    assert refuse(tmp_path, layer(member("x", kind))).reason is Reason.BAD_INPUT


@pytest.mark.parametrize(
    "tar",
    {
        "a wrong checksum": header(b"x", b"0").replace(b"x", b"y", 1),
        "no tar at all": b"#!/bin/sh\n" * 100,
        "an entry cut off": file("x", b"a" * 5000)[:1024],
        "a header cut off": file("x")[:300],
        "a number that is none": seal(header(b"x", b"0").replace(b"0000644", b"rw-r--r")),
        "a negative size": seal(header(b"x", b"0")[:124] + b"\xff" * 12 + header(b"x", b"0")[136:]),
        "a pax record that lies": header(b"p", b"x", 20) + pad(b"99 path=x\n" + b"\n" * 10) + file("x"),
        "a pax header cut off": header(b"p", b"x", 9) + pad(b"9 path=x\n"),
    }.items(),
    ids=lambda pair: pair[0],
)
def test_what_is_no_tar_is_refused(tar: tuple[str, bytes], tmp_path: Path) -> None:
    assert refuse(tmp_path, layer(tar[1]) if "cut off" not in tar[0] else tar[1]).reason is Reason.CORRUPT


def test_what_an_archive_says_does_not_reach_the_terminal_as_it_is(tmp_path: Path) -> None:
    """`refuse` looks at the message."""
    for number, name in enumerate((b"../\x1b]0;owned\x07", b"../" + b"\xff" * 90, b"../\n\rbanger: all is well")):
        assert refuse(tmp_path / str(number), layer(file(name))).reason is Reason.BAD_INPUT
