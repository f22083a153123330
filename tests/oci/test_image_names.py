"""What a name or a reference stands for here: always what it was built as, until it is built anew."""

from __future__ import annotations

import hashlib
import subprocess
from collections.abc import Callable
from pathlib import Path

import pytest

from banger.errors import BangerError, Reason
from cache import Store
from catalog.local import Names
from pipelines.graph import build
from pipelines.reporter import Silent
from pipelines.targets import Targets, find_image, is_mistyped
from tests.oci.layers import blob_path, file, layer, write_layout
from tests.oci.registries import make_layout
from tests.oci.user import User


@pytest.fixture
def targets(tmp_path: Path) -> Targets:
    return Targets(Store.open(tmp_path / "store"), Names(tmp_path / "images", "image"), Names(tmp_path / "k", "kernel"))


def make(targets: Targets, text: str, name: str | None = None) -> None:
    build(targets.store, [targets.plan_image(text, anew=True, name=name).naming], Silent())


def config_of(targets: Targets, name: str) -> bytes:
    """As a machine would get it."""
    target = targets.plan_image(name)
    graph = build(targets.store, [target.naming], Silent())
    record = graph.record(target.artifacts["config"].step)
    assert record is not None
    return targets.store.path(record.outputs["config"]).read_bytes()


def test_an_image_keeps_its_config_when_its_tag_cannot_be_built_anew(targets: Targets, tmp_path: Path) -> None:
    write_layout(tmp_path / "x", {"it": [layer(file("a"))]})
    make(targets, f"oci:{tmp_path}/x:it", "mine")
    before = config_of(targets, "mine"), targets.images.get("mine").details
    new = [layer(file("a")), layer(file("b"))]
    write_layout(tmp_path / "x", {"it": new}, ("none",))

    blob_path(tmp_path / "x", "sha256:" + hashlib.sha256(new[1]).hexdigest()).unlink()
    with pytest.raises(BangerError):
        make(targets, f"oci:{tmp_path}/x:it", "mine")
    assert (config_of(targets, "mine"), targets.images.get("mine").details) == before


def test_two_names_of_one_reference_keep_what_each_was_built_as(targets: Targets, tmp_path: Path) -> None:
    configs = {}
    for name in ("one", "two"):
        write_layout(tmp_path / "x", {"it": [layer(file(name))]})
        make(targets, f"oci:{tmp_path}/x:it", name)
        configs[name] = config_of(targets, name)
    assert configs["one"] != configs["two"]
    assert {name: config_of(targets, name) for name in configs} == configs


def test_a_word_is_a_name_first_and_then_a_reference(targets: Targets, tmp_path: Path) -> None:
    layout = make_layout(tmp_path / "x", [])
    write_layout(layout, {"foo:latest": [layer(file("reference"))], "it": [layer(file("name"))]})
    make(targets, f"oci:{layout}:foo:latest")
    assert [each.name for each in targets.images.list()] == ["foo:latest"]
    for text in ("foo", "foo:latest", "docker.io/library/foo"):
        found = find_image(targets.images, text)
        assert found is not None
        assert found.name == "foo:latest"
    make(targets, f"oci:{layout}:it", "foo")
    found = find_image(targets.images, "foo")
    assert found is not None
    assert found.name == "foo"


def test_a_name_in_an_archive_does_not_take_a_recipe_s_place(targets: Targets, tmp_path: Path) -> None:
    write_layout(tmp_path / "x", {"debian-bookworm:latest": [layer(file("a"))]})
    make(targets, f"oci:{tmp_path}/x:debian-bookworm:latest")
    assert find_image(targets.images, "debian-bookworm") is None
    assert targets.plan_image("debian-bookworm").details["source"] == "recipe"


@pytest.mark.parametrize(
    "text", ["alpine/git", "ghcr.io/owner/tool", "localhost/a/b", "debian:12", "a/b@sha256:" + "0" * 64]
)
def test_what_is_not_here_under_a_reference_is_nothing(targets: Targets, text: str) -> None:
    assert find_image(targets.images, text) is None


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("debian-bookwrm", True),
        ("debian-bookworm", False),
        ("debian:bookworm", False),
        ("debian:12", False),
        ("library/debian-bookwrm", False),
        ("pytho", True),
        ("ubuntu", False),
    ],
)
def test_only_words_are_taken_for_slips_of_the_finger(text: str, expected: bool) -> None:
    assert is_mistyped(text, {"debian-bookworm", "debian:11", "python"}) is expected


def test_an_image_from_standard_input_is_not_looked_for_there_again(
    make_user: Callable[[str], User], layers: list[bytes], tmp_path: Path
) -> None:

    user = make_user("a")
    make_layout(tmp_path / "x", layers)
    archive = tmp_path / "x.tar"
    subprocess.run(
        ["skopeo", "--insecure-policy", "copy", "-q", f"oci:{tmp_path}/x", f"oci-archive:{archive}"], check=True
    )
    assert user.banger("image", "build", "-", "--name", "mine", stdin=archive.read_bytes()) == "mine\n"
    refused = user.refusal("image", "build", "mine")
    assert refused["reason"] == Reason.BAD_INPUT
    assert "image build -" in refused["hint"]


def test_what_is_no_archive_on_standard_input_is_told_by_that_name(make_user: Callable[[str], User]) -> None:
    assert "standard input" in make_user("a").refusal("image", "build", "-")["message"]


def test_a_path_with_signs_that_mean_something_to_doit_is_built(
    make_user: Callable[[str], User], layers: list[bytes], tmp_path: Path
) -> None:
    make_layout(tmp_path / "a=b*%", layers)
    assert make_user("a").banger("image", "build", f"oci:{tmp_path}/a=b*%", "--name", "mine") == "mine\n"
