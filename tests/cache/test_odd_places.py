"""Filesystems that are not as others: read-only, without hard links or mode bits, with link counts that lie, far away.

Each is a real one, mounted where nobody else sees it. `tests.cache.work` does there what it does elsewhere.
"""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
import tempfile
from collections.abc import Iterator
from pathlib import Path

import pytest

from cache import Policy, Store
from cache.layout import object_path
from tests.cache.world import World, check_world, content, key, make_world, obj, record

REPOSITORY = Path(__file__).parents[2]
pytestmark = pytest.mark.skipif(os.geteuid() != 0, reason="mounting needs root")


@pytest.fixture
def world(tmp_path: Path) -> Iterator[World]:
    with tempfile.TemporaryDirectory(dir="/dev/shm") as folder:
        yield World(Path(folder), tmp_path)


def run_on(mount: str, program: str, tmp_path: Path) -> None:
    """Run a program whose first argument is a folder that the shell words `mount` have covered: it is their $1.

    $2 is a folder of a tmpfs. What they start ends with the program, since it is in a PID namespace.
    """
    (tmp_path / "place").mkdir()
    (tmp_path / "beside").mkdir()
    script = f'mount -t tmpfs tmpfs "$2"; {mount}\n"$3" -c "$4" "$1" "$2"'
    ended = subprocess.run(
        ["unshare", "--mount", "--pid", "--fork", "--kill-child", "--mount-proc", "sh", "-ec", script, "sh"]
        + [str(tmp_path / "place"), str(tmp_path / "beside"), sys.executable, program],
        cwd=REPOSITORY,
        capture_output=True,
        text=True,
        timeout=120,
    )
    assert (ended.returncode, ended.stdout.splitlines()[-1:]) == (0, ["done"]), ended.stdout + ended.stderr
    assert list((tmp_path / "place").iterdir()) == [], "the mount was private"


READ_ONLY = """
import subprocess, sys
from pathlib import Path
from banger.errors import BangerError, Reason
from cache import Policy, Store
from tests.cache.world import World, content, key, make_world, obj, record

world = World(Path(sys.argv[1]), Path(sys.argv[2]))
make_world(world)
subprocess.run(["mount", "-o", "remount,ro", sys.argv[1]], check=True)

store = Store.open(world.root)
assert store.path(obj("kept")).read_bytes() == content("kept")
assert store.find_record(key("kept")) == record("kept")
assert list(store.verify(repair=True)) == []
assert store.usage().all.object_count > 5
assert len(store.collect(Policy(older_than_s=60), {}, dry_run=True).dropped) == 2 * world.times
with store.leased("a build") as leased:
    assert leased.path(obj("kept")).read_bytes() == content("kept")
store.link(obj("kept"), world.elsewhere / "copy")
assert (world.elsewhere / "copy").read_bytes() == content("kept")

def leased_put():
    with store.leased("a build") as leased:
        leased.put_bytes(b"new")

for action in (
    leased_put,
    lambda: store.put_bytes(b"new"),
    lambda: store.put_record(key("new"), record("kept")),
    lambda: store.temporary_dir().__enter__(),
    lambda: store.lock(key("kept"), "it").__enter__(),
    lambda: store.link(obj("kept"), world.owner / "new"),
    lambda: store.adopt(world.owner / obj("lost-0").digest, obj("lost-0")),
    lambda: store.collect(Policy(older_than_s=60), {}),
    lambda: world.images.put("new", store, {"rootfs": obj("kept")}, {}, {}),
    lambda: Store.open(world.folder / "another"),
):
    try:
        action()
    except BangerError as error:
        assert error.reason is Reason.NO_PERMISSION, error
        assert "read-only" in error.hint, error.hint
        assert "\\n" not in error.message
    else:
        raise AssertionError("it was written")
print("done")
"""

HITS_ARE_FOUND = """
import subprocess, sys
from pathlib import Path
from cache import Store
from pipelines.graph import build
from pipelines.reporter import Silent
from pipelines.step import Step

def make(job):
    with job.create("out") as sink:
        sink.write(b"made")

def must_not_run(job):
    raise AssertionError("it is there")

store = Store.open(Path(sys.argv[1]) / "store")
with store.leased("a build") as leased:
    build(leased, [Step("it", "it", 1, make, ("out",))], Silent())
subprocess.run(["mount", "-o", "remount,ro", sys.argv[1]], check=True)
store = Store.open(store.root)
with store.leased("a build") as leased:
    step = Step("it", "it", 1, must_not_run, ("out",))
    graph = build(leased, [step], Silent())
    assert leased.path(graph.record(step).outputs["out"]).read_bytes() == b"made"
print("done")
"""


@pytest.mark.parametrize("program", [READ_ONLY, HITS_ARE_FOUND], ids=["all", "build"])
def test_what_is_in_a_read_only_cache_is_found_and_writing_is_refused(tmp_path: Path, program: str) -> None:
    run_on('mount -t tmpfs tmpfs "$1"', program, tmp_path)


