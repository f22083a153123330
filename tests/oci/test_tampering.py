"""Content that somebody altered on its way from who published it: refused with its reason, and nothing gets a name.

Whoever tampers here can write to the registry's disk, or push to it, but does not have the team's key.
"""

from __future__ import annotations

import shutil
from collections.abc import Callable

import pytest

from banger.errors import Reason
from catalog.bundle import ROLES, Kind
from pipelines.oci.signatures import format_signature_tag
from tests.oci.team import PASSWORD, Team, assert_refused, register_kernel, wait_past
from tests.oci.team import RECIPE as NAME
from tests.oci.user import User


@pytest.fixture
def team(make_team: Callable[[str, str], Team]) -> Team:
    """Which has published under the name of a recipe: that must not stand in for what is not to be trusted."""
    return make_team(NAME, "1")


@pytest.fixture
def reader(team: Team) -> User:
    return team.make_reader("reader")


def _layer(team: Team, role: str, repository: str = f"images/{NAME}") -> str:
    kind = Kind.IMAGE if repository.startswith("images") else Kind.KERNEL
    [digest] = [
        each["digest"]
        for each in team.manifest(f"{repository}:{team.find_tag(repository, '1')}")["layers"]
        if each["mediaType"] == ROLES[kind][role].media_type
    ]
    return str(digest)


# Bytes that were altered


