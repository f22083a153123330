"""Links in the middle of a path that lead above the image's root are refused: to write, to white out, to link (C4)."""

from __future__ import annotations

from pathlib import Path

import pytest

from banger.errors import Reason
from tests.oci.layers import device, file, folder, hardlink, layer, opaque, symlink, whiteout
from tests.oci.refusals import accept, refuse

# Each makes `a` lead above the root, as seen from where it stands.
CLIMBS = {
    "upwards": symlink("a", "../../.."),
    "one step": symlink("a", ".."),
    "down and up": folder("d") + symlink("a", "d/../.."),
    "absolute and up": symlink("a", "/../etc"),
    "in a chain": symlink("b", "../.."),
    "from below": folder("d") + symlink("d/up", "../..") + symlink("a", "d/up"),
    "through another link": folder("d/e") + symlink("s", "d/e") + symlink("a", "s/../../.."),
}
CLIMBS["in a chain"] += symlink("a", "b")

WAYS = {
    "write": file("a/etc/passwd", b"root::0:0"),
    "make a folder": folder("a/etc"),
    "change a folder": folder("a/etc", mode=0o777) + folder("a/etc/cron.d"),
    "symlink": symlink("a/x", "y"),
    "device": device("a/sda", b"4", 8, 0),
    "whiteout": whiteout("a/passwd"),
    "opaque whiteout": opaque("a"),
    "hard link from": hardlink("stolen", "a/etc/shadow"),
    "hard link to": hardlink("a/x", "f"),
}


@pytest.mark.parametrize("way", WAYS)
@pytest.mark.parametrize("climb", CLIMBS)
def test_nothing_goes_through_a_link_that_leads_above_the_root(climb: str, way: str, tmp_path: Path) -> None:
    refusal = refuse(tmp_path, layer(file("f"), CLIMBS[climb], WAYS[way]))
    assert refusal.reason is Reason.BAD_INPUT


@pytest.mark.parametrize("way", WAYS)
def test_a_link_of_a_lower_layer_is_no_way_out_either(way: str, tmp_path: Path) -> None:
    assert refuse(tmp_path, layer(file("f"), CLIMBS["upwards"]), layer(WAYS[way])).reason is Reason.BAD_INPUT


def test_a_link_that_replaces_a_folder_is_no_way_out(tmp_path: Path) -> None:
    layers = layer(folder("a"), file("a/x")), layer(symlink("a", "../..")), layer(file("a/x", b"now outside"))
    assert refuse(tmp_path, *layers).reason is Reason.BAD_INPUT


@pytest.mark.parametrize("loop", [symlink("a", "a"), symlink("a", "b") + symlink("b", "./a"), symlink("a", "a/a")])
@pytest.mark.parametrize("way", ["write", "whiteout", "hard link from"])
def test_links_in_a_circle_are_refused(loop: bytes, way: str, tmp_path: Path) -> None:
    assert refuse(tmp_path, layer(file("f"), loop, WAYS[way])).reason is Reason.BAD_INPUT


def test_links_that_multiply_are_refused(tmp_path: Path) -> None:
    """Each leads twice through the one before it: 2^60 steps, were they all gone."""
    links = [symlink("l0", "d"), *(symlink(f"l{n}", f"l{n - 1}/../l{n - 1}") for n in range(1, 61))]
    assert refuse(tmp_path, layer(folder("d"), *links, file("l60/x"))).reason is Reason.BAD_INPUT


def test_a_link_that_stays_inside_is_followed(tmp_path: Path) -> None:
    inside = folder("d/e"), symlink("a", "d/e/../../d"), symlink("d/up", ".."), symlink("r", "/")
    accept(
        tmp_path, layer(*inside, file("a/x"), file("d/up/y"), file("r/r/z"), whiteout("a/up/none"), opaque("r/none"))
    )
