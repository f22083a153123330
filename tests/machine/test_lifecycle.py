"""What a machine held is given back, also when its folder was removed behind our back."""

from __future__ import annotations

import shutil
from collections.abc import Callable
from dataclasses import replace
from ipaddress import IPv4Address
from pathlib import Path

import pytest

from banger.errors import BangerError, Reason
from banger.machine import lifecycle
from banger.machine.machines import Machines
from banger.machine.record import Machine, Wish
from banger.network import NoRight, Subnet
from banger.vmm import process as processes
from banger.vmm.process import ProcessId

_DEAD = ProcessId(2**22 - 1, 1, "x")


@pytest.fixture
def freed(monkeypatch: pytest.MonkeyPatch) -> list[IPv4Address]:
    """The addresses whose TAP and firewall entry were given back."""
    found: list[IPv4Address] = []
    monkeypatch.setattr("banger.network.disconnect", lambda _subnet, address: found.append(address))
    return found


def _add(machines: Machines, wish: Wish, process: ProcessId, creator: ProcessId | None = None) -> Machine:
    """One that was started; it has no folder."""
    machine = machines.records.add(wish, machines.subnet, processes.identify_self())
    runtime = machines.runtime(machine)
    runtime.mkdir(parents=True)
    return machines.records.update(machine, creator=creator, process=process, runtime=str(runtime))


def _monitor(folder: Path) -> ProcessId:
    found = processes.identify(processes.spawn(["sleep", "1000"], folder / "monitor.log").pid)
    assert found is not None
    return found


def test_a_machine_without_its_folder_is_ended_and_freed_when_it_is_deleted(
    machines: Machines, wish: Wish, tmp_path: Path, freed: list[IPv4Address]
) -> None:
    monitor = _monitor(tmp_path)
    machine = _add(machines, wish, monitor)
    assert lifecycle.delete(machines, machine)
    assert not processes.is_alive(monitor)
    assert freed == [machine.address]
    assert not machines.runtime(machine).exists()
    assert machines.records.list() == []


def test_so_is_a_half_made_one(machines: Machines, wish: Wish, tmp_path: Path, freed: list[IPv4Address]) -> None:
    monitor = _monitor(tmp_path)
    machine = _add(machines, wish, monitor, creator=_DEAD)
    lifecycle.remove_half_made(machines)
    assert not processes.is_alive(monitor)
    assert freed == [machine.address]
    assert machines.records.list() == []


def test_what_is_not_to_be_deleted_after_all_is_left_alone(
    machines: Machines, wish: Wish, freed: list[IPv4Address]
) -> None:
    machine = _add(machines, wish, _DEAD)
    assert not lifecycle.delete(machines, machine, only_if=lambda _found: False)
    assert freed == []
    assert machines.records.list() == [machine]


def test_one_that_died_after_the_folder_went_has_nothing_to_free(
    machines: Machines, wish: Wish, freed: list[IPv4Address], monkeypatch: pytest.MonkeyPatch
) -> None:
    """By then the address may be another machine's."""
    machine = _add(machines, wish, _DEAD)
    machines.folder(machine).mkdir(parents=True)
    remove: Callable[[Machine], None] = machines.records.remove
    monkeypatch.setattr(machines.records, "remove", lambda _machine: None)
    lifecycle.delete(machines, machine)
    monkeypatch.setattr(machines.records, "remove", remove)
    left = machines.records.update(machine, creator=_DEAD)
    assert (left.is_half_made, machines.folder(machine).exists()) == (True, False)
    lifecycle.remove_half_made(machines)
    assert freed == [machine.address]
    assert machines.records.list() == []


def test_a_machine_without_its_folder_gives_back_what_it_held_once(
    machines: Machines, wish: Wish, freed: list[IPv4Address]
) -> None:
    machine = _add(machines, wish, _DEAD)
    assert lifecycle.reclaim(machines, machine)
    assert not machines.runtime(machine).exists()
    found = machines.records.refresh(machine)
    assert (found.process, found.runtime) == (None, "")
    assert not lifecycle.reclaim(machines, machine)
    assert freed == [machine.address]


def test_of_a_machine_that_was_deleted_meanwhile_nothing_is_given_back(
    machines: Machines, wish: Wish, freed: list[IPv4Address]
) -> None:
    machine = _add(machines, wish, _DEAD)
    machines.records.remove(machine)
    assert not lifecycle.reclaim(machines, machine)
    assert freed == []


def test_of_machines_without_folders_one_is_freed_after_the_other(
    machines: Machines, wish: Wish, monkeypatch: pytest.MonkeyPatch
) -> None:
    first, second = (_add(machines, replace(wish, name=name), _DEAD) for name in ("one", "two"))
    seen: list[bool] = []

    def disconnect(_subnet: Subnet, address: IPv4Address) -> None:
        # Whoever else comes meanwhile finds it locked.
        if address == first.address:
            seen.append(lifecycle.reclaim(machines, second))

    monkeypatch.setattr("banger.network.disconnect", disconnect)
    lifecycle.delete(machines, first)
    assert seen == [False]
    assert lifecycle.reclaim(machines, second)
    shutil.rmtree(machines.paths.machines)
    assert lifecycle.delete(machines, second)


@pytest.mark.parametrize(
    ("refusal", "is_held"),
    [(NoRight("sudo", "ask"), False), (BangerError("no forwarding", reason=Reason.NO_PERMISSION), True)],
)
def test_a_network_that_was_refused_is_not_given_back(
    machines: Machines,
    wish: Wish,
    freed: list[IPv4Address],
    monkeypatch: pytest.MonkeyPatch,
    refusal: BangerError,
    is_held: bool,
) -> None:
    """Where sudo refuses the one, it would refuse the other too, and the machine could not be deleted."""

    def refuse(_subnet: Subnet, _address: IPv4Address, *, nat: bool) -> None:
        raise refusal

    monkeypatch.setattr("banger.network.connect", refuse)
    machine = _add(machines, wish, _DEAD)
    with pytest.raises(BangerError):
        lifecycle.connect(machines, machine, nat=True)
    assert lifecycle.delete(machines, machine)
    assert freed == ([machine.address] if is_held else [])
    assert machines.records.list() == []
