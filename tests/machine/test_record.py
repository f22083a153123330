"""Records reserve names and addresses, for every process of a user at once."""

from __future__ import annotations

import sqlite3
import stat
import subprocess
import sys
from dataclasses import replace
from pathlib import Path

import pytest

from banger.errors import BangerError, Reason
from banger.machine.record import Machine, Records, State, Wish
from banger.network import Subnet
from banger.vmm.process import ProcessId, identify, identify_self

_ANY = Wish(None, "image", "kernel", 1, 256, 64, nat=True)


@pytest.fixture
def records(tmp_path: Path) -> Records:
    return Records(tmp_path / "state" / "banger.db")


def test_a_record_is_read_back_as_it_was_written(records: Records, subnet: Subnet, wish: Wish) -> None:
    machine = records.add(wish, subnet, identify_self())
    assert records.list() == [machine]
    assert records.get("box") == machine
    assert machine.address == subnet.network[2]
    assert machine.state is State.CREATING
    process = ProcessId(1, 2, "boot")
    changed = records.update(machine, creator=None, process=process, monitor="qemu")
    assert records.get("box") == changed
    assert changed == replace(machine, creator=None, process=process, monitor="qemu")


def test_a_machine_runs_while_the_process_of_its_record_does(records: Records, subnet: Subnet) -> None:
    machine = records.update(records.add(_ANY, subnet, identify_self()), creator=None)
    assert machine.state is State.STOPPED
    with subprocess.Popen(["sleep", "60"]) as child:
        machine = records.update(machine, process=identify(child.pid))
        assert records.get(machine.name).state is State.RUNNING
        child.kill()
        child.wait()
        assert records.get(machine.name).state is State.STOPPED


def test_a_name_in_use_is_refused(records: Records, subnet: Subnet, wish: Wish) -> None:
    records.add(wish, subnet, identify_self())
    with pytest.raises(BangerError) as caught:
        records.add(wish, subnet, identify_self())
    assert caught.value.reason is Reason.ALREADY_EXISTS
    assert len(records.list()) == 1


def test_a_bad_name_is_refused(records: Records, subnet: Subnet, wish: Wish) -> None:
    with pytest.raises(BangerError) as caught:
        records.add(replace(wish, name="../x"), subnet, identify_self())
    assert caught.value.reason is Reason.BAD_INPUT


def test_a_full_subnet_is_told_and_has_room_again_after_a_removal(records: Records, subnet: Subnet) -> None:
    made = [records.add(_ANY, subnet, identify_self()) for _ in range(5)]
    assert len({machine.address for machine in made}) == 5
    with pytest.raises(BangerError) as caught:
        records.add(_ANY, subnet, identify_self())
    assert caught.value.reason is Reason.UNAVAILABLE
    records.remove(made[2])
    assert records.add(_ANY, subnet, identify_self()).address == made[2].address


def test_eight_processes_get_names_and_addresses_of_their_own(tmp_path: Path) -> None:
    program = """
import sys
from ipaddress import IPv4Network
from pathlib import Path
from banger.machine.record import Records, Wish
from banger.network import Subnet
from banger.vmm.process import identify_self

print("ready", flush=True)
sys.stdin.readline()
records = Records(Path(sys.argv[1]))
for _ in range(5):
    made = records.add(
        Wish(None, "i", "k", 1, 256, 64, True), Subnet("bgtest9", IPv4Network("10.213.0.0/16")), identify_self()
    )
    print(made.name, made.address, made.id, flush=True)
"""
    path = tmp_path / "state" / "banger.db"
    argv = [sys.executable, "-I", "-c", program, str(path)]
    adders = [subprocess.Popen(argv, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True) for _ in range(8)]
    for adder in adders:
        assert adder.stdout is not None
        assert adder.stdout.readline() == "ready\n"
    for adder in adders:
        assert adder.stdin is not None
        adder.stdin.write("\n")
        adder.stdin.flush()
    lines = [line for adder in adders for line in adder.communicate(timeout=60)[0].splitlines()]
    assert [adder.returncode for adder in adders] == [0] * 8
    for column in zip(*map(str.split, lines), strict=True):
        assert len(set(column)) == 40
    assert len(Records(path).list()) == 40


def test_a_machine_is_found_by_its_name_or_the_beginning_of_its_id(records: Records, subnet: Subnet) -> None:
    made = _with_ids(records, subnet, "aaaabbbb0001", "aaaabbbb0002", "ccccdddd0003")
    assert records.get("ccccdddd0003") == made[2]
    assert records.get("cccc") == made[2]
    assert records.get("aaaabbbb0002") == made[1]
    with pytest.raises(BangerError) as caught:
        records.get("aaaabbbb")
    assert caught.value.reason is Reason.BAD_INPUT
    for unknown in ("ccc", "", "dddd", "nothing"):
        with pytest.raises(BangerError) as caught:
            records.get(unknown)
        assert caught.value.reason is Reason.NOT_FOUND


def test_a_name_wins_over_the_beginning_of_another_s_id(records: Records, subnet: Subnet, wish: Wish) -> None:
    _with_ids(records, subnet, "beef00000001")
    named = records.add(replace(wish, name="beef"), subnet, identify_self())
    assert records.get("beef").id == named.id


def _with_ids(records: Records, subnet: Subnet, *ids: str) -> list[Machine]:
    """Machines whose ids are known, as if chance had given them."""
    made = []
    for id_ in ids:
        machine = replace(records.add(_ANY, subnet, identify_self()), id=id_)
        records._connection.execute("UPDATE machine SET id = ? WHERE name = ?", (id_, machine.name))
        made.append(records.update(machine))
    return made


def test_a_change_of_a_machine_that_was_deleted_meanwhile_is_told(records: Records, subnet: Subnet) -> None:
    machine = records.add(_ANY, subnet, identify_self())
    records.remove(machine)
    with pytest.raises(BangerError) as caught:
        records.update(machine, creator=None)
    assert caught.value.reason is Reason.NOT_FOUND
    assert records.list() == []


def test_the_database_is_for_its_user_only(records: Records, subnet: Subnet, tmp_path: Path) -> None:
    records.add(_ANY, subnet, identify_self())
    files = list((tmp_path / "state").iterdir())
    assert {path.name for path in files} >= {"banger.db", "banger.db-wal"}
    assert {stat.S_IMODE(path.stat().st_mode) for path in files} == {0o600}
    assert stat.S_IMODE((tmp_path / "state").stat().st_mode) == 0o700


def test_a_database_of_a_newer_banger_is_refused_and_left_alone(records: Records, tmp_path: Path) -> None:
    path = tmp_path / "state" / "banger.db"
    with sqlite3.connect(path) as connection:
        connection.execute("PRAGMA user_version=99")
    with pytest.raises(BangerError) as caught:
        Records(path)
    assert caught.value.reason is Reason.WRONG_STATE
    with sqlite3.connect(path) as connection:
        assert connection.execute("PRAGMA user_version").fetchone() == (99,)


def test_a_file_that_is_no_database_is_told_as_damage(tmp_path: Path) -> None:
    (tmp_path / "banger.db").write_bytes(b"not a database, but long enough to be read as a header" * 10)
    with pytest.raises(BangerError) as caught:
        Records(tmp_path / "banger.db")
    assert caught.value.reason is Reason.CORRUPT
