"""The document of a bundle: one text for equal content, and nothing taken that is not what it should be."""

from __future__ import annotations

import json
from dataclasses import replace
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from banger.errors import BangerError, Reason
from cache import JSON, Digest, Object, Record, key_of
from catalog.bundle import ROLES, Bundle, Kind, format_bundle, parse_bundle

_A, _B = Digest("a" * 64), Digest("b" * 64)


def _record(made_at: float = 1.5) -> tuple[Digest, Record]:
    parameters: dict[str, JSON] = {"recipe": "x", "n": 1}
    record = Record("rootfs", 2, parameters, {"lock": _A}, {"rootfs": Object(_B, 7)}, made_at, 3.5)
    return key_of("rootfs", 2, parameters, {"lock": _A}), record


@pytest.fixture
def bundle() -> Bundle:
    key, record = _record()
    return Bundle(
        kind=Kind.IMAGE,
        name="team-base",
        version="2025.11-1",
        files={"rootfs": Object(_A, 10), "home": Object(_B, 20)},
        summary="What the team works in",
        distro="debian",
        kernel="debian-6.12",
        source={"kind": "recipe", "lock": _A},
        provenance={key: replace(record, made_at=0.0, duration_s=0.0)},
    )


@pytest.fixture
def document(bundle: Bundle) -> dict[str, Any]:
    found: dict[str, Any] = json.loads(format_bundle(bundle))
    return found


def _parse(document: object, kind: Kind = Kind.IMAGE) -> Bundle:
    return parse_bundle(json.dumps(document).encode(), kind)


def test_what_is_written_is_read_again(bundle: Bundle) -> None:
    assert parse_bundle(format_bundle(bundle), Kind.IMAGE) == bundle
    kernel = Bundle(
        Kind.KERNEL,
        "debian-6.12",
        "6.12.57+deb13-cloud-amd64",
        {role: Object(_A, 1) for role in ROLES[Kind.KERNEL]},
        runtime="0123456789ab",
    )
    assert parse_bundle(format_bundle(kernel), Kind.KERNEL) == kernel


def test_when_and_how_fast_it_was_built_changes_no_byte(bundle: Bundle) -> None:
    texts = {format_bundle(replace(bundle, provenance=dict([_record(made_at)]))) for made_at in (0.0, 1e9)}
    assert len(texts) == 1


def test_all_files_count_for_the_size(bundle: Bundle) -> None:
    assert bundle.size_bytes == 30


def test_what_a_later_banger_adds_is_passed_over(bundle: Bundle, document: dict[str, Any]) -> None:
    document["colour"] = {"of": "the sky"}
    document["files"]["snapshot"] = {"blake3": 5}
    assert _parse(document) == bundle


@pytest.mark.parametrize("number", [0, 2, 99, -1, True, "1", None, 1.0])
def test_another_format_is_refused(document: dict[str, Any], number: object) -> None:
    document["format"] = number
    with pytest.raises(BangerError) as refused:
        _parse(document)
    is_later = number in (2, 99)
    assert refused.value.reason is (Reason.WRONG_STATE if is_later else Reason.CORRUPT)
    assert ("update" in refused.value.hint) is is_later


