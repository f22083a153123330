"""A machine's disk as an image: what carries over, and what is refused.

Guests are stood in for; that real ones read a real disk is tested in tests/boot/test_boot_promote.py.
"""

from __future__ import annotations

import json
from collections.abc import Iterable
from dataclasses import dataclass, field, replace
from pathlib import Path

import pytest

from banger.errors import BangerError, Reason
from banger.machine import lifecycle
from banger.machine.machines import Machines
from banger.machine.promote import promote
from banger.machine.record import Machine, Wish
from banger.run import resume
from banger.targets import make_targets
from banger.vmm.process import identify_self
from cache import Object, Store
from pipelines.builder import Guest, Task
from pipelines.graph import build
from pipelines.initramfs import runtime_version
from pipelines.job import Job
from pipelines.naming import plan_named
from pipelines.oci.config import parse_image_config
from pipelines.oci.index import read_index
from pipelines.reporter import Silent
from pipelines.step import Step
from pipelines.targets import Targets
from tests.oci.layers import device, file, folder, layer

_CONFIG = {"config": {"Env": ["A=b"], "Entrypoint": ["/run-me"], "User": "app"}}
_BASE = layer(folder("etc"), file("etc/old"), folder("root"), file("root/skel", b"x"))
_CHANGES = layer(
    folder("./"),
    folder("./etc"),
    device("./etc/old", b"3", 0, 0),
    file("./etc/new", b"new"),
    file("./etc/machine-id", b"0123"),
    folder("./var/log"),
    file("./var/log/syslog", b"secret"),
)


@dataclass
class Workshop:
    """`tars` by task; remembers which disks it was handed."""

    ran: list[tuple[Task, Path]] = field(default_factory=list)

    def run(self, guest: Guest) -> None:
        source, report, tar = (disk.path for disk in guest.disks)
        self.ran.append((guest.task, source))
        assert not guest.network
        tar.write_bytes({Task.UNPACK: _BASE, Task.EXPORT: _CHANGES}[guest.task])
        report.write_bytes(b"banger whole\n")

    def keep_output(self, lines: Iterable[str]) -> Path:
        raise AssertionError("nothing is run")


@pytest.fixture
def targets(machines: Machines, store: Store) -> Targets:
    resume()
    targets = make_targets(machines.paths, machines.settings, store, Silent())

    def make(job: Job) -> None:
        for output in job.step.outputs:
            with job.create(output) as sink:
                sink.write(output.encode())

    step = Step("boot", "boot", 1, make, ("vmlinux", "modules", "initramfs"))
    artifacts = {role: step.output(role) for role in step.outputs}
    kernel = plan_named(store, targets.kernels, "debian-6.12", artifacts, {"runtime": runtime_version()})
    build(store, [kernel.naming], Silent())
    return targets


@pytest.fixture
def machine(machines: Machines, wish: Wish, store: Store, artifacts: dict[str, Object]) -> Machine:
    config = store.put_bytes(json.dumps(_CONFIG).encode())
    wish = replace(wish, kernel="debian-6.12", image="team:1")
    return lifecycle.create(machines, wish, store, {**artifacts, "config": config}, None)


def test_the_image_has_the_config_and_the_kernel_of_the_machine_and_its_changes_without_its_identity(
    machines: Machines, machine: Machine, targets: Targets
) -> None:
    workshop = Workshop()
    promote(machines, machine, "golden", targets, workshop)
    made = targets.images.get("golden")
    assert made.details == {"kernel": "debian-6.12", "source": "promoted", "base": "team:1"}
    assert parse_image_config(made.path("config").read_bytes()).entrypoint == ("/run-me",)
    assert {task for task, _source in workshop.ran} == {Task.UNPACK, Task.EXPORT}
    assert (Task.EXPORT, machines.folder(machine) / "system.ext4") in workshop.ran
    layers = [
        [entry.path for entry in read_index(path).entries]
        for path in targets.store.root.glob("objects/*/*")
        if path.read_bytes().startswith(b'{"format": 1, "diff_id"')
    ]
    assert ["", "etc", "etc/.wh.old", "etc/new", "var/log"] in layers
    # What was kept tells nothing of the machine either.
    for path in targets.store.root.glob("actions/*/*"):
        assert machine.id not in path.read_text()


def test_a_machine_that_has_not_run_since_is_not_read_again(
    machines: Machines, machine: Machine, targets: Targets
) -> None:
    workshop = Workshop()
    promote(machines, machine, "golden", targets, workshop)
    workshop.ran.clear()
    promote(machines, machine, "golden", targets, workshop)
    assert workshop.ran == []
    (machines.folder(machine) / "system.ext4").touch()
    promote(machines, machine, "golden", targets, workshop)
    assert [task for task, _source in workshop.ran] == [Task.EXPORT]


def test_one_that_runs_or_is_being_made_is_refused(machines: Machines, machine: Machine, targets: Targets) -> None:
    for change in ("process", "creator"):
        busy = machines.records.update(machine, **{change: identify_self()})
        with pytest.raises(BangerError) as refused:
            promote(machines, busy, "golden", targets, Workshop())
        assert refused.value.reason is Reason.WRONG_STATE
        machines.records.update(machine, **{change: None})
    assert "banger vm stop box" in refused.value.hint


def test_the_name_of_an_image_that_came_in_another_way_is_refused(
    machines: Machines, machine: Machine, targets: Targets
) -> None:
    promote(machines, machine, "golden", targets, Workshop())
    found = targets.images.get("golden")
    targets.images.put("other", targets.store, found.files, found.records, {"source": "oci"})
    for name, reason in (
        ("other", Reason.ALREADY_EXISTS),
        ("debian-bookworm", Reason.ALREADY_EXISTS),
        ("Golden", Reason.BAD_INPUT),
        ("../golden", Reason.BAD_INPUT),
    ):
        with pytest.raises(BangerError) as refused:
            promote(machines, machine, name, targets, Workshop())
        assert refused.value.reason is reason
