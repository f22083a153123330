"""The order of what goes to the disk, a write that ends in the middle, and a disk that is full.

`test_faults.py` has each call fail once, `test_odd_places.py` has read-only disks.
"""

from __future__ import annotations

import errno
import os
from pathlib import Path
from typing import TYPE_CHECKING

import pytest
from blake3 import blake3

from banger.errors import BangerError, Reason
from cache import Store

if TYPE_CHECKING:
    from conftest import Start


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

ON_A_TINY_DISK = ("unshare", "-m", "sh", "-ec", 'mount -t tmpfs -o size=1m tmpfs "$1"; shift; exec "$@"', "sh")


@pytest.mark.skipif(os.geteuid() != 0, reason="mounting needs root")
def test_a_disk_that_is_full_to_the_last_block(tmp_path: Path, start: Start) -> None:
    process = start(FULL, tmp_path, before=(*ON_A_TINY_DISK, str(tmp_path)))
    out, err = process.communicate(timeout=60)
    assert (process.returncode, out) == (0, "done\n"), err
    assert list(tmp_path.iterdir()) == [], "the mount was private"
