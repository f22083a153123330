"""What is asked of a machine from inside, through its agent."""

from __future__ import annotations

import contextlib
import re
import socket
from collections.abc import Callable, Sequence

from banger.errors import BangerError
from banger.guest import agent
from banger.machine.machines import Machines
from banger.machine.record import Machine, State
from banger.vmm.monitor import get_monitor

ANSWER_S = 3.0
_WAIT_S = 15.0


def talk(machines: Machines, machine: Machine, timeout_s: float) -> contextlib.AbstractContextManager[agent.Agent]:
    """A conversation with the agent, which waits until it is up."""
    monitor = get_monitor(machine.monitor, machines.settings)
    open_channel: Callable[[float], socket.socket] = lambda left: monitor.connect_agent(  # noqa: E731
        machines.runtime(machine), left
    )
    return agent.connect(open_channel, timeout_s, lambda: machine.state is State.RUNNING)


def read_status_file(machines: Machines, machine: Machine, path: str) -> int | None:
    """The exit status that a command left in the guest; None when it left none (or the guest is gone)."""
    try:
        with talk(machines, machine, ANSWER_S) as guest:
            text = guest.read_file(path).strip()
    except BangerError:
        return None
    return int(text) if re.fullmatch(rb"[0-9]{1,3}", text) and int(text) < 256 else None


def start_guest_program(machines: Machines, machine: Machine, path: str, arguments: Sequence[str]) -> None:
    """Start a program in the guest and leave it running."""
    with talk(machines, machine, _WAIT_S) as guest:
        guest.ask("guest-exec", path=path, arg=list(arguments))


def write_guest_file(machines: Machines, machine: Machine, path: str, content: bytes) -> None:
    with talk(machines, machine, _WAIT_S) as guest:
        guest.write_file(path, content)
