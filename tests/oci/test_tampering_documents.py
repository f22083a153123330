"""Documents that are well signed and not what they should be: refused with their reason, and nothing gets a name.

Whoever tampers here has the team's key, or the team made a mistake.
"""

from __future__ import annotations

import io
import json
import os
from collections.abc import Callable
from dataclasses import replace
from typing import Any

import pytest
import zstandard

from banger.errors import Reason
from banger.settings import load_settings
from banger.targets import make_catalogs
from cache import Digest, Object
from catalog.bundle import ROLES, Bundle, Kind, format_bundle, parse_bundle
from pipelines.bundle import Packed, pack
from pipelines.oci.artifact import describe_blob, format_artifact, with_title
from pipelines.oci.signatures import load_signing_key
from pipelines.publish import parse_place, publish
from tests.oci.team import RECIPE as NAME
from tests.oci.team import Team, assert_refused, targets_of
from tests.oci.user import User


@pytest.fixture
def team(make_team: Callable[[str, str], Team]) -> Team:
    """Which has published under the name of a recipe: that must not stand in for what is not to be trusted."""
    return make_team(NAME, "1")


@pytest.fixture
def reader(team: Team) -> User:
    return team.make_reader("reader")


@pytest.mark.parametrize(
    ("change", "reason"),
    [
        ({"format": 2}, Reason.WRONG_STATE),
        ({"serial": 0}, Reason.CORRUPT),
        # Older than what is in it.
        ({"serial": 1}, Reason.CORRUPT),
        ({"tag": None}, Reason.CORRUPT),
        ({"tag": "testing"}, Reason.UNTRUSTED),
        ({"images": {}}, Reason.CORRUPT),
        ({"more": "x" * (5 << 20)}, Reason.TOO_LARGE),
    ],
)
def test_a_signed_catalog_that_is_not_what_it_should_be_is_refused(
    team: Team, reader: User, change: dict[str, Any], reason: Reason
) -> None:
    team.sign("catalog", team.put_catalog({**team.read_catalog(), **change}))
    assert_refused(reader, reason)


def test_an_image_in_the_place_of_a_catalog_is_refused(team: Team, reader: User) -> None:
    team.build("tool", b"hello")
    team.publish("tool", "--version", "1")
    team.configure(reader, f"{team.place}/images/tool:{team.find_tag('images/tool', '1')}", key=team.public_key)
    refused = assert_refused(reader, Reason.BAD_INPUT)
    assert "application/vnd.banger.image.v1" in refused["message"]


def test_a_bundle_of_another_name_is_refused(team: Team, reader: User) -> None:
    document = team.read_catalog()
    team.build("tool", b"tool")
    document["images"][0] |= {
        "digest": team.publish("tool")["reference"].partition("@")[2],
        "repository": "./images/tool",
    }
    team.sign("catalog", team.put_catalog({**document, "serial": 1 << 40}))
    assert_refused(reader, Reason.CORRUPT)


@pytest.mark.parametrize("repository", ["docker/x", "a/b/c", "library/debian"])
def test_an_entry_that_names_no_host_is_not_looked_for_at_docker_hub(team: Team, reader: User, repository: str) -> None:
    document = team.read_catalog()
    document["images"][0]["repository"] = repository
    team.sign("catalog", team.put_catalog({**document, "serial": 1 << 40}))
    assert_refused(reader, Reason.CORRUPT)


def _publish_changed(team: Team, change: Callable[[Packed], Packed]) -> None:
    """What the team's key signs, packed as nobody should."""
    user = team.publisher
    targets = targets_of(user)
    named = user.paths.images.get(NAME)
    packed = change(pack(targets.store, Kind.IMAGE, targets.plan_image(NAME), named, "1", targets.reporter))
    catalogs = make_catalogs(user.paths, load_settings(user.paths, user.environment), targets.store)
    key = load_signing_key(user.environment)
    assert key is not None
    publish(targets.store, packed, parse_place(team.place), catalogs, key, targets.reporter)


def _with_files(packed: Packed, **files: Object) -> Packed:
    """The same layers, of which the document says something else."""
    bundle = replace(packed.bundle, files={**packed.bundle.files, **files})
    return _repack(packed, bundle)


def _repack(packed: Packed, bundle: Bundle, config: bytes | None = None) -> Packed:
    config = format_bundle(bundle) if config is None else config
    described = describe_blob(config, Kind.IMAGE.config_type)
    manifest = format_artifact(Kind.IMAGE.artifact_type, described, [layer for layer, _made in packed.layers])
    return replace(packed, bundle=bundle, config=config, manifest=manifest)


