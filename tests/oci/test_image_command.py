"""`banger image`, and the same graph by `doit`: images of a registry by name, each in a home of its own."""

from __future__ import annotations

import json
import os
import subprocess
from collections.abc import Callable
from pathlib import Path

import pytest

from banger.errors import BangerError, Reason
from banger.machine.record import Records, Wish
from banger.network import DEFAULT_SUBNET
from banger.vmm.process import identify_self
from cache import Store
from pipelines.graph import build
from pipelines.oci.image import plan_oci_image, resolve
from pipelines.oci.layout import LayoutSource
from pipelines.oci.limits import Limits
from pipelines.reporter import Silent
from tests.oci.build import build_oci_image
from tests.oci.layers import file, layer, write_layout
from tests.oci.registries import Faults, Registry, make_layout, run_proxy
from tests.oci.user import BIN, User


def test_an_image_of_a_registry_is_built_listed_shown_and_deleted(
    open_registry: Registry, make_user: Callable[[str], User], tmp_path: Path
) -> None:
    user = make_user("a")
    write_layout(tmp_path / "x", {"it": [layer(file(f"{number}", os.urandom(200_000))) for number in range(3)]})
    wanted = ["--config.label=team=blue", "--history.created_by=labels"]
    subprocess.run(["umoci", "config", "--image", f"{tmp_path}/x:it", *wanted], check=True)
    reference = open_registry.push(Path(f"{tmp_path}/x:it"), "team/app:v1")
    assert user.banger("image", "build", reference) == f"{reference}\n"
    [listed] = json.loads(user.banger("image", "list", "--json"))
    shown = user.show(reference)
    assert listed["name"] == shown["name"] == shown["reference"] == reference
    assert shown["kernel"] == "debian-6.12"
    assert len(shown["layers"]) == 3
    assert [each["created_by"] for each in shown["history"]] == ["layer 0", "layer 1", "layer 2", "labels"]
    assert shown["config"]["labels"] == {"team": "blue"}
    assert shown["size_bytes"] > 600_000
    assert reference in user.banger("image", "list")
    user.banger("image", "build", reference, "--name", "mine", "--kernel", "debian-6.12")
    assert user.show("mine")["objects"] == shown["objects"]
    assert user.banger("image", "delete", "mine", reference) == f"mine\n{reference}\n"
    assert json.loads(user.banger("image", "list", "--json")) == []


def test_building_again_says_whether_the_tag_has_moved(
    open_registry: Registry, make_user: Callable[[str], User], layers: list[bytes], tmp_path: Path
) -> None:
    user = make_user("a")
    reference = open_registry.push(make_layout(tmp_path / "x", layers[:2]), "moving:1")
    user.banger("image", "pull", reference)
    first = user.show(reference)
    user.banger("image", "pull", reference)
    assert "still" in user.said
    open_registry.push(make_layout(tmp_path / "y", layers[:1] + layers[2:]), "moving:1")
    user.banger("image", "pull", reference)
    assert "moved" in user.said
    assert user.show(reference)["digest"] != first["digest"]
    assert user.show(reference)["objects"]["rootfs"] != first["objects"]["rootfs"]


def test_a_changed_top_layer_is_all_that_is_fetched(
    open_registry: Registry, make_user: Callable[[str], User], layers: list[bytes], tmp_path: Path
) -> None:
    user = make_user("a")
    open_registry.push(make_layout(tmp_path / "x", layers[:2]), "top:1")
    faults = Faults()
    with run_proxy(open_registry.host, faults) as proxy:
        user.banger("image", "build", f"{proxy.host}/top:1")
        faults.seen.clear()
        open_registry.push(make_layout(tmp_path / "y", [layers[0], layers[2]]), "top:1")
        user.banger("image", "build", f"{proxy.host}/top:1")
    # The config, and the one layer that is new.
    assert len([path for path, _headers in faults.seen if "/blobs/" in path]) == 2
    assert sum("layer:" in line for line in user.said.splitlines() if line.startswith("start")) == 1


def test_a_built_image_asks_no_registry_and_doit_gives_the_same(
    open_registry: Registry, make_user: Callable[[str], User], layers: list[bytes], tmp_path: Path
) -> None:
    one, other = make_user("a"), make_user("b")
    open_registry.push(make_layout(tmp_path / "x", layers), "same:1")
    faults = Faults()
    with run_proxy(open_registry.host, faults) as proxy:
        reference = f"{proxy.host}/same:1"
        one.banger("image", "build", reference)
        done = other.run(str(BIN / "doit"), f"image:{reference}")
        assert done.returncode == 0, done.stderr
        faults.seen.clear()
        done = other.run(str(BIN / "doit"), f"rootfs:{reference}", f"home:{reference}")
        assert done.returncode == 0, done.stderr
        assert faults.seen == []
    assert one.show(reference)["objects"] == other.show(reference)["objects"]


def test_doit_builds_a_root_filesystem_from_a_layout_and_refuses_what_is_none(
    make_user: Callable[[str], User], layers: list[bytes], tmp_path: Path
) -> None:
    user = make_user("a")
    make_layout(tmp_path / "x", layers)
    done = user.run(str(BIN / "doit"), f"rootfs:oci:{tmp_path}/x")
    assert done.returncode == 0, done.stderr
    assert b"rootfs:" in done.stdout
    assert list(user.paths.images.list()) == []
    done = user.run(str(BIN / "doit"), f"rootfs:oci:{tmp_path}/missing")
    assert done.returncode == 1
    assert b"Traceback" not in done.stderr