@pytest.mark.parametrize("role", ["rootfs", "home", "config"])
def test_a_flipped_byte_in_a_file_is_found(team: Team, reader: User, role: str) -> None:
    path = team.blob(_layer(team, role))
    content = bytearray(path.read_bytes())
    content[len(content) // 2] ^= 1
    path.write_bytes(content)
    assert_refused(reader, Reason.CORRUPT)


def test_a_flipped_byte_in_a_kernel_is_found(team: Team, reader: User) -> None:
    register_kernel(team.publisher, "debian-6.12")
    team.publish("debian-6.12", "--version", "1", kind="kernel")
    path = team.blob(_layer(team, "vmlinux", "kernels/debian-6.12"))
    content = bytearray(path.read_bytes())
    content[-1] ^= 1
    path.write_bytes(content)
    assert_refused(reader, Reason.CORRUPT, kind="kernel", name="debian-6.12")


def test_an_upload_that_was_cut_short_is_found(team: Team, reader: User) -> None:
    path = team.blob(_layer(team, "rootfs"))
    path.write_bytes(path.read_bytes()[:-100])
    assert_refused(reader, Reason.CORRUPT)


def test_a_byte_too_many_is_found(team: Team, reader: User) -> None:
    path = team.blob(_layer(team, "rootfs"))
    path.write_bytes(path.read_bytes() + b"x")
    assert_refused(reader, Reason.CORRUPT)


def test_an_altered_document_of_a_bundle_is_found(team: Team, reader: User) -> None:
    tag = team.find_tag(f"images/{NAME}", "1")
    path = team.blob(team.manifest(f"images/{NAME}:{tag}")["config"]["digest"])
    path.write_bytes(path.read_bytes().replace(b'"version": "1"', b'"version": "2"'))
    assert_refused(reader, Reason.CORRUPT)


def test_an_altered_catalog_is_found(team: Team, reader: User) -> None:
    [layer] = team.manifest("catalog:stable")["layers"]
    path = team.blob(layer["digest"])
    path.write_bytes(path.read_bytes().replace(b'"summary": ""', b'"summary": "x"'))
    assert_refused(reader, Reason.CORRUPT)


def test_a_manifest_in_the_place_of_a_bundle_s_is_found(team: Team, reader: User) -> None:
    good = team.digest(f"images/{NAME}", team.find_tag(f"images/{NAME}", "1"))
    team.build("other", b"other")
    other = team.publish("other")["reference"].partition("@")[2]
    team.blob(good).write_bytes(team.blob(other).read_bytes())
    assert_refused(reader, Reason.CORRUPT)


# Signatures


def test_another_catalog_under_the_same_tag_is_refused(team: Team, reader: User) -> None:
    document = team.read_catalog()
    document["serial"] += 99
    document["images"][0]["summary"] = "mine"
    team.put_catalog(document)
    assert "not signed" in assert_refused(reader, Reason.UNTRUSTED)["message"]


def test_a_signature_of_another_key_is_refused(team: Team, reader: User) -> None:
    team.make_keys("other")
    reader = team.make_reader("other", key=team.folder / "other.pub")
    assert "not with the key" in assert_refused(reader, Reason.UNTRUSTED)["message"]


def test_a_catalog_that_is_not_signed_is_refused(team: Team, reader: User) -> None:
    team.tag("catalog", format_signature_tag(team.digest("catalog", "stable"))).unlink()
    assert_refused(reader, Reason.UNTRUSTED)


def test_a_bundle_that_is_not_signed_is_refused_though_a_signed_catalog_names_it(team: Team, reader: User) -> None:
    digest = team.digest(f"images/{NAME}", team.find_tag(f"images/{NAME}", "1"))
    team.tag(f"images/{NAME}", format_signature_tag(digest)).unlink()
    assert_refused(reader, Reason.UNTRUSTED)


def test_the_signature_of_something_else_is_refused(team: Team, reader: User) -> None:
    """A good signature of the team's key, moved to the manifest that it is not for."""
    signed = team.tag("catalog", format_signature_tag(team.digest("catalog", "stable"))).read_text()
    document = team.read_catalog()
    document["serial"] += 1
    digest = team.put_catalog(document)
    place = team.tag("catalog", format_signature_tag(digest))
    place.parent.mkdir(parents=True)
    place.write_text(signed)
    assert_refused(reader, Reason.UNTRUSTED)


# An older catalog


def _roll_back(team: Team) -> None:
    """Two versions are published, and the tag is put back to the first."""
    first = team.digest("catalog", "stable")
    team.build("second", b"second")
    team.publish("second")
    team.tag("catalog", "stable").write_text(first)


def test_a_catalog_that_was_rolled_back_is_refused_by_who_saw_the_newer_one(team: Team, reader: User) -> None:
    first = team.digest("catalog", "stable")
    team.build("second", b"second")
    team.publish("second")
    reader.banger("image", "list", "--available")
    team.tag("catalog", "stable").write_text(first)
    refused = assert_refused(reader, Reason.UNTRUSTED)
    assert "rolled back" in refused["message"]
    assert reader.refusal("image", "list", "--available")["reason"] == Reason.UNTRUSTED
    # On purpose: what was seen is forgotten.
    [seen] = reader.paths.catalogs.iterdir()
    assert str(seen) in refused["hint"]
    seen.unlink()
    reader.banger("image", "pull", NAME)


def test_an_entry_that_was_rolled_back_does_not_come_with_the_next_catalog(team: Team, reader: User) -> None:
    """Who publishes is a fresh job each time, so it takes the older catalog for the last one."""
    first = team.digest("catalog", "stable")
    team.build(NAME, b"second")
    serial = team.publish(NAME)["serial"]
    reader.banger("image", "list", "--available")
    team.tag("catalog", "stable").write_text(first)
    shutil.rmtree(team.publisher.paths.catalogs)
    team.build("other", b"other")
    wait_past(serial)
    team.publish("other")
    refused = assert_refused(reader, Reason.UNTRUSTED)
    assert f"an older image {NAME} than before" in refused["message"]
    # To publish the image again puts it right.
    team.publish(NAME)
    reader.banger("image", "pull", NAME)


def test_an_entry_that_was_gone_for_a_while_does_not_come_back_older(team: Team, reader: User) -> None:
    empty = team.read_catalog() | {"images": []}
    old = team.digest("catalog", "stable")
    team.build(NAME, b"second")
    serial = team.publish(NAME)["serial"]
    reader.banger("image", "list", "--available")
    team.sign("catalog", team.put_catalog({**empty, "serial": serial + 1}))
    reader.banger("image", "list", "--available")
    team.tag("catalog", "stable").write_text(old)
    again = team.read_catalog() | {"serial": serial + 2}
    team.sign("catalog", team.put_catalog(again))
    assert "an older image" in assert_refused(reader, Reason.UNTRUSTED)["message"]


@pytest.mark.parametrize("tag", ["testing", "stable2"])
def test_the_catalog_of_another_tag_is_refused(team: Team, reader: User, tag: str) -> None:
    team.publisher.banger("image", "publish", NAME, "--to", f"{team.place}:{tag}")
    # The reader has never seen what it takes the place of.
    team.tag("catalog", "stable").write_text(team.digest("catalog", tag))
    assert f"of another tag: {tag}" in assert_refused(reader, Reason.UNTRUSTED)["message"]
    other = team.make_reader("other", catalogs=(f"{team.place}/catalog:{tag}",))
    other.banger("image", "pull", NAME)


def test_who_publishes_does_not_go_on_from_a_catalog_that_was_rolled_back(team: Team) -> None:
    _roll_back(team)
    team.build("third", b"third")
    refused = team.publisher.refusal("image", "publish", "third", "--to", team.place)
    assert refused["reason"] == Reason.UNTRUSTED


def test_another_catalog_with_the_same_serial_is_refused(team: Team, reader: User) -> None:
    reader.banger("image", "list", "--available")
    document = team.read_catalog()
    document["images"][0]["summary"] = "another"
    team.sign("catalog", team.put_catalog(document))
    assert "same serial" in assert_refused(reader, Reason.UNTRUSTED)["message"]


def test_the_password_of_the_key_is_needed(team: Team) -> None:
    before = sorted(team.data.rglob("*"))
    team.publisher.environment["COSIGN_PASSWORD"] = PASSWORD + "!"
    refused = team.publisher.refusal("image", "publish", NAME, "--to", team.place, "--version", "2")
    assert refused["reason"] == Reason.BAD_INPUT
    assert sorted(team.data.rglob("*")) == before
