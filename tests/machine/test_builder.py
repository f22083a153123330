"""A builder leaves nothing, however it ends.

Its monitor is stood in for by a shell that does what a guest would do; the real ones are in tests/boot.
"""

from __future__ import annotations

import threading
import time
from collections.abc import Iterator
from dataclasses import dataclass, replace
from pathlib import Path

import pytest

from banger.errors import BangerError, Reason
from banger.machine import builder, lifecycle
from banger.machine.builder import Builders, plan_spec
from banger.machine.machines import Machines
from banger.machine.record import State, Wish
from banger.run import cancel_all, resume
from banger.vmm import process as processes
from banger.vmm.monitor import Choice
from banger.vmm.process import OnSpawned, ProcessId
from banger.vmm.qemu import Qemu
from banger.vmm.spec import MachineSpec
from pipelines.builder import Disk, Guest, Task
from tests.machine.conftest import SUBNET


@dataclass(frozen=True)
class Shell(Qemu):
    """Runs `script` instead of a guest; or fails to start, before or after there is a process.

    It counts as started when it has printed `begins`.
    Only that process is ended, as a monitor is: what lives on has to be it, by `exec`.
    """

    script: str = "true"
    begins: str = ""
    fails: str = ""

    def start(self, spec: MachineSpec, on_spawned: OnSpawned = lambda _process: None) -> ProcessId:
        if self.fails == "before":
            raise BangerError("it does not start", reason=Reason.UNAVAILABLE)
        (spec.runtime_dir / "socket").touch()
        child = processes.spawn(["sh", "-c", self.script], spec.log, on_spawned)
        if self.fails:
            raise BangerError("it does not run", reason=Reason.MONITOR_DIED)
        found = processes.identify(child.pid)
        assert found is not None
        while self.begins and self.begins not in spec.log.read_text():
            time.sleep(0.01)
        return found


@pytest.fixture
def guest(tmp_path: Path) -> Guest:
    said: list[str] = []
    place = tmp_path / "job"
    place.mkdir()
    disks = (Disk(place / "image", read_only=True), Disk(place / "report", read_only=False))
    return Guest(
        Task.UNPACK, "unpack:x", place / "vmlinux", place / "initramfs", disks, False, place / "log", 60.0, said.append
    )


@pytest.fixture
def run(machines: Machines, guest: Guest, monkeypatch: pytest.MonkeyPatch) -> Iterator[Run]:
    resume()
    yield Run(machines, guest, monkeypatch)
    resume()


@dataclass(frozen=True)
class Run:
    machines: Machines
    guest: Guest
    monkeypatch: pytest.MonkeyPatch

    def __call__(self, shell: Shell, guest: Guest | None = None) -> None:
        self.monkeypatch.setattr(builder, "choose_monitor", lambda _settings: Choice(shell, "", 1))
        Builders(self.machines.paths, self.machines.settings, SUBNET).run(guest or self.guest)

    def assert_nothing_left(self) -> None:
        assert self.machines.records.list() == []
        for folder in (self.machines.paths.machines, self.machines.paths.runtime):
            assert not folder.exists() or list(folder.iterdir()) == []


def test_a_builder_that_is_done_is_gone_and_what_it_printed_was_told(run: Run, tmp_path: Path) -> None:
    said: list[str] = []

    def say(line: str) -> None:
        said.append(line)
        (tmp_path / line).touch()

    # What is gone before it was looked at again is told of nobody.
    script = f"for word in one two; do echo $word; until [ -e '{tmp_path}/'$word ]; do sleep 0.05; done; done"
    run(Shell(False, script=script), replace(run.guest, say=say))
    assert said == ["one", "two"]
    assert run.guest.log.read_text() == "one\ntwo\n"
    run.assert_nothing_left()


@pytest.mark.parametrize("fails", ["before", "after"])
def test_a_monitor_that_does_not_start_leaves_nothing(run: Run, fails: str) -> None:
    with pytest.raises(BangerError):
        run(Shell(False, script="exec sleep 1000", fails=fails))
    run.assert_nothing_left()


