"""What differs between a step and a record."""

from __future__ import annotations

from cache import Digest, Record
from pipelines.changes import Change, find_changes
from pipelines.step import Step


def test_one_more_in_the_middle_of_a_list_is_one_change() -> None:
    step = Step("s", "s", 1, lambda _job: None, ("out",), {"a": {"b": [1, 2, 9, 3], "c": True}, "d": None})
    record = Record("s", 1, {"a": {"b": [1, 2, 3], "c": 1}, "d": "x"}, {}, {}, 0.0, 0.0)
    assert find_changes(step, {}, record) == [
        Change("parameter a.b[2]", None, 9),
        Change("parameter a.c", 1, True),
        Change("parameter d", "x", None),
    ]


def test_inputs_that_came_and_went_are_changes_and_one_that_is_not_known_is_none() -> None:
    step = Step("s", "s", 1, lambda _job: None, ("out",))
    one, two = Digest("1" * 64), Digest("2" * 64)
    record = Record("s", 1, {}, {"gone": one, "same": one, "other": one, "unknown": one}, {}, 0.0, 0.0)
    changes = find_changes(step, {"same": one, "other": two, "unknown": None, "new": two}, record)
    assert changes == [
        Change("input gone", one, None),
        Change("input new", None, two),
        Change("input other", one, two),
    ]
