"""Which steps of a recipe run again, and what comes of those that fail.

Machines are stood in for by a workshop that reads what it is handed and writes what a guest would; that real ones do so
is tested in tests/boot/test_boot_recipe.py. Disks are real, and so is everything that becomes of what comes out.
"""

from __future__ import annotations

import os
import subprocess
from collections.abc import Iterable
from dataclasses import dataclass, field
from pathlib import Path

import pytest
from blake3 import blake3

from banger.errors import BangerError, Reason
from banger.run import resume
from cache import Store
from catalog.local import Names
from pipelines.builder import Guest, Task
from pipelines.graph import build
from pipelines.initramfs import runtime_version
from pipelines.job import Job
from pipelines.naming import plan_named
from pipelines.oci.limits import Limits
from pipelines.recipe import read_recipe
from pipelines.recipe_image import plan_own_recipe
from pipelines.reporter import Silent
from pipelines.step import Step
from pipelines.targets import Targets
from tests.oci.layers import file, folder, layer, write_layout
from tests.oci.tree import Tree, read_erofs

_BASE = layer(folder("etc"), file("etc/base", b"base"), folder("root"), file("root/mine", b"mine"))


@dataclass
class Workshop:
    """Each command "writes" a file that is called as it is. `report` is what the next guests say instead."""

    place: Path
    ran: list[str] = field(default_factory=list)
    seen: list[Tree] = field(default_factory=list)
    report: bytes | None = None
    printed: bytes = b""

    def run(self, guest: Guest) -> None:
        report, tar = guest.disks[-2:]
        assert [disk.read_only for disk in (guest.disks[0], report, tar)] == [True, False, False]
        guest.log.write_bytes(b"booting\r\nbanger: begin\r\n" + self.printed + b"banger: end\r\nbanger: off\r\n")
        if guest.task is Task.UNPACK:
            _overwrite(tar.path, _BASE)
            _overwrite(report.path, b"banger whole\n")
            return
        command = _read_command(guest.disks[1].path)
        self.ran.append(f"{command}{'' if guest.network else ' (alone)'}")
        if os.geteuid() == 0:
            self.seen += read_erofs(guest.disks[0].path)
        _overwrite(tar.path, layer(folder("made"), file(f"made/{command}", command.encode())))
        _overwrite(report.path, b"banger whole\n" if self.report is None else self.report)

    def keep_output(self, lines: Iterable[str]) -> Path:
        kept = self.place / "kept"
        kept.write_text("\n".join(lines))
        return kept


def _overwrite(path: Path, content: bytes) -> None:
    with path.open("r+b") as disk:
        disk.write(content)


def _read_command(overlay: Path) -> str:
    """Of the script on the disk, by the filesystem's own tool."""
    script = subprocess.run(
        ["debugfs", "-R", "cat /script", overlay], capture_output=True, check=True, text=True
    ).stdout
    last = script.rstrip().splitlines()[-1]
    assert last.startswith("exec /run/banger/bin/env -i -- HOME=/root PATH=")
    return last.rpartition(" -ec ")[2].strip("'")


@dataclass
class Lab:
    targets: Targets
    workshop: Workshop
    folder: Path

    def build(self, *commands: str, more: str = "") -> dict[str, str]:
        """Build a recipe with these commands; gives the image's details."""
        steps = "".join(f'[[run]]\ncommand = "{command}"\n' for command in commands)
        (self.folder / "recipe.toml").write_text(f'base = "oci:base:it"\n{more}\n{steps}')
        self.workshop.ran.clear()
        target = plan_own_recipe(self.targets, read_recipe(self.folder), self.workshop)
        build(self.targets.store, [target.naming], Silent(), refresh=True)
        return dict(self.targets.images.get("mine").details)

    def tree(self) -> set[bytes]:
        return set(read_erofs(self.targets.images.get("mine").path("rootfs"))[0])


@pytest.fixture
def lab(tmp_path: Path) -> Lab:
    resume()
    store = Store.open(tmp_path / "store")
    targets = Targets(
        store,
        Names(tmp_path / "images", "image"),
        Names(tmp_path / "kernels", "kernel"),
        "http://debian.invalid/debian",
        limits=Limits(max_image_bytes=64 << 20),
    )
    recipe = tmp_path / "mine"
    (recipe / "base").mkdir(parents=True)
    write_layout(recipe / "base", {"it": [_BASE]})
    name_kernel(targets, runtime_version())
    return Lab(targets, Workshop(tmp_path), recipe)


def name_kernel(targets: Targets, runtime: str) -> None:
    def make(job: Job) -> None:
        for output in job.step.outputs:
            with job.create(output) as sink:
                sink.write(output.encode())

    step = Step("boot", "boot", 1, make, ("vmlinux", "modules", "initramfs"))
    artifacts = {role: step.output(role) for role in step.outputs}
    target = plan_named(targets.store, targets.kernels, "debian-6.12", artifacts, {"runtime": runtime})
    build(targets.store, [target.naming], Silent())


def test_only_what_comes_after_a_change_is_run_again(lab: Lab) -> None:
    lab.build("one", "two", "three")
    assert lab.workshop.ran == ["one", "two", "three"]
    lab.build("one", "two", "three")
    assert lab.workshop.ran == []
    lab.build("one", "two", "drei")
    assert lab.workshop.ran == ["drei"]
    lab.build("one", "zwei", "drei")
    assert lab.workshop.ran == ["zwei", "drei"]
    lab.build("one", "two", "three", "four")
    assert lab.workshop.ran == ["four"]
    lab.build("two")
    assert lab.workshop.ran == ["two"]


