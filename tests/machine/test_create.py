"""A machine is made whole, or nothing of it is left: each step fails in turn."""

from __future__ import annotations

import os
import stat
import subprocess
from dataclasses import replace
from pathlib import Path

import pytest

from banger.errors import BangerError, Reason
from banger.machine import lifecycle
from banger.machine.lifecycle import ARTIFACTS, create, plan_spec, start
from banger.machine.machines import Machines
from banger.machine.record import State, Wish
from banger.settings import parse_settings
from banger.vmm.process import ProcessId
from banger.vmm.qemu import Qemu
from cache import Digest, Object, Store


def test_a_new_machine_has_its_links_its_disks_and_its_key(
    machines: Machines, wish: Wish, store: Store, artifacts: dict[str, Object]
) -> None:
    machine = create(machines, wish, store, artifacts, None)
    assert machines.records.get("box") == machine
    assert machine.state is State.STOPPED
    folder = machines.folder(machine)
    assert {path.name for path in folder.iterdir()} == {*ARTIFACTS, "known_hosts", "system.ext4", "work.ext4"}
    assert stat.S_IMODE(folder.stat().st_mode) == 0o700
    for role in ARTIFACTS:
        assert (folder / role).samefile(store.path(artifacts[role]))
    for disk in ("system", "work"):
        assert (folder / f"{disk}.ext4").stat().st_size == 64 << 20
    authorized = subprocess.run(
        ["/usr/sbin/debugfs", "-R", "cat .ssh/authorized_keys", folder / "work.ext4"], capture_output=True, check=True
    )
    assert authorized.stdout.decode().strip() == lifecycle.ssh.read_public_key(lifecycle.identity(machines))
    public = subprocess.run(
        ["/usr/sbin/debugfs", "-R", "cat upper/etc/ssh/ssh_host_ed25519_key.pub", folder / "system.ext4"],
        capture_output=True,
        check=True,
    )
    assert (folder / "known_hosts").read_text() == f"box {public.stdout.decode()}"


def _left(machines: Machines) -> list[object]:
    folders = list(machines.paths.machines.iterdir()) if machines.paths.machines.exists() else []
    return [*machines.records.list(), *folders]


@pytest.mark.parametrize("role", ARTIFACTS)
def test_a_missing_artifact_leaves_nothing(
    machines: Machines, wish: Wish, store: Store, artifacts: dict[str, Object], role: str
) -> None:
    with pytest.raises(BangerError) as caught:
        create(machines, wish, store, {**artifacts, role: Object(Digest("0" * 64), 1)}, None)
    assert caught.value.reason is Reason.NOT_FOUND
    assert _left(machines) == []


def test_a_missing_ssh_key_leaves_nothing(
    machines: Machines, wish: Wish, store: Store, artifacts: dict[str, Object]
) -> None:
    settings = parse_settings({"ssh_key_path": "/nowhere/id"})
    with pytest.raises(BangerError) as caught:
        create(replace(machines, settings=settings), wish, store, artifacts, None)
    assert caught.value.reason is Reason.NOT_FOUND
    assert _left(machines) == []


@pytest.mark.parametrize("program", ["ssh-keygen", "mke2fs"])
def test_a_program_that_fails_leaves_nothing(
    machines: Machines,
    wish: Wish,
    store: Store,
    artifacts: dict[str, Object],
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    program: str,
) -> None:
    (tmp_path / "bin").mkdir()
    (tmp_path / "bin" / program).symlink_to("/bin/false")
    monkeypatch.setenv("PATH", f"{tmp_path / 'bin'}:{os.environ['PATH']}")
    with pytest.raises(BangerError) as caught:
        create(machines, wish, store, artifacts, None)
    assert caught.value.reason is Reason.COMMAND_FAILED
    assert _left(machines) == []


def test_the_second_disk_that_fails_takes_the_first_with_it(
    machines: Machines, wish: Wish, store: Store, artifacts: dict[str, Object]
) -> None:
    damaged = {**artifacts, "home": store.put_bytes(b"not a tar" * 100)}
    with pytest.raises(Exception, match="the image's /root cannot be used"):
        create(machines, wish, store, damaged, None)
    assert _left(machines) == []


def test_a_name_in_use_leaves_the_one_who_has_it_alone(
    machines: Machines, wish: Wish, store: Store, artifacts: dict[str, Object]
) -> None:
    machine = create(machines, wish, store, artifacts, None)
    before = sorted(machines.folder(machine).iterdir())
    with pytest.raises(BangerError) as caught:
        create(machines, wish, store, artifacts, None)
    assert caught.value.reason is Reason.ALREADY_EXISTS
    assert machines.records.list() == [machine]
    assert sorted(machines.folder(machine).iterdir()) == before


def test_two_machines_share_nothing_but_their_artifacts(
    machines: Machines, wish: Wish, store: Store, artifacts: dict[str, Object]
) -> None:
    first = create(machines, wish, store, artifacts, None)
    second = create(machines, replace(wish, name="other"), store, artifacts, None)
    assert first.address != second.address
    hosts = [(machines.folder(each) / "known_hosts").read_text().split()[1:] for each in (first, second)]
    assert hosts[0] != hosts[1]


def test_a_machine_that_is_still_being_made_is_not_started(machines: Machines, wish: Wish) -> None:
    machine = machines.records.add(wish, machines.subnet, lifecycle.processes.identify_self())
    machines.folder(machine).mkdir(parents=True)
    with pytest.raises(BangerError) as caught:
        start(machines, machine)
    assert caught.value.reason is Reason.WRONG_STATE


def test_what_a_creator_that_died_has_left_is_found_and_what_a_living_one_makes_is_not(
    machines: Machines, wish: Wish
) -> None:
    living = machines.records.add(wish, machines.subnet, lifecycle.processes.identify_self())
    dead = machines.records.add(replace(wish, name="dead"), machines.subnet, ProcessId(2**22 - 1, 1, "x"))
    machines.folder(dead).mkdir(parents=True)
    lifecycle.remove_half_made(machines)
    assert machines.records.list() == [living]
    assert not machines.folder(dead).exists()


def test_the_monitor_is_told_the_drives_in_the_order_that_the_guest_expects(
    machines: Machines, wish: Wish, store: Store, artifacts: dict[str, Object]
) -> None:
    machine = create(machines, wish, store, artifacts, None)
    spec = plan_spec(machines, machine, Qemu(kvm=False))
    assert [(drive.id, drive.read_only) for drive in spec.drives] == [
        ("rootfs", True),
        ("modules", True),
        ("system", False),
        ("work", False),
    ]
    assert all(drive.path.exists() for drive in spec.drives)
    assert f"banger.address={machine.address}/29" in spec.command_line
    assert f"banger.gateway={machines.subnet.gateway}" in spec.command_line
    assert not any(" " in word for word in spec.command_line)
