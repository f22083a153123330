"""Homes that push the same result take nothing from each other; and in which order steps are pushed."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from dataclasses import replace
from functools import partial
from io import BytesIO
from pathlib import Path

import pytest

from cache import Digest, Object, Record, Store, format_record, key_of
from cache.layout import record_path
from catalog.local import Named
from pipelines.oci.artifact import describe_blob, format_artifact
from pipelines.oci.manifest import OCI_MANIFEST
from pipelines.oci.push import open_pusher
from pipelines.remote import ARTIFACT_TYPE, RECORD_TYPE
from pipelines.remote_push import Pushed, collect_records, push_records, read_records
from pipelines.remote_registry import RegistryCache
from pipelines.reporter import Silent
from tests.oci.registries import run_registry

A, B = b"a" * 1000, b"b" * 1000
KEY = key_of("step", 1, {}, {})


class Place:
    """A remote cache, and homes that share it."""

    def __init__(self, repository: str, folder: Path) -> None:
        self.repository = repository
        self.folder = folder

    def make_home(self, made_at: float, *kept: bytes, b: bytes = B) -> Store:
        """A home where the step gave `a` and `b`, of which only what is `kept` is still there."""
        store = Store.open(self.folder / f"home-{made_at}")
        objects = {name: store.put_bytes(content) for name, content in (("a", A), ("b", b))}
        for made, content in zip(objects.values(), (A, b), strict=True):
            if content not in kept:
                store.path(made).unlink()
        store.put_record(KEY, Record("step", 1, {}, {}, objects, made_at, 1.0))
        return store

    def push(self, store: Store) -> Pushed:
        with open_pusher(self.repository, {}) as pusher:
            return push_records(pusher, store, dict(read_records(store)), None, Silent())

    def push_config(self, config: bytes) -> None:
        """What is no record, as if it were one."""
        described = describe_blob(config, RECORD_TYPE)
        with open_pusher(self.repository, {}) as pusher:
            pusher.push_blob(described.digest, len(config), partial(BytesIO, config))
            pusher.push_manifest(format_artifact(ARTIFACT_TYPE, described, []), OCI_MANIFEST, KEY)

    def lose_blobs(self) -> None:
        """All outputs, as they travel: records are JSON."""
        for blob in (self.folder / "registry/data").rglob("data"):
            if not blob.read_bytes().startswith(b"{"):
                blob.unlink()

    def read(self) -> tuple[float, dict[str, bytes]]:
        """What a home that has nothing finds: when it was made, and what can be had of the outputs."""
        store = Store.open(self.folder / "reader")
        remote = RegistryCache(self.repository, {}, store, Silent())
        record = remote.find_record(KEY)
        assert record is not None
        names = [name for name in record.outputs if remote.can_fetch(KEY, [name])]
        assert remote.fetch(KEY, record, names, lambda *_told: None)
        return record.made_at, {name: store.path(record.outputs[name]).read_bytes() for name in names}


@pytest.fixture
def place(tmp_path: Path) -> Iterator[Place]:
    with run_registry(tmp_path / "registry") as registry:
        yield Place(f"{registry.host}/cache", tmp_path)


def test_what_a_home_has_not_any_more_stays_in_the_cache(place: Place) -> None:
    first = place.push(place.make_home(1.0, A, B))
    assert (first.sent_steps, first.blobs) == (1, 3)
    assert place.push(place.make_home(2.0, A)) == Pushed(1, 0, 0, 0, 0)
    assert place.push(place.make_home(3.0, A, B)) == Pushed(1, 0, 0, 0, 0)
    assert place.read() == (1.0, {"a": A, "b": B})


def test_what_a_home_has_that_others_lack_is_added(place: Place) -> None:
    place.push(place.make_home(1.0, A))
    home = place.make_home(2.0, B)
    added = place.push(home)
    # Its record stays, so the output is all that is new.
    assert (added.sent_steps, added.blobs) == (1, 1)
    assert place.read() == (1.0, {"a": A, "b": B})
    assert place.push(home).sent_steps == 0


def test_pushing_again_sends_nothing_until_there_is_more(place: Place) -> None:
    home = place.make_home(1.0)
    assert place.push(home).sent_steps == 1
    assert place.push(home) == Pushed(1, 0, 0, 0, 0)
    home.put_bytes(A)
    assert place.push(home).sent_steps == 1
    assert place.read() == (1.0, {"a": A})


@pytest.mark.parametrize("theirs", [1.0, 4e9])
def test_an_answer_that_was_given_again_becomes_a_fresh_one(place: Place, theirs: float) -> None:
    """Of half a day ago, or of the future: nobody takes it for fresh."""
    place.push(place.make_home(theirs, A, B))
    home = place.make_home(60_000.0, A)
    renewed = place.push(home)
    assert (renewed.sent_steps, renewed.blobs) == (1, 1)
    assert place.read() == (60_000.0, {"a": A, "b": B})
    assert place.push(home).sent_steps == 0


def test_another_result_is_replaced_by_ours(place: Place) -> None:
    place.push(place.make_home(1.0, A, B))
    assert place.push(place.make_home(2.0, b"other", b=b"other")).sent_steps == 1
    assert place.read() == (2.0, {"b": b"other"})


@pytest.mark.parametrize("config", [b"", b"{}", b"\xff"])
def test_what_is_damaged_is_replaced_by_ours(place: Place, config: bytes) -> None:
    place.push_config(config)
    assert place.push(place.make_home(1.0, A)).sent_steps == 1
    assert place.read() == (1.0, {"a": A})


def test_blobs_that_the_registry_lost_are_not_named_any_more_and_sent_by_who_has_them(place: Place) -> None:
    place.push(place.make_home(1.0, A, B))
    place.lose_blobs()
    home = place.make_home(2.0, A)
    assert place.push(home).blobs == 1
    assert place.read() == (1.0, {"a": A})
    assert place.push(home).sent_steps == 0
    place.push(place.make_home(3.0, B))
    assert place.read() == (1.0, {"a": A, "b": B})


def _output(text: str) -> Digest:
    return key_of(text, 1, {}, {})


def _make_record(step: str, salt: int, gives: str, *takes: str) -> Record:
    inputs = {text: _output(text) for text in takes}
    return Record(step, 1, {"salt": salt}, inputs, {"out": Object(_output(gives), 1)}, 1.0, 1.0)


def _key(record: Record) -> Digest:
    return key_of(record.step, record.version, record.parameters, record.inputs)


def _collect(folder: Path, records: Iterable[Record], last: Record) -> list[str]:
    store = Store.open(folder)
    for record in records:
        # Without waiting for the disk each time.
        path = record_path(folder, _key(record))
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(format_record(record))
    named = Named("image", "it", folder, {}, {_key(last): last}, {}, 1.0)
    collected = collect_records(store, [named])
    assert all(_key(record) == key for key, record in collected.items())
    return [record.step for record in collected.values()]


def _plan_circle(salt: int) -> list[Record]:
    """Two commands that change the same: what the first gave leads to the second, which gave it too."""
    return [
        _make_record("base", salt, "rootfs"),
        _make_record("run-1", salt, "changes", "rootfs"),
        _make_record("rootfs+1", salt, "changed", "rootfs", "changes"),
        _make_record("run-2", salt, "changes", "changed"),
        _make_record("rootfs+2", salt, "twice", "changed", "changes"),
    ]


# The store tells records in the order of their keys.
@pytest.mark.parametrize("salt", range(8))
def test_steps_that_gave_the_same_may_lead_to_each_other(tmp_path: Path, salt: int) -> None:
    records = _plan_circle(salt)
    for last in records[2:]:
        steps = _collect(tmp_path, records, last)
        assert steps[:3] == ["base", "run-1", "rootfs+1"]
        assert sorted(steps[3:]) == sorted({"run-2", last.step} - {"rootfs+1"})


@pytest.mark.parametrize("salt", range(8))
def test_a_circle_whose_beginning_is_not_known_any_more_is_collected_too(tmp_path: Path, salt: int) -> None:
    records = _plan_circle(salt)
    steps = _collect(tmp_path, [record for record in records if record.step != "run-1"], records[4])
    assert steps[0] == "base"
    assert sorted(steps[1:]) == ["rootfs+1", "rootfs+2", "run-2"]


def test_a_step_that_changed_nothing_is_collected_once(tmp_path: Path) -> None:
    first, second = _make_record("first", 1, "same"), _make_record("second", 1, "same", "same")
    assert _collect(tmp_path, [first, second], replace(second)) == ["first", "second"]


def test_a_long_chain_is_collected_from_its_beginning(tmp_path: Path) -> None:
    names = [f"{number}" for number in range(3000)]
    records = [_make_record(name, 1, name, *names[max(0, at - 1) : at]) for at, name in enumerate(names)]
    assert _collect(tmp_path, records, records[-1]) == names
