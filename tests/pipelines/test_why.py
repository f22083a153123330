"""Why a thing would be made again: what is said of each step is what a build does, and names what changed."""

from __future__ import annotations

import random
import tempfile
from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from cache import JSON, Digest, key_of
from cache.layout import record_path
from pipelines.changes import Change
from pipelines.naming import Target, plan_named
from pipelines.step import Step
from pipelines.why import CHANGED, LOST, NEAREST, NEVER_BUILT, State
from tests.pipelines.house import DETAILS, House, states, walk_target


@pytest.fixture
def house(tmp_path: Path) -> House:
    return House(tmp_path)


def test_what_was_just_built_is_a_hit_from_the_name_down(house: House) -> None:
    target = house.plan()
    house.build(target.naming)
    found = house.why(target)
    assert list(found) == ["image:mine", "rootfs:mine", "system:mine", "lock:mine", "home:mine"]
    assert set(states(found).values()) == {"hit"}
    assert not any(each.why or each.changes for each in found.values())
    assert found["image:mine"].key is None
    assert found["image:mine"].inputs == {"rootfs": "rootfs:mine", "home": "home:mine"}
    assert found["lock:mine"].key == key_of(
        "lock", 1, {"suite": "one", "packages": ["a", "b", "c"], "selection": "all"}, {}
    )


def test_where_nothing_was_built_the_first_steps_were_never_built_and_the_others_wait(house: House) -> None:
    found = house.why(house.plan())
    assert set(states(found).values()) == {"miss"}
    assert found["lock:mine"].why == NEVER_BUILT
    assert found["system:mine"].why == "waits for lock:mine"
    assert found["image:mine"].why == "waits for rootfs:mine, home:mine"
    assert found["system:mine"].key is None


def test_a_parameter_that_changed_is_named_by_its_path_with_old_and_new(house: House) -> None:
    house.build(house.plan().naming)
    found = house.why(house.plan(suite="two", packages=("a", "b", "x", "c")))
    assert found["lock:mine"].why == CHANGED
    assert found["lock:mine"].changes == [
        Change("parameter packages[2]", None, "x"),
        Change("parameter suite", "one", "two"),
    ]


def test_an_input_that_changed_is_named_with_both_digests(house: House) -> None:
    old, new = house.plan(), house.plan(packages=("a",))
    house.build(old.naming)
    _, before = house.record(old, "lock:mine")
    [lock] = [node for node in walk_target(new) if node.name == "lock:mine"]
    house.build(lock)
    found = house.why(new)
    assert found["lock:mine"].state is State.HIT
    _, after = house.record(new, "lock:mine")
    assert found["system:mine"].why == CHANGED
    assert found["system:mine"].changes == [
        Change("input lock", before.outputs["lock"].digest, after.outputs["lock"].digest)
    ]
    assert found["rootfs:mine"].why == "waits for system:mine"


def test_a_changed_version_of_the_code_is_named_also_of_a_step_that_waits(house: House) -> None:
    house.build(house.plan().naming)
    assert house.why(house.plan(version=4))["system:mine"].changes == [Change("the step's code", 1, 4)]
    found = house.why(house.plan(version=4, suite="two"))
    assert found["system:mine"].why == "waits for lock:mine"
    assert found["system:mine"].changes == [Change("the step's code", 1, 4)]


def test_the_last_build_is_what_the_name_was_made_from_not_the_newest_of_its_kind(house: House) -> None:
    house.build(house.plan(suite="two").naming)
    mine = house.plan()
    house.build(mine.naming)
    # Of somebody else, later, and more like it.
    other = replace(house.plan(packages=("a", "b", "c", "e")).artifacts["rootfs"].step, name="rootfs:other")
    house.build(other)
    found = house.why(house.plan(packages=("a", "b", "c", "e", "f")))
    assert found["lock:mine"].why == CHANGED
    assert [change.what for change in found["lock:mine"].changes] == ["parameter packages[3]", "parameter packages[4]"]


def test_the_last_build_is_found_from_the_name_also_when_only_a_step_is_asked_for(house: House) -> None:
    house.build(house.plan().naming)
    asked = house.why(house.plan(suite="two"), "lock:mine")
    assert list(asked) == ["lock:mine"]
    assert (asked["lock:mine"].why, asked["lock:mine"].changes) == (CHANGED, [Change("parameter suite", "one", "two")])


def test_without_a_name_the_record_with_the_fewest_differences_is_compared(house: House) -> None:
    for packages in (("a", "x", "y"), ("a", "b", "c", "d"), ("p", "q")):
        house.build(*(node for node in walk_target(house.plan(packages=packages)) if node.name == "lock:mine"))
    found = house.why(house.plan())
    assert found["lock:mine"].why == NEAREST
    assert found["lock:mine"].changes == [Change("parameter packages[3]", "d", None)]


def test_of_records_that_differ_as_much_the_newest_is_compared(house: House) -> None:
    for number, suite in enumerate(("older", "newest", "old")):
        [lock] = [node for node in walk_target(house.plan(suite=suite)) if node.name == "lock:mine"]
        house.build(lock)
        key, record = house.record(house.plan(suite=suite), "lock:mine")
        house.store.put_record(key, replace(record, made_at=1000.0 + (number == 1)))
    assert house.why(house.plan())["lock:mine"].changes == [Change("parameter suite", "newest", "one")]