@pytest.mark.parametrize(
    ("path", "value"),
    [
        (["name"], "../../etc"),
        (["name"], "debian:12"),
        (["name"], 7),
        (["version"], "1\x1b[2J"),
        (["version"], ""),
        (["version"], "a b"),
        (["version"], "v" * 300),
        (["summary"], "s" * 1001),
        (["summary"], ["a"]),
        (["summary"], "a\0b"),
        (["architecture"], None),
        (["kernel"], "/boot/vmlinuz"),
        (["files"], []),
        (["files", "rootfs"], "a" * 64),
        (["files", "rootfs", "blake3"], "A" * 64),
        (["files", "rootfs", "blake3"], "a" * 63),
        (["files", "rootfs", "size_bytes"], -1),
        (["files", "rootfs", "size_bytes"], True),
        (["files", "rootfs", "size_bytes"], 1 << 60),
        (["files", "home"], None),
        (["source"], {"kind": "a b"}),
        (["source"], {"a b": "kind"}),
        (["source"], {f"k{number}": "x" for number in range(21)}),
        (["provenance"], [1]),
        (["provenance", "x"], "{}"),
        (["provenance", "x"], 5),
    ],
)
def test_a_field_that_is_not_what_it_should_be_is_refused_by_its_name(
    document: dict[str, Any], path: list[str], value: object
) -> None:
    at = document
    for part in path[:-1]:
        at = at[part]
    at[path[-1]] = value
    with pytest.raises(BangerError) as refused:
        _parse(document)
    assert refused.value.reason is Reason.CORRUPT
    assert refused.value.message.isprintable()


@pytest.mark.parametrize("name", ["name", "version", "architecture", "kernel", "files", "source", "provenance"])
def test_a_field_that_is_missing_is_refused_by_its_name(document: dict[str, Any], name: str) -> None:
    del document[name]
    with pytest.raises(BangerError) as refused:
        _parse(document)
    assert refused.value.reason is Reason.CORRUPT
    assert repr(name) in refused.value.message


@pytest.mark.parametrize("role", ["rootfs", "home"])
def test_an_image_without_a_file_that_it_needs_is_refused(document: dict[str, Any], role: str) -> None:
    del document["files"][role]
    with pytest.raises(BangerError, match=role):
        _parse(document)


def test_a_record_under_a_key_that_is_not_its_own_is_refused(document: dict[str, Any]) -> None:
    [(key, text)] = document["provenance"].items()
    document["provenance"] = {_B: text}
    with pytest.raises(BangerError) as refused:
        _parse(document)
    assert refused.value.reason is Reason.CORRUPT
    assert key != _B


def test_a_document_that_is_too_large_is_not_read(document: dict[str, Any]) -> None:
    document["more"] = "x" * (4 << 20)
    with pytest.raises(BangerError) as refused:
        _parse(document)
    assert refused.value.reason is Reason.TOO_LARGE


@pytest.mark.parametrize("raw", [b"", b"[]", b"null", b"{", b'{"format": NaN}', b"\xff", b"[" * 100_000, b"9" * 10_000])
def test_what_is_no_json_object_is_refused(raw: bytes) -> None:
    with pytest.raises(BangerError) as refused:
        parse_bundle(raw, Kind.IMAGE)
    assert refused.value.reason is Reason.CORRUPT


_JSON = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(), inner, max_size=3),
    max_leaves=8,
)


@given(
    data=st.data(),
    changes=st.dictionaries(
        st.sampled_from(["name", "version", "summary", "kernel", "files", "source", "provenance", "architecture"]),
        _JSON,
        min_size=1,
    ),
)
def test_wild_documents_are_read_or_refused_and_nothing_else(data: st.DataObject, changes: dict[str, object]) -> None:
    key, record = _record()
    good = Bundle(
        Kind.IMAGE, "a", "1", {"rootfs": Object(_A, 1), "home": Object(_B, 2)}, kernel="k", provenance={key: record}
    )
    document = {**json.loads(format_bundle(good)), **changes}
    if data.draw(st.booleans()):
        document["files"] = {"rootfs": data.draw(_JSON), "home": {"blake3": data.draw(_JSON), "size_bytes": 1}}
    try:
        found = parse_bundle(json.dumps(document).encode(), Kind.IMAGE)
    except BangerError as error:
        refusal = error.message
        assert refusal.isprintable()
    else:
        assert parse_bundle(format_bundle(found), Kind.IMAGE) == found


@given(st.binary(max_size=200))
def test_wild_bytes_are_refused(raw: bytes) -> None:
    with pytest.raises(BangerError):
        parse_bundle(raw, Kind.KERNEL)
