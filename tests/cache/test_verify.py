import errno
import os
import signal
import subprocess
import sys
import time
from pathlib import Path
from threading import Barrier, Thread
from typing import Any

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from banger.errors import BangerError, Reason
from cache import Finding, Object, Problem, Record, Store, Verification, key_of, verify
from cache.checkpoint import MAX_AGE_S, find_checkpoint, put_checkpoint


def damage(store: Store, obj: Object, content: bytes) -> Path:
    path = store.path(obj)
    path.chmod(0o600)
    path.write_bytes(content)
    return path


def test_a_sound_store_has_no_findings(store: Store) -> None:
    obj = store.put_bytes(b"x" * 3_000_000)
    store.put_bytes(b"")
    store.put_record(key_of("s", 1, {}, {}), Record("s", 1, {}, {}, {"o": obj}, 0.0, 0.0))
    assert list(store.verify()) == []


@settings(suppress_health_check=[HealthCheck.function_scoped_fixture, HealthCheck.too_slow], max_examples=30)
@given(data=st.binary(min_size=1, max_size=3000), place=st.integers(0), bit=st.integers(0, 7))
def test_a_flipped_bit_is_found(store: Store, data: bytes, place: int, bit: int) -> None:
    obj = store.put_bytes(data)
    flipped = bytearray(data)
    flipped[place % len(data)] ^= 1 << bit
    path = damage(store, obj, flipped)
    assert store.has(obj), "a stat cannot tell"
    assert [(found.path, found.problem) for found in store.verify()] == [(path, Problem.WRONG_HASH)]
    path.unlink()


def test_truncation_is_called_so_when_a_record_tells_the_size(store: Store) -> None:
    obj, other = store.put_bytes(b"whole"), store.put_bytes(b"whole too")
    store.put_record(key_of("s", 1, {}, {}), Record("s", 1, {}, {}, {"o": obj}, 0.0, 0.0))
    path, other_path = damage(store, obj, b"wh"), damage(store, other, b"")
    assert {found.path: found.problem for found in store.verify()} == {
        path: Problem.WRONG_SIZE,
        other_path: Problem.WRONG_HASH,
    }


def test_an_object_on_the_wrong_shelf_is_found(store: Store) -> None:
    obj = store.put_bytes(b"x")
    wrong = store.root / "objects" / ("00" if obj.digest[:2] != "00" else "01") / obj.digest
    wrong.parent.mkdir()
    store.path(obj).rename(wrong)
    assert list(store.verify()) == [Finding(wrong, obj.digest, Problem.WRONG_NAME, f"belongs into {obj.digest[:2]}")]


def test_a_bad_record_is_found(store: Store) -> None:
    key = key_of("s", 1, {}, {})
    store.put_record(key, Record("s", 1, {}, {}, {}, 0.0, 0.0))
    (store.root / "actions" / key[:2] / key).write_bytes(b"{")
    (found,) = store.verify()
    assert (found.digest, found.problem) == (key, Problem.BAD_RECORD)


def test_what_cannot_be_read_is_a_finding_and_the_others_are_still_read(store: Store) -> None:
    paths = [store.path(store.put_bytes(data)) for data in (b"a", b"b", b"c")]
    for path in paths:
        path.unlink()
        path.symlink_to("/etc/hostname")
    assert [found.problem for found in store.verify()] == [Problem.UNREADABLE] * 3


def test_strangers_are_no_findings(store: Store) -> None:
    obj = store.put_bytes(b"x")
    shelf = store.path(obj).parent
    for place in (store.root / "objects", shelf, store.root / "actions"):
        (place / "lost+found").mkdir()
        (place / "README").write_text("hello")
    (store.root / "objects" / "zz").write_text("a file where a shelf would be")
    (shelf / f".{obj.digest}.swp").touch()
    assert list(store.verify()) == []
    assert store.usage().all.object_count == 1


def test_what_goes_away_meanwhile_is_no_finding(store: Store) -> None:
    shelf = store.root / "objects" / "ab"
    shelf.mkdir()
    for digit in "0123":
        (shelf / ("ab" + digit * 62)).write_text("not what its name says")
    findings = iter(store.verify())
    assert next(findings).path.name == "ab" + "0" * 62
    for digit in "123":
        (shelf / ("ab" + digit * 62)).unlink()
    assert list(findings) == []


def test_a_wiped_store_is_sound(store: Store) -> None:
    for name in ("objects", "actions"):
        (store.root / name).rmdir()
    assert list(store.verify()) == []
    assert store.usage().all.object_count == 0


def put_many(store: Store, count: int = 12) -> list[Object]:
    """In the order of their names."""
    return sorted((store.put_bytes(b"%d" % number) for number in range(count)), key=lambda obj: obj.digest)


