import os
import signal
import stat
import subprocess
from pathlib import Path

import pytest

from cache import Store

WRITE = """
import os, sys
from pathlib import Path
from cache import Store
store = Store.open(Path(sys.argv[1]))
with store.writer() as new, store.temporary_dir() as folder:
    (folder / "deep").mkdir()
    (folder / "deep" / "file").write_text("x")
    first = True
    while True:
        new.write(os.urandom(1 << 20))
        new.flush()
        if first:
            print("ready", flush=True)
            first = False
        if sys.argv[2] == "wait":
            sys.stdin.readline()
            print(new.commit().digest, (folder / "deep" / "file").read_text(), flush=True)
            break
"""

PUT_AND_DIE = """
import os, signal, sys
from pathlib import Path
from cache import Store
store = Store.open(Path(sys.argv[1]))
real = getattr(os, sys.argv[2])
def die(*arguments, **named):
    if sys.argv[3] == "after":
        real(*arguments, **named)
    os.kill(os.getpid(), signal.SIGKILL)
setattr(os, sys.argv[2], die)
store.put_bytes(b"content")
"""

CHURN = """
import os, sys
from pathlib import Path
from cache import Store
for count in range(60):
    store = Store.open(Path(sys.argv[1]))
    with store.temporary_dir() as folder:
        (folder / "made").write_bytes(b"%d" % (count % 7))
        obj = store.put_file(folder / "made")
        assert folder.is_dir()
    assert store.has(obj)
    obj = store.put_bytes(b"%d" % (count % 11))
    assert store.has(obj)
"""


def is_ready(process: subprocess.Popen[str]) -> None:
    assert process.stdout is not None
    line = process.stdout.readline()
    assert line == "ready\n", process.communicate()


def left(store: Store) -> list[Path]:
    return list((store.root / "tmp").iterdir())


def test_a_temporary_folder_is_private_and_goes_with_all_that_is_in_it(store: Store) -> None:
    with store.temporary_dir() as folder:
        assert folder.parent == store.root / "tmp"
        assert stat.S_IMODE(folder.stat().st_mode) == 0o700
        (folder / "a" / "b").mkdir(parents=True)
        (folder / "a" / "b" / "c").write_text("x")
        (folder / "away").symlink_to(store.root)
    assert left(store) == []
    assert (store.root / "version").exists()


def test_it_goes_too_when_the_work_fails_or_removed_it_itself(store: Store) -> None:
    with pytest.raises(RuntimeError), store.temporary_dir():
        raise RuntimeError
    with store.temporary_dir() as folder:
        folder.rmdir()
    assert left(store) == []


REMOVE_LOCKED = """
import os, shutil, sys
from pathlib import Path
from cache import Store
os.setgid(65534); os.setuid(65534)
store = Store.open(Path(sys.argv[1]) / "store")
with store.temporary_dir() as folder:
    inner = folder / "tree" / "locked"
    inner.mkdir(parents=True)
    (inner / "file").write_text("x")
    outside = store.root / "outside"
    outside.mkdir()
    outside.chmod(0o755)
    (folder / "tree" / "away").symlink_to(outside)
    inner.chmod(0)
    (folder / "tree").chmod(0o500)
assert list((store.root / "tmp").iterdir()) == []
assert outside.stat().st_mode & 0o777 == 0o755
print("done")
"""


@pytest.mark.skipif(os.geteuid() != 0, reason="root must become somebody to whom modes apply")
def test_folders_without_permissions_go_too(tmp_path: Path, start) -> None:
    for folder in (tmp_path, *tmp_path.parents[:3]):
        folder.chmod(folder.stat().st_mode | 0o111)
    tmp_path.chmod(0o777)
    process = start(REMOVE_LOCKED, tmp_path)
    out, err = process.communicate(timeout=60)
    assert (process.returncode, out) == (0, "done\n"), err


def test_what_a_killed_process_left_goes_and_what_a_living_one_works_on_stays(store: Store, start) -> None:
    dead, alive = start(WRITE, store.root, "on"), start(WRITE, store.root, "wait")
    is_ready(dead)
    is_ready(alive)
    assert len(left(store)) == 4
    dead.send_signal(signal.SIGKILL)
    dead.wait()
    assert len(left(store)) == 4
    assert list((store.root / "objects").iterdir()) == [], "no half object"

    Store.open(store.root)
    assert len(left(store)) == 2

    out, err = alive.communicate("go on\n", timeout=60)
    assert alive.returncode == 0, err
    digest, text = out.split()
    assert text == "x"
    assert (store.root / "objects" / digest[:2] / digest).stat().st_size == 1 << 20
    assert list(store.verify()) == []
    assert left(store) == []


@pytest.mark.parametrize("moment", ["before", "after"])
@pytest.mark.parametrize("call", ["write", "fchmod", "fsync", "link", "close"])
def test_killed_at_any_step_there_is_the_whole_object_or_none(store: Store, start, call: str, moment: str) -> None:
    process = start(PUT_AND_DIE, store.root, call, moment)
    process.communicate(timeout=60)
    assert process.returncode == -signal.SIGKILL
    store = Store.open(store.root)
    assert left(store) == []
    assert list(store.verify()) == []
    obj = store.put_bytes(b"content")
    assert store.path(obj).read_bytes() == b"content"
    assert store.path(obj).stat().st_nlink == 1


def test_many_that_open_and_write_at_once_take_nothing_from_each_other(store: Store, start) -> None:
    processes = [start(CHURN, store.root) for _ in range(4)]
    for process in processes:
        _, err = process.communicate(timeout=60)
        assert process.returncode == 0, err
    assert left(store) == []
    assert list(store.verify()) == []


def test_a_name_taken_away_before_the_lock_is_noticed(store: Store, monkeypatch: pytest.MonkeyPatch) -> None:
    """The opener of another process comes exactly between making and locking."""
    import fcntl

    real, times = fcntl.flock, 0

    def slow(fd: int, operation: int) -> None:
        nonlocal times
        times += 1
        if times in (1, 3):
            path = Path(f"/proc/self/fd/{fd}").readlink()
            path.rmdir() if path.is_dir() else path.unlink()
        real(fd, operation)

    monkeypatch.setattr(fcntl, "flock", slow)
    with store.temporary_dir() as folder:
        assert folder.is_dir()
    obj = store.put_bytes(b"x")
    assert times == 4
    assert store.has(obj)


def test_strangers_under_tmp_disturb_nobody(store: Store) -> None:
    (store.root / "tmp" / "loop").symlink_to("loop")
    os.mkfifo(store.root / "tmp" / "pipe")
    (store.root / "tmp" / "plain").write_text("no lock on it: nobody's")
    Store.open(store.root)
    assert sorted(path.name for path in left(store)) == ["loop", "pipe"]
