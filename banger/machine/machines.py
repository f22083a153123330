"""What every call about machines needs: the records, the places, the settings, and the guests' network."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

from banger.guest import ssh
from banger.machine.record import Machine, Records
from banger.network import DEFAULT_SUBNET, Subnet
from banger.paths import Paths
from banger.settings import Settings


@dataclass(frozen=True)
class Machines:
    """`subnet` is the guests' network. `on_start` is called when a machine's monitor has begun to run."""

    records: Records
    paths: Paths
    settings: Settings
    subnet: Subnet = DEFAULT_SUBNET
    on_start: Callable[[], None] = lambda: None

    def folder(self, machine: Machine) -> Path:
        return self.paths.machines / machine.id

    def runtime(self, machine: Machine) -> Path:
        """Where the sockets are: of a machine that was started, wherever they were made then."""
        return Path(machine.runtime) if machine.runtime else self.paths.runtime / machine.id

    def log(self, machine: Machine) -> Path:
        return self.folder(machine) / "console.log"

    def access(self, machine: Machine) -> ssh.Access:
        return ssh.Access(machine.name, machine.address, identity(self), self.folder(machine) / "known_hosts")


def identity(machines: Machines) -> Path:
    """The ssh key for guests; banger's own is made when it is missing."""
    return ssh.ensure_key(machines.settings.ssh_key_path, machines.paths.state / "ssh" / "id_ed25519")
