"""What would fill the host is refused before it is on the disk: by ratio, size, count, holes, headers (C4)."""

from __future__ import annotations

import gzip
from pathlib import Path

import pytest

from banger.errors import Reason
from pipelines.oci.limits import Limits
from tests.oci.layers import END, GNU, file, folder, hardlink, header, layer, opaque, pad, seal, symlink, whiteout
from tests.oci.refusals import Host, accept, refuse

_KIB, _MIB, _TIB = 1 << 10, 1 << 20, 1 << 40
# Of a file of zeros gzip makes a thousandth.
_RATIO = Limits(max_ratio=100, ratio_free_bytes=_MIB)


@pytest.mark.parametrize("how", ["gzip", "zstd", "gzips"])
def test_a_layer_that_unpacks_to_many_times_its_size_is_refused(how: str, tmp_path: Path) -> None:
    host = Host(tmp_path, _RATIO if how != "gzips" else Limits(max_ratio=5, ratio_free_bytes=_MIB), (how,))
    host.write(layer(file("x", bytes(8 * _MIB))))
    assert host.refuse().reason is Reason.TOO_LARGE


def test_the_ratio_counts_after_the_last_entry_too(tmp_path: Path) -> None:
    host = Host(tmp_path, _RATIO, ("gzip",))
    host.write(layer(file("x")) + bytes(8 * _MIB))
    assert host.refuse().reason is Reason.TOO_LARGE


def test_a_small_layer_may_be_of_any_ratio_and_a_plain_one_of_any_size(tmp_path: Path) -> None:
    accept(tmp_path / "small", layer(file("x", bytes(_MIB - 4 * _KIB))), limits=_RATIO)
    plain = Host(tmp_path / "plain", _RATIO, ("none",))
    plain.write(layer(file("x", bytes(8 * _MIB))))
    plain.build()


@pytest.mark.parametrize("how", ["gzip", "zstd", "none"])
def test_a_layer_larger_than_the_limit_is_refused(how: str, tmp_path: Path) -> None:
    host = Host(tmp_path, Limits(max_image_bytes=_MIB), (how,))
    host.write(layer(file("x", bytes(2 * _MIB))))
    assert host.refuse().reason is Reason.TOO_LARGE


def test_layers_that_are_too_large_only_together_are_refused(tmp_path: Path) -> None:
    limits = Limits(max_image_bytes=_MIB)
    layers = [layer(file(f"x{n}", bytes(300 * _KIB))) for n in range(4)]
    assert refuse(tmp_path / "four", *layers, limits=limits).reason is Reason.TOO_LARGE
    accept(tmp_path / "three", *layers[:3], limits=limits)


def test_hard_links_count_once_and_what_later_layers_replace_does_not_count(tmp_path: Path) -> None:
    big = file("x", bytes(600 * _KIB))
    accept(
        tmp_path,
        layer(big, hardlink("y", "x")),
        layer(file("x", bytes(300 * _KIB))),
        limits=Limits(max_image_bytes=_MIB),
    )


def test_too_many_entries_are_refused(tmp_path: Path) -> None:
    limits = Limits(max_entries=100)
    many = [folder(f"d{n}") for n in range(101)]
    assert refuse(tmp_path / "one layer", layer(*many), limits=limits).reason is Reason.TOO_LARGE
    halves = layer(*many[:60]), layer(*many[60:])
    assert refuse(tmp_path / "two layers", *halves, limits=limits).reason is Reason.TOO_LARGE


def test_folders_that_no_entry_speaks_of_count_as_entries(tmp_path: Path) -> None:
    """A name of 4 KB implies two thousand folders."""
    deep = [file(f"{n}/" + "d/" * 2000 + "x") for n in range(20)]
    assert refuse(tmp_path, layer(*deep), limits=Limits(max_entries=1000)).reason is Reason.TOO_LARGE


def test_names_and_xattrs_that_would_fill_the_memory_are_refused(tmp_path: Path) -> None:
    limits = Limits(max_names_bytes=_MIB)
    large = [file(f"x{n}", xattrs={"user.large": bytes(30_000)}) for n in range(40)]
    assert refuse(tmp_path / "xattrs", layer(*large), limits=limits).reason is Reason.TOO_LARGE
    deep = [file(f"{n}/" + "d/" * 1000 + "x") for n in range(20)]
    assert refuse(tmp_path / "names", layer(*deep), limits=limits).reason is Reason.TOO_LARGE


def test_many_opaque_markers_are_cheap(tmp_path: Path) -> None:
    files = [file(f"x{number}") for number in range(3000)]
    accept(tmp_path, layer(*files), layer(*files, *[opaque("")] * 3000))


def test_links_that_take_long_to_follow_are_refused(tmp_path: Path) -> None:
    links = [symlink(f"s{number}", "d/../" * 700 + f"s{number + 1}") for number in range(30)]
    members = [folder("d"), *links, folder("s30"), *[file(f"s0/x{number}") for number in range(100)]]
    assert refuse(tmp_path, layer(*members), limits=Limits(max_steps=100_000)).reason is Reason.TOO_LARGE


def test_a_layer_that_comes_many_times_is_in_memory_once(tmp_path: Path) -> None:
    many = layer(*(file(f"x{number}") for number in range(5000)))
    assert refuse(tmp_path / "a", *[many] * 30, limits=Limits(max_entries=100_000)).reason is Reason.TOO_LARGE
    accept(tmp_path / "b", *[many] * 30, limits=Limits(max_names_bytes=1_000_000))


