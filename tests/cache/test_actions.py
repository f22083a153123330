import enum
import json
import os
import types
from typing import Any

import pytest
from blake3 import blake3
from hypothesis import HealthCheck, assume, given, settings
from hypothesis import strategies as st

from banger.errors import BangerError
from cache import Digest, Object, Record, Store, format_record, key_of, parse_record

any_text = st.text(st.characters())  # lone surrogates too: they are how file names that are not UTF-8 arrive
digests = st.binary(min_size=1, max_size=4).map(lambda data: Digest(blake3(data).hexdigest()))
values = st.recursive(
    st.none() | st.booleans() | st.integers() | any_text,
    lambda inner: st.lists(inner, max_size=4) | st.dictionaries(any_text, inner, max_size=4),
    max_leaves=12,
)
parameter_sets = st.dictionaries(any_text, values, max_size=5)
input_sets = st.dictionaries(any_text, digests, max_size=4)
times = st.floats(allow_nan=False, allow_infinity=False)
records = st.builds(
    Record,
    step=any_text,
    version=st.integers(),
    parameters=parameter_sets,
    inputs=input_sets,
    outputs=st.dictionaries(any_text, st.builds(Object, digests, st.integers(0, 1 << 62)), max_size=4),
    made_at=times,
    duration_s=times,
)


def shape(value: Any) -> Any:
    """Equality that keeps 1 and True apart, as Python's does not."""
    if isinstance(value, dict):
        return {name: shape(inner) for name, inner in value.items()}
    if isinstance(value, list):
        return [shape(inner) for inner in value]
    return (type(value).__name__, value)


@given(any_text, st.integers(), parameter_sets, input_sets)
def test_a_key_does_not_depend_on_the_order_of_names(
    step: str, version: int, parameters: dict[str, Any], inputs: dict[str, Digest]
) -> None:
    def turned(value: Any) -> Any:
        if isinstance(value, dict):
            return {name: turned(value[name]) for name in reversed(value)}
        return tuple(turned(inner) for inner in value) if isinstance(value, list) else value

    assert key_of(step, version, parameters, inputs) == key_of(step, version, turned(parameters), turned(inputs))


@given(st.lists(st.tuples(any_text, st.integers(), parameter_sets, input_sets), min_size=2, max_size=2))
def test_different_actions_have_different_keys(
    actions: list[tuple[str, int, dict[str, Any], dict[str, Digest]]],
) -> None:
    one, other = actions
    assume(shape(list(one)) != shape(list(other)))
    assert key_of(*one) != key_of(*other)


ALIKE: list[Any] = [
    None,
    True,
    False,
    0,
    1,
    "1",
    "true",
    "null",
    "",
    [],
    {},
    [[]],
    [1],
    ["1"],
    [1, 2],
    [[1], 2],
    [[1, 2]],
    "[1,2]",
    {"a": 1},
    '{"a":1}',
    {"a": {"b": 1}},
    {"a.b": 1},
    {"": None},
    "é",
    "e\N{COMBINING ACUTE ACCENT}",
    "\N{GRINNING FACE}",
    "\ud83d\ude00",
    "\\ud83d\\ude00",
    "a\0b",
    "a",
]


def test_values_that_look_alike_have_keys_of_their_own() -> None:
    assert len({key_of("s", 1, {"p": value}, {}) for value in ALIKE}) == len(ALIKE)


def test_parameters_and_inputs_do_not_run_into_each_other() -> None:
    digest = Digest("a" * 64)
    assert key_of("s", 1, {"x": digest}, {}) != key_of("s", 1, {}, {"x": digest})
    assert key_of("s", 1, {"x": None}, {}) != key_of("s", 1, {}, {})
    assert key_of("s1", 1, {}, {}) != key_of("s", 11, {}, {})


def test_a_key_is_the_same_tomorrow() -> None:
    """Everybody's cache depends on it. If this has to change, so does the number of the canonical form."""
    text = b'[1,"erofs",3,{"a":["1",1,true,null],"b":"\xc3\xa9"},{"tree":"' + b"a" * 64 + b'"}]'
    assert (
        key_of("erofs", 3, {"b": "é", "a": ["1", 1, True, None]}, {"tree": Digest("a" * 64)})
        == blake3(text).hexdigest()
    )


class Color(enum.StrEnum):
    RED = "red"


class Level(enum.IntEnum):
    HIGH = 3


def test_the_members_of_enumerations_are_their_values_and_mappings_are_mappings() -> None:
    assert key_of("s", 1, {"c": Color.RED, "l": Level.HIGH}, {}) == key_of("s", 1, {"c": "red", "l": 3}, {})
    assert key_of("s", 1, types.MappingProxyType({"a": (1,)}), {}) == key_of("s", 1, {"a": [1]}, {})


@pytest.mark.parametrize("value", [1.0, float("nan"), b"bytes", {1, 2}, {1: "one"}, {None: 1}, object(), [[1.5]]])
def test_what_has_no_one_spelling_is_refused(value: Any) -> None:
    with pytest.raises(TypeError):
        key_of("s", 1, {"p": value}, {})
    with pytest.raises(TypeError):
        format_record(Record("s", 1, {"p": value}, {}, {}, 0.0, 0.0))


