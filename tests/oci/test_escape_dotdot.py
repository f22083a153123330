"""Names that climb with `..` are refused, in whatever field of whatever form of tar they stand (C4)."""

from __future__ import annotations

from pathlib import Path

import pytest

from banger.errors import Reason
from tests.oci.layers import GNU, device, fifo, file, folder, hardlink, header, layer, member, seal, symlink
from tests.oci.refusals import accept, refuse

CLIMBING = [
    "../x",
    "..",
    "../",
    "a/../x",
    "a/../../x",
    "./../x",
    "a/b/../../../etc/passwd",
    "a/..",
    "x/.././../y",
    "..//x",
]


@pytest.mark.parametrize("name", CLIMBING)
def test_a_file_that_climbs_is_refused(name: str, tmp_path: Path) -> None:
    assert refuse(tmp_path, layer(folder("a"), file(name, b"root::0:0"))).reason is Reason.BAD_INPUT


@pytest.mark.parametrize(
    "entry",
    [
        folder("a/../../x"),
        folder(".."),
        symlink("../x", "y"),
        hardlink("../x", "a"),
        device("../x", b"3", 1, 3),
        fifo("../x"),
    ],
)
def test_an_entry_of_any_kind_that_climbs_is_refused(entry: bytes, tmp_path: Path) -> None:
    assert refuse(tmp_path, layer(file("a")), layer(entry)).reason is Reason.BAD_INPUT


def test_a_climb_is_found_in_every_field_that_gives_a_name(tmp_path: Path) -> None:
    split = header(b"x", b"0")
    entries = [
        file("honest", pax={"path": "../x"}),
        file("honest/" * 20 + "../" * 30 + "x", magic=GNU),
        seal(split[:345] + b"a/..".ljust(155, b"\0") + split[500:]),
        file("honest", b"0\n".ljust(512, b"\0"), pax=_sparse("../x")),
    ]
    for number, entry in enumerate(entries):
        assert refuse(tmp_path / str(number), layer(entry)).reason is Reason.BAD_INPUT


def _sparse(name: str) -> dict[str, str]:
    return {"GNU.sparse.major": "1", "GNU.sparse.minor": "0", "GNU.sparse.name": name, "GNU.sparse.realsize": "0"}


@pytest.mark.parametrize("name", ["../.wh.x", "a/../.wh.x", "../.wh..wh..opq", ".wh...", ".wh..", "a/.wh...", ".wh."])
def test_a_whiteout_that_climbs_or_names_nothing_is_refused(name: str, tmp_path: Path) -> None:
    assert refuse(tmp_path, layer(file("a/b")), layer(file(name))).reason is Reason.BAD_INPUT


@pytest.mark.parametrize("target", ["../x", "a/../../x", "..", "/../x", "a/../f"])
def test_a_hard_link_to_what_climbs_is_refused(target: str, tmp_path: Path) -> None:
    assert refuse(tmp_path, layer(folder("a"), file("f"), hardlink("l", target))).reason is Reason.BAD_INPUT


def test_names_that_only_look_like_a_climb_are_kept(tmp_path: Path) -> None:
    honest = [file(name) for name in ("..a", "a..", "...", "b/..c/...", ". .", "...../x")]
    # A symlink may say what it likes as long as nobody goes through it.
    accept(tmp_path, layer(*honest, symlink("up", "../../.."), member("d/", b"5"), symlink("d/up", "../..")))
