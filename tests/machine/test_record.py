"""Records reserve names and addresses, for every process of a user at once."""

from __future__ import annotations

import os
import sqlite3
import stat
import subprocess
import sys
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import pytest

from banger.errors import BangerError, Reason
from banger.machine import database
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
        change = "UPDATE machine SET id = ?1, record = json_set(record, '$.id', ?1) WHERE name = ?2"
        records._database.execute(change, id_, machine.name)
        made.append(records.refresh(machine))
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


def _refused(action: Callable[[], object], reason: Reason) -> None:
    with pytest.raises(BangerError) as caught:
        action()
    assert caught.value.reason is reason


@pytest.mark.parametrize(
    ("code", "reason"),
    [
        (sqlite3.SQLITE_FULL, Reason.NO_SPACE),
        (sqlite3.SQLITE_IOERR_SHMSIZE, Reason.NO_SPACE),
        (sqlite3.SQLITE_IOERR_FSYNC, Reason.IO),
        (sqlite3.SQLITE_READONLY_DIRECTORY, Reason.NO_PERMISSION),
        (sqlite3.SQLITE_CANTOPEN, Reason.NO_PERMISSION),
        (sqlite3.SQLITE_BUSY_SNAPSHOT, Reason.UNAVAILABLE),
        (sqlite3.SQLITE_LOCKED, Reason.UNAVAILABLE),
        (sqlite3.SQLITE_CORRUPT_VTAB, Reason.CORRUPT),
    ],
)
def test_what_sqlite_refuses_has_a_reason(tmp_path: Path, code: int, reason: Reason) -> None:
    error = sqlite3.OperationalError("what it says")
    error.sqlite_errorcode = code

    def fail() -> None:
        with database.explained(tmp_path):
            raise error

    _refused(fail, reason)


def test_a_bug_of_ours_passes_as_it_is(records: Records) -> None:
    records.close()
    with pytest.raises(sqlite3.ProgrammingError):
        records.list()


def test_a_full_disk_is_told_as_such_and_the_records_go_on(records: Records, subnet: Subnet) -> None:
    machine = records.add(_ANY, subnet, identify_self())
    pages = records._database._connection.execute("PRAGMA page_count").fetchone()[0]
    records._database._connection.execute(f"PRAGMA max_page_count={pages}")
    _refused(lambda: records.update(machine, monitor="x" * 100_000), Reason.NO_SPACE)
    assert records.list() == [machine]
    records.remove(machine)
    assert records.list() == []


def test_a_file_that_may_not_be_written_is_told_by_every_change(records: Records, subnet: Subnet) -> None:
    machine = records.add(_ANY, subnet, identify_self())
    records._database._connection.execute("PRAGMA query_only=1")
    for change in (
        lambda: records.add(_ANY, subnet, identify_self()),
        lambda: records.update(machine, monitor="x"),
        lambda: records.remove(machine),
    ):
        _refused(change, Reason.NO_PERMISSION)
    assert records.list() == [machine]


def test_a_database_in_use_for_too_long_is_told(records: Records, subnet: Subnet, tmp_path: Path) -> None:
    machine = records.add(_ANY, subnet, identify_self())
    records._database._connection.execute("PRAGMA busy_timeout=20")
    other = sqlite3.connect(tmp_path / "state" / "banger.db", isolation_level=None)
    other.execute("BEGIN IMMEDIATE")
    _refused(lambda: records.remove(machine), Reason.UNAVAILABLE)
    # Who only opens and reads waits for no writer.
    assert Records(tmp_path / "state" / "banger.db").list() == [machine]
    other.execute("ROLLBACK")
    records.remove(machine)
    other.close()


def test_damage_that_is_found_when_reading_is_told(records: Records, subnet: Subnet, tmp_path: Path) -> None:
    records.add(_ANY, subnet, identify_self())
    records.close()
    path = tmp_path / "state" / "banger.db"
    with path.open("r+b") as database:
        database.seek(4096)
        database.write(b"\xff" * (path.stat().st_size - 4096))
    damaged = Records(path)
    _refused(damaged.list, Reason.CORRUPT)