def place(obj: Object) -> str:
    return f"{obj.digest[:2]}/{obj.digest}"


def test_findings_come_in_the_order_of_names(store: Store) -> None:
    made = put_many(store, 200)
    for obj in made:
        # The first are the largest, so that later ones are read before them.
        damage(store, obj, bytes(2_000_000 if obj in made[:3] else 1))
    assert [found.digest for found in store.verify()] == [obj.digest for obj in made]


def test_what_was_read_is_counted(store: Store) -> None:
    store.put_bytes(b"x" * 3_000_000)
    store.put_bytes(b"y" * 10)
    store.put_bytes(b"")
    verification = store.verify()
    assert list(verification) == []
    assert (verification.object_count, verification.size_bytes) == (3, 3_000_010)


def test_progress_is_told_and_only_grows(store: Store, monkeypatch: pytest.MonkeyPatch) -> None:
    put_many(store, 100)
    monkeypatch.setattr(verify, "_TELL_S", 0.0)
    told: list[float] = []
    assert list(store.verify(on_progress=lambda verification: told.append(verification.fraction))) == []
    assert told == sorted(told)
    assert 0.5 < told[-1] < 1
    assert len(set(told)) > 50


def interrupt_after(verification: Verification, count: int) -> list[Finding]:
    findings = iter(verification)
    found = [next(findings) for _ in range(count)]
    findings.close()
    return found


def test_an_interrupted_one_is_gone_on_with_and_forgets_nothing_bad(store: Store) -> None:
    made = put_many(store)
    damage(store, made[2], b"bad")
    damage(store, made[7], b"bad")
    damage(store, made[9], b"bad")
    assert [found.digest for found in interrupt_after(store.verify(), 2)] == [made[2].digest, made[7].digest]
    verification = store.verify(resume=True)
    assert verification.resumed is not None
    assert verification.resumed.done == place(made[7])
    assert [found.digest for found in verification] == [made[2].digest, made[7].digest, made[9].digest]
    assert verification.object_count == 2 + 4
    assert store.verify(resume=True).resumed is None, "that one came to its end"


def test_one_that_was_interrupted_twice_forgets_nothing_bad(store: Store) -> None:
    made = put_many(store)
    for number in (1, 3, 5):
        damage(store, made[number], b"bad")
    interrupt_after(store.verify(), 2)
    interrupt_after(store.verify(resume=True), 1)
    again = store.verify(resume=True)
    assert [found.digest for found in again] == [made[number].digest for number in (1, 3, 5)]


def test_what_was_bad_and_is_mended_by_now_is_not_told_again(store: Store) -> None:
    made = put_many(store)
    path = damage(store, made[4], b"bad")
    interrupt_after(store.verify(), 1)
    path.unlink()
    assert list(store.verify(resume=True)) == []