@given(records)
def test_a_record_reads_as_it_was_written(record: Record) -> None:
    again = parse_record(format_record(record))
    assert again == record
    assert shape(dict(again.parameters)) == shape(dict(record.parameters))
    assert format_record(again) == format_record(record)


@settings(suppress_health_check=[HealthCheck.function_scoped_fixture, HealthCheck.too_slow], max_examples=40)
@given(record=records)
def test_a_stored_record_is_found_by_its_key(store: Store, record: Record) -> None:
    key = key_of(record.step, record.version, record.parameters, record.inputs)
    store.put_record(key, record)
    assert store.find_record(key) == record
    assert list((store.root / "tmp").iterdir()) == []


GOOD = Record("step", 1, {"a": 1}, {"i": Digest("a" * 64)}, {"o": Object(Digest("b" * 64), 3)}, 1.0, 2.0)


def planted(store: Store, content: bytes) -> Record | None:
    key = key_of("planted", 1, {}, {})
    path = store.root / "actions" / key[:2] / key
    path.parent.mkdir(exist_ok=True)
    path.write_bytes(content)
    return store.find_record(key)


@settings(suppress_health_check=[HealthCheck.function_scoped_fixture, HealthCheck.too_slow])
@given(content=st.binary(max_size=200))
def test_any_other_bytes_are_a_miss(store: Store, content: bytes) -> None:
    assert planted(store, content) is None


@settings(suppress_health_check=[HealthCheck.function_scoped_fixture, HealthCheck.too_slow], max_examples=200)
@given(place=st.integers(0, len(format_record(GOOD)) - 1), byte=st.integers(0, 255))
def test_a_damaged_record_is_a_miss_or_at_least_a_record(store: Store, place: int, byte: int) -> None:
    damaged = bytearray(format_record(GOOD))
    damaged[place] = byte
    found = planted(store, bytes(damaged))
    assert found is None or isinstance(format_record(found), bytes)


def test_a_record_cut_anywhere_is_a_miss(store: Store) -> None:
    whole = format_record(GOOD)
    for length in range(len(whole) - 1):
        assert planted(store, whole[:length]) is None


@pytest.mark.parametrize(
    ("field", "value"),
    [
        ("step", 1),
        ("version", "1"),
        ("version", True),
        ("version", 1.5),
        ("parameters", []),
        ("parameters", {"p": 1.5}),
        ("inputs", {"i": "../../../etc/passwd"}),
        ("inputs", []),
        ("outputs", {"o": ["../../x", 1]}),
        ("outputs", {"o": ["b" * 64, -1]}),
        ("outputs", {"o": ["b" * 64, "1"]}),
        ("outputs", {"o": ["b" * 64]}),
        ("outputs", {"o": {"digest": "b" * 64}}),
        ("made_at", "now"),
        ("made_at", float("nan")),
        ("duration_s", float("inf")),
        ("duration_s", None),
    ],
)
def test_a_field_of_another_kind_makes_it_a_miss(store: Store, field: str, value: Any) -> None:
    document = json.loads(format_record(GOOD))
    document[field] = value
    assert planted(store, json.dumps(document).encode()) is None


@pytest.mark.parametrize(
    "content",
    [b"", b"{}", b"[]", b"null", b"[" * 100_000, b'{"step":' * 5000, b"\xff\xfe", b"9" * 5000],
    ids=["empty", "object", "list", "null", "deep", "deeper", "bom", "long number"],
)
def test_nasty_content_is_a_miss(store: Store, content: bytes) -> None:
    assert planted(store, content) is None


def test_a_field_left_out_makes_it_a_miss(store: Store) -> None:
    for field in json.loads(format_record(GOOD)):
        document = json.loads(format_record(GOOD))
        del document[field]
        assert planted(store, json.dumps(document).encode()) is None


def test_a_time_without_end_is_a_miss(store: Store) -> None:
    assert planted(store, format_record(GOOD).replace(b'"made_at":1.0', b'"made_at":1e999')) is None


def test_an_input_that_is_no_digest_is_refused() -> None:
    with pytest.raises(BangerError):
        key_of("s", 1, {}, {"i": Digest("latest")})


def test_what_is_not_a_file_is_a_miss(store: Store) -> None:
    key = key_of("s", 1, {}, {})
    assert store.find_record(key) is None
    (store.root / "actions" / key[:2] / key).mkdir(parents=True)
    assert store.find_record(key) is None


def test_a_record_may_be_large(store: Store) -> None:
    record = Record("step", 1, {"text": "x" * 3_000_000}, {}, {}, 0.0, 0.0)
    key = key_of("step", 1, record.parameters, {})
    store.put_record(key, record)
    assert store.find_record(key) == record


def test_a_later_record_replaces_an_earlier_one(store: Store) -> None:
    key = key_of("s", 1, {}, {})
    store.put_record(key, GOOD)
    later = Record("step", 1, {}, {}, {}, 9.0, 0.0)
    store.put_record(key, later)
    assert store.find_record(key) == later


def test_a_record_is_a_hit_only_while_its_objects_are_whole(store: Store) -> None:
    obj, other = store.put_bytes(b"one"), store.put_bytes(b"two")
    record = Record("s", 1, {}, {}, {"a": obj, "b": other}, 0.0, 0.0)
    assert store.has_outputs(record)
    store.path(other).chmod(0o600)
    os.truncate(store.path(other), 1)
    assert not store.has_outputs(record)
