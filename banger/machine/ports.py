"""What a machine listens on, as its guest tells."""

from __future__ import annotations

from dataclasses import dataclass

from banger.guest.sockets import Protocol, State
from banger.machine.inside import ANSWER_S, talk
from banger.machine.machines import Machines
from banger.machine.record import Machine
from banger.machine.session import refuse_stopped


@dataclass(frozen=True, order=True)
class Port:
    """`is_local`: only the guest itself can reach it."""

    number: int
    protocol: Protocol
    is_local: bool


def list_ports(machines: Machines, machine: Machine) -> list[Port]:
    """Each port once, lowest first; one that is open to the host also hides that it is open locally."""
    refuse_stopped(machine)
    with talk(machines, machine, ANSWER_S * machine.slowdown) as guest:
        found = [each for each in guest.sockets(*Protocol) if each.state is State.LISTENING]
    ports: dict[tuple[int, Protocol], bool] = {}
    for each in found:
        at = (each.port, each.protocol)
        ports[at] = each.is_local and ports.get(at, True)
    return sorted(Port(number, protocol, is_local) for (number, protocol), is_local in ports.items())