def test_with_too_much_that_is_bad_it_goes_on_earlier(store: Store, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(verify, "_MOST_BAD", 2)
    made = put_many(store)
    for obj in made:
        damage(store, obj, b"bad")
    interrupt_after(store.verify(), 9)
    checkpoint = find_checkpoint(store.root)
    assert checkpoint is not None
    assert (checkpoint.done, checkpoint.bad) == (place(made[1]), {place(obj) for obj in made[:2]})
    assert [found.digest for found in store.verify(resume=True)] == [obj.digest for obj in made]


def test_nobody_has_to_go_on(store: Store) -> None:
    made = put_many(store)
    damage(store, made[8], b"bad")
    interrupt_after(store.verify(), 1)
    verification = store.verify()
    assert len(list(verification)) == 1
    assert verification.object_count == len(made)


_KILLED = """
import sys
from pathlib import Path
from cache import Store, verify
verify._SAVE_S = 0.0
list(Store.open(Path(sys.argv[1])).verify())
"""


def test_a_killed_one_is_gone_on_with(store: Store) -> None:
    made = put_many(store)
    environment = {**os.environ, "BANGER_KILL_AT": "verify-checked:5"}
    killed = subprocess.run([sys.executable, "-I", "-c", _KILLED, store.root], env=environment, timeout=60)
    assert killed.returncode == -signal.SIGKILL
    damage(store, made[-1], b"bad")
    verification = store.verify(resume=True)
    assert [found.digest for found in verification] == [made[-1].digest]
    assert verification.object_count == len(made) - 5


@pytest.mark.parametrize(
    "written",
    [
        b"",
        b"{",
        b"[]",
        b"\xff",
        b'{"done": "ff/ffff"}',
        b'{"done": "no/hexadecimal", "bad": [], "saved_at": %(now)s}',
        b'{"done": "ff/ffff", "bad": 1, "saved_at": %(now)s}',
        b'{"done": "ff/ffff", "bad": [], "saved_at": 1e999}',
        b'{"done": "ff/ffff", "bad": [], "saved_at": NaN}',
        b'{"done": "ff/ffff", "bad": [], "saved_at": %(old)s}',
        b'{"done": "ff/ffff", "bad": [], "saved_at": %(future)s}',
    ],
)
def test_what_is_no_fresh_checkpoint_is_not_gone_on_with(store: Store, written: bytes) -> None:
    obj = store.put_bytes(b"x")
    damage(store, obj, b"y")
    now = time.time()
    times = {b"now": b"%f" % now, b"old": b"%f" % (now - MAX_AGE_S - 1), b"future": b"%f" % (now + 60)}
    (store.root / "verify").write_bytes(written % times)
    assert [found.digest for found in store.verify(resume=True)] == [obj.digest]
    assert not (store.root / "verify").exists()


def test_a_fresh_checkpoint_is_gone_on_with(store: Store) -> None:
    """So that those above are refused for what is wrong with them."""
    damage(store, store.put_bytes(b"x"), b"y")
    now = b"%f" % time.time()
    (store.root / "verify").write_bytes(b'{"done": "ff/ffff", "bad": [], "saved_at": %s}' % now)
    assert list(store.verify(resume=True)) == []


def test_a_checkpoint_leads_to_no_file_outside(store: Store, tmp_path: Path) -> None:
    (tmp_path / ("a" * 64)).write_text("not what its name says")
    put_checkpoint(store.root, "ff/ffff", frozenset({"../" + "a" * 64, f"../../{'a' * 64}"}))
    assert find_checkpoint(store.root) is not None
    assert list(store.verify(resume=True)) == []


def test_a_store_that_cannot_take_a_checkpoint_is_verified_all_the_same(
    store: Store, monkeypatch: pytest.MonkeyPatch
) -> None:
    made = put_many(store)
    damage(store, made[3], b"bad")
    monkeypatch.setattr(verify, "_SAVE_S", 0.0)

    def refuse(*_: Any) -> None:
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))

    monkeypatch.setattr("cache.temporary.write_all", refuse)
    assert [found.digest for found in store.verify()] == [made[3].digest]
    assert interrupt_after(store.verify(), 1)


def test_two_at_once_do_no_harm(store: Store, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(verify, "_SAVE_S", 0.0)
    made = put_many(store, 60)
    bad = {made[number].digest for number in range(0, 60, 7)}
    for obj in made:
        if obj.digest in bad:
            damage(store, obj, b"bad")
    barrier, results = Barrier(2), {}

    def run(name: str) -> None:
        barrier.wait()
        results[name] = list(store.verify(repair=True, resume=True))

    threads = [Thread(target=run, args=(name,)) for name in ("one", "other")]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    found = sorted(finding.digest for each in results.values() for finding in each)
    assert found == sorted(bad), "each is repaired by one of them"
    assert {path.name for path in (store.root / "quarantine").iterdir()} == bad
    assert list(store.verify()) == []
    assert store.usage().all.object_count == len(made) - len(bad)


def test_it_can_be_interrupted_in_the_middle_of_a_large_object(store: Store) -> None:
    """One that would be read for hours."""
    path = store.root / "objects" / "00" / ("0" * 64)
    path.parent.mkdir()
    path.touch()
    os.truncate(path, 4 << 40)

    def interrupt(verification: Verification) -> None:
        if verification.size_bytes > 10 << 20:
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        list(store.verify(on_progress=interrupt))


@pytest.mark.parametrize("number", [errno.EMFILE, errno.ENFILE, errno.ENOMEM])
def test_what_the_program_is_short_of_says_nothing_of_an_object(
    store: Store, monkeypatch: pytest.MonkeyPatch, number: int
) -> None:
    obj = store.put_bytes(b"good")
    path, real = store.path(obj), os.open

    def refuse(opened: Any, *words: Any, **more: Any) -> int:
        if opened == path:
            raise OSError(number, os.strerror(number))
        return real(opened, *words, **more)

    with monkeypatch.context() as patch:
        patch.setattr(os, "open", refuse)
        with pytest.raises(BangerError) as caught:
            list(store.verify(repair=True))
    assert caught.value.reason is Reason.IO
    assert store.has(obj)


def test_a_disk_that_cannot_read_an_object_is_a_finding(store: Store, monkeypatch: pytest.MonkeyPatch) -> None:
    made = put_many(store, 3)
    path, real = store.path(made[1]), os.open

    def refuse(opened: Any, *words: Any, **more: Any) -> int:
        if opened == path:
            raise OSError(errno.EIO, os.strerror(errno.EIO))
        return real(opened, *words, **more)

    monkeypatch.setattr(os, "open", refuse)
    assert list(store.verify()) == [Finding(path, made[1].digest, Problem.UNREADABLE, os.strerror(errno.EIO))]
