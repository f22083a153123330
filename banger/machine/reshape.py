"""What of a machine can be changed after it was made: processors, memory, the size of its disks, its way out."""

from __future__ import annotations

import os
from dataclasses import dataclass, replace

from banger import network
from banger.errors import BangerError, Reason
from banger.machine.machine_lock import locked
from banger.machine.machines import Machines
from banger.machine.record import Machine, State
from banger.sizes import format_mib
from cache.failures import explained

_DISKS = ("system.ext4", "work.ext4")


@dataclass(frozen=True)
class Change:
    """None leaves a thing as it is."""

    vcpus: int | None = None
    memory_mib: int | None = None
    disk_mib: int | None = None
    nat: bool | None = None


def reshape(machines: Machines, machine: Machine, change: Change) -> Machine:
    """All of the change or none of it. Only `nat` can be changed while the machine runs, and counts at once.

    A disk only grows: its file here, its filesystem in the guest at the next start (`pipelines/runtime/join`), so that
    nothing a guest wrote is parsed on the host. Raises WRONG_STATE for a machine that runs, BAD_INPUT for a smaller
    disk.
    """
    with locked(machines.folder(machine)):
        machine = machines.records.refresh(machine)
        if machine.state is State.CREATING:
            raise BangerError(f"{machine.name!r} is still being made", reason=Reason.WRONG_STATE)
        if machine.state is State.RUNNING and replace(change, nat=None) != Change():
            raise BangerError(
                f"{machine.name!r} runs: processors, memory and disks are changed while it is stopped",
                reason=Reason.WRONG_STATE,
                hint=f"banger vm stop {machine.name}",
            )
        if change.disk_mib is not None:
            _grow(machines, machine, change.disk_mib)
        if change.nat is not None and machine.state is State.RUNNING:
            network.connect(machines.subnet, machine.address, nat=change.nat)
        values = {name: value for name, value in vars(change).items() if value is not None}
        return machines.records.update(machine, **values)


def _grow(machines: Machines, machine: Machine, disk_mib: int) -> None:
    if disk_mib < machine.disk_mib:
        raise BangerError(
            f"the disks of {machine.name!r} have {format_mib(machine.disk_mib)}: they can grow, not shrink",
            reason=Reason.BAD_INPUT,
        )
    folder = machines.folder(machine)
    with explained("grow a disk", folder):
        for name in _DISKS:
            # Done twice after a failure half-way: a file that is as long already stays as it is.
            if (folder / name).stat().st_size < disk_mib << 20:
                os.truncate(folder / name, disk_mib << 20)
