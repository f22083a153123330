"""Which monitor runs a machine, and why.

Firecracker where KVM works; else QEMU, with KVM when only Firecracker is missing, under software emulation when KVM
is not usable.
"""

from __future__ import annotations

import os
import socket
from dataclasses import dataclass
from pathlib import Path
from typing import Protocol

from banger.errors import BangerError, Reason
from banger.run import find_program
from banger.settings import KvmChoice, Settings, VmmChoice
from banger.vmm.firecracker import Firecracker
from banger.vmm.process import OnSpawned, ProcessId
from banger.vmm.qemu import Qemu
from banger.vmm.spec import MachineSpec

_EMULATION_SLOWDOWN = 4


class Monitor(Protocol):
    """What both drivers can do. `power_off_word` is how a guest must go down for the process to end."""

    @property
    def name(self) -> str: ...
    @property
    def label(self) -> str: ...
    @property
    def power_off_word(self) -> str: ...
    @property
    def agent_channel(self) -> str: ...
    def kernel_words(self) -> tuple[str, ...]: ...
    def start(self, spec: MachineSpec, on_spawned: OnSpawned) -> ProcessId: ...
    def connect_agent(self, runtime_dir: Path, timeout_s: float) -> socket.socket: ...
    def press_power_button(self, runtime_dir: Path) -> None: ...


@dataclass(frozen=True)
class Choice:
    """`why` is one line for people; empty when the configuration left nothing to choose."""

    monitor: Monitor
    why: str
    slowdown: int


def choose_monitor(settings: Settings) -> Choice:
    """By the configuration and what this host has. Raises `BangerError` when a wanted monitor cannot run."""
    kvm_trouble = find_kvm_trouble(settings.kvm)
    firecracker = find_program(settings.firecracker_bin)
    if settings.vmm is VmmChoice.FIRECRACKER or (settings.vmm is VmmChoice.AUTO and firecracker and not kvm_trouble):
        if kvm_trouble:
            raise BangerError(
                f"Firecracker needs KVM: {kvm_trouble}", reason=Reason.UNAVAILABLE, hint='vmm = "qemu" works without'
            )
        if firecracker is None:
            raise BangerError(
                f"the program {settings.firecracker_bin!r} is missing",
                reason=Reason.MISSING_PROGRAM,
                hint='install Firecracker, set firecracker_bin, or set vmm = "qemu"',
            )
        why = "" if settings.vmm is VmmChoice.FIRECRACKER else "Firecracker: it is installed, and KVM works"
        return Choice(Firecracker(firecracker), why, 1)
    if find_program("qemu-system-x86_64") is None:
        raise BangerError(
            "neither Firecracker nor QEMU is installed" if not firecracker else "QEMU is not installed",
            reason=Reason.MISSING_PROGRAM,
            hint="install it: sudo apt-get install qemu-system-x86",
        )
    if kvm_trouble:
        return Choice(Qemu(kvm=False), f"QEMU under software emulation: {kvm_trouble}", _EMULATION_SLOWDOWN)
    why = "" if settings.vmm is VmmChoice.QEMU else "QEMU with KVM: Firecracker is not installed"
    return Choice(Qemu(kvm=True), why, 1)


def get_monitor(name: str, settings: Settings) -> Monitor:
    """The driver of a machine that runs already; it only needs to find the machine's sockets."""
    if name == Firecracker.name:
        return Firecracker(settings.firecracker_bin)
    return Qemu(kvm=False)


def find_kvm_trouble(choice: KvmChoice, device: Path = Path("/dev/kvm"), cpuinfo: Path = Path("/proc/cpuinfo")) -> str:
    """Why KVM cannot be used; empty when it can.

    A device that opens is not enough: a nested KVM without hardware virtualisation opens, but runs no stock kernel.
    """
    if choice is KvmChoice.OFF:
        return 'kvm = "off" in the configuration'
    try:
        os.close(os.open(device, os.O_RDWR | os.O_CLOEXEC))
    except FileNotFoundError:
        return f"there is no {device}"
    except PermissionError:
        return f"{device} may not be opened by you (sudo usermod -aG kvm $USER, then log in again)"
    except OSError as error:
        return f"{device} does not open: {error.strerror}"
    if choice is KvmChoice.FORCE:
        return ""
    flags: set[str] = set()
    for line in cpuinfo.read_text().splitlines():
        if line.startswith("flags"):
            flags.update(line.partition(":")[2].split())
            break
    return "" if flags & {"vmx", "svm"} else "the processor offers no hardware virtualisation (vmx or svm)"
