"""Machine records: what banger remembers of each machine, in one SQLite file.

A record reserves its name and its address: both are unique, and a new machine gets them in the transaction that
writes its record. Whether a machine runs is never remembered, only asked of the process that the record names.
"""

from __future__ import annotations

import json
import secrets
import time
from dataclasses import asdict, dataclass, replace
from enum import StrEnum
from ipaddress import IPv4Address
from pathlib import Path
from typing import Any

from banger.errors import BangerError, Reason
from banger.machine.database import Database
from banger.machine.name import make_up_name, parse_machine_name
from banger.network import Subnet, list_taps
from banger.vmm.process import ProcessId, is_alive


class State(StrEnum):
    CREATING = "creating"
    RUNNING = "running"
    STOPPED = "stopped"


@dataclass(frozen=True)
class Wish:
    """What a user asks for, complete: `name` None lets one be made up."""

    name: str | None
    image: str
    kernel: str
    vcpus: int
    memory_mib: int
    disk_mib: int
    nat: bool


@dataclass(frozen=True)
class Machine:
    """One machine. `creator` is the process that still makes it; `used_at` when it was last started or a session ended.

    The last start: `monitor` and its `process`, `runtime` with its sockets, and by how much it was `slowdown` slower
    than with KVM.
    """

    id: str
    name: str
    address: IPv4Address
    image: str
    kernel: str
    vcpus: int
    memory_mib: int
    disk_mib: int
    nat: bool
    created_at: float
    used_at: float = 0.0
    monitor: str = ""
    runtime: str = ""
    slowdown: int = 1
    process: ProcessId | None = None
    creator: ProcessId | None = None

    @property
    def is_half_made(self) -> bool:
        """Its creator died before it was whole, or who deleted it before it was gone."""
        return self.creator is not None and not is_alive(self.creator)

    @property
    def state(self) -> State:
        if self.creator is not None:
            return State.CREATING
        return State.RUNNING if self.process is not None and is_alive(self.process) else State.STOPPED


class Records:
    """The database; made with mode 0600 when missing. Every method is one transaction."""

    def __init__(self, path: Path) -> None:
        self._database = Database(path)

    @property
    def is_exclusive(self) -> bool:
        """No other connection can be made meanwhile: the disk is full."""
        return self._database.is_exclusive

    def close(self) -> None:
        self._database.close()

    def version(self) -> int:
        """Another number whenever another process has changed a record; costs little."""
        return self._database.version()

    def add(self, wish: Wish, subnet: Subnet, creator: ProcessId) -> Machine:
        """Reserve a name and an address. Raises ALREADY_EXISTS for a name in use, UNAVAILABLE for a full subnet."""
        name = None if wish.name is None else parse_machine_name(wish.name)
        with self._database.transaction():
            names = {name for (name,) in self._database.fetch("SELECT name FROM machine")}
            addresses = {address for (address,) in self._database.fetch("SELECT address FROM machine")}
            if name in names:
                raise name_taken(name)
            # Machines of other users of this host are in no record of ours, but their TAPs can be seen.
            addresses |= {str(address) for address in list_taps(subnet)}
            address = next((each for each in subnet.guest_addresses() if str(each) not in addresses), None)
            if address is None:
                raise BangerError(
                    f"no address is left in {subnet.network}",
                    reason=Reason.UNAVAILABLE,
                    hint="delete machines that you no longer need: banger vm list --all",
                )
            now = time.time()
            machine = Machine(
                id=secrets.token_hex(6),
                name=name or make_up_name(names),
                address=address,
                image=wish.image,
                kernel=wish.kernel,
                vcpus=wish.vcpus,
                memory_mib=wish.memory_mib,
                disk_mib=wish.disk_mib,
                nat=wish.nat,
                created_at=now,
                used_at=now,
                creator=creator,
            )
            self._database.execute(
                "INSERT INTO machine VALUES (?, ?, ?, ?)", machine.id, machine.name, str(address), _format(machine)
            )
        return machine

    def update(self, machine: Machine, **changes: Any) -> Machine:
        """Change fields of a record; gives the new one. Raises NOT_FOUND when it was deleted meanwhile."""
        with self._database.transaction():
            # Not over what `machine` was when it was read: others may have changed other fields since.
            changed = replace(self.refresh(machine), **changes)
            self._database.execute("UPDATE machine SET record = ? WHERE id = ?", _format(changed), machine.id)
        return changed

    def remove(self, machine: Machine) -> None:
        with self._database.transaction():
            self._database.execute("DELETE FROM machine WHERE id = ?", machine.id)

    def list(self) -> list[Machine]:
        """All machines, oldest first."""
        found = [_parse(text) for (text,) in self._database.fetch("SELECT record FROM machine")]
        return sorted(found, key=lambda machine: machine.created_at)

    def get(self, name: str) -> Machine:
        """By name, or by the beginning of an id that only one machine has."""
        machines = self.list()
        exact = [machine for machine in machines if machine.name == name]
        found = exact or [machine for machine in machines if len(name) >= 4 and machine.id.startswith(name)]
        if len(found) == 1:
            return found[0]
        from catalog.names import nearest

        if found:
            names = ", ".join(machine.name for machine in found)
            raise BangerError(f"{name!r} is the beginning of several ids: {names}", reason=Reason.BAD_INPUT)
        known = [machine.name for machine in machines]
        raise BangerError(
            f"there is no machine {name!r}",
            reason=Reason.NOT_FOUND,
            hint=nearest(name, known) if known else "make one: banger vm run",
        )

    def refresh(self, machine: Machine) -> Machine:
        """The record as it is now. Raises NOT_FOUND when it was deleted meanwhile."""
        rows = self._database.fetch("SELECT record FROM machine WHERE id = ?", machine.id)
        if not rows:
            raise _deleted_meanwhile(machine)
        return _parse(rows[0][0])


def name_taken(name: str | None) -> BangerError:
    return BangerError(
        f"there is a machine {name!r} already",
        reason=Reason.ALREADY_EXISTS,
        hint=f"choose another name, or: banger vm delete {name}",
    )


def _deleted_meanwhile(machine: Machine) -> BangerError:
    return BangerError(f"the machine {machine.name!r} was deleted meanwhile", reason=Reason.NOT_FOUND)


def _format(machine: Machine) -> str:
    return json.dumps({**asdict(machine), "address": str(machine.address)})


def _parse(text: str) -> Machine:
    values = json.loads(text)
    for key in ("process", "creator"):
        if values[key] is not None:
            values[key] = ProcessId(**values[key])
    return Machine(**{**values, "address": IPv4Address(values["address"])})
