"""What a machine is made of, as a monitor sees it: one frozen description, whatever the monitor.

The order of `drives` is the order in which the guest finds them: /dev/vda, /dev/vdb, ...
"""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

# For the kernel of every guest, whatever it is for and whatever runs it.
GUEST_WORDS = (
    "net.ifnames=0",
    # Docker refuses to start containers where the kernel has AppArmor and the image lacks its programs.
    "apparmor=0",
    "selinux=0",
    # Ciphers that the distribution has tested are not tested again at each start.
    "cryptomgr.notests",
)


@dataclass(frozen=True)
class Drive:
    """A raw disk image. `id` is a short name (`[a-z0-9_]+`) that the monitor shows."""

    id: str
    path: Path
    read_only: bool


@dataclass(frozen=True)
class Nic:
    """A network card on a host TAP device that exists already."""

    tap: str
    mac: str


@dataclass(frozen=True)
class MachineSpec:
    """Everything a driver needs to start a machine.

    `kernel` is an uncompressed x86_64 ELF vmlinux. `runtime_dir` (mode 0700) is where the driver puts its sockets;
    its path is short enough for a Unix socket name (107 bytes). `log` collects the serial console and the
    monitor's own output.
    """

    name: str
    kernel: Path
    initramfs: Path
    command_line: tuple[str, ...]
    vcpus: int
    memory_mib: int
    drives: tuple[Drive, ...]
    nic: Nic | None
    runtime_dir: Path
    log: Path