# The loop device goes with the mount: what is detached in use is detached at the end of its use.
EXFAT = """
truncate -s 64M "$2/disk"; mkfs.exfat "$2/disk" >/dev/null
device=$(losetup --find --show "$2/disk")
mount.exfat-fuse "$device" "$1" >/dev/null && losetup --detach "$device"
"""
# The kernel is not to remember link counts of a file under its other names.
BIND = 'mkdir "$2/real"; bindfs -o attr_timeout=0 --chmod-ignore --perms=0777 "$2/real" "$1"'
PLACES = {"exfat": EXFAT, "hidden-links": f"{BIND} --hide-hard-links", "no-modes": BIND}
NEEDS_FUSE = pytest.mark.skipif(not Path("/dev/fuse").exists(), reason="there is no FUSE here")

ALL_WORKS = """
import subprocess, sys, tempfile
from pathlib import Path
from tests.cache.work import WORKS, list_damaged, list_going, prepare
from tests.cache.world import World, check_world

def run(work, folder):
    folder.mkdir()
    world = World(folder, Path(tempfile.mkdtemp(dir=sys.argv[2])))
    before = prepare(work, world)
    gave = work(world)
    check_world(world, before, list_going(work, world))
    assert work(world) == gave
    check_world(world, before, list_going(work, world))
    return gave

for name, work in WORKS.items():
    there, here = Path(sys.argv[1]) / name, Path(sys.argv[2]) / name
    assert run(work, there) == run(work, here), name
print("done")
"""

LEASED = """
import subprocess, sys, tempfile
from pathlib import Path
from cache import Policy, Why
from tests.cache.world import World, content, make_world, obj

HOLD = '''
import sys
from pathlib import Path
from cache import Store
from tests.cache.world import content, obj
with Store.open(Path(sys.argv[1])).leased("a build") as store:
    assert store.has(obj("kept"))
    new = store.put_bytes(b"new")
    print("ready", flush=True)
    sys.stdin.read()
    assert store.path(obj("kept")).read_bytes() == content("kept")
    assert store.path(new).read_bytes() == b"new"
'''
world = World(Path(sys.argv[1]), Path(tempfile.mkdtemp(dir=sys.argv[2])))
make_world(world)
everything = Policy(older_than_s=0, young_s=0)
with subprocess.Popen([sys.executable, "-c", HOLD, world.root], stdin=-1, stdout=-1, text=True) as holder:
    assert holder.stdout.readline() == "ready\\n"
    done = world.store().collect(everything, {})
    kept = {each.why for each in done.kept}
    assert Why.IN_USE in kept, kept
    assert obj("kept").digest not in {each.digest for each in done.dropped}
    holder.communicate()
assert holder.returncode == 0
assert obj("kept").digest in {each.digest for each in world.store().collect(everything, {}).dropped}
assert (world.owner / obj("held").digest).read_bytes() == content("held")
assert world.images.get("known").path("rootfs").read_bytes() == content("held")
print("done")
"""


@NEEDS_FUSE
@pytest.mark.parametrize("mount", PLACES.values(), ids=list(PLACES))
@pytest.mark.parametrize("program", [ALL_WORKS, LEASED], ids=["work", "lease"])
def test_without_links_or_modes_that_can_be_relied_upon_all_is_as_elsewhere(
    tmp_path: Path, mount: str, program: str
) -> None:
    run_on(mount, program, tmp_path)


def test_an_owner_on_another_filesystem_has_a_copy_of_its_own(world: World) -> None:
    make_world(world)
    store = world.store()
    store.link(obj("kept"), world.elsewhere / obj("kept").digest)
    dropped = store.collect(Policy(older_than_s=0, young_s=0), {"an owner": world.elsewhere}).dropped
    assert obj("kept").digest in {each.digest for each in dropped}, "the copy is no link that would count"
    assert (world.elsewhere / obj("kept").digest).read_bytes() == content("kept")
    store.adopt(world.elsewhere / obj("kept").digest, obj("kept"))
    assert store.path(obj("kept")).read_bytes() == content("kept")


def test_images_on_another_filesystem_give_an_emptied_store_back_what_it_had(world: World) -> None:
    far = World(world.elsewhere, world.folder).images
    before = make_world(world)
    store = world.store()
    far.put("far", store, {"rootfs": obj("kept")}, {key("kept"): record("kept")}, {})
    assert object_path(world.root, obj("kept").digest).stat().st_nlink == 1
    store.collect(Policy(older_than_s=0, young_s=0), {})
    assert not store.has(obj("kept"))
    far.get("far").restore(store)
    shutil.rmtree(far.folder)
    check_world(world, before, [*world.number("old"), *world.number("taken")])
    assert Store.open(world.root).path(obj("kept")).read_bytes() == content("kept")
