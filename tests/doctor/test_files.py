"""The user's folders, database and configuration: where they are of no use, and how much room there is."""

from __future__ import annotations

import os
import sqlite3
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING

import pytest

from banger.machine.record import Records, Wish
from banger.network import DEFAULT_SUBNET
from banger.vmm.process import identify_self
from cache import Store
from tests.ordinary_user import UID

if TYPE_CHECKING:
    from conftest import Lab


@pytest.mark.parametrize(
    ("text", "told"),
    [
        ("vmmm = 1\n", "line 1: vmmm is not a known key"),
        ("\n\n[vm_defaults]\nvcpu = 0\n", "line 4: vm_defaults.vcpu must be a whole number"),
        ("= nonsense\n", "this is not valid TOML"),
    ],
)
def test_a_configuration_that_is_refused_is_told_and_the_rest_is_looked_at(lab: Lab, text: str, told: str) -> None:
    lab.configure(text)
    rows = lab.examine()
    status, detail, fix = rows["configuration"]
    assert status == "FAIL"
    assert told in detail
    assert fix
    assert rows["vm defaults"][0] == "PASS"


def test_a_variable_that_is_refused_is_told(lab: Lab) -> None:
    lab.environment["BANGER_VM_DEFAULTS_VCPU"] = "none"
    status, detail, _ = lab.examine()["configuration"]
    assert status == "FAIL"
    assert "BANGER_VM_DEFAULTS_VCPU" in detail


def test_a_good_configuration_is_named(lab: Lab) -> None:
    lab.configure('vmm = "qemu"\n')
    assert lab.examine()["configuration"][1] == str(lab.paths.config / "config.toml")


@pytest.mark.parametrize(("check", "variable"), [("state", "XDG_STATE_HOME"), ("runtime", "XDG_RUNTIME_DIR")])
def test_a_folder_that_somebody_else_may_have_put_there_is_refused(lab: Lab, check: str, variable: str) -> None:
    folder = lab.paths.state if check == "state" else lab.paths.runtime
    folder.parent.mkdir(parents=True)
    folder.symlink_to("/tmp")
    status, detail, fix = lab.examine()[check]
    assert (status, detail) == ("FAIL", f"{folder} is not a folder of yours")
    assert variable in fix
    folder.unlink()
    folder.mkdir()
    assert lab.examine()[check][0] == "PASS"
    os.chown(folder, UID, UID)
    assert lab.examine()[check][0] == "FAIL"
    folder.rmdir()
    folder.write_text("")
    assert lab.examine()[check][0] == "FAIL"


def test_folders_that_cannot_be_written_to_fail(lab: Lab) -> None:
    for folder in (".local/state", ".cache", "run"):
        (lab.home / folder).mkdir(parents=True)
    lab.prepare += [f"mount --bind {lab.home} {lab.home}", f"mount -o remount,bind,ro {lab.home}"]
    rows = lab.examine()
    for check, folder in (("state", ".local/state"), ("store", ".cache"), ("runtime", "run")):
        status, detail, fix = rows[check]
        assert (status, detail) == ("FAIL", f"{lab.home / folder} may not be written to")
        assert fix == f"see who owns it: ls -ld {lab.home / folder}"


@pytest.mark.parametrize(("version", "told"), [("99", "format 99"), ("x", "unreadable format")])
def test_a_store_that_this_banger_cannot_use_fails(lab: Lab, version: str, told: str) -> None:
    store = Store.open(lab.paths.store)
    assert lab.examine()["store"][:2] == ("PASS", str(store.root))
    (store.root / "version").write_text(version)
    status, detail, fix = lab.examine()["store"]
    assert status == "FAIL"
    assert told in detail
    assert fix


def test_a_disk_that_is_nearly_full_is_told(lab: Lab) -> None:
    lab.prepare.append(f"mount -t tmpfs -o size=1g none {lab.home}")
    status, detail, fix = lab.examine()["space"]
    assert status == "WARN"
    assert str(lab.home) in detail
    assert "banger cache du" in fix


def test_of_two_filesystems_the_fuller_one_counts(lab: Lab) -> None:
    (lab.home / "cache").mkdir()
    lab.environment["XDG_CACHE_HOME"] = str(lab.home / "cache")
    lab.prepare.append(f"mount -t tmpfs -o size=1g none {lab.home}/cache")
    rows = lab.examine()
    assert rows["space"][0] == "WARN"
    status, _, fix = rows["hard links"]
    assert status == "WARN"
    assert "XDG_CACHE_HOME" in fix


def test_machines_are_counted(lab: Lab) -> None:
    assert lab.examine()["database"][1] == "0 machines, 0 of them run"
    _make_machines(lab)
    assert lab.examine()["database"][:2] == ("PASS", "3 machines, 1 of them run")


def _make_machines(lab: Lab) -> Path:
    records = Records(lab.paths.database)
    for number in range(3):
        wish = replace(Wish("", "image", "kernel", 1, 256, 64, nat=True), name=f"box-{number}")
        machine = records.add(wish, DEFAULT_SUBNET, identify_self())
        records.update(machine, creator=None, process=None if number else identify_self())
    records.close()
    return lab.paths.database


def test_a_database_of_a_newer_banger_fails(lab: Lab) -> None:
    path = _make_machines(lab)
    with sqlite3.connect(path) as connection:
        connection.execute("PRAGMA user_version=99")
    status, detail, fix = lab.examine()["database"]
    assert (status, detail) == ("FAIL", f"{path} was written by a newer banger")
    assert fix


def test_a_database_that_is_none_fails(lab: Lab) -> None:
    lab.paths.state.mkdir(parents=True)
    lab.paths.database.write_bytes(b"no database, but long enough to be looked at" * 20)
    status, detail, fix = lab.examine()["database"]
    assert status == "FAIL"
    assert str(lab.paths.database) in detail
    assert "move it away" in fix


def test_a_database_that_another_has_for_itself_is_not_waited_for(lab: Lab) -> None:
    other = sqlite3.connect(_make_machines(lab), isolation_level=None)
    other.execute("PRAGMA locking_mode=EXCLUSIVE")
    other.execute("BEGIN EXCLUSIVE")
    status, _, fix = lab.examine()["database"]
    assert status == "WARN"
    assert "try again" in fix
    other.close()
    assert lab.examine()["database"][0] == "PASS"