def test_a_network_that_is_refused_leaves_nothing(run: Run, monkeypatch: pytest.MonkeyPatch) -> None:
    def refuse(*_arguments: object, **_options: object) -> None:
        raise BangerError("no", reason=Reason.NO_PERMISSION)

    monkeypatch.setattr("banger.network.connect", refuse)
    monkeypatch.setattr("banger.network.disconnect", lambda *_arguments: None)
    with pytest.raises(BangerError):
        run(Shell(False), replace(run.guest, network=True))
    run.assert_nothing_left()


def test_a_guest_that_never_ends_is_ended(run: Run) -> None:
    with pytest.raises(BangerError) as ended:
        run(Shell(False, script="echo begun; exec sleep 1000", begins="begun"), replace(run.guest, timeout_s=0.5))
    assert ended.value.reason is Reason.TIMEOUT
    assert "  | begun" in ended.value.message
    run.assert_nothing_left()


def test_a_guest_that_prints_without_end_is_ended(run: Run, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(builder, "_MAX_LOG_BYTES", 1 << 20)
    with pytest.raises(BangerError) as ended:
        # Not `yes` itself, which would fill the disk of a machine where nobody comes to look for a while.
        run(Shell(False, script="yes | head -c 4000000; exec sleep 1000"))
    assert ended.value.reason is Reason.TOO_LARGE
    run.assert_nothing_left()


def test_a_host_without_room_ends_a_guest_that_would_wait_for_it(run: Run, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(builder, "_LEAST_FREE_BYTES", 1 << 62)
    with pytest.raises(BangerError) as ended:
        run(Shell(False, script="exec sleep 1000"))
    assert ended.value.reason is Reason.NO_SPACE
    run.assert_nothing_left()


def test_ctrl_c_ends_it(run: Run, machines: Machines) -> None:
    def cancel() -> None:
        while not any(machine.process for machine in machines.records.list()):
            time.sleep(0.01)
        cancel_all()

    canceller = threading.Thread(target=cancel)
    canceller.start()
    with pytest.raises(KeyboardInterrupt):
        run(Shell(False, script="exec sleep 1000"))
    canceller.join()
    run.assert_nothing_left()


def test_what_a_killed_banger_left_is_ended_by_the_next(run: Run, machines: Machines, tmp_path: Path) -> None:
    killed = processes.spawn(["sleep", "1000"], tmp_path / "banger.log")
    creator = processes.identify(killed.pid)
    assert creator is not None
    wish = Wish("build-x", "unpack:x", "", vcpus=1, memory_mib=256, disk_mib=0, nat=False)
    machine = machines.records.add(wish, SUBNET, creator)
    machines.folder(machine).mkdir(parents=True)
    (machines.paths.runtime / machine.id).mkdir(parents=True)
    monitor = processes.identify(processes.spawn(["sleep", "1000"], tmp_path / "monitor.log").pid)
    assert monitor is not None
    machine = machines.records.update(machine, process=monitor)
    lifecycle.remove_half_made(machines)
    assert machines.records.list() == [machine]
    assert machine.state is State.CREATING
    killed.kill()
    killed.wait()
    lifecycle.remove_half_made(machines)
    assert not processes.is_alive(monitor)
    run.assert_nothing_left()


def test_only_a_step_that_wants_one_has_a_network_card(machines: Machines, guest: Guest, tmp_path: Path) -> None:
    wish = Wish("build-x", "run-1:x", "", vcpus=1, memory_mib=256, disk_mib=0, nat=True)
    machine = machines.records.add(wish, SUBNET, processes.identify_self())
    alone = plan_spec(machines, machine, guest, Qemu(kvm=False), tmp_path)
    assert alone.nic is None
    assert not any("address" in word for word in alone.command_line)
    connected = plan_spec(machines, machine, replace(guest, network=True, task=Task.RUN), Qemu(kvm=False), tmp_path)
    assert connected.nic is not None
    assert connected.nic.tap == SUBNET.tap_of(machine.address)
    assert {"banger.build=run", f"banger.address={machine.address}/29"} <= set(connected.command_line)
    assert [(drive.path.name, drive.read_only) for drive in connected.drives] == [("image", True), ("report", False)]
