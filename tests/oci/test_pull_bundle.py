"""Getting images and kernels by name from a catalog: what is looked for where, and what stands in when it fails."""

from __future__ import annotations

import json
import os
import shutil
import subprocess
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from banger.errors import BangerError, Reason
from cache import Store
from catalog.bundle import Kind
from pipelines.bundle import describe
from pipelines.graph import build
from pipelines.oci.signatures import format_signature_tag
from pipelines.reporter import Silent
from pipelines.step import walk
from pipelines.targets import Targets
from tests.oci.registries import Faults, run_proxy
from tests.oci.team import Notes, Team, is_empty, register_kernel, targets_of
from tests.oci.user import User


@pytest.fixture
def team(make_team: Callable[[str, str], Team]) -> Team:
    """Which has published an image."""
    return make_team("tool", "1.2")


def _available(user: User, kind: str = "image") -> dict[str, list[dict[str, Any]]]:
    found: dict[str, list[dict[str, Any]]] = {}
    for each in json.loads(user.banger(kind, "list", "--available", "--json")):
        found.setdefault(each["name"], []).append(each)
    return found


def test_an_image_comes_by_name_with_the_same_objects(team: Team) -> None:
    reader = team.make_reader("reader")
    assert reader.banger("image", "pull", "tool") == "tool\n"
    shown, made = reader.show("tool"), team.publisher.show("tool")
    for role in ("rootfs", "home", "config"):
        assert shown["objects"][role] == made["objects"][role]
    assert (shown["source"], shown["reference"], shown["version"]) == ("catalog", team.catalog, "1.2")
    assert shown["digest"] == team.digest("images/tool", team.find_tag("images/tool", "1.2"))
    assert shown["kernel"] == "debian-6.12"
    assert shown["built_from"]["kind"] == shown["origin"] == "oci"
    assert sorted(shown["provenance"].values()) == ["oci-config", "oci-rootfs"]


def test_pulling_again_fetches_nothing_that_is_here_and_says_whether_it_moved(team: Team) -> None:
    faults = Faults()
    reader = team.make_reader("reader")
    with run_proxy(team.registry.host, faults) as proxy:
        team.configure(reader, f"{proxy.host}/team/catalog:stable", key=team.public_key)
        reader.banger("image", "pull", "tool")
        before = reader.show("tool")
        faults.seen.clear()
        reader.banger("image", "pull", "tool")
        assert "is still" in reader.said
        tag = team.find_tag("images/tool", "1.2")
        large = {each["digest"] for each in team.manifest(f"images/tool:{tag}")["layers"]}
        assert not [path for path, _headers in faults.seen if path.rpartition("/")[2] in large]
        team.build("tool", b"changed")
        team.publish("tool", "--version", "1.3")
        reader.banger("image", "pull", "tool")
        assert "has moved" in reader.said
    after = reader.show("tool")
    assert (before["version"], after["version"]) == ("1.2", "1.3")
    assert after["objects"]["rootfs"] != before["objects"]["rootfs"]


def test_a_broken_connection_is_resumed_where_it_stopped(team: Team) -> None:
    team.build("tool", os.urandom(3_000_000))
    team.publish("tool")
    reader = team.make_reader("reader")
    # A small blob is whole by then: documents and signatures come first, and then the files in any order.
    faults = Faults(drop_after=[1_000_000] * 8)
    with run_proxy(team.registry.host, faults) as proxy:
        team.configure(reader, f"{proxy.host}/team/catalog:stable", key=team.public_key)
        reader.banger("image", "pull", "tool")
    assert any(each.startswith("bytes=") for each in faults.ranges())
    assert reader.show("tool")["objects"]["rootfs"] == team.publisher.show("tool")["objects"]["rootfs"]


def test_a_machine_takes_image_and_kernel_from_the_catalog_when_they_are_not_here(team: Team) -> None:
    register_kernel(team.publisher, "debian-6.12")
    team.publish("debian-6.12", kind="kernel")
    reader = team.make_reader("reader")
    create = ["vm", "create", "--no-start", "--image", "tool", "--memory", "128M", "--disk-size", "64M"]
    assert reader.banger(*create, "--no-build", "--name", "box") == "box\n"
    assert [each.name for each in reader.paths.images.list()] == ["tool"]
    [kernel] = reader.paths.kernels.list()
    assert kernel.details["version"] == "6.12.57+deb13-cloud-amd64"
    # Nobody is asked for what is here.
    shutil.rmtree(team.data)
    assert reader.banger(*create, "--no-pull", "--no-build", "--name", "other") == "other\n"
    reader.banger("vm", "delete", "box", "other")


