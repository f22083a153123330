"""What our EROFS holds is what umoci, as root, unpacks: for every image of the corpus, file by file.

Where the two differ on purpose, `ON_PURPOSE` has the exact difference and the sentence that asks for it.
"""

from __future__ import annotations

import os
import subprocess
import time
from dataclasses import dataclass, replace
from pathlib import Path

import pytest

from banger.errors import BangerError
from cache import Store
from pipelines.oci.layout import LayoutSource
from tests.oci.build import build_oci_image
from tests.oci.corpus import CASES
from tests.oci.gnu_tar import make_program_cases
from tests.oci.layers import MTIME, write_layout
from tests.oci.tree import Difference, Tree, compare, read_erofs, read_tree

pytestmark = pytest.mark.skipif(os.geteuid() != 0, reason="only root can unpack owners and devices, and mount")

# Stands for the moment of unpacking, which no two runs share.
NOW = -(1 << 60)
_IMPLIED = (
    "layer.md names no attributes for a folder without an entry: umoci leaves the time of unpacking, ours is 0, since "
    "requirement C8 wants the same bytes of the same image"
)
_HIDDEN = (
    'layer.md, "Whiteouts": a whiteout "is applied first, before creating the new version [...], regardless of the '
    'ordering": so the folder has the time that its entry says; umoci removes from it later and leaves the time of that'
)
_FORMS = "what tar's own specifications allow, and umoci does not know: "


def _times(*paths: str, ours: int = 0) -> Difference:
    return {path.encode(): {"mtime_s": (NOW, ours)} for path in paths}


ON_PURPOSE: dict[str, tuple[Difference, str]] = {
    "implied parents": (_times(".", "a", "a/b", "a/b/c", "x"), _IMPLIED),
    "implied parents get their own entry later": (_times("."), _IMPLIED),
    "names with needless slashes and dots": (_times(".", "a", "a/b"), _IMPLIED),
    "name split by ustar's prefix": (_times(".", "p", "p/q"), _IMPLIED),
    "name split by the prefix of a ustar of no version": (_times(".", "p", "p/q"), _IMPLIED),
    "whiteout before what implies the folder": (_times(".", "p"), _IMPLIED),
    "a folder that looks like a whiteout": (_times(".", ".wh.x"), _IMPLIED),
    "a dangling symlink is written through": (_times(".", "no", "no/where"), _IMPLIED),
    "whiteout after the folder made anew": (_times("a/b", ours=MTIME), _HIDDEN),
    "whiteout after what implies the folder": (_times("p", ours=MTIME), _HIDDEN),
    "opaque after its own entries": (_times("a/b", ours=MTIME), _HIDDEN),
}
# Cases that umoci refuses -> the case whose tree is the same, and why ours does not refuse.
REFUSED = {
    "GNU tar, sparse old": ("GNU tar, sparse 1.0", "requirement C3: sparse files survive exactly"),
    "a global pax header": ("the root has no entry", _FORMS + "pax, typeflag g (what git archive writes)"),
    "a contiguous file": ("the root has no entry", _FORMS + "ustar, typeflag 7 is to be read as 0"),
}


@dataclass(frozen=True)
class Outcome:
    """A tree is None when it was refused; why ours was is in `refusal`."""

    theirs: Tree | None
    ours: Tree | None
    refusal: BangerError | None = None


@pytest.fixture(scope="module")
def outcomes(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Outcome]:
    """Every case once: all are unpacked, all are built in one store, and all images are mounted by one child."""
    folder = tmp_path_factory.mktemp("differential")
    cases = {**CASES, **make_program_cases(folder)}
    images = {f"case{number}": layers for number, layers in enumerate(cases.values())}
    # Our layout has zstd too, which this umoci does not know.
    write_layout(folder / "theirs", images, ("gzip", "none", "gzips"))
    write_layout(folder / "ours", images, ("gzips", "zstd", "none", "gzip"))
    store = Store.open(folder / "store")
    outcomes, disks = {}, {}
    for case, tag in zip(cases, images, strict=True):
        outcomes[case] = Outcome(unpack_with_umoci(folder / "theirs", tag, folder / tag), None)
        try:
            disks[case] = store.path(build_oci_image(store, LayoutSource(folder / "ours", tag))["rootfs"])
        except BangerError as refusal:
            outcomes[case] = replace(outcomes[case], refusal=refusal)
    for case, ours in zip(disks, read_erofs(*disks.values()), strict=True):
        outcomes[case] = replace(outcomes[case], ours=ours)
    return outcomes


def unpack_with_umoci(layout: Path, tag: str, bundle: Path) -> Tree | None:
    """The tree that umoci makes, with `NOW` for times at which it was made; None when umoci refuses."""
    # The clock of files is behind by up to a tick.
    begin = int(time.time() - 0.5)
    argv = ["umoci", "unpack", "--image", f"{layout}:{tag}", str(bundle)]
    quiet = subprocess.DEVNULL
    if subprocess.run(argv, stdout=quiet, stderr=quiet, umask=0o022, check=False).returncode != 0:
        return None
    end = time.time()
    tree = read_tree(bundle / "rootfs")
    return {path: replace(node, mtime_s=NOW) if begin <= node.mtime_s <= end else node for path, node in tree.items()}


PROGRAM_CASES = [
    *(f"GNU tar, {form}" for form in ("v7", "oldgnu", "gnu", "ustar", "pax")),
    *(f"GNU tar, sparse {form}" for form in ("0.0", "0.1", "1.0", "old")),
]


@pytest.mark.parametrize("case", [*CASES, *PROGRAM_CASES])
def test_erofs_holds_what_umoci_unpacks(case: str, outcomes: dict[str, Outcome]) -> None:
    outcome = outcomes[case]
    assert outcome.ours is not None, outcome.refusal
    if case in REFUSED:
        same_as, _why = REFUSED[case]
        assert outcome.theirs is None
        assert outcome.ours == outcomes[same_as].ours
    else:
        assert outcome.theirs is not None, "umoci refuses this image"
        expected, _why = ON_PURPOSE.get(case, ({}, ""))
        assert compare(outcome.theirs, outcome.ours) == expected


def test_every_case_is_told_apart_from_an_empty_image(outcomes: dict[str, Outcome]) -> None:
    """The comparison can fail: every tree differs from that of no files, but for images that hold none."""
    empty = outcomes["nothing at all"].ours
    assert {case for case, outcome in outcomes.items() if outcome.ours == empty} == {"nothing at all"}
