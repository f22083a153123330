"""ENOSPC and EIO at every call to the disk, one after the other, and a disk that really is full.

Each time the work is done, or it says in one line what the disk refused; nothing half-made is left, all that was there
is there, and the work can be done again.
"""

from __future__ import annotations

import os
import subprocess
import sys
import tempfile
from collections.abc import Iterator
from pathlib import Path

import pytest

from banger.errors import Reason
from tests.cache.faulty import run_faulty
from tests.cache.work import WORKS, Work, build, collect, list_damaged, list_going, list_gone, name, prepare, repair
from tests.cache.world import World, check_world

# strace passes over those with a question mark where a machine does not have them.
CALLS = {
    "write": "write,pwrite64,writev,pwritev,sendfile,copy_file_range",
    "sync": "fsync,fdatasync",
    "open": "?open,openat",
    "link": "?link,linkat",
    "rename": "?rename,renameat,renameat2",
    "truncate": "ftruncate,truncate",
    "mkdir": "?mkdir,mkdirat",
    "chmod": "?chmod,fchmod,fchmodat",
    "unlink": "?unlink,unlinkat,?rmdir",
    "utime": "utimensat",
    "read": "read,pread64,preadv,getdents64",
}
# What each may say, by the manual pages.
FAULTS = [
    *((call, "ENOSPC") for call in ("write", "sync", "open", "link", "rename", "mkdir")),
    *((call, "EIO") for call in CALLS),
    ("write", "EDQUOT"),
]
REASONS = {"ENOSPC": Reason.NO_SPACE, "EDQUOT": Reason.NO_SPACE, "EIO": Reason.IO}
# An owner has a copy then, which does not count.
_NO_LINK = ("EMLINK", "EXDEV")
_LOOKING = (CALLS["open"], CALLS["read"])
# Full is full, and a border stays; a bad block is one block.
_LASTING = (*_NO_LINK, "ENOSPC")
# Too many calls for any kind of work here: a loop that never gets through is found.
_MOST_CALLS = 400


@pytest.fixture(scope="module")
def given() -> dict[Work, object]:
    """What each kind of work gives when nothing fails. After it, nothing is imported any more."""
    found: dict[Work, object] = {}
    for work in WORKS.values():
        with worlds() as world:
            prepare(work, world)
            found[work] = work(world)
    return found


class worlds:
    """An empty one: the store on a tmpfs, where nothing has to wait for a real disk; `elsewhere` on another one."""

    def __enter__(self) -> World:
        self._folders = [tempfile.TemporaryDirectory(dir=each) for each in ("/dev/shm", None)]
        here, elsewhere = (Path(folder.name) for folder in self._folders)
        return World(here, elsewhere, times=1)

    def __exit__(self, *_: object) -> None:
        for folder in self._folders:
            folder.cleanup()


def sweep(work: Work, given: object, calls: str, error: str) -> Iterator[tuple[World, Reason | None]]:
    """Fail the first call, or all from it on, then the second, … until there is none left: why each one failed."""
    for count in range(1, _MOST_CALLS):
        with worlds() as world:
            before = prepare(work, world)
            when = f"{count}+" if error in _LASTING and calls not in _LOOKING else str(count)
            outcome = run_faulty(lambda: work(world), calls, error, when)
            yield world, None if outcome.error is None else outcome.error.reason
            if outcome.error is None:
                # What these cannot look at they leave to the next one.
                assert outcome.gave == given or (work in (collect, repair) and calls in _LOOKING)
            else:
                assert outcome.injected, "nothing failed, and it says that something did"
                assert "\n" not in outcome.error.message
            going = list_going(work, world)
            check_world(world, before, going, list_damaged(work, world))
            assert work(world) == given
            check_world(world, before, going if error in _NO_LINK else list_gone(work, world))
            if work in (collect, name, build):  # these end what was begun
                assert [*world.root.glob("gc-*"), *world.images.folder.glob(".*")] == []
            if not outcome.injected:
                return
    raise AssertionError(f"after {_MOST_CALLS} calls there is still another")


@pytest.mark.parametrize("work", WORKS.values(), ids=list(WORKS))
@pytest.mark.parametrize(("call", "error"), FAULTS, ids=["-".join(fault) for fault in FAULTS])
def test_a_failing_call_leaves_nothing_half_made(given: dict[Work, object], work: Work, call: str, error: str) -> None:
    for world, reason in sweep(work, given[work], CALLS[call], error):
        assert reason in (None, REASONS[error])
        if call not in ("open", "read", "unlink"):  # then it cannot be removed before the next one opens the store
            assert list((world.root / "tmp").iterdir()) == []


@pytest.mark.parametrize("work", WORKS.values(), ids=list(WORKS))
@pytest.mark.parametrize("error", _NO_LINK)
def test_where_no_link_can_be_made_a_copy_does(given: dict[Work, object], work: Work, error: str) -> None:
    """A file with as many links as the filesystem allows; or one that lies across a border of which nobody knew."""
    for _, reason in sweep(work, given[work], CALLS["link"], error):
        assert reason is None


FULL = """
import subprocess, sys, tempfile
from pathlib import Path
from banger.errors import BangerError, Reason
from tests.cache.work import build
from tests.cache.world import World, check_world, make_world

place, elsewhere = Path(sys.argv[1]), Path(sys.argv[2])
told = {}
for size_kib in range(96, 2000, 24):
    subprocess.run(["mount", "-t", "tmpfs", "-o", f"size={size_kib}k", "tmpfs", place], check=True)
    world = World(place, Path(tempfile.mkdtemp(dir=elsewhere)))
    try:
        stock = make_world(world)
    except BangerError as error:
        assert error.reason is Reason.NO_SPACE, error
        told[size_kib] = "no world"
    else:
        try:
            gave = build(world, more=30)
            told[size_kib] = "built"
        except BangerError as error:
            assert error.reason is Reason.NO_SPACE, error
            assert str(place) in error.hint, error.hint
            told[size_kib] = "refused"
        check_world(world, stock)
        if told[size_kib] == "refused":
            # With more space it goes on with what was done.
            subprocess.run(["mount", "-o", "remount,size=8m", place], check=True)
            gave = build(world, more=30)
            check_world(world, stock)
        told.setdefault("gave", gave)
        assert gave == told["gave"]
    subprocess.run(["umount", place], check=True)
    if told[size_kib] == "built":
        break
outcomes = [told[each] for each in told if each != "gave"]
assert outcomes.count("refused") >= 5, outcomes
assert outcomes[-1] == "built", outcomes
print("done")
"""


@pytest.mark.skipif(os.geteuid() != 0, reason="mounting needs root")
def test_a_build_on_filesystems_that_are_too_small_by_more_or_less(tmp_path: Path) -> None:
    (tmp_path / "small").mkdir()
    (tmp_path / "elsewhere").mkdir()
    words = ["unshare", "-m", sys.executable, "-c", FULL, str(tmp_path / "small"), str(tmp_path / "elsewhere")]
    ended = subprocess.run(words, cwd=Path(__file__).parents[2], capture_output=True, text=True, timeout=300)
    assert (ended.returncode, ended.stdout) == (0, "done\n"), ended.stderr
