"""200 random layered images: what our EROFS holds is what umoci, as root, unpacks.

Names are few, so that layers meet: files where folders were, links in the middle of paths, whiteouts of what their own
layer made. Every operation has content, owner, mode and time of its own, so that each says which one won.
"""

from __future__ import annotations

import os
import shutil
from collections import Counter
from dataclasses import dataclass, replace
from enum import StrEnum
from pathlib import Path

import pytest
from hypothesis import HealthCheck, assume, given, settings
from hypothesis import strategies as st

from banger.errors import BangerError, Reason
from cache import Store
from pipelines.oci.layout import LayoutSource
from tests.oci.build import build_oci_image
from tests.oci.layers import device, file, folder, hardlink, layer, opaque, symlink, whiteout, write_layout
from tests.oci.test_differential import NOW, unpack_with_umoci
from tests.oci.tree import Tree, compare, read_erofs

pytestmark = pytest.mark.skipif(os.geteuid() != 0, reason="only root can unpack owners and devices, and mount")

_IMAGES = 200
# How many of the images tried may be refused: by umoci and by ours, or by ours alone for C4 (a climb above the root).
_MAX_REFUSED = 100
_FIRST_MTIME = 1_000_000_000


class Kind(StrEnum):
    FILE = "file"
    FOLDER = "folder"
    SYMLINK = "symlink"
    HARDLINK = "hardlink"
    DEVICE = "device"
    WHITEOUT = "whiteout"
    OPAQUE = "opaque"


@dataclass(frozen=True)
class Operation:
    """One member of a layer; `target` is of links."""

    kind: Kind
    path: str
    target: str = ""

    def to_member(self, number: int) -> bytes:
        mtime, mode = _FIRST_MTIME + number, 0o700 + number % 64
        xattrs = {f"user.n{number % 3}": b"%d" % number} if number % 4 == 0 else {}
        match self.kind:
            case Kind.FILE:
                content = b"%d " % number * (number % 5)
                return file(self.path, content, mode=mode, uid=number, mtime=mtime, xattrs=xattrs)
            case Kind.FOLDER:
                return folder(self.path, mode=mode, gid=number, mtime=mtime, xattrs=xattrs)
            case Kind.SYMLINK:
                return symlink(self.path, self.target, uid=number, mtime=mtime)
            case Kind.HARDLINK:
                return hardlink(self.path, self.target)
            case Kind.DEVICE:
                return device(self.path, b"3", 1, number, mode=mode, mtime=mtime)
            case Kind.WHITEOUT:
                return whiteout(self.path)
            case Kind.OPAQUE:
                return opaque(self.path)


# Mostly a name says what it is, or most images would be refused; sometimes it is not that.
_folder_names = st.sampled_from([*"ababab", *"ststs", "x"])
_leaf_names = st.sampled_from([*"xyzxyzxyz", "a", "s"])
_folders = st.lists(_folder_names, max_size=2).map("/".join)
_leaves = st.tuples(st.lists(_folder_names, max_size=2), _leaf_names).map(lambda parts: "/".join([*parts[0], parts[1]]))
_own_folders = st.lists(st.sampled_from([*"abababab", "x"]), min_size=1, max_size=3).map("/".join)
_links = st.tuples(st.lists(st.sampled_from(["a", "b"]), max_size=1), st.sampled_from(["s", "t", "s", "t", "y", "b"]))
_targets = st.sampled_from(["a", "b", "/a", "/b", "/a/b", "../b", "../a/b", "x", "/", ".", "nowhere", "s", "a/"])
_operations = st.one_of(
    st.builds(Operation, st.just(Kind.FILE), _leaves),
    st.builds(Operation, st.just(Kind.FILE), _leaves),
    st.builds(Operation, st.just(Kind.FOLDER), _own_folders),
    st.builds(Operation, st.just(Kind.FOLDER), _own_folders),
    st.builds(Operation, st.just(Kind.SYMLINK), _links.map(lambda parts: "/".join([*parts[0], parts[1]])), _targets),
    st.builds(Operation, st.just(Kind.HARDLINK), _leaves, st.just("")),
    st.builds(Operation, st.just(Kind.DEVICE), _leaves),
    st.builds(Operation, st.just(Kind.WHITEOUT), st.one_of(_leaves, _own_folders)),
    st.builds(Operation, st.just(Kind.OPAQUE), _folders),
)


