"""Images and kernels that were damaged on the disk, file by file, and the commands that make them good again."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

from blake3 import blake3

from banger.errors import Reason
from cache import Store
from pipelines.graph import build
from pipelines.reporter import Silent
from tests.oci.layers import file, layer, write_layout
from tests.oci.registries import Registry
from tests.oci.team import Team, register_kernel, targets_of
from tests.oci.user import BIN, User


def _verify(user: User, *words: str) -> list[dict[str, Any]]:
    done = user.run(str(BIN / "banger"), "cache", "verify", "--json", *words)
    findings: list[dict[str, Any]] = json.loads(done.stdout)["findings"]
    assert done.returncode == (1 if findings else 0), done.stderr
    return findings


def _flip(path: Path) -> None:
    """One bit, for all who have a link to it."""
    content = bytearray(path.read_bytes())
    content[len(content) // 2] ^= 1
    path.chmod(0o600)
    path.write_bytes(content)
    path.chmod(0o400)


def _damage_each_and_mend(user: User, kind: str, name: str, verb: str) -> None:
    """Each file of a name in turn, its manifest last."""
    names = user.paths.images if kind == "image" else user.paths.kernels
    before = names.get(name)
    for role in before.files:
        _flip(names.get(name).path(role))
        [found] = _verify(user, "--repair")
        assert (found["owners"], found["repaired"]) == ([f"{kind} {name}"], True), role
        user.banger(kind, verb, name)
        _assert_good(user, kind, name)
        assert _verify(user) == []
    (before.folder / "manifest.json").write_bytes(b"{")
    user.banger(kind, verb, name)
    _assert_good(user, kind, name)
    assert names.get(name).files == before.files
    assert names.get(name).details == before.details


def _assert_good(user: User, kind: str, name: str) -> None:
    named = (user.paths.images if kind == "image" else user.paths.kernels).get(name)
    for role, made in named.files.items():
        assert blake3(named.path(role).read_bytes()).hexdigest() == made.digest, role


def test_image_build_makes_a_damaged_image_good_again(
    open_registry: Registry, make_user: Callable[[str], User], tmp_path: Path
) -> None:
    user = make_user("a")
    write_layout(tmp_path / "x", {"it": [layer(file("root/note", b"mine"), file("etc/motd", b"x" * 100_000))]})
    reference = open_registry.push(Path(f"{tmp_path}/x:it"), "damaged/app:v1")
    user.banger("image", "build", reference)
    assert set(user.show(reference)["objects"]) == {"rootfs", "home", "config", "answer"}
    _damage_each_and_mend(user, "image", reference, "build")


def test_image_pull_makes_a_damaged_image_good_again(make_team: Callable[[str, str], Team]) -> None:
    reader = make_team("tool", "1.2").make_reader("reader")
    reader.banger("image", "pull", "tool")
    _damage_each_and_mend(reader, "image", "tool", "pull")


def test_a_machine_mends_a_name_and_leaves_it_what_tells_where_it_came_from(
    make_team: Callable[[str, str], Team],
) -> None:
    reader = make_team("tool", "1.2").make_reader("reader")
    reader.banger("image", "pull", "tool")
    before, shown = reader.paths.images.get("tool"), reader.show("tool")
    before.path("rootfs").unlink()
    target = targets_of(reader).plan_image("tool")
    build(Store.open(reader.paths.store), [target.naming], Silent())
    assert reader.paths.images.get("tool").files == before.files
    _assert_good(reader, "image", "tool")
    assert reader.show("tool") == {**shown, "made_at": reader.show("tool")["made_at"]}


def test_kernel_pull_makes_a_damaged_kernel_good_again(team: Team) -> None:
    register_kernel(team.publisher, "debian-6.12")
    team.publish("debian-6.12", kind="kernel")
    reader = team.make_reader("reader")
    reader.banger("kernel", "pull", "debian-6.12")
    _damage_each_and_mend(reader, "kernel", "debian-6.12", "pull")


def test_a_name_of_a_user_s_own_whose_manifest_is_damaged_is_no_stranger_s_image(
    make_user: Callable[[str], User], tmp_path: Path
) -> None:
    """Nobody can tell any more what it was built from; Docker Hub is not asked for one of that name."""
    user = make_user("a")
    write_layout(tmp_path / "x", {"it": [layer(file("root/note", b"mine"))]})
    user.banger("image", "build", f"oci:{tmp_path}/x:it", "--name", "tool")
    (user.paths.images.folder / "tool/manifest.json").write_bytes(b"{")
    for verb in ("build", "pull"):
        refused = user.refusal("image", verb, "tool")
        assert refused["reason"] == Reason.CORRUPT
        assert "\n" not in refused["hint"]
    user.banger("image", "build", f"oci:{tmp_path}/x:it", "--name", "tool")
    _assert_good(user, "image", "tool")


def test_pushing_a_damaged_image_to_the_remote_cache_says_what_to_do(
    open_registry: Registry, make_user: Callable[[str], User], tmp_path: Path
) -> None:
    user = make_user("a")
    write_layout(tmp_path / "x", {"it": [layer(file("root/note", b"mine"))]})
    reference = open_registry.push(Path(f"{tmp_path}/x:it"), "damaged/pushed:v1")
    user.banger("image", "build", reference)
    user.environment["BANGER_CACHE_REMOTE"] = f"{open_registry.host}/damaged/cache"
    user.banger("cache", "push")
    _flip(user.paths.images.get(reference).path("home"))
    assert len(_verify(user, "--repair")) == 1
    refused = user.refusal("cache", "push")
    assert refused["reason"] == Reason.CORRUPT
    assert refused["hint"] == f"banger image build {reference}"
