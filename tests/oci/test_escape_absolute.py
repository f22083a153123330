"""Absolute members are refused (C4). What links hold may be absolute: it is meant inside the image."""

from __future__ import annotations

from pathlib import Path

import pytest

from banger.errors import Reason
from tests.oci.layers import GNU, file, folder, hardlink, header, layer, member, seal, symlink
from tests.oci.refusals import accept, refuse


@pytest.mark.parametrize("name", ["/etc/passwd", "//etc/passwd", "///x", "/../x", "/./x", "/a/../../x"])
def test_an_absolute_file_is_refused(name: str, tmp_path: Path) -> None:
    assert refuse(tmp_path, layer(file(name, b"root::0:0"))).reason is Reason.BAD_INPUT


@pytest.mark.parametrize("entry", [folder("/etc"), symlink("/x", "y"), hardlink("/x", "a"), file("/etc/.wh.passwd")])
def test_an_absolute_entry_of_any_kind_is_refused(entry: bytes, tmp_path: Path) -> None:
    assert refuse(tmp_path, layer(file("a"), file("etc/passwd")), layer(entry)).reason is Reason.BAD_INPUT


def test_an_absolute_name_is_found_in_every_field_that_gives_one(tmp_path: Path) -> None:
    split = header(b"x", b"0")
    entries = [
        file("honest", pax={"path": "/x"}),
        file("/" + "x" * 150, magic=GNU),
        seal(split[:345] + b"/etc".ljust(155, b"\0") + split[500:]),
    ]
    for number, entry in enumerate(entries):
        assert refuse(tmp_path / str(number), layer(entry)).reason is Reason.BAD_INPUT


def test_a_root_that_is_no_folder_is_refused(tmp_path: Path) -> None:
    for number, entry in enumerate((symlink("./", "/etc"), file("."), hardlink("./.", "a"), symlink("/", "/etc"))):
        assert refuse(tmp_path / str(number), layer(file("a")), layer(entry)).reason is Reason.BAD_INPUT


def test_a_folder_of_nothing_but_slashes_is_the_root(tmp_path: Path) -> None:
    """So kaniko writes it."""
    accept(tmp_path, layer(member("/", b"5", mode=0o755), member("//", b"5", mode=0o755)))


def test_links_to_absolute_targets_stay_inside(tmp_path: Path) -> None:
    accept(
        tmp_path,
        layer(folder("usr"), folder("usr/lib"), symlink("lib", "/usr/lib"), file("lib/x"), hardlink("y", "/lib/x")),
    )
