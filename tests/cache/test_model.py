"""The store against plain dictionaries: any sequence of what people and programs do with it, with crashes in between.

A crash is a real one: the work is done in a forked child that ends itself with SIGKILL at one of the named places. An
exception that is raised there would do the cleaning up that a crash does not.
"""

from __future__ import annotations

import io
import itertools
import os
import shutil
import signal
import tempfile
import time
from collections.abc import Callable
from contextlib import ExitStack
from dataclasses import dataclass, field
from pathlib import Path

from blake3 import blake3
from hypothesis import settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, invariant, precondition, rule

from cache import Collection, Digest, Object, Policy, Record, Store, key_of, trace
from cache.trace import Point

_CONTENTS = [b"", *(b"%d" % size * (size // 4) for size in (4, 40, 4096, 5000, 9000))]
BYTES = {Digest(blake3(data).hexdigest()): data for data in _CONTENTS}
OBJECTS = {digest: Object(digest, len(data)) for digest, data in BYTES.items()}
KEYS = [key_of("step", number, {}, {}) for number in range(4)]
# Far from each other and from those of the policies, so that a slow machine does not matter.
AGES_S = [0, 10_000, 20_000, 30_000, -10_000]

digests = st.sampled_from(sorted(BYTES))
numbers = st.integers(0, 99)
ways = st.sampled_from(["bytes", "stream", "file"])
records = st.builds(
    lambda inputs, outputs, seconds: Record(
        "step",
        1,
        {},
        {str(number): digest for number, digest in enumerate(inputs)},
        {str(number): OBJECTS[digest] for number, digest in enumerate(outputs)},
        0.0,
        float(seconds),
    ),
    st.lists(digests, min_size=1, max_size=2),
    st.lists(digests, min_size=1, max_size=2),
    st.integers(0, 1),
)
policies = st.builds(
    Policy,
    max_bytes=st.sampled_from([None, 0, 4096, 12_288, 20_480]),
    enough_bytes=st.sampled_from([None, 0, 8192]),
    older_than_s=st.sampled_from([None, 0.0, 15_000.0, 25_000.0]),
    young_s=st.sampled_from([0.0, 5_000.0]),
)


@dataclass
class Builder:
    """A program with a lease. `held` is what it was told is there, and may rely on."""

    store: Store
    end: ExitStack
    held: set[Digest] = field(default_factory=set)

    @property
    def lease(self) -> Path:
        assert self.store.lease is not None
        return self.store.lease


@dataclass(frozen=True)
class Seen:
    """An object before gc."""

    used_at: float
    size_bytes: int
    is_owned: bool
    is_leased: bool


class Model(RuleBasedStateMachine):
    def __init__(self) -> None:
        super().__init__()
        self.folder = Path(tempfile.mkdtemp(dir="/dev/shm"))
        self.owners = self.folder / "owners"
        self.owners.mkdir()
        self.store = Store.open(self.folder / "store")
        self.present: set[Digest] = set()
        self.cut: set[Digest] = set()
        self.records: dict[Digest, Record] = {}
        self.owned: dict[Path, Digest] = {}
        self.builders: list[Builder] = []
        self.links = 0
        self.moment = time.time() - 300.0

    def teardown(self) -> None:
        for builder in self.builders:
            builder.end.close()
        shutil.rmtree(self.folder)

    # What programs do

    @rule(some=st.lists(digests, min_size=1, unique=True), way=ways)
    def put(self, some: list[Digest], way: str) -> None:
        for digest in some:
            put_object(self.store, digest, way)
            self.came(digest)

    @rule(digest=digests, size=st.integers(0, 9000))
    def begin_to_put_and_give_up(self, digest: Digest, size: int) -> None:
        with self.store.writer() as new:
            new.write(BYTES[digest][:size])

    @rule(key=st.sampled_from(KEYS), record=records)
    def put_record(self, key: Digest, record: Record) -> None:
        self.store.put_record(key, record)
        self.records[key] = record

    @precondition(lambda self: len(self.builders) < 3)
    @rule()
    def begin_to_build(self) -> None:
        end = ExitStack()
        self.builders.append(Builder(end.enter_context(self.store.leased("a build")), end))

    @precondition(lambda self: self.builders)
    @rule(who=numbers, digest=digests)
    def use(self, who: int, digest: Digest) -> None:
        builder = self.builders[who % len(self.builders)]
        is_there = digest in builder.held | self.present
        assert builder.store.has(OBJECTS[digest]) is is_there
        if is_there:
            self.told(builder, digest)

    @precondition(lambda self: self.builders)
    @rule(who=numbers, digest=digests, way=ways)
    def build(self, who: int, digest: Digest, way: str) -> None:
        builder = self.builders[who % len(self.builders)]
        put_object(builder.store, digest, way)
        # What a program holds need not be put for it.
        if way != "bytes" or digest not in builder.held:
            self.came(digest)
        self.told(builder, digest)

    @precondition(lambda self: self.builders)
    @rule(who=numbers)
    def end_building(self, who: int) -> None:
        self.builders.pop(who % len(self.builders)).end.close()

    @precondition(lambda self: self.present)
    @rule(which=numbers)
    def link(self, which: int) -> None:
        digest = sorted(self.present)[which % len(self.present)]
        path = self.new_owner()
        self.store.link(OBJECTS[digest], path)
        self.owned[path] = digest

    @precondition(lambda self: self.owned)
    @rule(which=numbers)
    def unlink(self, which: int) -> None:
        path = list(self.owned)[which % len(self.owned)]
        path.unlink()
        del self.owned[path]

    @precondition(lambda self: self.owned)
    @rule(which=numbers)
    def adopt(self, which: int) -> None:
        path, digest = list(self.owned.items())[which % len(self.owned)]
        self.store.adopt(path, OBJECTS[digest])
        self.came(digest)

    @rule(policy=policies, is_dry=st.booleans())
    def collect(self, policy: Policy, is_dry: bool) -> None:
        seen, ages_s = self.look(), self.record_ages_s()
        collected = self.store.collect(policy, {"owners": self.owners}, dry_run=is_dry)
        dropped = {each.digest for each in collected.dropped}
        check_choice(policy, seen, dropped, collected)
        dead = self.find_dead(policy, seen.keys() - dropped, ages_s)
        assert collected.record_count == len(dead)
        if not is_dry:
            self.went(dropped)
            for key in dead:
                del self.records[key]

    @rule()
    def verify(self) -> None:
        assert {each.digest for each in self.store.verify()} == self.cut

    @rule()
    def reopen(self) -> None:
        self.store = Store.open(self.store.root)
        assert list((self.store.root / "tmp").iterdir()) == []
        leases = self.store.root / "leases"
        found = set(leases.iterdir()) if leases.exists() else set()
        assert found == {each.lease for each in self.builders if each.lease.exists()}

    # What happens to it

    @rule()
    def wipe(self) -> None:
        shutil.rmtree(self.store.root)
        self.store = Store.open(self.store.root)
        self.present, self.cut, self.records = set(), set(), {}
        for builder in self.builders:
            builder.held.clear()

    @precondition(lambda self: self.present)
    @rule(which=numbers)
    def take_away(self, which: int) -> None:
        digest = sorted(self.present)[which % len(self.present)]
        self.path(digest).unlink()
        self.present.remove(digest)

    @precondition(lambda self: self.present)
    @rule(which=numbers)
    def cut_short(self, which: int) -> None:
        """With all the links that it has."""
        digest = sorted(self.present)[which % len(self.present)]
        path = self.path(digest)
        if not BYTES[digest]:
            return
        path.chmod(0o600)
        os.truncate(path, len(BYTES[digest]) - 1)
        path.chmod(0o400)
        for owner in [each for each in self.owned if each.samefile(path)]:
            owner.unlink()
            del self.owned[owner]
        for builder in self.builders:
            if is_same(builder.lease / digest, path):
                builder.held.discard(digest)
        self.present.remove(digest)
        self.cut.add(digest)

    @precondition(lambda self: self.present or self.records)
    @rule(ages_s=st.lists(st.sampled_from(AGES_S), min_size=1, max_size=9))
    def grow_old(self, ages_s: list[int]) -> None:
        paths = [
            *(self.path(digest) for digest in sorted(self.present | self.cut)),
            *(self.record_path(key) for key in sorted(self.records)),
        ]
        for path, age_s in zip(paths, itertools.cycle(ages_s), strict=False):
            used_at = time.time() - age_s
            os.utime(path, (used_at, used_at))

    # Crashes: the model takes whatever it may have come to, and nothing else

    @rule(digest=digests, way=ways, is_leased=st.booleans(), count=st.integers(1, 12))
    def crash_while_putting(self, digest: Digest, way: str, is_leased: bool, count: int) -> None:
        def put() -> None:
            if not is_leased:
                put_object(self.store, digest, way)
                return
            with self.store.leased("a build") as leased:
                for each in self.present:
                    leased.has(OBJECTS[each])
                put_object(leased, digest, way)

        crash(put, count)
        self.reopen()
        if self.store.has(OBJECTS[digest]):
            self.came(digest)

    @rule(key=st.sampled_from(KEYS), record=records, count=st.integers(1, 3))
    def crash_while_recording(self, key: Digest, record: Record, count: int) -> None:
        crash(lambda: self.store.put_record(key, record), count)
        self.reopen()
        if self.store.find_record(key) == record:
            self.records[key] = record

    @precondition(lambda self: self.present)
    @rule(which=numbers)
    def crash_while_linking(self, which: int) -> None:
        digest, path = sorted(self.present)[which % len(self.present)], self.new_owner()
        crash(lambda: self.store.link(OBJECTS[digest], path), 1)
        self.reopen()
        self.owned[path] = digest

    @precondition(lambda self: self.owned)
    @rule(which=numbers)
    def crash_while_adopting(self, which: int) -> None:
        path, digest = list(self.owned.items())[which % len(self.owned)]
        crash(lambda: self.store.adopt(path, OBJECTS[digest]), 1)
        self.reopen()
        if self.store.has(OBJECTS[digest]):
            self.came(digest)

    @rule(policy=policies, count=st.integers(1, 20))
    def crash_while_collecting(self, policy: Policy, count: int) -> None:
        seen, ages_s = self.look(), self.record_ages_s()
        crash(lambda: self.store.collect(policy, {}), count)
        self.reopen()
        gone = seen.keys() - self.found()
        assert gone <= find_free(policy, seen).keys()
        # Records go when all objects have gone.
        may_go = self.find_dead(policy, seen.keys() - gone, ages_s)
        self.went(gone)
        for key in may_go:
            if self.store.find_record(key) is None:
                del self.records[key]

    @invariant()
    def time_passes(self) -> None:
        """What was used in this moment was used after all before it: a clock that stands still makes no order."""
        for digest in sorted(self.present | self.cut):
            if abs(time.time() - self.path(digest).stat().st_mtime) < 150.0:
                self.moment += 0.01
                os.utime(self.path(digest), (self.moment, self.moment))

    # What always holds

    @invariant()
    def is_there_what_must_be_and_nothing_else(self) -> None:
        assert self.found() == self.present | self.cut
        for digest in self.present:
            assert self.store.has(OBJECTS[digest])
            assert self.store.path(OBJECTS[digest]).read_bytes() == BYTES[digest]
        assert not any(self.store.has(OBJECTS[digest]) for digest in BYTES.keys() - self.present)

    @invariant()
    def nobody_loses_what_they_hold(self) -> None:
        for path, digest in self.owned.items():
            assert path.read_bytes() == BYTES[digest]
        for builder in self.builders:
            for digest in builder.held:
                assert builder.store.path(OBJECTS[digest]).read_bytes() == BYTES[digest]

    @invariant()
    def records_are_whole_or_not_there(self) -> None:
        assert {key: self.store.find_record(key) for key in KEYS} == {key: self.records.get(key) for key in KEYS}

    # The parts

    def came(self, digest: Digest) -> None:
        self.present.add(digest)
        self.cut.discard(digest)

    def went(self, gone: set[Digest]) -> None:
        self.present -= gone
        self.cut -= gone

    def told(self, builder: Builder, digest: Digest) -> None:
        if builder.lease.exists():  # it was not wiped
            builder.held.add(digest)

    def new_owner(self) -> Path:
        self.links += 1
        return self.owners / str(self.links)

    def path(self, digest: Digest) -> Path:
        return self.store.root / "objects" / digest[:2] / digest

    def record_path(self, key: Digest) -> Path:
        return self.store.root / "actions" / key[:2] / key

    def found(self) -> set[Digest]:
        return {Digest(path.name) for path in (self.store.root / "objects").glob("*/*")}

    def look(self) -> dict[Digest, Seen]:
        seen: dict[Digest, Seen] = {}
        for digest in self.present | self.cut:
            path = self.path(digest)
            found = path.stat()
            seen[digest] = Seen(
                found.st_mtime,
                found.st_blocks * 512,
                any(is_same(owner, path) for owner in self.owned),
                any(is_same(builder.lease / digest, path) for builder in self.builders),
            )
        return seen

    def record_ages_s(self) -> dict[Digest, float]:
        return {key: get_age_s(self.record_path(key).stat().st_mtime) for key in self.records}

    def find_dead(self, policy: Policy, present: set[Digest], ages_s: dict[Digest, float]) -> set[Digest]:
        """By the rule itself, again and again: a record lives that is young, or has, or leads to, what is there."""
        alive: set[Digest] = set()
        needed = set(present)
        while True:
            more = {
                key
                for key, record in self.records.items()
                if key not in alive
                and (ages_s[key] < policy.young_s or any(made.digest in needed for made in record.outputs.values()))
            }
            if not more:
                return self.records.keys() - alive
            alive |= more
            needed |= {digest for key in more for digest in self.records[key].inputs.values()}


def find_free(policy: Policy, seen: dict[Digest, Seen]) -> dict[Digest, Seen]:
    """What may go at all."""
    return {
        digest: each
        for digest, each in seen.items()
        if not each.is_owned and not each.is_leased and get_age_s(each.used_at) >= policy.young_s
    }


def check_choice(policy: Policy, seen: dict[Digest, Seen], dropped: set[Digest], collected: Collection) -> None:
    """Nothing went that must not, everything that had to, the oldest first, and no more than needed."""
    free = find_free(policy, seen)
    assert dropped <= free.keys()
    aged = {
        digest
        for digest, each in free.items()
        if policy.older_than_s is not None and get_age_s(each.used_at) >= policy.older_than_s
    }
    assert aged <= dropped
    own_bytes = sum(each.size_bytes for each in seen.values() if not each.is_owned)
    left_bytes = own_bytes - sum(free[digest].size_bytes for digest in dropped)
    assert collected.own_bytes == left_bytes
    assert sum(each.count for each in collected.kept) == len(seen) - len(dropped)
    for_size = sorted(dropped - aged, key=lambda digest: (free[digest].used_at, digest))
    target_bytes = own_bytes
    if policy.max_bytes is not None and own_bytes > policy.max_bytes:
        target_bytes = policy.max_bytes if policy.enough_bytes is None else policy.enough_bytes
        assert left_bytes <= target_bytes or dropped == free.keys()
    if for_size:
        assert left_bytes + free[for_size[-1]].size_bytes > target_bytes
        used_last = free[for_size[-1]].used_at
        assert all(each.used_at >= used_last for digest, each in free.items() if digest not in dropped)


def get_age_s(moment: float) -> float:
    return max(0.0, time.time() - moment)


def is_same(path: Path, other: Path) -> bool:
    return path.exists() and path.samefile(other)


def put_object(store: Store, digest: Digest, way: str) -> None:
    data = BYTES[digest]
    if way == "bytes":
        made = store.put_bytes(data)
    elif way == "stream":
        made = store.put_stream(io.BytesIO(data))
    else:
        with store.temporary_dir() as folder:
            (folder / "made").write_bytes(data)
            made = store.put_file(folder / "made")
    assert made == OBJECTS[digest]


def crash(work: Callable[[], object], count: int) -> None:
    """Do it in a child that is killed when it comes by the `count`th place, or comes to its end before."""
    child = os.fork()
    if child == 0:
        left = count

        def on(_: Point) -> None:
            nonlocal left
            left -= 1
            if left == 0:
                os.kill(os.getpid(), signal.SIGKILL)

        status = 1
        try:
            trace.on_point = on
            work()
            status = 0
        finally:
            # Nothing of the parent's is to be ended here.
            os._exit(status)
    _, status = os.waitpid(child, 0)
    assert status in (0, signal.SIGKILL), status


TestModel = Model.TestCase
TestModel.settings = settings(max_examples=120, stateful_step_count=40, derandomize=True)