def test_what_only_shares_its_kind_is_no_earlier_build(house: House) -> None:
    house.build(
        Step("lock:other", "lock", 1, house.make, ("lock",), {"suite": "x", "packages": ["q"], "selection": "none"})
    )
    found = house.why(house.plan())
    assert (found["lock:mine"].why, found["lock:mine"].changes) == (NEVER_BUILT, ())


def test_what_had_other_inputs_is_no_earlier_build(house: House) -> None:
    [lock] = [node for node in walk_target(house.plan()) if isinstance(node, Step) and node.name == "lock:mine"]
    house.build(Step("system:other", "system", 1, house.make, ("system",), {}, {"other": lock.output("lock")}))
    found = house.why(house.plan())
    assert (found["system:mine"].why, found["system:mine"].changes) == (NEVER_BUILT, ())


def test_a_collected_thing_that_nobody_reads_is_not_needed(house: House) -> None:
    target = house.plan()
    house.build(target.naming)
    house.forget(target, "system:mine")
    found = house.why(target)
    assert states(found) == {**dict.fromkeys(found, "hit"), "system:mine": "not-needed"}
    assert found["system:mine"].why == "its objects are gone, and nothing reads them: system"
    assert house.build(target.naming) == []


def test_a_collected_thing_is_needed_when_it_is_asked_for_itself_or_its_reader_is_missing(house: House) -> None:
    target = house.plan()
    house.build(target.naming)
    house.forget(target, "system:mine")
    asked = house.why(target, "system:mine")
    assert states(asked) == {"system:mine": "miss", "lock:mine": "hit"}
    assert asked["system:mine"].why == "its record is there, its objects are missing: system"
    record_path(house.store.root, house.record(target, "home:mine")[0]).unlink()
    found = house.why(target)
    assert (found["home:mine"].state, found["home:mine"].why) == (State.MISS, LOST)
    assert found["system:mine"].state is State.MISS
    assert house.build(target.naming) == ["system:mine", "home:mine"]


def test_only_the_outputs_that_are_missing_are_named(house: House) -> None:
    target = house.plan()
    house.build(target.naming)
    _, record = house.record(target, "home:mine")
    house.store.path(record.outputs["extra"]).unlink()
    found = house.why(target)["home:mine"]
    assert (found.state, found.why) == (State.MISS, "its record is there, its objects are missing: extra")


def test_a_record_with_other_outputs_is_told(house: House) -> None:
    target = house.plan()
    house.build(target.naming)
    key, record = house.record(target, "home:mine")
    house.store.put_record(key, replace(record, outputs={"home": record.outputs["home"]}))
    assert house.why(target)["home:mine"].why == "its record has home instead of extra, home"


def test_a_name_that_stands_for_something_else_says_for_what(house: House) -> None:
    old, new = house.plan(), house.plan(suite="two")
    house.build(old.naming)
    house.build(*(artifact.step for artifact in new.artifacts.values()))
    found = house.why(new)
    assert {each.state for name, each in found.items() if name != "image:mine"} == {State.HIT}
    assert found["image:mine"].state is State.MISS
    assert found["image:mine"].changes == [
        Change(
            role, house.images.get("mine").files[role].digest, house.record(new, f"{role}:mine")[1].outputs[role].digest
        )
        for role in ("rootfs", "home")
    ]
    house.images.remove("mine")
    assert house.why(new)["image:mine"].why == "nothing has this name"


# For each step the numbers of earlier ones that it needs.
_GRAPHS = st.integers(1, 7).flatmap(
    lambda count: st.tuples(st.just(set[int]()), *(st.sets(st.integers(0, number)) for number in range(count - 1)))
)


@settings(max_examples=25, deadline=None)
@given(needs=_GRAPHS, seed=st.integers(0, 2**16))
def test_what_is_no_miss_does_not_run_and_what_is_one_does(needs: tuple[set[int], ...], seed: int) -> None:
    rng = random.Random(seed)
    with tempfile.TemporaryDirectory() as folder:
        house = House(Path(folder))

        def plan(changed: int | None) -> Target:
            steps: list[Step] = []
            for number, needed in enumerate(needs):
                inputs = {f"in-{each}": steps[each].output("out") for each in needed}
                parameters: Mapping[str, JSON] = {"new": True} if number == changed else {}
                steps.append(Step(f"s{number}", f"s{number}", 1, house.make, ("out",), parameters, inputs))
            artifacts = {"out": steps[-1].output("out")}
            return plan_named(house.store, house.images, "mine", artifacts, DETAILS)

        house.build(plan(None).naming)
        target = plan(rng.choice([None, rng.randrange(len(needs))]))
        for name in [each for each in house.why(target) if each != "image:mine"]:
            key = house.why(target)[name].key
            record = None if key is None else house.store.find_record(key)
            if key is None or record is None:
                continue
            if rng.random() < 0.3:
                house.store.root.joinpath("objects", *_shelf(record.outputs["out"].digest)).unlink(missing_ok=True)
            if rng.random() < 0.2:
                record_path(house.store.root, key).unlink()
        told = {name for name, each in house.why(target).items() if each.state is State.MISS} - {"image:mine"}
        # What comes out as before spares what waits for it, and what only that would have read.
        waiting = {name for name, each in house.why(target).items() if each.why.startswith("waits")}
        ran = set(house.build(target.naming))
        assert ran <= told
        assert waiting or ran == told


def _shelf(digest: Digest) -> tuple[str, str]:
    return digest[:2], digest