def test_a_database_of_another_program_is_told_as_damage(tmp_path: Path) -> None:
    with sqlite3.connect(tmp_path / "banger.db") as connection:
        connection.execute("PRAGMA user_version=1")
    _refused(lambda: Records(tmp_path / "banger.db"), Reason.CORRUPT)


def test_a_commit_that_failed_is_rolled_back(records: Records, subnet: Subnet) -> None:
    """A foreign key that is looked at in the end makes COMMIT fail and leaves the transaction open."""
    machine = records.add(_ANY, subnet, identify_self())
    records._database._connection.executescript(
        """
        PRAGMA foreign_keys=ON;
        CREATE TABLE other (id REFERENCES machine (id) DEFERRABLE INITIALLY DEFERRED);
        CREATE TRIGGER break AFTER DELETE ON machine BEGIN INSERT INTO other VALUES ('nobody'); END;
        """
    )
    with pytest.raises(sqlite3.IntegrityError):
        records.remove(machine)
    records._database._connection.execute("DROP TRIGGER break")
    assert records.list() == [machine]
    records.remove(machine)


_FULL = """
import sys
from ipaddress import IPv4Network
from pathlib import Path
from banger.errors import BangerError
from banger.machine.record import Records, Wish
from banger.network import Subnet
from banger.vmm.process import identify_self

path = Path(sys.argv[1]) / "state" / "banger.db"
wish = Wish(None, "i", "k", 1, 256, 64, True)
subnet = Subnet("bgtest9", IPv4Network("10.213.0.0/16"))
records = Records(path)
machine = records.add(wish, subnet, identify_self())
records.close()
disk = Path(sys.argv[1]) / "disk"
with disk.open("wb", buffering=0) as fill:
    try:
        while True:
            fill.write(bytes(4096))
    except OSError:
        pass
records = Records(path)
assert records.list() == [machine]
assert records.refresh(machine) == machine
try:
    records.add(wish, subnet, identify_self())
except BangerError as error:
    assert error.reason == "no-space", error
else:
    raise AssertionError("there was space")
disk.unlink()
records.remove(machine)
assert records.list() == []
print("done")
"""


@pytest.mark.skipif(os.geteuid() != 0, reason="mounting needs root")
def test_on_a_full_disk_machines_are_seen_and_can_be_forgotten_once_their_files_are(tmp_path: Path) -> None:
    mount = 'mount -t tmpfs -o size=256k tmpfs "$1"; shift; exec "$@"'
    argv = ["unshare", "-m", "sh", "-ec", mount, "sh", tmp_path, sys.executable, "-I", "-c", _FULL, tmp_path]
    done = subprocess.run(argv, capture_output=True, text=True, timeout=60)
    assert (done.returncode, done.stdout) == (0, "done\n"), done.stderr


def test_a_database_of_the_first_banger_is_brought_up_to_date(tmp_path: Path, subnet: Subnet, wish: Wish) -> None:
    path = tmp_path / "state" / "banger.db"
    machine = Records(path).add(wish, subnet, identify_self())
    with sqlite3.connect(path) as connection:
        connection.execute("UPDATE machine SET record = json_remove(record, '$.used_at')")
        connection.execute("PRAGMA user_version=1")
    (found,) = Records(path).list()
    assert found.used_at == pytest.approx(machine.created_at)
    assert replace(found, used_at=0, created_at=0) == replace(machine, used_at=0, created_at=0)


def test_a_change_leaves_what_others_changed_meanwhile(records: Records, subnet: Subnet, wish: Wish) -> None:
    machine = records.add(wish, subnet, identify_self())
    records.update(machine, vcpus=7)
    assert records.update(machine, used_at=5.0).vcpus == 7
    assert (records.refresh(machine).vcpus, records.refresh(machine).used_at) == (7, 5.0)


def test_a_change_by_another_process_can_be_told_cheaply(records: Records, subnet: Subnet, wish: Wish) -> None:
    other = Records(records._database.path)
    before = records.version()
    assert records.version() == before
    other.add(wish, subnet, identify_self())
    assert records.version() != before
