"""What others built is taken from a real registry instead of being made; what it tells is believed in nothing."""

from __future__ import annotations

import dataclasses
import json
import os
import subprocess
import threading
from collections.abc import Callable, Collection, Iterator, Mapping
from contextlib import ExitStack
from functools import partial
from io import BytesIO
from pathlib import Path
from typing import TYPE_CHECKING

import pytest
import zstandard

from banger.errors import BangerError, Reason
from cache import Digest, Record, Store
from catalog.signatures import PrivateKey
from pipelines.graph import build
from pipelines.job import Job
from pipelines.oci.artifact import describe_blob, format_artifact
from pipelines.oci.manifest import OCI_MANIFEST
from pipelines.oci.push import Pusher, open_pusher
from pipelines.oci.signatures import load_signing_key
from pipelines.remote import ARTIFACT_TYPE, PACKED_TYPE, RECORD_TYPE, Tell, describe_output, format_step
from pipelines.remote_push import Pushed, push_records, read_records
from pipelines.remote_registry import RegistryCache
from pipelines.reporter import Silent
from pipelines.step import Effect, Step
from tests.oci.registries import Registry, run_registry

if TYPE_CHECKING:
    from conftest import Bench


class Told(Silent):
    """What was fetched, and the notes."""

    def __init__(self) -> None:
        self.fetches, self.notes = list[str](), list[str]()

    def fetched(self, step: str, duration_s: float, size_bytes: int) -> None:
        self.fetches.append(step)

    def note(self, text: str) -> None:
        self.notes.append(text)


class Homes:
    """Home A, which pushes what it has built, and home B, whose builds are counted: `runs`, `told`."""

    def __init__(self, a: Bench, b: Bench, registry: Registry, folder: Path) -> None:
        self.a, self.b = a, b
        self.repository = f"{registry.host}/cache"
        self.folder = folder
        self.told = Told()
        self.key: Path | None = None
        self.make_remote: Callable[..., RegistryCache] = RegistryCache

    def pusher(self) -> Pusher:
        return open_pusher(self.repository, {})

    def push(self, key: PrivateKey | None = None) -> Pushed:
        return push_records(self.pusher(), self.a.store, dict(read_records(self.a.store)), key, Silent())

    def build(self, *targets: Step | Effect, refresh: bool = False) -> list[str]:
        """In home B; gives the steps that ran there."""
        self.told = Told()
        self.b.runs.clear()
        remote = self.make_remote(self.repository, {}, self.b.store, self.told, key=self.key)
        build(self.b.store, targets, self.told, refresh=refresh, remote=remote)
        assert list(self.b.store.verify()) == []
        return list(self.b.runs)

    def forget(self) -> None:
        """Home B begins anew."""
        self.b.store = Store.open(self.folder / os.urandom(4).hex())


@pytest.fixture
def running(tmp_path: Path) -> Iterator[tuple[ExitStack, Registry]]:
    """A registry, and what stops it."""
    with ExitStack() as stack:
        yield stack, stack.enter_context(run_registry(tmp_path / "registry"))


@pytest.fixture
def homes(bench: Bench, running: tuple[ExitStack, Registry], tmp_path: Path) -> Homes:
    return Homes(bench, type(bench)(Store.open(tmp_path / "b")), running[1], tmp_path)


def plan(bench: Bench, **changes: int) -> tuple[Step, Step, Step]:
    """a ─ b ─ c; `changes` are parameters by name."""
    a = bench.step("a", parameters={"x": changes.get("a", 1)})
    b = bench.step("b", a, parameters={"x": changes.get("b", 1)})
    return a, b, bench.step("c", b, parameters={"x": changes.get("c", 1)})


def push_chain(homes: Homes, key: PrivateKey | None = None) -> None:
    homes.a.build(plan(homes.a)[2])
    homes.push(key)


def test_what_another_home_built_is_fetched_and_nothing_else(homes: Homes) -> None:
    push_chain(homes)
    a, b, c = plan(homes.b)
    assert homes.build(c) == []
    assert (homes.told.fetches, homes.told.notes) == (["c"], [])
    assert [homes.b.graph(step).is_present(step) for step in (a, b, c)] == [False, False, True]
    assert homes.b.read(c.output("out")) == homes.a.read(plan(homes.a)[2].output("out"))