def test_an_archive_on_standard_input_is_an_image(
    make_user: Callable[[str], User], layers: list[bytes], tmp_path: Path
) -> None:
    user = make_user("a")
    make_layout(tmp_path / "x", layers)
    archive = tmp_path / "x.tar"
    subprocess.run(
        ["skopeo", "--insecure-policy", "copy", "-q", f"oci:{tmp_path}/x", f"docker-archive:{archive}:a/b:c"],
        check=True,
    )
    assert user.banger("image", "build", "-", stdin=archive.read_bytes()) == "a/b:c\n"
    assert user.banger("image", "build", f"docker-archive:{archive}", "--name", "mine") == "mine\n"
    assert user.banger("image", "build", f"oci:{tmp_path}/x", "--name", "other") == "other\n"
    rootfs = {user.show(name)["objects"]["rootfs"] for name in ("a/b:c", "mine", "other")}
    assert len(rootfs) == 1
    assert list((user.paths.store / "tmp").iterdir()) == []


def test_an_image_that_a_machine_was_made_from_stays(
    make_user: Callable[[str], User], layers: list[bytes], tmp_path: Path
) -> None:
    user = make_user("a")
    make_layout(tmp_path / "x", layers)
    user.banger("image", "build", f"oci:{tmp_path}/x", "--name", "mine")
    wish = Wish("box", "mine", "debian-6.12", 1, 256, 64, True)
    machine = Records(user.paths.database).add(wish, DEFAULT_SUBNET, identify_self())
    done = user.run(str(BIN / "banger"), "image", "delete", "mine")
    assert done.returncode == 1
    assert b"box" in done.stderr
    Records(user.paths.database).remove(machine)
    assert user.banger("image", "delete", "mine") == "mine\n"


def test_a_name_nearly_typed_right_is_not_taken_from_a_registry(make_user: Callable[[str], User]) -> None:
    assert make_user("a").refusal("image", "build", "debian-bookwrm")["reason"] == Reason.NOT_FOUND


def test_a_private_image_comes_through_a_credential_helper(
    locked_registry: Registry, make_user: Callable[[str], User], layers: list[bytes], tmp_path: Path
) -> None:
    user = make_user("a")
    reference = locked_registry.push(make_layout(tmp_path / "x", layers), "private:1")
    assert locked_registry.ca is not None
    user.environment["BANGER_REGISTRY_CA"] = str(locked_registry.ca)
    assert user.refusal("image", "build", reference)["reason"] == Reason.UNAUTHORIZED
    assert list((user.paths.store / "tmp").iterdir()) == []
    tools = tmp_path / "tools"
    tools.mkdir()
    helper = tools / "docker-credential-vault"
    secret = json.dumps({"Username": locked_registry.username, "Secret": locked_registry.password})
    helper.write_text(f"#!/bin/sh\ncat >/dev/null\ncat <<'.'\n{secret}\n.\n")
    helper.chmod(0o755)
    user.environment["PATH"] = f"{tools}:{user.environment['PATH']}"
    folder = Path(user.environment["HOME"]) / ".docker"
    folder.mkdir()
    (folder / "config.json").write_text(json.dumps({"credHelpers": {locked_registry.host: "vault"}}))
    assert user.banger("image", "build", reference) == f"{reference}\n"


def test_the_same_image_has_the_same_digests_whatever_came_first(layers: list[bytes], tmp_path: Path) -> None:
    source = LayoutSource(make_layout(tmp_path / "x", layers), None)
    one, other = Store.open(tmp_path / "one"), Store.open(tmp_path / "other")
    step, answer = resolve(other, source, Silent())
    rootfs = plan_oci_image("x", step, answer, source, Limits())["rootfs"].step
    for artifact in reversed(list(rootfs.inputs.values())):
        build(other, [artifact.step], Silent())  # type: ignore[union-attr]
    assert build_oci_image(one, source) == build_oci_image(other, source)


def test_a_failure_in_the_middle_leaves_no_name_and_no_file(
    open_registry: Registry, make_user: Callable[[str], User], layers: list[bytes], tmp_path: Path
) -> None:
    user = make_user("a")
    open_registry.push(make_layout(tmp_path / "x", layers), "broken:1")
    with run_proxy(open_registry.host, Faults(alter_at=100)) as proxy:
        assert user.refusal("image", "build", f"{proxy.host}/broken:1")["reason"] == Reason.CORRUPT
    assert list(user.paths.images.list()) == []
    assert list((user.paths.store / "tmp").iterdir()) == []


def test_a_source_that_vanishes_is_an_error_of_one_line(layers: list[bytes], tmp_path: Path) -> None:
    source = LayoutSource(make_layout(tmp_path / "x", layers), None)
    for blob in (tmp_path / "x/blobs/sha256").iterdir():
        blob.unlink()
    with pytest.raises(BangerError) as refused:
        build_oci_image(Store.open(tmp_path / "store"), source)
    assert "\n" not in refused.value.message


def test_an_image_that_oras_pushed_is_built(
    open_registry: Registry, make_user: Callable[[str], User], tmp_path: Path
) -> None:
    write_layout(tmp_path / "x", {"it": [layer(file("a", b"by oras"))]})
    reference = f"{open_registry.host}/by/oras:1"
    argv = ["oras", "cp", "--from-oci-layout", f"{tmp_path}/x:it", "--to-plain-http", reference]
    subprocess.run(argv, check=True, capture_output=True)
    user = make_user("a")
    assert user.banger("image", "pull", reference) == f"{reference}\n"
    assert user.show(reference)["reference"] == reference
