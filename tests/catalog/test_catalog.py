"""A catalog's document, and what is remembered of it: an older one is told from the one that was here before."""

from __future__ import annotations

import json
import stat
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from banger.errors import BangerError, Reason
from catalog.bundle import Kind
from catalog.catalog import Catalog, Entry, format_catalog, parse_catalog
from catalog.remembered import Memory, Remembered

_REFERENCE = "registry.example.com:5000/team/catalog:stable"
_DIGEST = "sha256:" + "1" * 64
_IMAGE = Entry("team-base", "1.2", "./images/team-base", _DIGEST, 1000, "What we use", "debian-6.12", serial=2)
_KERNEL = Entry("debian-6.12", "6.12.57", "other.example.com/x/kernels/debian-6.12", _DIGEST, 7, serial=3)
_CATALOG = Catalog("stable", 3, "2025-11-25T12:00:00Z", {Kind.IMAGE: (_IMAGE,), Kind.KERNEL: (_KERNEL,)})


@pytest.fixture
def document() -> dict[str, Any]:
    found: dict[str, Any] = json.loads(format_catalog(_CATALOG))
    return found


def _parse(document: object) -> Catalog:
    return parse_catalog(json.dumps(document).encode(), _REFERENCE)


def test_what_is_written_is_read_again() -> None:
    assert parse_catalog(format_catalog(_CATALOG), _REFERENCE) == _CATALOG


def test_an_entry_takes_the_place_of_the_one_with_its_name_and_the_serial_rises() -> None:
    newer = Entry("team-base", "1.3", "./images/team-base", _DIGEST, 1100)
    other = Entry("app", "1", "./images/app", _DIGEST, 5)
    changed = _CATALOG.replace(Kind.IMAGE, newer, 1000).replace(Kind.IMAGE, other, 2000)
    assert (changed.tag, changed.serial) == ("stable", 2000)
    assert changed.updated_at == "1970-01-01T00:33:20Z"
    assert changed.entries[Kind.IMAGE] == (replace(other, serial=2000), replace(newer, serial=1000))
    assert changed.entries[Kind.KERNEL] == (_KERNEL,)
    assert _CATALOG.find(Kind.IMAGE, "team-base") == _IMAGE


@pytest.mark.parametrize(("now_s", "serial"), [(1000, 1000), (3, 4), (0, 4)])
def test_a_serial_is_the_time_unless_the_clock_is_behind(now_s: int, serial: int) -> None:
    changed = _CATALOG.replace(Kind.IMAGE, _IMAGE, now_s)
    assert changed.serial == serial
    assert changed.serials() == {"image/team-base/amd64": serial, "kernel/debian-6.12/amd64": 3}


def test_an_entry_is_there_since_whenever_it_came() -> None:
    assert _CATALOG.has(Kind.IMAGE, replace(_IMAGE, serial=0))
    assert not _CATALOG.has(Kind.KERNEL, _IMAGE)
    assert not _CATALOG.has(Kind.IMAGE, replace(_IMAGE, summary="Another"))


def test_what_is_for_another_architecture_is_not_found(document: dict[str, Any]) -> None:
    document["images"][0]["architecture"] = "arm64"
    assert _parse(document).find(Kind.IMAGE, "team-base") is None
    document["images"].append({**document["images"][0], "architecture": "amd64"})
    found = _parse(document).find(Kind.IMAGE, "team-base")
    assert found is not None
    assert found.architecture == "amd64"


def test_a_name_that_comes_twice_is_refused(document: dict[str, Any]) -> None:
    document["images"] *= 2
    with pytest.raises(BangerError) as refused:
        _parse(document)
    assert refused.value.reason is Reason.CORRUPT


def test_what_a_later_banger_adds_is_passed_over(document: dict[str, Any]) -> None:
    document["disks"] = [1]
    document["images"][0]["colour"] = "blue"
    assert _parse(document) == _CATALOG


def test_a_catalog_of_a_later_format_is_refused_with_advice(document: dict[str, Any]) -> None:
    document["format"] = 2
    with pytest.raises(BangerError) as refused:
        _parse(document)
    assert refused.value.reason is Reason.WRONG_STATE
    assert "update banger" in refused.value.hint


@pytest.mark.parametrize(
    ("name", "value"),
    [
        ("serial", 0),
        ("serial", -1),
        ("serial", 1.5),
        ("serial", "3"),
        ("serial", True),
        ("serial", 1 << 53),
        ("serial", 2),
        ("tag", "a b"),
        ("tag", "x" * 129),
        ("tag", ""),
        ("updated_at", "yesterday"),
        ("updated_at", None),
        ("images", {}),
        ("images", ["x"]),
        ("kernels", None),
        ("images", [{}] * 10_001),
    ],
)
def test_a_field_that_is_not_what_it_should_be_is_refused(document: dict[str, Any], name: str, value: object) -> None:
    document[name] = value
    with pytest.raises(BangerError) as refused:
        _parse(document)
    assert refused.value.reason is Reason.CORRUPT


@pytest.mark.parametrize(
    ("name", "value"),
    [
        ("name", "../x"),
        ("name", "a b"),
        ("name", "debian:12"),
        ("name", ""),
        ("version", "\x1b]0;x\x07"),
        ("version", ["1"]),
        ("digest", "sha256:" + "1" * 63),
        ("digest", "md5:" + "1" * 32),
        ("digest", "sha256:" + "1" * 64 + "\n"),
        ("size_bytes", -5),
        ("size_bytes", "5"),
        ("summary", "x" * 2000),
        ("kernel", "../x"),
        ("architecture", 64),
        ("serial", 0),
        ("serial", 4),
        ("serial", "1"),
        ("repository", "images/team-base"[:6]),
        ("repository", "./../secrets"),
        ("repository", "./images/../../x/."),
        ("repository", "/images/x"),
        ("repository", "https://registry.example.com/x"),
        ("repository", "registry.example.com/Team"),
        ("repository", "./images/x y"),
        ("repository", "./images/x@sha256:1"),
        ("repository", "x" * 2000),
    ],
)
def test_an_entry_that_is_not_what_it_should_be_is_refused(document: dict[str, Any], name: str, value: object) -> None:
    document["images"][0][name] = value
    with pytest.raises(BangerError) as refused:
        _parse(document)
    assert refused.value.reason is Reason.CORRUPT
    assert refused.value.message.isprintable()


