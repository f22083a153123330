"""Each call that may fail, fails once; and a disk that really is full, and one that really is read-only."""

import errno
import os
from collections.abc import Callable
from pathlib import Path

import pytest
from blake3 import blake3

from banger.errors import BangerError, Reason
from cache import Record, Store, key_of

RECORD = Record("step", 1, {}, {}, {}, 0.0, 0.0)
KEY = key_of("step", 1, {}, {})


def put_bytes(store: Store) -> None:
    store.put_bytes(b"new content")


def put_much(store: Store) -> None:
    store.put_bytes(b"new content" * 1_000_000)


def put_file(store: Store) -> None:
    with store.temporary_dir() as folder:
        (folder / "made").write_bytes(b"new content")
        store.put_file(folder / "made")


def put_record(store: Store) -> None:
    store.put_record(KEY, RECORD)


CALLS = {
    put_bytes: ["open", "write", "fsync", "fchmod", "link"],
    put_much: ["open", "write", "fsync", "fchmod", "link"],
    put_file: ["open", "preadv", "fsync", "fchmod", "link"],
    put_record: ["open", "write", "fsync"],
}


@pytest.mark.parametrize(("put", "call"), [(put, call) for put, calls in CALLS.items() for call in calls])
@pytest.mark.parametrize(
    ("number", "reason"),
    [(errno.ENOSPC, Reason.NO_SPACE), (errno.EDQUOT, Reason.NO_SPACE), (errno.EIO, Reason.IO)],
)
def test_a_failing_call_leaves_nothing(
    store: Store,
    monkeypatch: pytest.MonkeyPatch,
    put: Callable[[Store], None],
    call: str,
    number: int,
    reason: Reason,
) -> None:
    def fail(*_: object, **__: object) -> None:
        raise OSError(number, os.strerror(number))

    with monkeypatch.context() as patch:
        patch.setattr(os, call, fail)
        with pytest.raises(BangerError) as caught:
            put(store)
    assert caught.value.reason is reason
    assert str(store.root) in caught.value.hint
    assert list((store.root / "tmp").iterdir()) == []
    assert [*(store.root / "objects").glob("*/*"), *(store.root / "actions").glob("*/*")] == []
    put(store)  # and once the disk is well, it works


def test_an_object_is_never_named_before_it_is_on_the_disk(store: Store, monkeypatch: pytest.MonkeyPatch) -> None:
    calls: list[str] = []
    for name in ("fsync", "link"):
        real = getattr(os, name)
        monkeypatch.setattr(os, name, lambda *a, real=real, name=name, **k: (calls.append(name), real(*a, **k))[1])
    (store.root / "objects" / blake3(b"content").hexdigest()[:2]).mkdir()  # making it would sync, too
    store.put_bytes(b"content")
    assert calls == ["fsync", "link", "fsync"]  # the content, its name, and the folder, so that the name lasts


def test_a_writer_that_failed_takes_nothing_more(store: Store, monkeypatch: pytest.MonkeyPatch) -> None:
    """The buffer would write again what the disk took in part: the object would not be what was hashed."""
    real = os.write
    calls = 0

    def half(fd: int, data: memoryview) -> int:
        nonlocal calls
        calls += 1
        if calls == 1:
            return real(fd, data[: len(data) // 2])
        if calls == 2:
            raise OSError(errno.ENOSPC, "full")
        return real(fd, data)

    with store.writer() as new:
        monkeypatch.setattr(os, "write", half)
        with pytest.raises(BangerError) as caught:
            new.write(b"x" * 3_000_000)
        assert caught.value.reason is Reason.NO_SPACE
        with pytest.raises(BangerError):
            new.commit()
        with pytest.raises(BangerError):
            new.commit()
    assert list((store.root / "objects").glob("*/*")) == []


FULL = """
import os, sys
from pathlib import Path
from banger.errors import BangerError
from cache import Record, Store, key_of
store = Store.open(Path(sys.argv[1]) / "store")
key = key_of("step", 1, {}, {})
small = store.put_bytes(b"small")

def refused(action, *arguments):
    try:
        action(*arguments)
    except BangerError as error:
        assert error.reason == "no-space", error
        assert str(store.root.parent) in error.hint, error.hint
    else:
        raise AssertionError("there was space")

def left():
    return [p for p in store.root.rglob("*") if p.is_file() and p.parent.name not in ("store", "locks")]

refused(store.put_bytes, os.urandom(2 << 20))
assert left() == [store.path(small)], left()
with store.temporary_dir() as folder:
    with open(folder / "fill", "wb", buffering=0) as fill:
        try:
            while True:
                fill.write(bytes(4096))
        except OSError:
            pass
    refused(store.put_record, key, Record("step", 1, {"long": "x" * 9000}, {}, {}, 0.0, 0.0))
    refused(store.put_bytes, os.urandom(9000))
    with store.lock(key, "held although the disk is full"):
        pass
    assert store.put_bytes(b"small") == small  # what is there needs no space
assert left() == [store.path(small)], left()
store.put_record(key, Record("step", 1, {}, {}, {"out": small}, 0.0, 0.0))
assert store.find_record(key).outputs == {"out": small}
print("done")
"""

READ_ONLY = """
import subprocess, sys
from pathlib import Path
from banger.errors import BangerError
from cache import Record, Store, key_of
store = Store.open(Path(sys.argv[1]) / "store")
obj = store.put_bytes(b"content")
key = key_of("step", 1, {}, {})
store.put_record(key, Record("step", 1, {}, {}, {"out": obj}, 0.0, 0.0))
subprocess.run(["mount", "-o", "remount,ro", sys.argv[1]], check=True)
store = Store.open(store.root)
assert store.path(obj).read_bytes() == b"content"
assert store.find_record(key).outputs == {"out": obj}
assert list(store.verify()) == []
assert store.usage().all.object_count == 1
for action in (lambda: store.put_bytes(b"more"), lambda: store.temporary_dir().__enter__(),
               lambda: store.lock(key, "x").__enter__(), lambda: Store.open(store.root.parent / "another")):
    try:
        action()
    except BangerError as error:
        assert error.reason == "no-permission", error
    else:
        raise AssertionError("it was written")
print("done")
"""

ON_A_TINY_DISK = ("unshare", "-m", "sh", "-ec", 'mount -t tmpfs -o size=1m tmpfs "$1"; shift; exec "$@"', "sh")


@pytest.mark.skipif(os.geteuid() != 0, reason="mounting needs root")
@pytest.mark.parametrize("program", [FULL, READ_ONLY], ids=["full", "read-only"])
def test_a_real_disk_that_refuses(tmp_path: Path, start, program: str) -> None:
    process = start(program, tmp_path, before=(*ON_A_TINY_DISK, str(tmp_path)))
    out, err = process.communicate(timeout=30)
    assert (process.returncode, out) == (0, "done\n"), err
    assert list(tmp_path.iterdir()) == [], "the mount was private"


NOT_MINE = """
import os, sys
from pathlib import Path
from banger.errors import BangerError
from cache import Store
os.setgid(65534); os.setuid(65534)
try:
    Store.open(Path(sys.argv[1]))
except BangerError as error:
    assert error.reason == "no-permission", error
    print("done")
"""


@pytest.mark.skipif(os.geteuid() != 0, reason="becoming somebody else needs root")
def test_somebody_elses_store_is_refused(store: Store, start) -> None:
    process = start(NOT_MINE, store.root)
    out, err = process.communicate(timeout=30)
    assert (process.returncode, out) == (0, "done\n"), err
