"""Builder machines on this host: booted, watched until they are off, and gone without a trace.

One has a record like any machine, which never gets beyond being made: it reserves the address, and leads whoever comes
later to what a banger that was killed has left. It has no disk of its own; its console goes where the step wants it.
"""

from __future__ import annotations

import contextlib
import secrets
import shutil
import time
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path

from banger.errors import BangerError, Reason
from banger.machine import lifecycle
from banger.machine.identity import find_nameservers
from banger.machine.machines import Machines
from banger.machine.record import Machine, Records, Wish
from banger.network import DEFAULT_SUBNET, Subnet
from banger.paths import Paths, ensure_private
from banger.run import is_cancelled, shielded
from banger.settings import Settings
from banger.sizes import format_bytes
from banger.vmm import process as processes
from banger.vmm.monitor import Choice, Monitor, choose_monitor
from banger.vmm.process import ProcessId
from banger.vmm.spec import GUEST_WORDS, Drive, MachineSpec, Nic
from pipelines.builder import Guest, find_last_line

_LOOK_S = 0.2
_MAX_LOG_BYTES = 256 << 20
# A monitor whose disk is full lets its guest wait for ever.
_LEAST_FREE_BYTES = 16 << 20


@dataclass(frozen=True)
class Builders:
    """The `Guests` of the graph. Each run has a connection to the records of its own, since steps run side by side."""

    paths: Paths
    settings: Settings
    subnet: Subnet = DEFAULT_SUBNET

    def run(self, guest: Guest) -> None:
        choice = choose_monitor(self.settings)
        with contextlib.closing(Records(self.paths.database)) as records, contextlib.ExitStack() as undo:
            machines = Machines(records, self.paths, self.settings, self.subnet)
            wish = Wish(
                name=f"build-{secrets.token_hex(4)}",
                image=guest.what,
                kernel="",
                vcpus=self.settings.vcpus,
                memory_mib=self.settings.memory_mib,
                disk_mib=0,
                nat=guest.network,
            )
            machine = records.add(wish, machines.subnet, processes.identify_self())
            undo.callback(_remove, machines, machine)
            folder = machines.folder(machine)
            ensure_private(folder.parent)
            folder.mkdir(mode=0o700)
            runtime = lifecycle.plan_runtime(self.paths.runtime, machine)
            ensure_private(runtime.parent)
            runtime.mkdir(mode=0o700)
            if guest.network:
                # Told before it is so: from now on whoever removes the machine disconnects it.
                machine = records.update(machine, runtime=str(runtime))
                lifecycle.connect(machines, machine, nat=True)
            spec = plan_spec(machines, machine, guest, choice.monitor, runtime)
            process = choice.monitor.start(spec, lambda spawned: _record(records, machine, spawned))
            _wait_off(process, guest, choice)

    def keep_output(self, lines: Iterable[str]) -> Path:
        ensure_private(self.paths.state)
        kept = self.paths.state / "build.log"
        kept.unlink(missing_ok=True)
        kept.touch(mode=0o600)
        with kept.open("w", encoding="utf-8") as file:
            file.writelines(f"{line}\n" for line in lines)
        return kept


def plan_spec(machines: Machines, machine: Machine, guest: Guest, monitor: Monitor, runtime: Path) -> MachineSpec:
    subnet = machines.subnet
    connected = (
        f"banger.address={machine.address}/{subnet.network.prefixlen}",
        f"banger.gateway={subnet.gateway}",
        *(f"banger.nameserver={server}" for server in find_nameservers()),
    )
    return MachineSpec(
        name=machine.name,
        kernel=guest.vmlinux,
        initramfs=guest.initramfs,
        command_line=(
            *monitor.kernel_words(),
            # What is printed belongs to the step, but for errors.
            "loglevel=4",
            *GUEST_WORDS,
            f"banger.build={guest.task}",
            f"banger.off={monitor.power_off_word}",
            *(connected if guest.network else ()),
        ),
        vcpus=machine.vcpus,
        memory_mib=machine.memory_mib,
        drives=tuple(Drive(f"disk{number}", disk.path, disk.read_only) for number, disk in enumerate(guest.disks)),
        nic=Nic(subnet.tap_of(machine.address), subnet.mac_of(machine.address)) if guest.network else None,
        runtime_dir=runtime,
        log=guest.log,
    )


def _wait_off(process: ProcessId, guest: Guest, choice: Choice) -> None:
    deadline = time.monotonic() + guest.timeout_s * choice.slowdown
    said = None
    while not processes.wait_gone(process, _LOOK_S):
        if is_cancelled():
            raise KeyboardInterrupt
        if time.monotonic() > deadline:
            raise BangerError(
                f"{guest.what} did not end within {guest.timeout_s * choice.slowdown:.0f} s\n"
                f"{processes.last_words(guest.log)}",
                reason=Reason.TIMEOUT,
            )
        if guest.log.stat().st_size > _MAX_LOG_BYTES:
            raise BangerError(f"{guest.what} prints more than {format_bytes(_MAX_LOG_BYTES)}", reason=Reason.TOO_LARGE)
        if shutil.disk_usage(guest.log.parent).free < _LEAST_FREE_BYTES:
            raise BangerError(
                f"no space is left in {guest.log.parent} for {guest.what}",
                reason=Reason.NO_SPACE,
                hint="free some disk space",
            )
        line = find_last_line(guest.log)
        if line is not None and line != said:
            guest.say(line)
            said = line


def _record(records: Records, machine: Machine, process: ProcessId) -> None:
    records.update(machine, process=process)


def _remove(machines: Machines, machine: Machine) -> None:
    """Also when Ctrl-C is why."""
    with shielded():
        lifecycle.delete(machines, machine)