def test_what_was_pulled_outlives_the_store(team: Team) -> None:
    reader = team.make_reader("reader")
    reader.banger("image", "pull", "tool")
    shutil.rmtree(reader.paths.store)
    Store.open(reader.paths.store)
    target = targets_of(reader).plan_image("tool")
    build(Store.open(reader.paths.store), [target.naming], Silent())
    assert {"rootfs", "home", "config"} == set(target.artifacts)


def test_a_kernel_is_pulled_and_listed_by_its_release(team: Team) -> None:
    register_kernel(team.publisher, "debian-6.12")
    team.publish("debian-6.12", kind="kernel")
    reader = team.make_reader("reader")
    assert [each["origin"] for each in _available(reader, "kernel")["debian-6.12"]] == [team.catalog, "recipe"]
    assert reader.banger("kernel", "pull", "debian-6.12") == "debian-6.12\n"
    first, second = _available(reader, "kernel")["debian-6.12"]
    assert (first["is_local"], first["version"]) == (True, "6.12.57+deb13-cloud-amd64")
    assert (second["is_local"], second["shadowed_by"]) == (False, "here")


def test_the_list_of_what_there_is_shows_which_of_one_name_is_taken(team: Team) -> None:
    team.build("debian-bookworm", b"ours")
    team.publish("debian-bookworm")
    team.publisher.banger("image", "publish", "tool", "--to", f"{team.place}:testing", "--version", "2.0")
    testing = f"{team.place}/catalog:testing"
    reader = team.make_reader("reader", catalogs=(testing, team.catalog))
    found = _available(reader)
    assert [(each["origin"], each["version"], each["shadowed_by"]) for each in found["tool"]] == [
        (testing, "2.0", None),
        (team.catalog, "1.2", testing),
    ]
    assert [(each["origin"], each["shadowed_by"]) for each in found["debian-bookworm"]] == [
        (team.catalog, None),
        ("recipe", team.catalog),
    ]
    team.build("tool", b"mine", reader)
    found = _available(reader)
    assert [(each["origin"], each["is_local"], each["shadowed_by"]) for each in found["tool"]] == [
        ("here", True, None),
        (testing, False, "here"),
        (team.catalog, False, "here"),
    ]
    table = reader.banger("image", "list", "--available")
    assert table.splitlines()[0].split() == ["NAME", "VERSION", "SIZE", "LOCAL", "FROM", "SHADOWED", "BY"]
    assert testing in table


def test_what_is_listed_is_what_is_taken(team: Team) -> None:
    team.publisher.banger("image", "publish", "tool", "--to", f"{team.place}:testing", "--version", "2.0")
    reader = team.make_reader("reader", catalogs=(f"{team.place}/catalog:testing", team.catalog))
    reader.banger("image", "pull", "tool")
    assert reader.show("tool")["version"] == "2.0"
    first, second = _available(reader)["tool"]
    assert (first["is_local"], second["is_local"]) == (True, False)


def test_a_catalog_that_cannot_be_reached_is_listed_as_it_was(team: Team) -> None:
    reader = team.make_reader("reader")
    reader.banger("image", "pull", "tool")
    with run_proxy(team.registry.host, Faults()) as gone:
        pass
    known = reader.paths.catalogs / f"{team.registry.host.replace(':', '%3A')}%2Fteam%2Fcatalog%3Astable.json"
    gone_reference = f"{gone.host}/team/catalog:stable"
    known.rename(known.with_name(f"{gone.host.replace(':', '%3A')}%2Fteam%2Fcatalog%3Astable.json"))
    team.configure(reader, gone_reference, key=team.public_key)
    assert [each["origin"] for each in _available(reader)["tool"]][-1] == gone_reference
    notes = [line for line in reader.said.splitlines() if "cannot be reached" in line]
    assert len(notes) == 1
    assert "as of 20" in notes[0]


@pytest.fixture
def lonely(team: Team) -> User:
    """A reader whose catalog was never there."""
    with run_proxy(team.registry.host, Faults()) as gone:
        pass
    return team.make_reader("lonely", catalogs=(f"{gone.host}/team/catalog:stable",))


def _steps(targets: Targets, name: str) -> set[str]:
    return {node.name for node in walk([targets.plan_image(name).naming])}


def test_a_recipe_stands_in_for_a_registry_that_is_down_and_one_line_says_so(lonely: User) -> None:
    notes = Notes()
    assert "system:debian-bookworm" in _steps(targets_of(lonely, notes), "debian-bookworm")
    [line] = notes.lines
    assert "refuses the connection" in line
    assert "debian-bookworm is built from its recipe instead" in line


