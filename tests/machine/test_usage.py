"""Who uses a machine: an ssh connection that is open is seen in the guest, and its use is noted."""

from __future__ import annotations

import contextlib
from collections.abc import Iterator

import pytest

from banger.guest.sockets import Protocol, Socket, State
from banger.machine import usage
from banger.machine.machines import Machines
from banger.machine.record import Machine, Wish
from banger.vmm.process import identify_self


class Guest:
    """Its agent, which tells of these sockets."""

    def __init__(self) -> None:
        self.found: list[Socket] = []

    def sockets(self, *_protocols: Protocol) -> list[Socket]:
        return self.found

    @contextlib.contextmanager
    def talk(self, *_arguments: object) -> Iterator[Guest]:
        yield self


@pytest.fixture
def guest(monkeypatch: pytest.MonkeyPatch) -> Guest:
    made = Guest()
    monkeypatch.setattr(usage, "talk", made.talk)
    return made


@pytest.fixture
def machine(machines: Machines, wish: Wish) -> Machine:
    made = machines.records.add(wish, machines.subnet, identify_self())
    return machines.records.update(made, creator=None, used_at=1000.0)


def test_an_open_ssh_connection_is_use_and_is_noted(machines: Machines, machine: Machine, guest: Guest) -> None:
    guest.found = [Socket(Protocol.TCP, 22, State.ESTABLISHED, is_local=False)]
    assert usage.find_idle_s(machines, machine, 5000.0) == 0.0
    guest.found = []
    # It ended at some time after it was last seen.
    assert usage.find_idle_s(machines, machine, 5060.0) == 60.0


@pytest.mark.parametrize(("port", "state"), [(22, State.LISTENING), (22, State.OTHER), (80, State.ESTABLISHED)])
def test_other_sockets_are_no_use(machines: Machines, machine: Machine, guest: Guest, port: int, state: State) -> None:
    guest.found = [Socket(Protocol.TCP, port, state, is_local=False)]
    assert usage.find_idle_s(machines, machine, 1500.0) == 500.0
    assert machines.records.refresh(machine).used_at == 1000.0
