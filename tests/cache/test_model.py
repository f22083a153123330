"""The store against plain dictionaries: any sequence of what people and programs do with it, crashes in between."""

from __future__ import annotations

import itertools
import os
import shutil
import tempfile
import time
from contextlib import ExitStack
from dataclasses import dataclass, field
from pathlib import Path

from hypothesis import settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, initialize, invariant, precondition, rule

from cache import Digest, Policy, Record, Store, key_of
from tests.cache.choice import Seen, check_choice, find_free, get_age_s
from tests.cache.contents import BYTES, OBJECTS, put_object
from tests.cache.crash import crash

KEYS = [key_of("step", number, {}, {}) for number in range(4)]
# Far from each other and from those of the policies, so that a slow machine does not matter.
AGES_S = [0, 10_000, 20_000, 30_000, -10_000]

ages = st.lists(st.sampled_from(AGES_S), min_size=1, max_size=9)
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
    enough_bytes=st.sampled_from([None, None, 8192]),
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

    @initialize(ages_s=ages, made=st.lists(records, min_size=len(KEYS), max_size=len(KEYS)))
    def begin(self, ages_s: list[int], made: list[Record]) -> None:
        """With a full store, since it takes long to come to one."""
        self.put(sorted(BYTES), "bytes")
        for key, record in zip(KEYS, made, strict=True):
            self.put_record(key, record)
        self.grow_old(ages_s)

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
    @rule(some=st.sets(digests, min_size=1))
    def begin_to_build(self, some: set[Digest]) -> None:
        end = ExitStack()
        self.builders.append(Builder(end.enter_context(self.store.leased("a build")), end))
        self.use(-1, some)

    @precondition(lambda self: self.builders)
    @rule(who=numbers, some=st.sets(digests, min_size=1))
    def use(self, who: int, some: set[Digest]) -> None:
        builder = self.builders[who % len(self.builders)]
        for digest in sorted(some):
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

    @rule(policy=policies)
    def collect(self, policy: Policy) -> None:
        dropped, dead = self.check_collect(policy, is_dry=False)
        self.went(dropped)
        for key in dead:
            del self.records[key]

    @rule(policy=policies)
    def say_what_gc_would_do(self, policy: Policy) -> None:
        self.check_collect(policy, is_dry=True)

    def check_collect(self, policy: Policy, *, is_dry: bool) -> tuple[set[Digest], set[Digest]]:
        """The objects and records that have gone, or would go."""
        seen, ages_s = self.look(), self.record_ages_s()
        collected = self.store.collect(policy, {"owners": self.owners}, dry_run=is_dry)
        dropped = {each.digest for each in collected.dropped}
        check_choice(policy, seen, dropped, collected)
        dead = self.find_dead(policy, seen.keys() - dropped, ages_s)
        assert collected.record_count == len(dead)
        return dropped, dead

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

    @rule(how=st.sampled_from(["taken away", "cut short", "wiped"]), which=numbers)
    def damage(self, how: str, which: int) -> None:
        if how == "wiped":
            self.wipe()
        elif self.present:
            digest = sorted(self.present)[which % len(self.present)]
            if how == "cut short" and BYTES[digest]:
                self.cut_short(digest)
            else:
                self.path(digest).unlink()
                self.present.remove(digest)

    def wipe(self) -> None:
        shutil.rmtree(self.store.root)
        self.store = Store.open(self.store.root)
        self.present, self.cut, self.records = set(), set(), {}
        for builder in self.builders:
            builder.held.clear()

    def cut_short(self, digest: Digest) -> None:
        """With all the links that it has."""
        path = self.path(digest)
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
    @rule(ages_s=ages)
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
                for each in sorted(self.present):
                    leased.has(OBJECTS[each])
                put_object(leased, digest, way)

        crash(put, count)
        self.reopen()
        if self.store.has(OBJECTS[digest]):
            self.came(digest)

    @rule(key=st.sampled_from(KEYS), record=records, which=numbers, count=st.integers(1, 3))
    def crash_in_something_small(self, key: Digest, record: Record, which: int, count: int) -> None:
        path = self.new_owner()
        if which % 3 == 0 and self.present:
            digest = sorted(self.present)[which % len(self.present)]
            crash(lambda: self.store.link(OBJECTS[digest], path), 1)
            self.owned[path] = digest
        elif which % 3 == 1 and self.owned:
            owner, digest = list(self.owned.items())[which % len(self.owned)]
            crash(lambda: self.store.adopt(owner, OBJECTS[digest]), 1)
            if self.store.has(OBJECTS[digest]):
                self.came(digest)
        else:
            crash(lambda: self.store.put_record(key, record), count)
            if self.store.find_record(key) == record:
                self.records[key] = record
        self.reopen()

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


def is_same(path: Path, other: Path) -> bool:
    return path.exists() and path.samefile(other)


TestModel = Model.TestCase
TestModel.settings = settings(max_examples=180, stateful_step_count=40, derandomize=True)
