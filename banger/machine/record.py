"""Machine records: what banger remembers of each machine, in one SQLite file.

A record reserves its name and its address: both are unique, and a new machine gets them in the transaction that
writes its record. Whether a machine runs is never remembered, only asked of the process that the record names.
"""

from __future__ import annotations

import contextlib
import json
import secrets
import sqlite3
import time
from collections.abc import Iterator
from dataclasses import asdict, dataclass, replace
from enum import StrEnum
from ipaddress import IPv4Address
from pathlib import Path
from typing import Any

from banger.errors import BangerError, Reason
from banger.machine.machine_lock import locked
from banger.machine.name import make_up_name, parse_machine_name
from banger.network import Subnet, list_taps
from banger.paths import ensure_private
from banger.vmm.process import ProcessId, is_alive

_SCHEMA_VERSION = 1
_BUSY_TIMEOUT_S = 30.0
_SCHEMA = """
CREATE TABLE machine (
    id TEXT PRIMARY KEY,
    name TEXT NOT NULL UNIQUE,
    address TEXT NOT NULL UNIQUE,
    record TEXT NOT NULL
) STRICT
"""

_REASONS = {
    sqlite3.SQLITE_FULL: Reason.NO_SPACE,
    sqlite3.SQLITE_IOERR: Reason.IO,
    sqlite3.SQLITE_READONLY: Reason.NO_PERMISSION,
    sqlite3.SQLITE_CANTOPEN: Reason.NO_PERMISSION,
    sqlite3.SQLITE_PERM: Reason.NO_PERMISSION,
    sqlite3.SQLITE_BUSY: Reason.UNAVAILABLE,
    sqlite3.SQLITE_LOCKED: Reason.UNAVAILABLE,
    sqlite3.SQLITE_PROTOCOL: Reason.UNAVAILABLE,
    sqlite3.SQLITE_NOTADB: Reason.CORRUPT,
    sqlite3.SQLITE_CORRUPT: Reason.CORRUPT,
    # A table that is not there, or is there before it was made: somebody else's database.
    sqlite3.SQLITE_ERROR: Reason.CORRUPT,
}
_HINTS = {
    Reason.NO_SPACE: "free some disk space: banger vm delete NAME",
    Reason.IO: "see whether the disk is healthy",
    Reason.NO_PERMISSION: "see who owns it and its folder, and whether they are mounted read-only",
    Reason.UNAVAILABLE: "another banger is using it; try again",
    Reason.CORRUPT: "move it away to begin anew; the machines in it are then forgotten",
}


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
    """One machine. `creator` is the process that still makes it.

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
    monitor: str = ""
    runtime: str = ""
    slowdown: int = 1
    process: ProcessId | None = None
    creator: ProcessId | None = None

    @property
    def state(self) -> State:
        if self.creator is not None:
            return State.CREATING
        return State.RUNNING if self.process is not None and is_alive(self.process) else State.STOPPED


class Records:
    """The database; made with mode 0600 when missing. Every method is one transaction."""

    def __init__(self, path: Path) -> None:
        ensure_private(path.parent)
        path.touch(mode=0o600)
        self._path = path
        # SQLite waits for no one when it turns a new database to WAL ("database is locked"): one at a time here.
        with _explained(path), locked(path.parent):
            self._open()

    def _open(self) -> None:
        try:
            self._connect("PRAGMA journal_mode=WAL")
        except sqlite3.OperationalError as error:
            if error.sqlite_errorcode != sqlite3.SQLITE_IOERR_SHMSIZE:
                raise
            # A full disk has no room for the index that processes share (`-shm`, made by the first to come). Alone it
            # needs none: so machines can be seen, and deleted to make room.
            self._connection.close()
            self._connect("PRAGMA locking_mode=EXCLUSIVE")
        # What is current already is only read, which needs no room.
        version = self._connection.execute("PRAGMA user_version").fetchone()[0]
        if version == 0:
            with self._transaction():
                self._connection.execute(_SCHEMA)
                self._connection.execute(f"PRAGMA user_version={_SCHEMA_VERSION}")
        if version > _SCHEMA_VERSION:
            raise BangerError(
                f"{self._path} was written by a newer banger",
                reason=Reason.WRONG_STATE,
                hint="use that version, or move the file away to begin anew",
            )

    def _connect(self, pragma: str) -> None:
        self._connection = sqlite3.connect(
            # The last step of the graph uses it from a thread of doit's, while this one waits.
            self._path,
            timeout=_BUSY_TIMEOUT_S,
            isolation_level=None,
            check_same_thread=False,
        )
        self._connection.execute(pragma)

    def close(self) -> None:
        self._connection.close()

    def add(self, wish: Wish, subnet: Subnet, creator: ProcessId) -> Machine:
        """Reserve a name and an address. Raises ALREADY_EXISTS for a name in use, UNAVAILABLE for a full subnet."""
        name = None if wish.name is None else parse_machine_name(wish.name)
        with self._transaction():
            names = {row[0] for row in self._connection.execute("SELECT name FROM machine")}
            addresses = {row[0] for row in self._connection.execute("SELECT address FROM machine")}
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
                created_at=time.time(),
                creator=creator,
            )
            self._connection.execute(
                "INSERT INTO machine VALUES (?, ?, ?, ?)", (machine.id, machine.name, str(address), _format(machine))
            )
        return machine

    def update(self, machine: Machine, **changes: Any) -> Machine:
        """Change fields of a record; gives the new one. Raises NOT_FOUND when it was deleted meanwhile."""
        changed = replace(machine, **changes)
        with self._transaction():
            done = self._connection.execute(
                "UPDATE machine SET record = ? WHERE id = ?", (_format(changed), machine.id)
            )
        if done.rowcount != 1:
            raise _deleted_meanwhile(machine)
        return changed

    def remove(self, machine: Machine) -> None:
        with self._transaction():
            self._connection.execute("DELETE FROM machine WHERE id = ?", (machine.id,))

    def list(self) -> list[Machine]:
        """All machines, oldest first."""
        with _explained(self._path):
            found = [_parse(row[0]) for row in self._connection.execute("SELECT record FROM machine")]
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
        with _explained(self._path):
            row = self._connection.execute("SELECT record FROM machine WHERE id = ?", (machine.id,)).fetchone()
        if row is None:
            raise _deleted_meanwhile(machine)
        return _parse(row[0])

    @contextlib.contextmanager
    def _transaction(self) -> Iterator[None]:
        # IMMEDIATE: what is read in it (free names, free addresses) is still true when it is written.
        with _explained(self._path):
            self._connection.execute("BEGIN IMMEDIATE")
            try:
                yield
                self._connection.execute("COMMIT")
            finally:
                # SQLite has ended it itself after some errors; after others a COMMIT that failed leaves it open.
                if self._connection.in_transaction:
                    self._connection.execute("ROLLBACK")


@contextlib.contextmanager
def _explained(path: Path) -> Iterator[None]:
    """Turn what SQLite refuses into a BangerError; what it says of a bug of ours passes as it is."""
    try:
        yield
    except sqlite3.DatabaseError as error:
        # The low byte is the kind, the rest says more of it: https://sqlite.org/rescode.html
        code = getattr(error, "sqlite_errorcode", sqlite3.SQLITE_MISUSE)
        reason = Reason.NO_SPACE if code == sqlite3.SQLITE_IOERR_SHMSIZE else _REASONS.get(code & 0xFF)
        if reason is None:
            raise
        raise BangerError(f"{path} cannot be used: {error}", reason=reason, hint=_HINTS.get(reason, "")) from error


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