def test_a_recipe_stands_in_for_a_bundle_that_is_gone(team: Team) -> None:
    team.build("debian-bookworm", b"ours")
    team.publish("debian-bookworm")
    shutil.rmtree(team.data / "repositories/team/images/debian-bookworm/_layers")
    notes = Notes()
    assert "system:debian-bookworm" in _steps(targets_of(team.make_reader("reader"), notes), "debian-bookworm")
    assert len(notes.lines) == 1


def test_nothing_is_built_instead_when_building_is_ruled_out(lonely: User) -> None:
    with pytest.raises(BangerError) as refused:
        targets_of(lonely, may_build=False).plan_image("debian-bookworm")
    assert refused.value.reason is Reason.NETWORK


def test_a_stranger_s_image_never_stands_in_for_one_of_a_catalog_that_is_down(lonely: User) -> None:
    refused = lonely.refusal("image", "pull", "tool")
    assert refused["reason"] == Reason.NETWORK
    assert "docker.io/library/tool" in refused["hint"]
    assert is_empty(lonely)


def test_what_is_here_is_not_replaced_by_a_recipe_when_the_registry_is_down(lonely: User, team: Team) -> None:
    team.build("debian-bookworm", b"mine", lonely)
    manifest = lonely.paths.images.folder / "debian-bookworm/manifest.json"
    # As if it had come from the catalog.
    manifest.write_text(manifest.read_text().replace('"source": "oci"', '"source": "catalog"'))
    assert lonely.refusal("image", "pull", "debian-bookworm")["reason"] == Reason.NETWORK
    assert lonely.show("debian-bookworm")["source"] == "catalog"


def test_the_next_catalog_stands_in_for_one_that_is_down(team: Team, lonely: User) -> None:
    [down] = targets_of(lonely).catalogs.sources  # type: ignore[union-attr]
    team.configure(lonely, down.ref, team.catalog, key=team.public_key)
    lonely.banger("image", "pull", "tool")
    assert f"tool is taken from {team.catalog}" in lonely.said


def test_no_catalog_is_asked_when_that_is_ruled_out(lonely: User) -> None:
    targets = targets_of(lonely, may_pull=False)
    assert "system:debian-bookworm" in _steps(targets, "debian-bookworm")
    for reference in ("debian:12", "tool"):
        with pytest.raises(BangerError) as refused:
            targets.plan_image(reference)
        assert refused.value.reason is Reason.NOT_FOUND
        assert "--no-pull" in refused.value.hint


@pytest.mark.parametrize("text", ["debian-bookworm", "debian:12", "oci:/nowhere", "-"])
def test_nothing_is_built_when_that_is_ruled_out(team: Team, text: str) -> None:
    targets = targets_of(team.make_reader("reader"), may_build=False)
    with pytest.raises(BangerError) as refused:
        targets.plan_image(text)
    assert refused.value.reason is Reason.NOT_FOUND
    assert "--no-build" in refused.value.hint


def test_building_asks_no_catalog(team: Team) -> None:
    team.build("debian-bookworm", b"ours")
    team.publish("debian-bookworm")
    targets = targets_of(team.make_reader("reader"))
    nodes = walk([targets.plan_image("debian-bookworm", anew=True).naming])
    assert "system:debian-bookworm" in {node.name for node in nodes}


def test_building_does_not_even_ask_what_catalogs_have(team: Team) -> None:
    register_kernel(team.publisher, "own-kernel")
    team.publish("own-kernel", kind="kernel")
    faults = Faults()
    reader = team.make_reader("reader")
    with run_proxy(team.registry.host, faults) as proxy:
        team.configure(reader, f"{proxy.host}/team/catalog:stable", key=team.public_key)
        refused = reader.refusal("image", "build", "debian-bookworm", "--kernel", "own-kernel")
        assert refused["reason"] == Reason.NOT_FOUND
        assert "banger kernel pull own-kernel" in refused["hint"]
        assert faults.seen == []
        # What they said last is known.
        reader.banger("image", "list", "--available")
        faults.seen.clear()
        refused = reader.refusal("image", "build", "tol", "--kernel", "own-kernel")
        assert "'tool'" in refused["hint"]
        assert faults.seen == []


def test_a_name_of_its_own_is_pulled_again_by_the_name_in_the_catalog(team: Team) -> None:
    reader = team.make_reader("reader")
    assert reader.banger("image", "pull", "tool", "--name", "mine", "--kernel", "debian-6.12") == "mine\n"
    assert reader.banger("image", "pull", "mine") == "mine\n"
    assert [each.name for each in reader.paths.images.list()] == ["mine"]


