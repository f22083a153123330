"""Whether anybody uses a machine, so that one that was forgotten can be stopped.

A session of banger's holds a lock for its length, which the kernel frees with the process; its end is noted in the
record. Other ssh connections are seen in the guest.
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
        try:
            machines.records.update(machine, used_at=time.time())
        except BangerError as error:
            # Deleted by its own session's end, or by somebody else.
            if error.reason is not Reason.NOT_FOUND:
                raise


def find_idle_s(machines: Machines, machine: Machine, now: float) -> float:
    """For how long nobody has used a machine that runs; 0 while somebody does, or when its guest does not say."""
    if _has_session(machines.folder(machine)) or _has_connection(machines, machine):
        return 0.0
    return max(0.0, now - machines.records.refresh(machine).used_at)


def _has_session(folder: Path) -> bool:
    fd = _open(folder)
    try:
        fcntl.flock(fd, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        return True
    finally:
        os.close(fd)
    return False


def _has_connection(machines: Machines, machine: Machine) -> bool:
    with talk(machines, machine, ANSWER_S) as guest:
        found = guest.sockets(sockets.Protocol.TCP)
    return any(each.port == _SSH_PORT and each.state is sockets.State.ESTABLISHED for each in found)


def _open(folder: Path) -> int:
    try:
        return os.open(folder / _LOCK, os.O_RDONLY | os.O_CREAT | os.O_CLOEXEC, 0o600)
    except FileNotFoundError as error:
        raise BangerError("the machine was deleted meanwhile", reason=Reason.NOT_FOUND) from error
