from pathlib import Path

from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from cache import Finding, Object, Problem, Record, Store, key_of


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


@settings(suppress_health_check=[HealthCheck.function_scoped_fixture], max_examples=30)
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
    findings = store.verify()
    assert next(findings).path.name == "ab" + "0" * 62
    for digit in "123":
        (shelf / ("ab" + digit * 62)).unlink()
    assert list(findings) == []


def test_a_wiped_store_is_sound(store: Store) -> None:
    for name in ("objects", "actions"):
        (store.root / name).rmdir()
    assert list(store.verify()) == []
    assert store.usage().all.object_count == 0