def test_what_was_fetched_needs_no_registry_any_more(homes: Homes, running: tuple[ExitStack, Registry]) -> None:
    push_chain(homes)
    homes.build(plan(homes.b)[2])
    running[0].close()
    assert homes.build(plan(homes.b)[2]) == []
    assert (homes.told.fetches, homes.told.notes) == ([], [])


def test_an_intermediate_is_fetched_when_something_new_reads_it(homes: Homes) -> None:
    push_chain(homes)
    assert homes.build(plan(homes.b, c=2)[2]) == ["c"]
    assert homes.told.fetches == ["b"]


def test_what_nobody_built_yet_is_built(homes: Homes) -> None:
    assert homes.build(plan(homes.b)[2]) == ["a", "b", "c"]
    push_chain(homes)
    assert homes.build(plan(homes.b, a=2)[2]) == ["a", "b", "c"]
    assert (homes.told.fetches, homes.told.notes) == ([], [])


def test_what_an_effect_needs_is_fetched(homes: Homes) -> None:
    push_chain(homes)
    seen: list[bytes] = []

    def act(results: Mapping[str, object]) -> None:
        seen.append(homes.b.read(c.output("out")))

    _a, b, c = plan(homes.b)
    assert homes.build(Effect("boot", {"b": b.output("out"), "c": c.output("out")}, act)) == []
    assert sorted(homes.told.fetches) == ["b", "c"]
    assert len(seen) == 1


def test_what_was_collected_here_is_fetched_again(homes: Homes) -> None:
    push_chain(homes)
    _a, _b, c = plan(homes.b)
    homes.build(c)
    homes.b.forget(c)
    assert homes.build(c) == []
    assert homes.told.fetches == ["c"]


def test_bytes_that_are_here_already_are_not_fetched(homes: Homes, running: tuple[ExitStack, Registry]) -> None:
    push_chain(homes)
    _a, _b, c = plan(homes.b)
    homes.b.store.put_bytes(homes.a.read(plan(homes.a)[2].output("out")))
    for _ in range(2):
        assert homes.build(c) == []
        assert (homes.told.fetches, homes.told.notes) == ([], [])
        running[0].close()


def test_other_bytes_of_the_same_step_are_not_what_was_collected_here(homes: Homes) -> None:
    steps = [bench.step("a", content=lambda _job: os.urandom(8)) for bench in (homes.a, homes.b)]
    homes.a.build(steps[0])
    homes.build(steps[1])
    homes.push()
    homes.b.forget(steps[1])
    assert homes.build(steps[1]) == ["a"]
    assert homes.told.notes == []


def test_what_was_collected_before_it_was_pushed_leaves_its_record(homes: Homes) -> None:
    steps = plan(homes.a)
    homes.a.build(steps[2])
    homes.a.forget(steps[0])
    homes.a.forget(steps[1])
    homes.push()
    assert homes.build(plan(homes.b)[2]) == []
    homes.forget()
    assert homes.build(plan(homes.b, c=2)[2]) == ["a", "b", "c"]
    assert homes.told.notes == []


def test_an_answer_that_was_never_asked_for_here_is_taken_over(homes: Homes) -> None:
    def plan_lock(bench: Bench, answer: bytes) -> Step:
        return bench.step("b", bench.step("lock", content=lambda _job: answer, resolves=True))

    homes.a.build(plan_lock(homes.a, b"theirs"))
    homes.push()
    assert homes.build(plan_lock(homes.b, b"ours")) == []
    homes.forget()
    # Also by who asks for a fresh one: it is of today. The second time it is this home's own question.
    assert homes.build(plan_lock(homes.b, b"ours"), refresh=True) == []
    assert homes.build(plan_lock(homes.b, b"ours"), refresh=True) == ["lock", "b"]


@pytest.mark.parametrize(("age_s", "ran"), [(25 * 3600, ["lock"]), (-3600, ["lock"]), (-60, [])])
def test_an_old_answer_is_not_taken_for_a_fresh_one(homes: Homes, age_s: float, ran: list[str]) -> None:
    """Nor one of the future, which would be fresh for ever, unless it is by a clock that is a little ahead."""
    lock = homes.a.step("lock", content=lambda _job: b"theirs", resolves=True)
    homes.a.build(lock)
    [(key, record)] = read_records(homes.a.store)
    homes.a.store.put_record(key, dataclasses.replace(record, made_at=record.made_at - age_s))
    homes.push()
    ours = homes.b.step("lock", content=lambda _job: b"ours", resolves=True)
    assert homes.build(ours, refresh=True) == ran
    homes.forget()
    assert homes.build(ours) == []