def test_a_file_that_has_not_the_hash_of_its_document_is_refused(team: Team, reader: User) -> None:
    def change(packed: Packed) -> Packed:
        return _with_files(packed, rootfs=replace(packed.bundle.files["rootfs"], digest=Digest("0" * 64)))

    _publish_changed(team, change)
    assert "does not unpack to" in assert_refused(reader, Reason.CORRUPT)["message"]


def test_a_file_that_is_shorter_than_its_document_says_is_refused(team: Team, reader: User) -> None:
    def change(packed: Packed) -> Packed:
        rootfs = packed.bundle.files["rootfs"]
        return _with_files(packed, rootfs=replace(rootfs, size_bytes=rootfs.size_bytes + 1))

    _publish_changed(team, change)
    assert_refused(reader, Reason.CORRUPT)


def test_a_file_that_is_longer_than_its_document_says_is_cut_off(team: Team, reader: User) -> None:
    def change(packed: Packed) -> Packed:
        rootfs = packed.bundle.files["rootfs"]
        return _with_files(packed, rootfs=replace(rootfs, size_bytes=rootfs.size_bytes - 1))

    _publish_changed(team, change)
    assert_refused(reader, Reason.TOO_LARGE)


def test_a_bomb_stops_at_the_size_that_its_document_says(team: Team, reader: User) -> None:
    def change(packed: Packed) -> Packed:
        # 4 GiB of zeros in some hundred kilobytes.
        buffer = io.BytesIO()
        with zstandard.ZstdCompressor(level=1).stream_writer(buffer, closefd=False) as writer:
            for _ in range(4096):
                writer.write(bytes(1 << 20))
        store = targets_of(team.publisher).store
        bomb = store.put_bytes(buffer.getvalue())
        assert bomb.size_bytes < 1 << 20
        role = ROLES[Kind.IMAGE]["rootfs"]
        layer = with_title(describe_blob(buffer.getvalue(), role.media_type), role.title)
        return _repack(replace(packed, layers=((layer, bomb), *packed.layers[1:])), packed.bundle)

    _publish_changed(team, change)
    refused = assert_refused(reader, Reason.TOO_LARGE)
    assert "unpacks to more" in refused["message"]


def test_a_document_that_promises_more_than_the_configuration_allows_is_refused(team: Team, reader: User) -> None:
    def change(packed: Packed) -> Packed:
        return _with_files(packed, rootfs=replace(packed.bundle.files["rootfs"], size_bytes=65 << 30))

    _publish_changed(team, change)
    assert_refused(reader, Reason.TOO_LARGE)


def test_a_layer_that_is_no_zstd_is_refused(team: Team, reader: User) -> None:
    def change(packed: Packed) -> Packed:
        content = os.urandom(1000)
        plain = targets_of(team.publisher).store.put_bytes(content)
        layer = describe_blob(content, ROLES[Kind.IMAGE]["rootfs"].media_type)
        return _repack(replace(packed, layers=((layer, plain), *packed.layers[1:])), packed.bundle)

    _publish_changed(team, change)
    assert_refused(reader, Reason.CORRUPT)


@pytest.mark.parametrize("count", [0, 2])
def test_a_file_that_comes_never_or_twice_is_refused(team: Team, reader: User, count: int) -> None:
    def change(packed: Packed) -> Packed:
        return _repack(replace(packed, layers=packed.layers[:1] * count + packed.layers[1:]), packed.bundle)

    _publish_changed(team, change)
    assert_refused(reader, Reason.CORRUPT)


def test_a_bundle_of_a_later_format_is_refused_with_advice(team: Team, reader: User) -> None:
    def change(packed: Packed) -> Packed:
        return _repack(packed, packed.bundle, packed.config.replace(b'"format": 1', b'"format": 2'))

    _publish_changed(team, change)
    assert "update banger" in assert_refused(reader, Reason.WRONG_STATE)["hint"]


def test_provenance_that_contradicts_itself_is_refused(team: Team, reader: User) -> None:
    def change(packed: Packed) -> Packed:
        assert parse_bundle(packed.config, Kind.IMAGE) == packed.bundle
        document = json.loads(packed.config)
        document["provenance"] = {"0" * 64: next(iter(document["provenance"].values()))}
        return _repack(packed, packed.bundle, json.dumps(document).encode())

    _publish_changed(team, change)
    assert_refused(reader, Reason.CORRUPT)


def test_text_that_would_move_the_cursor_is_shown_escaped(team: Team, reader: User) -> None:
    document = team.read_catalog()
    document["images"][0]["summary"] = "\x1b[2J\x1b]0;mine\x07"
    team.sign("catalog", team.put_catalog({**document, "serial": 1 << 40}))
    for words in (["list", "--available"], ["list", "--available", "--json"]):
        assert reader.banger("image", *words).replace("\n", "").isprintable()
