"""The kernel of a builder: of this banger, or it is said how to come by one."""

from __future__ import annotations

from pathlib import Path

import pytest

from banger.errors import BangerError, Reason
from cache import Store
from catalog.kernels import DEFAULT_KERNEL
from catalog.local import Names
from pipelines.builder_kernel import plan_builder_kernel
from pipelines.graph import build
from pipelines.initramfs import runtime_version
from pipelines.job import Job
from pipelines.naming import plan_named
from pipelines.reporter import Silent
from pipelines.step import Step
from pipelines.targets import Targets


@pytest.fixture
def targets(tmp_path: Path) -> Targets:
    names = (Names(tmp_path / f"{what}s", what) for what in ("image", "kernel"))
    return Targets(Store.open(tmp_path / "store"), *names, "http://debian.invalid/debian")


def _name(targets: Targets, source: str, runtime: str) -> None:
    def make(job: Job) -> None:
        with job.create("vmlinux") as sink:
            sink.write(b"kernel")

    artifacts = {"vmlinux": Step("boot", "boot", 1, make, ("vmlinux",)).output("vmlinux")}
    details = {"source": source, "runtime": runtime}
    target = plan_named(targets.store, targets.kernels, DEFAULT_KERNEL, artifacts, details)
    build(targets.store, [target.naming], Silent())


def test_a_kernel_of_this_banger_will_do(targets: Targets) -> None:
    _name(targets, "import", runtime_version())
    assert plan_builder_kernel(targets, DEFAULT_KERNEL).name == DEFAULT_KERNEL


@pytest.mark.parametrize(
    ("source", "expected"),
    [
        ("trixie/linux", f"banger kernel build {DEFAULT_KERNEL}"),
        ("catalog", f"banger kernel pull {DEFAULT_KERNEL}"),
        ("import", f"import it again: banger kernel import {DEFAULT_KERNEL} FILE"),
    ],
)
def test_a_kernel_of_another_banger_is_refused_with_what_makes_it_anew(
    targets: Targets, source: str, expected: str
) -> None:
    _name(targets, source, "0123456789ab")
    with pytest.raises(BangerError) as refused:
        plan_builder_kernel(targets, DEFAULT_KERNEL)
    assert (refused.value.reason, refused.value.hint) == (Reason.WRONG_STATE, expected)