def test_what_no_catalog_has_any_more_is_not_looked_for_at_docker_hub(team: Team) -> None:
    reader = team.make_reader("reader")
    reader.banger("image", "pull", "tool")
    team.configure(reader, key=None)
    for verb in ("pull", "build"):
        refused = reader.refusal("image", verb, "tool")
        assert refused["reason"] == Reason.NOT_FOUND
        assert team.catalog in refused["hint"]


def test_a_slip_of_the_finger_is_told_from_the_names_in_catalogs(team: Team) -> None:
    team.build("team-base", b"hello")
    team.publish("team-base")
    refused = team.make_reader("reader").refusal("image", "pull", "team-bse")
    assert refused["reason"] == Reason.NOT_FOUND
    assert "'team-base'" in refused["hint"]


def test_a_kernel_that_only_a_catalog_has_can_be_chosen_for_an_image(team: Team, tmp_path: Path) -> None:
    register_kernel(team.publisher, "own-kernel")
    team.publish("own-kernel", kind="kernel")
    reader = team.make_reader("reader")
    reader.banger("image", "pull", "tool", "--kernel", "own-kernel")
    assert reader.show("tool")["kernel"] == "own-kernel"
    assert reader.refusal("image", "pull", "tool", "--kernel", "no-kernel")["reason"] == Reason.NOT_FOUND


def test_a_kernel_that_was_chosen_once_outlives_later_pulls_and_is_published_on(team: Team) -> None:
    reader = team.make_reader("reader")
    for name in ("mine", "other"):
        register_kernel(reader, name)
    reader.banger("image", "pull", "tool", "--kernel", "mine")
    team.build("tool", b"changed")
    team.publish("tool", "--version", "1.3")
    reader.banger("image", "pull", "tool")
    assert (reader.show("tool")["version"], reader.show("tool")["kernel"]) == ("1.3", "mine")
    named = reader.paths.images.get("tool")
    assert describe(targets_of(reader).store, Kind.IMAGE, named, None).kernel == "mine"
    reader.banger("image", "pull", "tool", "--kernel", "other")
    assert reader.show("tool")["kernel"] == "other"


def test_a_kernel_that_was_chosen_once_outlives_later_builds(team: Team) -> None:
    register_kernel(team.publisher, "mine")
    [layout] = team.folder.glob("layout-*")
    build = ("image", "build", f"oci:{layout}:it", "--name", "own")
    team.publisher.banger(*build)
    assert team.publisher.show("own")["kernel"] == "debian-6.12"
    team.publisher.banger(*build, "--kernel", "mine")
    team.publisher.banger(*build)
    assert team.publisher.show("own")["kernel"] == "mine"
    team.publisher.banger("image", "build", "own")
    assert team.publisher.show("own")["kernel"] == "mine"


def test_a_catalog_and_its_bundles_can_be_copied_to_another_folder(team: Team) -> None:
    mirror = f"{team.registry.host}/mirror/of/team"
    for repository, tag in (("catalog", "stable"), ("images/tool", team.find_tag("images/tool", "1.2"))):
        for each in (tag, format_signature_tag(team.digest(repository, tag))):
            words = ["oras", "cp", "--from-plain-http", "--to-plain-http", f"{team.place}/{repository}:{each}"]
            subprocess.run([*words, f"{mirror}/{repository}:{each}"], check=True, capture_output=True)
    shutil.rmtree(team.data / "repositories/team")
    reader = team.make_reader("reader", catalogs=(f"{mirror}/catalog:stable",))
    assert reader.banger("image", "pull", "tool") == "tool\n"


def test_a_catalog_without_a_key_is_taken_as_it_is(team: Team) -> None:
    del team.publisher.environment["BANGER_SIGNING_KEY"]
    team.publisher.banger("image", "publish", "tool", "--to", f"{team.place}:testing")
    reader = team.make_user("reader")
    team.configure(reader, f"{team.place}/catalog:testing", key=None)
    assert reader.banger("image", "pull", "tool") == "tool\n"


@pytest.mark.parametrize(
    "content", [None, b"", b"no key", b"-----BEGIN PUBLIC KEY-----\nAAAA\n-----END PUBLIC KEY-----"]
)
def test_a_key_that_is_none_is_told_and_nothing_stands_in(team: Team, content: bytes | None) -> None:
    key = team.folder / "bad.pub"
    if content is not None:
        key.write_bytes(content)
    reader = team.make_reader("reader", key=key)
    refused = reader.refusal("image", "pull", "debian-bookworm")
    assert refused["reason"] == Reason.BAD_INPUT
    assert str(key) in refused["message"]