def test_holes_count_for_the_ratio(tmp_path: Path) -> None:
    limits = Limits(max_ratio=100, ratio_free_bytes=_MIB)
    records = {"GNU.sparse.size": str(64 * _MIB), "GNU.sparse.numblocks": "1", "GNU.sparse.map": "0,4"}
    assert refuse(tmp_path, layer(file("x", b"data", pax=records)), limits=limits).reason is Reason.TOO_LARGE


def test_empty_pieces_of_a_file_with_holes_take_no_room(tmp_path: Path) -> None:
    pieces = b"100000\n" + b"0\n0\n" * 100_000
    text = pieces.ljust(-len(pieces) % 512 + len(pieces), b"\0")
    records = {"GNU.sparse.major": "1", "GNU.sparse.minor": "0", "GNU.sparse.name": "x", "GNU.sparse.realsize": "9"}
    accept(tmp_path, layer(file("x", text, pax=records)), limits=Limits(max_names_bytes=10_000))


def test_a_tree_a_thousand_folders_deep_is_hidden_and_made_again(tmp_path: Path) -> None:
    deep = file("d/" * 2000 + "x")
    accept(tmp_path, layer(deep), layer(deep, opaque("d"), whiteout("d")), layer(opaque("")))


def _old_sparse(size: int) -> bytes:
    """GNU tar manual, "Old GNU Format": one piece of 4 bytes at 0, `realsize` at 483."""
    block = header(b"x", b"S", 4, magic=GNU)
    piece = b"%011o\0%011o\0" % (0, 4)
    real = (1 << 95 | size).to_bytes(12, "big")
    return seal(block[:386] + piece + bytes(72) + b"\0" + real + block[495:]) + pad(b"data")


_SPARSE = {
    "old": _old_sparse(_TIB),
    "0.0": file("x", b"data", pax={"GNU.sparse.size": str(_TIB), "GNU.sparse.numblocks": "1", "GNU.sparse.map": "0,4"}),
    "1.0": file(
        "x",
        b"1\n0\n4\n".ljust(512, b"\0") + b"data",
        pax={
            "GNU.sparse.major": "1",
            "GNU.sparse.minor": "0",
            "GNU.sparse.name": "x",
            "GNU.sparse.realsize": str(_TIB),
        },
    ),
}


@pytest.mark.parametrize("form", _SPARSE)
def test_a_file_of_nothing_but_hole_counts_with_its_whole_size(form: str, tmp_path: Path) -> None:
    assert refuse(tmp_path, layer(_SPARSE[form])).reason is Reason.TOO_LARGE


@pytest.mark.parametrize(
    "lie",
    [
        file("x", b"data", pax={"GNU.sparse.size": "8", "GNU.sparse.numblocks": "1", "GNU.sparse.map": "0,9"}),
        file("x", b"data", pax={"GNU.sparse.size": "8", "GNU.sparse.numblocks": "2", "GNU.sparse.map": "4,2,0,2"}),
        file("x", b"data", pax={"GNU.sparse.size": "-8", "GNU.sparse.numblocks": "1", "GNU.sparse.map": "0,4"}),
    ],
)
def test_a_map_of_holes_that_lies_is_refused(lie: bytes, tmp_path: Path) -> None:
    assert refuse(tmp_path, layer(lie)).reason is Reason.CORRUPT


def test_a_map_of_more_holes_than_any_file_has_is_refused(tmp_path: Path) -> None:
    records = {"GNU.sparse.major": "1", "GNU.sparse.minor": "0", "GNU.sparse.realsize": "1"}
    assert refuse(tmp_path, layer(file("x", b"9999999999\n" * 40, pax=records))).reason is Reason.TOO_LARGE


@pytest.mark.parametrize("kind", [b"x", b"L", b"K"])
def test_a_header_that_would_fill_the_memory_is_refused(kind: bytes, tmp_path: Path) -> None:
    told = header(b"huge", kind, 8**11 - 1) + file("x")
    real = header(b"huge", kind, 4 * _MIB) + bytes(4 * _MIB) + file("x")
    assert refuse(tmp_path / "told", layer(told)).reason is Reason.TOO_LARGE
    assert refuse(tmp_path / "real", layer(real)).reason is Reason.TOO_LARGE


def test_a_global_header_is_skipped_at_any_size(tmp_path: Path) -> None:
    """It is read past, never kept; its bytes count as the layer's."""
    accept(tmp_path, layer(header(b"global", b"g", 4 * _MIB) + bytes(4 * _MIB), file("x")))


def test_a_file_that_is_larger_than_all_there_is_is_refused(tmp_path: Path) -> None:
    tar = header(b"x", b"0", _TIB, magic=GNU) + bytes(1024)
    assert refuse(tmp_path, tar + END).reason in (Reason.TOO_LARGE, Reason.CORRUPT)


def test_a_layer_that_is_told_to_be_larger_than_the_limit_is_not_even_read(tmp_path: Path) -> None:
    host = Host(tmp_path, Limits(max_image_bytes=_MIB))
    host.write(layer(file("x")), sizes={0: _TIB})
    for blob in (host.layout / "blobs/sha256").iterdir():
        if blob.read_bytes() == gzip.compress(layer(file("x")), 1, mtime=0):
            blob.unlink()
    assert host.refuse().reason is Reason.TOO_LARGE


def test_a_thousand_links_in_a_row_are_not_followed(tmp_path: Path) -> None:
    links = [symlink(f"l{n}", f"l{n + 1}") for n in range(1000)]
    assert refuse(tmp_path, layer(*links, file("l0/x"))).reason is Reason.BAD_INPUT
