"""From a name to what must be built: what is here wins, and keeps meaning what it meant."""

from __future__ import annotations

import shutil
from pathlib import Path

import pytest

from banger.errors import BangerError, Reason
from banger.run import resume
from cache import Store
from catalog.local import Names
from pipelines.graph import build
from pipelines.job import Job
from pipelines.naming import plan_named
from pipelines.reporter import Silent
from pipelines.step import Artifact, Effect, Result, Step
from pipelines.targets import Targets


@pytest.fixture
def targets(tmp_path: Path) -> Targets:
    resume()
    store = Store.open(tmp_path / "store")
    return Targets(store, Names(tmp_path / "images", "image"), Names(tmp_path / "kernels", "kernel"))


def _make(job: Job) -> None:
    for output in job.step.outputs:
        with job.create(output) as sink:
            sink.write(f"{job.step.name} {output}".encode())


def _plan(content: str = "a") -> dict[str, Artifact]:
    """Two steps in a row that make what an image is made of."""
    system = Step("system", "system", 1, _make, ("system",), {"content": content})
    rootfs = Step(
        "rootfs", "rootfs", 1, _make, ("rootfs", "extra"), {"c": content}, {"system": system.output("system")}
    )
    home = Step("home", "home", 1, _make, ("home",), {"content": content}, {"system": system.output("system")})
    return {"rootfs": rootfs.output("rootfs"), "home": home.output("home")}


def _name(targets: Targets, name: str, artifacts: dict[str, Artifact]) -> None:
    details = {"kernel": "debian-6.12", "source": "test"}
    target = plan_named(targets.store, targets.images, name, artifacts, details)
    build(targets.store, [target.naming], Silent())


def _use(targets: Targets, name: str) -> dict[str, bytes]:
    """Build a name as a machine does, and read what it gets."""
    target = targets.plan_image(name)
    seen: dict[str, Result] = {}
    build(targets.store, [Effect("vm", target.artifacts, seen.update, after=(target.naming,))], Silent())
    return {role: targets.store.path(result.made).read_bytes() for role, result in seen.items()}


def test_a_name_that_is_here_wins_over_a_recipe(targets: Targets) -> None:
    assert "system:debian-bookworm" in {node.name for node in _walk(targets, "debian-bookworm")}
    _name(targets, "debian-bookworm", _plan())
    assert _use(targets, "debian-bookworm") == {"rootfs": b"rootfs rootfs", "home": b"home home"}
    assert "system:debian-bookworm" not in {node.name for node in _walk(targets, "debian-bookworm")}


def _walk(targets: Targets, name: str, *, anew: bool = False) -> list[Step | Effect]:
    from pipelines.step import walk

    return list(walk([targets.plan_image(name, anew=anew).naming]))


def test_a_name_that_is_here_can_be_built_anew_from_its_recipe(targets: Targets) -> None:
    _name(targets, "debian-bookworm", _plan())
    assert "system:debian-bookworm" in {node.name for node in _walk(targets, "debian-bookworm", anew=True)}


def test_a_name_works_after_the_store_was_wiped(targets: Targets) -> None:
    _name(targets, "mine", _plan())
    shutil.rmtree(targets.store.root)
    Store.open(targets.store.root)
    assert _use(targets, "mine") == {"rootfs": b"rootfs rootfs", "home": b"home home"}


def test_a_name_that_is_here_is_not_given_again(targets: Targets) -> None:
    _name(targets, "mine", _plan())
    before = targets.images.get("mine").made_at
    _use(targets, "mine")
    _name(targets, "mine", _plan())
    assert targets.images.get("mine").made_at == before


def test_a_name_moves_when_something_else_was_built(targets: Targets) -> None:
    _name(targets, "mine", _plan("a"))
    old = targets.images.get("mine").records
    other = Step("home", "home", 2, lambda job: _write_other(job), ("home",))
    _name(targets, "mine", {**_plan("a"), "home": other.output("home")})
    assert targets.images.get("mine").records != old
    assert _use(targets, "mine")["home"] == b"other"


def _write_other(job: Job) -> None:
    with job.create("home") as sink:
        sink.write(b"other")


def test_an_unknown_name_is_refused_with_the_nearest_of_all_there_are(targets: Targets) -> None:
    _name(targets, "my-image", _plan())
    for wrong, meant in (("my-imag", "my-image"), ("debian-bookwor", "debian-bookworm")):
        with pytest.raises(BangerError) as caught:
            targets.plan_image(wrong)
        assert caught.value.reason is Reason.NOT_FOUND
        assert repr(meant) in caught.value.hint
    with pytest.raises(BangerError) as caught:
        targets.plan_kernel("debian-6.21")
    assert caught.value.reason is Reason.NOT_FOUND


@pytest.mark.parametrize("name", ["../x", ".x", "", "Debian", "a=b", "a*"])
def test_a_bad_name_is_refused_before_anything_is_planned(targets: Targets, name: str) -> None:
    for plan in (targets.plan_image, targets.plan_kernel):
        with pytest.raises(BangerError) as caught:
            plan(name)
        assert caught.value.reason is Reason.BAD_INPUT


def test_a_name_that_lost_a_file_is_told_as_damage(targets: Targets) -> None:
    _name(targets, "mine", _plan())
    targets.images.get("mine").path("home").unlink()
    shutil.rmtree(targets.store.root)
    Store.open(targets.store.root)
    with pytest.raises(BangerError) as caught:
        _use(targets, "mine")
    assert caught.value.reason in (Reason.NOT_FOUND, Reason.CORRUPT)