def test_an_answer_that_is_out_of_date_is_asked_for_again(homes: Homes) -> None:
    def plan_fetch(bench: Bench, answer: bytes, parameter: int) -> Step:
        def fetch(job: Job) -> bytes:
            if job.input("lock").read_bytes() == b"old" and parameter == 2:
                raise BangerError("the archive has changed", reason=Reason.CHANGED)
            return b"fetched"

        lock = bench.step("lock", content=lambda _job: answer, resolves=True)
        return bench.step("fetch", lock, content=fetch, parameters={"x": parameter})

    homes.a.build(plan_fetch(homes.a, b"old", 1))
    homes.push()
    assert homes.build(plan_fetch(homes.b, b"new", 2)) == ["fetch", "lock", "fetch"]


class Stopping(RegistryCache):
    """Its registry stops just before something is fetched."""

    stop: Callable[[], None]
    guard = threading.Lock()

    def fetch(self, key: Digest, record: Record, outputs: Collection[str], tell: Tell) -> bool:
        with self.guard:  # others wait until it has stopped
            type(self).stop()
        return super().fetch(key, record, outputs, tell)


@pytest.mark.parametrize("is_same", [True, False], ids=["same bytes", "other bytes"])
def test_a_registry_that_stops_in_the_middle_is_told_once_and_done_without(
    homes: Homes, running: tuple[ExitStack, Registry], is_same: bool
) -> None:
    """What it told before led past steps whose bytes are needed now; another maker may get other bytes."""

    def plan_ends(bench: Bench) -> list[Step]:
        a = bench.step("a", content=None if is_same else lambda _job: os.urandom(8).hex().encode())
        b = bench.step("b", a)
        return [bench.step("c", b), bench.step("d", b), bench.step("e", a)]

    homes.a.build(*plan_ends(homes.a))
    homes.push()
    Stopping.stop = staticmethod(running[0].close)
    homes.make_remote = Stopping
    ends = plan_ends(homes.b)
    seen: list[Mapping[str, object]] = []
    effect = Effect("boot", {end.name: end.output("out") for end in ends}, seen.append)
    assert sorted(homes.build(effect)) == ["a", "b", "c", "d", "e"]
    assert homes.told.fetches == []
    assert len(homes.told.notes) == 1
    assert homes.build(effect) == []
    assert len(seen) == 2
    assert all(homes.b.read(end.output("out")) for end in ends)


def test_a_registry_that_is_not_there_costs_one_line(homes: Homes, running: tuple[ExitStack, Registry]) -> None:
    running[0].close()
    assert homes.build(plan(homes.b)[2]) == ["a", "b", "c"]
    [note] = homes.told.notes
    assert homes.repository in note


def refuses(homes: Homes, what: str) -> None:
    """Home B notices, says so once, and builds everything itself."""
    assert homes.build(plan(homes.b)[2]) == ["a", "b", "c"]
    [note] = homes.told.notes
    assert what in note
    assert note.isprintable()
    assert homes.told.fetches == []


def test_a_flipped_byte_under_the_registry_is_noticed(homes: Homes, tmp_path: Path) -> None:
    steps = plan(homes.a)
    homes.a.build(steps[2])
    homes.push()
    wanted = homes.a.read(steps[2].output("out"))
    blobs = [path for path in (tmp_path / "registry/data").rglob("data") if path.read_bytes().startswith(b"\x28\xb5")]
    [blob] = [path for path in blobs if zstandard.decompress(path.read_bytes()) == wanted]
    content = blob.read_bytes()
    blob.write_bytes(content[:-1] + bytes([content[-1] ^ 1]))
    refuses(homes, "is damaged")


def test_the_record_of_another_step_is_refused(homes: Homes) -> None:
    push_chain(homes)
    records = {record.step: (key, record) for key, record in read_records(homes.a.store)}
    _push_as(homes, records["c"][0], records["b"][1])
    refuses(homes, "record is that of another step")