@pytest.mark.skipif(os.geteuid() != 0, reason="only root can mount an image")
def test_each_step_sees_what_those_before_it_made_and_the_image_has_it_all(lab: Lab) -> None:
    (lab.folder / "motd").write_text("hello")
    lab.build("one", "two", more='[[file]]\nsource = "motd"\ntarget = "/etc/motd"')
    first, second = map(set, lab.workshop.seen)
    assert {b"etc/base", b"etc/motd", b"root/mine"} <= first
    assert b"made/one" not in first
    assert b"made/one" in second
    assert {b"etc/motd", b"made/one", b"made/two", b"root/mine"} <= lab.tree()


def test_a_file_that_changes_has_all_steps_run_again(lab: Lab) -> None:
    more = '[[file]]\nsource = "motd"\ntarget = "/etc/motd"'
    (lab.folder / "motd").write_text("hello")
    lab.build("one", more=more)
    (lab.folder / "motd").touch()
    lab.build("one", more=more)
    assert lab.workshop.ran == []
    (lab.folder / "motd").write_text("hello again")
    lab.build("one", more=more)
    assert lab.workshop.ran == ["one"]


def test_a_step_without_network_is_another_step(lab: Lab) -> None:
    lab.build("one")
    lab.build(more='[[run]]\ncommand = "one"\nnetwork = false')
    assert lab.workshop.ran == ["one (alone)"]


def test_a_step_that_fails_shows_the_end_of_its_output_and_leaves_the_steps_before_it(lab: Lab) -> None:
    lab.build("one")
    lab.workshop.report = b"banger exit 3\n"
    lab.workshop.printed = b"".join(b"line %d\r\n" % number for number in range(100)) + b"0%\r50%\rdone \x1b[31m\r\n"
    with pytest.raises(BangerError) as failed:
        lab.build("one", "two", "three")
    assert lab.workshop.ran == ["two"]
    assert failed.value.reason is Reason.COMMAND_FAILED
    assert failed.value.message.startswith("run-2:mine failed with status 3\n")
    assert "line 70" not in failed.value.message
    assert failed.value.message.endswith("  | line 99\n  | done \\x1b[31m")
    kept = lab.workshop.place / "kept"
    assert str(kept) in failed.value.hint
    assert kept.read_text().splitlines()[:2] == ["line 0", "line 1"]
    lab.workshop.report = None
    lab.build("one", "two", "three")
    assert lab.workshop.ran == ["two", "three"]


@pytest.mark.parametrize(
    "report", [b"", b"banger", b"banger whole", b"banger exit\n", b"banger whole\nmore", b"banger broken\n"]
)
def test_a_guest_that_does_not_say_that_its_tar_is_whole_made_nothing(lab: Lab, report: bytes) -> None:
    lab.workshop.report = report
    with pytest.raises(BangerError) as failed:
        lab.build("one")
    assert failed.value.reason is Reason.GUEST
    assert lab.targets.images.find("mine") is None
    assert list((lab.targets.store.root / "tmp").iterdir()) == []


def test_a_recipe_of_a_base_alone_is_the_base(lab: Lab) -> None:
    details = lab.build()
    assert lab.workshop.ran == []
    assert details == {
        "base": "oci:base:it",
        "kernel": "debian-6.12",
        "path": str(lab.folder / "recipe.toml"),
        "recipe": blake3((lab.folder / "recipe.toml").read_bytes()).hexdigest(),
        "source": "recipe-file",
    }
    assert lab.targets.images.get("mine").path("home").exists()


def test_an_image_that_a_recipe_made_is_built_again_by_its_recipe_only(lab: Lab) -> None:
    lab.build("one")
    with pytest.raises(BangerError) as refused:
        lab.targets.plan_image("mine", anew=True)
    assert refused.value.reason is Reason.NOT_FOUND
    assert f"--recipe {lab.folder}/recipe.toml" in refused.value.hint
    assert lab.targets.plan_image("mine").details["source"] == "recipe-file"


def test_an_image_may_be_the_base_of_another_but_not_of_itself(lab: Lab) -> None:
    lab.build("one")
    path = lab.folder / "other.toml"
    path.write_text('base = "mine"\n[[run]]\ncommand = "more"')
    target = plan_own_recipe(lab.targets, read_recipe(path), lab.workshop)
    build(lab.targets.store, [target.naming], Silent())
    assert lab.targets.images.get("other").details["base"] == "mine"
    with pytest.raises(BangerError) as refused:
        plan_own_recipe(lab.targets, read_recipe(path, "mine"), lab.workshop)
    assert refused.value.reason is Reason.BAD_INPUT


def test_a_kernel_with_the_runtime_of_another_banger_builds_nothing(lab: Lab) -> None:
    name_kernel(lab.targets, "another")
    with pytest.raises(BangerError) as refused:
        lab.build("one")
    assert refused.value.reason is Reason.WRONG_STATE
    assert "kernel build debian-6.12" in refused.value.hint


def test_a_kernel_that_is_not_known_is_refused_before_anything_is_built(lab: Lab) -> None:
    with pytest.raises(BangerError) as refused:
        lab.build("one", more='kernel = "mine-6.0"')
    assert refused.value.reason is Reason.NOT_FOUND
    assert lab.workshop.ran == []