@st.composite
def _images(draw: st.DrawFn) -> list[list[Operation]]:
    """Layers, lowest first. Most are put right as far as names alone tell; links may still lead to what is refused."""
    layers = draw(st.lists(st.lists(_operations, min_size=3, max_size=12), min_size=2, max_size=5))
    names: set[str] = set()
    return [[right for each in operations for right in _put_right(draw, each, names)] for operations in layers]


def _put_right(draw: st.DrawFn, operation: Operation, names: set[str]) -> list[Operation]:
    """A file in the way becomes a folder first; a hard link leads to one of `names`, which is kept to what is there."""
    path, kind = operation.path, operation.kind
    if kind in (Kind.WHITEOUT, Kind.OPAQUE):
        _forget(names, path)
        return [operation]
    in_the_way = [name for name in sorted(names) if path.startswith(name + "/")]
    names.difference_update(in_the_way)
    if kind is Kind.FOLDER:
        names.discard(path)
    else:
        _forget(names, path)
    if kind is Kind.HARDLINK:
        operation = _link(draw, operation, names)
    if kind not in (Kind.FOLDER, Kind.SYMLINK):
        names.add(path)
    return [*(Operation(Kind.FOLDER, name) for name in in_the_way), operation]


def _link(draw: st.DrawFn, operation: Operation, names: set[str]) -> Operation:
    if not names:
        return replace(operation, kind=Kind.FILE)
    return replace(operation, target=draw(st.sampled_from(sorted(names))))


def _forget(names: set[str], path: str) -> None:
    names.difference_update([name for name in names if not path or name == path or name.startswith(path + "/")])


@pytest.fixture(scope="module")
def store(tmp_path_factory: pytest.TempPathFactory) -> Store:
    return Store.open(tmp_path_factory.mktemp("random") / "store")


def test_random_images_are_what_umoci_unpacks(store: Store, tmp_path: Path) -> None:
    seen: Counter[str] = Counter()

    @settings(
        max_examples=_IMAGES,
        derandomize=True,
        database=None,
        suppress_health_check=[HealthCheck.filter_too_much, HealthCheck.too_slow],
    )
    @given(_images())
    def check(image: list[list[Operation]]) -> None:
        seen.update({"tried"})
        theirs, ours = _unpack_both(image, store, tmp_path / str(seen["tried"]))
        if isinstance(ours, BangerError):
            assert ours.reason is Reason.BAD_INPUT
            assert theirs is None or _can_climb(image), ours
            seen.update({"refused" if theirs is None else "climbs"})
            assume(False)
        assert theirs is not None, "umoci refuses this image, ours does not"
        assert isinstance(ours, dict)
        assert compare(_with_times_of(ours, theirs), ours) == {}
        seen.update({"compared"})

    check()
    assert seen["compared"] >= _IMAGES
    assert seen["refused"] + seen["climbs"] <= _MAX_REFUSED


def _unpack_both(image: list[list[Operation]], store: Store, work: Path) -> tuple[Tree | None, Tree | BangerError]:
    numbers = iter(range(1, 1000))
    layers = [layer(*(each.to_member(next(numbers)) for each in operations)) for operations in image]
    write_layout(work / "layout", {"tag": layers}, ("none",))
    try:
        theirs = unpack_with_umoci(work / "layout", "tag", work / "bundle")
        try:
            made = build_oci_image(store, LayoutSource(work / "layout", "tag"))
        except BangerError as refusal:
            return theirs, refusal
        return theirs, read_erofs(store.path(made["rootfs"]))[0]
    finally:
        shutil.rmtree(work)


def _can_climb(image: list[list[Operation]]) -> bool:
    """Links upwards may lead above the root: C4 wants that refused, umoci stays at the root instead."""
    return any(operation.target.startswith("..") for operations in image for operation in operations)


def _with_times_of(ours: Tree, theirs: Tree) -> Tree:
    """Theirs, where a folder has the time of unpacking with ours: there umoci has no time from the image.

    (`ON_PURPOSE` in test_differential.py says why.)
    """
    made_up = {
        path
        for path, node in theirs.items()
        if node.mtime_s == NOW and node.kind == "directory" and path in ours and _is_from_image(ours[path].mtime_s)
    }
    return {
        path: replace(node, mtime_s=ours[path].mtime_s) if path in made_up else node for path, node in theirs.items()
    }


def _is_from_image(mtime_s: int) -> bool:
    return mtime_s == 0 or 0 < mtime_s - _FIRST_MTIME < 1000