def _push_as(homes: Homes, key: Digest, record: Record, packed: bytes | None = None) -> None:
    """A record, right or wrong, under a tag of the cache; with `packed` as what its output travels as."""
    pusher = homes.pusher()
    layers = {}
    if packed is not None:
        layers["out"] = describe_output("out", record.outputs["out"], describe_blob(packed, PACKED_TYPE))
    manifest, config = format_step(record, layers)
    for content in (config, *([packed] if packed is not None else [])):
        pusher.push_blob(describe_blob(content, RECORD_TYPE).digest, len(content), partial(BytesIO, content))
    pusher.push_manifest(manifest, OCI_MANIFEST, key)


def _get_last(homes: Homes) -> tuple[Digest, Record]:
    return next((key, record) for key, record in read_records(homes.a.store) if record.step == "c")


@pytest.mark.parametrize(
    ("size_bytes", "packed", "why"),
    [
        (100_000, zstandard.compress(bytes(200_000_000)), "unpacks to more"),
        *((100_000, zstandard.compress(bytes(size)), "does not unpack to") for size in (99_999, 100_000)),
        (100_000, zstandard.compress(os.urandom(50_000))[:-100], "does not unpack to"),
        (100_000, b"not compressed", "is damaged"),
        (100, os.urandom(200), "of another type or size"),
    ],
    ids=["a bomb", "too short", "other content", "cut off", "not compressed", "larger than it unpacks to"],
)
def test_an_output_that_is_not_what_its_record_tells_is_refused(
    homes: Homes, size_bytes: int, packed: bytes, why: str
) -> None:
    homes.a.build(plan(homes.a)[2])
    homes.push()
    key, record = _get_last(homes)
    wrong = dataclasses.replace(record.outputs["out"], size_bytes=size_bytes)
    _push_as(homes, key, dataclasses.replace(record, outputs={"out": wrong}), packed)
    refuses(homes, why)


@pytest.mark.parametrize("config", [b"", b"{}", b"[" * 100_000, b"\xff", json.dumps({"step": 1}).encode()])
def test_what_is_no_record_is_refused(homes: Homes, config: bytes) -> None:
    push_chain(homes)
    key, _record = _get_last(homes)
    pusher = homes.pusher()
    described = describe_blob(config, RECORD_TYPE)
    pusher.push_blob(described.digest, len(config), partial(BytesIO, config))
    pusher.push_manifest(format_artifact(ARTIFACT_TYPE, described, []), OCI_MANIFEST, key)
    refuses(homes, "its record cannot be read")
    pusher.push_manifest(format_artifact("application/vnd.example", described, []), OCI_MANIFEST, key)
    homes.forget()
    refuses(homes, "application/vnd.example")


def test_what_is_put_in_the_place_of_something_signed_is_not_signed(homes: Homes) -> None:
    environment = {"PATH": os.environ["PATH"], "HOME": str(homes.folder), "COSIGN_PASSWORD": ""}
    subprocess.run(["cosign", "generate-key-pair"], cwd=homes.folder, env=environment, check=True, capture_output=True)
    key = load_signing_key({}, homes.folder / "cosign.key")
    homes.key = homes.folder / "cosign.pub"
    push_chain(homes, key)
    assert homes.build(plan(homes.b)[2]) == []
    assert homes.push(key).signatures == 0
    step_key, record = _get_last(homes)
    _push_as(homes, step_key, dataclasses.replace(record, made_at=0.0))
    homes.forget()
    refuses(homes, "not signed")


def test_a_key_that_cannot_be_read_makes_the_cache_useless_and_no_less_safe(homes: Homes, tmp_path: Path) -> None:
    push_chain(homes)
    homes.key = tmp_path / "missing.pub"
    refuses(homes, "missing.pub")


def test_a_full_disk_is_not_the_registrys_fault(homes: Homes, monkeypatch: pytest.MonkeyPatch) -> None:
    push_chain(homes)

    def refuse(_store: Store) -> None:
        raise BangerError("no space left", reason=Reason.NO_SPACE)

    monkeypatch.setattr(Store, "writer", refuse)
    with pytest.raises(BangerError) as failure:
        homes.build(plan(homes.b)[2])
    assert failure.value.reason is Reason.NO_SPACE
    assert homes.told.notes == []
