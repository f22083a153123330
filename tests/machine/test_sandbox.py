"""What is said on the way from names to a machine."""

from __future__ import annotations

import pytest

from banger.errors import BangerError, Reason
from banger.machine.machines import Machines
from banger.machine.sandbox import Order, make_machine
from cache import Store
from catalog.local import Names
from pipelines.graph import build
from pipelines.initramfs import runtime_version
from pipelines.job import Job
from pipelines.naming import plan_named
from pipelines.reporter import Silent
from pipelines.step import Step


class Notes(Silent):
    def __init__(self) -> None:
        self.told: list[str] = []

    def note(self, text: str) -> None:
        self.told.append(text)


def _name(store: Store, names: Names, name: str, roles: tuple[str, ...], details: dict[str, str]) -> None:
    def make(job: Job) -> None:
        for role in roles:
            with job.create(role) as sink:
                sink.write(role.encode())

    step = Step(f"make-{names.what}", f"make-{names.what}", 1, make, roles)
    artifacts = {role: step.output(role) for role in roles}
    build(store, [plan_named(store, names, name, artifacts, details).naming], Silent())


@pytest.mark.parametrize(
    ("source", "remedy"),
    [
        ("trixie/linux", "banger kernel build own"),
        ("catalog", "banger kernel pull own"),
        ("import", "import it again: banger kernel import own FILE"),
    ],
)
@pytest.mark.parametrize("is_ours", [False, True])
def test_a_kernel_of_another_banger_is_told_with_what_makes_it_anew(
    machines: Machines, store: Store, source: str, remedy: str, is_ours: bool
) -> None:
    runtime = runtime_version() if is_ours else "0123456789ab"
    _name(store, machines.paths.images, "mine", ("rootfs", "home"), {"kernel": "own", "source": "oci"})
    details = {"source": source, "runtime": runtime}
    _name(store, machines.paths.kernels, "own", ("vmlinux", "modules", "initramfs"), details)
    notes = Notes()
    order = Order("box", "mine", None, vcpus=1, memory_mib=256, disk_mib=64, nat=False, may_pull=False)

    def refuse(_config: object) -> None:
        raise BangerError("far enough", reason=Reason.BAD_INPUT)

    with pytest.raises(BangerError, match="far enough"):
        make_machine(machines, store, order, notes, None, refuse)
    assert notes.told == ([] if is_ours else [f"own has the guest runtime of another banger: {remedy}"])
