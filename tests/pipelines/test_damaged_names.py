"""A damaged image or kernel: whoever uses it is told what to do, and doing that makes every file of it good again."""

from __future__ import annotations

import shutil
from collections.abc import Callable
from pathlib import Path

import pytest
from blake3 import blake3

from banger.errors import BangerError, Reason
from banger.run import resume
from cache import Store
from catalog.local import Named, Names
from pipelines.graph import build
from pipelines.job import Job
from pipelines.naming import plan_named
from pipelines.reporter import Silent
from pipelines.step import Artifact, Effect, Result, Step
from pipelines.targets import Targets

ROLES = ("rootfs", "extra", "home")
KERNEL_ROLES = ("vmlinux", "modules", "initramfs")


@pytest.fixture
def targets(tmp_path: Path) -> Targets:
    resume()
    store = Store.open(tmp_path / "store")
    return Targets(store, Names(tmp_path / "images", "image"), Names(tmp_path / "kernels", "kernel"))


def _make(job: Job) -> None:
    for output in job.step.outputs:
        with job.create(output) as sink:
            sink.write(f"{job.step.name} {output}".encode())


def _plan() -> dict[str, Artifact]:
    system = Step("system", "system", 1, _make, ("system",))
    rootfs = Step("rootfs", "rootfs", 1, _make, ("rootfs", "extra"), {}, {"system": system.output("system")})
    home = Step("home", "home", 1, _make, ("home",), {}, {"system": system.output("system")})
    return {"rootfs": rootfs.output("rootfs"), "home": home.output("home")}


def _build(targets: Targets) -> Named:
    """As `image build` does."""
    details = {"kernel": "debian-6.12", "source": "recipe"}
    target = plan_named(targets.store, targets.images, "mine", _plan(), details)
    build(targets.store, [target.naming], Silent(), refresh=True)
    return targets.images.get("mine")


def _build_kernel(targets: Targets) -> Named:
    """As `kernel build` does."""
    steps = {role: Step(role, role, 1, _make, (role,)) for role in KERNEL_ROLES}
    artifacts = {role: step.output(role) for role, step in steps.items()}
    target = plan_named(targets.store, targets.kernels, "mine", artifacts, {"source": "trixie/linux"})
    build(targets.store, [target.naming], Silent(), refresh=True)
    return targets.kernels.get("mine")


def _use(targets: Targets, what: str = "image") -> None:
    """As a machine does."""
    target = targets.plan_image("mine") if what == "image" else targets.plan_kernel("mine")
    seen: dict[str, Result] = {}
    build(targets.store, [Effect("vm", target.artifacts, seen.update, after=(target.naming,))], Silent())
    for result in seen.values():
        assert blake3(targets.store.path(result.made).read_bytes()).hexdigest() == result.made.digest


def _flip(path: Path) -> None:
    """One bit, for all who have a link to it."""
    content = bytearray(path.read_bytes())
    content[3] ^= 1
    _write(path, content)


def _cut(path: Path) -> None:
    _write(path, path.read_bytes()[:-1])


def _write(path: Path, content: bytes) -> None:
    path.chmod(0o600)
    path.write_bytes(content)
    path.chmod(0o400)


def _alone(damage: Callable[[Path], None]) -> Callable[[Path], None]:
    """The same for the name alone: its file is a copy, as one on another filesystem is."""

    def damage_copy(path: Path) -> None:
        content = path.read_bytes()
        path.unlink()
        path.write_bytes(content)
        damage(path)

    return damage_copy


def _lose(path: Path) -> None:
    path.unlink()


DAMAGES = {"flipped": _flip, "cut": _cut, "flipped-copy": _alone(_flip), "cut-copy": _alone(_cut), "lost": _lose}


def _assert_good(named: Named) -> None:
    for role, made in named.files.items():
        assert blake3(named.path(role).read_bytes()).hexdigest() == made.digest, role


@pytest.mark.parametrize("role", ROLES)
@pytest.mark.parametrize("kind", DAMAGES)
def test_building_a_damaged_image_again_makes_each_of_its_files_good(targets: Targets, role: str, kind: str) -> None:
    before = _build(targets)
    DAMAGES[kind](before.path(role))
    with pytest.raises((AssertionError, FileNotFoundError)):
        _assert_good(before)
    list(targets.store.verify(repair=True))
    after = _build(targets)
    _assert_good(after)
    assert after.files == before.files
    _use(targets)
    assert list(targets.store.verify({"image mine": after.folder})) == []


@pytest.mark.parametrize("role", KERNEL_ROLES)
@pytest.mark.parametrize("kind", DAMAGES)
def test_building_a_damaged_kernel_again_makes_each_of_its_files_good(targets: Targets, role: str, kind: str) -> None:
    DAMAGES[kind](_build_kernel(targets).path(role))
    list(targets.store.verify(repair=True))
    after = _build_kernel(targets)
    _assert_good(after)
    _use(targets, "kernel")
    assert list(targets.store.verify({"kernel mine": after.folder})) == []


@pytest.mark.parametrize("role", ROLES)
@pytest.mark.parametrize("kind", DAMAGES)
@pytest.mark.parametrize("is_wiped", [False, True])
def test_a_damaged_image_is_never_used_and_who_tries_is_told_what_to_do(
    targets: Targets, role: str, kind: str, is_wiped: bool
) -> None:
    named = _build(targets)
    DAMAGES[kind](named.path(role))
    list(targets.store.verify(repair=True))
    if is_wiped:
        shutil.rmtree(targets.store.root)
        Store.open(targets.store.root)
    elif kind in ("flipped-copy", "cut-copy", "lost"):
        # The store has it as it was.
        _use(targets)
        return
    with pytest.raises(BangerError) as caught:
        _use(targets)
    assert caught.value.reason is Reason.CORRUPT
    assert caught.value.message == f"the image 'mine' is damaged: its file {role!r} is not what it was"
    assert caught.value.hint == "banger image build mine"
    assert not targets.store.has(named.files[role])


def test_an_image_whose_file_is_lost_or_cut_is_made_whole_by_using_it(targets: Targets) -> None:
    for damage in (_lose, _alone(_cut)):
        damage(_build(targets).path("rootfs"))
        _use(targets)
        _assert_good(targets.images.get("mine"))


def test_using_an_image_does_not_read_its_copies(targets: Targets) -> None:
    """On another filesystem, each machine would read all of its image for nothing."""
    named = _build(targets)
    _alone(_flip)(named.path("rootfs"))
    _use(targets)
    with pytest.raises(AssertionError):
        _assert_good(targets.images.get("mine"))


def test_an_image_that_is_whole_is_not_named_again(targets: Targets) -> None:
    before = _build(targets)
    _alone(lambda path: None)(before.path("rootfs"))
    assert _build(targets).made_at == before.made_at
