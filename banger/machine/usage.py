"""Whether anybody uses a machine, so that one that was forgotten can be stopped.

A session of banger's holds a lock for its length, which the kernel frees with the process; its end is noted in the
record. Other ssh connections are seen in the guest, and noted by whoever sees them.
"""

from __future__ import annotations

import contextlib
import fcntl
import os
import time
from collections.abc import Iterator
from pathlib import Path

from banger.errors import BangerError, Reason
from banger.guest import sockets
from banger.machine.inside import ANSWER_S, talk
from banger.machine.machines import Machines
from banger.machine.record import Machine

_LOCK = "session.lock"
_SSH_PORT = 22


@contextlib.contextmanager
def in_session(machines: Machines, machine: Machine) -> Iterator[None]:
    """The machine is in use for the length of the block."""
    fd = _open(machines.folder(machine))
    try:
        fcntl.flock(fd, fcntl.LOCK_SH)
        yield
    finally:
        os.close(fd)
        # A note, no more: what the session came to must not be lost over it. The machine may be gone, too.
        with contextlib.suppress(BangerError):
            machines.records.update(machine, used_at=time.time())


@contextlib.contextmanager
def hold_unused(machines: Machines, machine: Machine) -> Iterator[bool]:
    """Whether it has no session of banger's now; if so, none begins before the block has ended."""
    fd = _open(machines.folder(machine))
    try:
        fcntl.flock(fd, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        yield False
    else:
        yield True
    finally:
        os.close(fd)


def find_idle_s(machines: Machines, machine: Machine, now: float) -> float:
    """For how long nobody has used a machine that runs and has no session; 0 while an ssh connection is open.

    Such a connection is noted in the record: its end will be seen by nobody.
    """
    if _has_connection(machines, machine):
        machines.records.update(machine, used_at=now)
        return 0.0
    return max(0.0, now - machines.records.refresh(machine).used_at)


def _has_connection(machines: Machines, machine: Machine) -> bool:
    with talk(machines, machine, ANSWER_S) as guest:
        found = guest.sockets(sockets.Protocol.TCP)
    return any(each.port == _SSH_PORT and each.state is sockets.State.ESTABLISHED for each in found)


def _open(folder: Path) -> int:
    try:
        return os.open(folder / _LOCK, os.O_RDONLY | os.O_CREAT | os.O_CLOEXEC, 0o600)
    except FileNotFoundError as error:
        raise BangerError("the machine was deleted meanwhile", reason=Reason.NOT_FOUND) from error
