"""What a machine uses of its host, as the host sees it; a guest is asked nothing.

proc_pid_stat(5) and proc_pid_statm(5) for the monitor's process, sysfs for its TAP, stat(2) for its disks.
"""

from __future__ import annotations

import os
import time
from dataclasses import dataclass
from pathlib import Path

from banger.machine.machines import Machines
from banger.machine.record import Machine, State

_TICKS_PER_S = os.sysconf("SC_CLK_TCK")
_PAGE_BYTES = os.sysconf("SC_PAGE_SIZE")
_DISKS = ("system.ext4", "work.ext4")


@dataclass(frozen=True)
class Sample:
    """What was counted until `at` (of the monotonic clock). `sent` and `received` are the guest's."""

    at: float
    cpu_s: float
    memory_bytes: int
    received_bytes: int
    sent_bytes: int


@dataclass(frozen=True)
class Stats:
    """`cpu_percent` is of one processor; `disk_bytes` is what the disks take on the host, `disk_size_bytes` their size.

    Of a machine that does not run, all but the disks is zero.
    """

    name: str
    state: State
    cpu_percent: float
    vcpus: int
    memory_bytes: int
    memory_size_bytes: int
    disk_bytes: int
    disk_size_bytes: int
    received_bytes: int
    sent_bytes: int


def take_sample(machines: Machines, machine: Machine) -> Sample | None:
    """None for a machine that does not run."""
    if machine.process is None or machine.state is not State.RUNNING:
        return None
    folder = Path(f"/proc/{machine.process.pid}")
    try:
        # The name in parentheses may hold anything: fields are counted after the last one.
        fields = (folder / "stat").read_text("utf-8", "replace").rpartition(")")[2].split()
        resident_pages = int((folder / "statm").read_text().split()[1])
    except (FileNotFoundError, ProcessLookupError):
        return None
    counters = Path("/sys/class/net") / machines.subnet.tap_of(machine.address) / "statistics"
    return Sample(
        at=time.monotonic(),
        cpu_s=(int(fields[11]) + int(fields[12])) / _TICKS_PER_S,
        memory_bytes=resident_pages * _PAGE_BYTES,
        # What the host sends to a TAP, the guest receives.
        received_bytes=_read_counter(counters / "tx_bytes"),
        sent_bytes=_read_counter(counters / "rx_bytes"),
    )


def make_stats(machines: Machines, machine: Machine, before: Sample | None, now: Sample | None) -> Stats:
    """From two samples of the same run, some time apart; with one there is no rate yet."""
    cpu = 0.0
    if before is not None and now is not None and now.at > before.at and now.cpu_s >= before.cpu_s:
        cpu = 100 * (now.cpu_s - before.cpu_s) / (now.at - before.at)
    sizes = [path.stat() for name in _DISKS if (path := machines.folder(machine) / name).exists()]
    return Stats(
        name=machine.name,
        state=machine.state,
        cpu_percent=round(cpu, 1),
        vcpus=machine.vcpus,
        memory_bytes=now.memory_bytes if now else 0,
        memory_size_bytes=machine.memory_mib << 20,
        disk_bytes=sum(each.st_blocks * 512 for each in sizes),
        disk_size_bytes=sum(each.st_size for each in sizes),
        received_bytes=now.received_bytes if now else 0,
        sent_bytes=now.sent_bytes if now else 0,
    )


def _read_counter(path: Path) -> int:
    try:
        return int(path.read_text())
    except OSError:
        return 0
