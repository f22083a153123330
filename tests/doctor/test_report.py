"""The report as a whole: complete wherever it is asked for, for people and for programs."""

from __future__ import annotations

import json
import os
import pty
import subprocess
import sys
from pathlib import Path
from typing import TYPE_CHECKING

import pytest

if TYPE_CHECKING:
    from conftest import Lab


def test_programs_get_a_list_of_rows(lab: Lab) -> None:
    done = lab.banger("doctor", "--json")
    rows = json.loads(done.stdout)
    assert len(rows) > 30
    for row in rows:
        assert set(row) == {"check", "status", "detail", "fix"}
        assert row["status"] in ("PASS", "WARN", "FAIL")
        assert row["detail"]
        assert bool(row["fix"]) == (row["status"] != "PASS"), row
        assert "\n" not in row["detail"]


def test_people_get_a_line_for_each_and_one_for_what_to_do(lab: Lab) -> None:
    lab.configure("vmmm = 1\n")
    rows = lab.examine()
    done = lab.banger("doctor")
    assert (done.returncode, done.stderr) == (1, "")
    lines = done.stdout.splitlines()
    assert len(lines) == len(rows) + sum(1 for row in rows.values() if row[2])
    assert [line[:4] for line in lines if line[0] != " "] == [row[0] for row in rows.values()]
    assert "\x1b" not in done.stdout


def test_a_machine_without_anything_gets_a_whole_report(lab: Lab) -> None:
    everything = lab.examine()
    lab.environment["PATH"] = "/nowhere"
    lab.prepare.append(
        'for each in /usr/local/sbin /usr/sbin /sbin; do [ -L "$each" ] || mount -t tmpfs none "$each"; done'
    )
    lab.configure("= nonsense")
    bare = lab.examine()
    assert list(bare) == list(everything)
    missing = {
        "monitor",
        "setpriv",
        "mmdebstrap",
        "mkfs.erofs",
        "mke2fs",
        "nft",
        "ssh",
        "ext4",
        "erofs",
        "configuration",
    }
    assert {check for check, row in bare.items() if row[0] == "FAIL"} >= missing
    assert all(row[2] for row in bare.values() if row[0] != "PASS")


def test_nothing_is_written(lab: Lab) -> None:
    lab.examine()
    lab.banger("doctor")
    assert list(lab.home.iterdir()) == []


def test_a_host_that_has_all_is_told_with_status_zero(lab: Lab) -> None:
    rows = lab.examine()
    assert {check: row for check, row in rows.items() if row[0] == "FAIL"} == {}
    assert rows["architecture"][1].startswith("x86_64, Linux ")
    assert lab.banger("doctor").returncode == 0


def test_an_ordinary_user_without_any_rights_gets_a_whole_report(user: Lab) -> None:
    everything = list(user.examine())
    user.environment.update(HOME="/", XDG_RUNTIME_DIR="")
    user.sudoers = ""
    rows = user.examine()
    assert list(rows) == everything
    assert rows["state"] == ("FAIL", "/ may not be written to", "see who owns it: ls -ld /")
    assert rows["store"][0] == "FAIL"
    assert rows["kvm"][0] == "WARN"
    assert rows["network rights"][0] == "WARN"


@pytest.mark.parametrize(
    ("variables", "has_colour"), [({}, True), ({"NO_COLOR": "1"}, False), ({"TERM": "dumb"}, False)]
)
def test_words_are_coloured_on_a_terminal_that_wants_it(lab: Lab, variables: dict[str, str], has_colour: bool) -> None:
    ours, theirs = pty.openpty()
    environment = {**lab.variables(), "TERM": "xterm-256color", **variables}
    banger = Path(sys.executable).with_name("banger")
    with subprocess.Popen([banger, "doctor"], env=environment, stdin=theirs, stdout=theirs, stderr=theirs):
        os.close(theirs)
        said = b""
        try:
            while block := os.read(ours, 65536):
                said += block
        except OSError:
            # The other end is closed, and everything was read.
            pass
    os.close(ours)
    assert b"PASS" in said
    assert (b"\x1b" in said) == has_colour


def test_what_a_configuration_holds_reaches_no_terminal_raw(lab: Lab) -> None:
    lab.configure('vmm = "\\u001b[31mred\\n"\n')
    done = lab.banger("doctor")
    assert done.returncode == 1
    assert "\x1b" not in done.stdout