_JSON = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(), inner, max_size=3),
    max_leaves=8,
)


@given(
    whole=st.dictionaries(st.sampled_from(["format", "tag", "serial", "updated_at", "images", "kernels"]), _JSON),
    entry=st.dictionaries(
        st.sampled_from(["name", "version", "repository", "digest", "size_bytes", "summary", "kernel", "serial"]), _JSON
    ),
)
def test_wild_documents_are_read_or_refused_and_nothing_else(
    whole: dict[str, object], entry: dict[str, object]
) -> None:
    document = json.loads(format_catalog(_CATALOG))
    document["images"][0].update(entry)
    document.update(whole)
    try:
        found = _parse(document)
    except BangerError as error:
        refusal = error.message
        assert refusal.isprintable()
    else:
        assert parse_catalog(format_catalog(found), _REFERENCE) == found


@given(st.binary(max_size=200))
def test_wild_bytes_are_refused(raw: bytes) -> None:
    with pytest.raises(BangerError):
        parse_catalog(raw, _REFERENCE)


@pytest.fixture
def memory(tmp_path: Path) -> Memory:
    return Memory(tmp_path / "state/catalogs")


_SEEN = Remembered(3, _DIGEST, format_catalog(_CATALOG), _CATALOG.serials())


def test_what_is_remembered_is_for_its_owner_alone_and_replaced_as_a_whole(memory: Memory) -> None:
    assert memory.find(_REFERENCE) is None
    memory.put(_REFERENCE, _SEEN)
    assert memory.find(_REFERENCE) == _SEEN
    assert stat.S_IMODE(memory.path(_REFERENCE).stat().st_mode) == 0o600
    assert stat.S_IMODE(memory.folder.stat().st_mode) == 0o700
    assert [path.name for path in memory.folder.iterdir()] == [memory.path(_REFERENCE).name]


def test_catalogs_are_remembered_apart(memory: Memory) -> None:
    memory.put(_REFERENCE, _SEEN)
    assert memory.find(_REFERENCE + "2") is None
    long = "registry.example.com/" + "x/" * 150 + "catalog:stable"
    memory.put(long, _SEEN)
    assert memory.find(long) == _SEEN
    assert memory.find(long.replace("stable", "testing")) is None


@pytest.mark.parametrize(
    ("serial", "digest", "is_fine"),
    [
        (3, _DIGEST, True),
        (4, "sha256:" + "2" * 64, True),
        (2, _DIGEST, False),
        (2, "sha256:" + "2" * 64, False),
        (3, "sha256:" + "2" * 64, False),
    ],
)
def test_a_catalog_that_is_older_or_another_with_the_same_serial_is_refused(
    memory: Memory, serial: int, digest: str, is_fine: bool
) -> None:
    catalog = replace(_CATALOG, serial=serial)
    memory.check(_REFERENCE, catalog, digest)
    memory.put(_REFERENCE, _SEEN)
    if is_fine:
        memory.check(_REFERENCE, catalog, digest)
        return
    with pytest.raises(BangerError) as refused:
        memory.check(_REFERENCE, catalog, digest)
    assert refused.value.reason is Reason.UNTRUSTED
    assert str(memory.path(_REFERENCE)) in refused.value.hint
    memory.path(_REFERENCE).unlink()
    memory.check(_REFERENCE, catalog, digest)


@pytest.mark.parametrize(("serial", "is_fine"), [(1, False), (2, True), (9, True)])
def test_a_newer_catalog_with_an_older_entry_is_refused(memory: Memory, serial: int, is_fine: bool) -> None:
    memory.put(_REFERENCE, _SEEN)
    entries = {**_CATALOG.entries, Kind.IMAGE: (replace(_IMAGE, serial=serial),)}
    newer = replace(_CATALOG, serial=9, entries=entries)
    if is_fine:
        memory.check(_REFERENCE, newer, "sha256:" + "2" * 64)
        return
    with pytest.raises(BangerError) as refused:
        memory.check(_REFERENCE, newer, "sha256:" + "2" * 64)
    assert refused.value.reason is Reason.UNTRUSTED
    assert "image team-base" in refused.value.message


def test_another_architecture_of_a_name_has_serials_of_its_own(memory: Memory) -> None:
    memory.put(_REFERENCE, _SEEN)
    other = replace(_IMAGE, architecture="linux/arm64", serial=1)
    newer = replace(_CATALOG, serial=9, entries={**_CATALOG.entries, Kind.IMAGE: (_IMAGE, other)})
    memory.check(_REFERENCE, newer, "sha256:" + "2" * 64)


@pytest.mark.parametrize("text", ["", "{}", "[]", "null", '{"format": 2}', '{"format": 1, "serial": "x"}'])
def test_a_memory_that_is_damaged_is_not_taken_for_none(memory: Memory, text: str) -> None:
    memory.put(_REFERENCE, _SEEN)
    memory.path(_REFERENCE).write_text(text)
    with pytest.raises(BangerError) as refused:
        memory.find(_REFERENCE)
    assert refused.value.reason is Reason.CORRUPT
