"""A console as it is shown: whole characters, nothing lost at the end, nothing that drives a terminal."""

from __future__ import annotations

import os
import pty
import subprocess
import sys
from pathlib import Path
from typing import TYPE_CHECKING

import pytest

from banger.cli.output import TerminalText
from banger.machine.console_log import rotate_log
from banger.machine.record import Machine, Records, Wish
from banger.network import DEFAULT_SUBNET
from banger.vmm.process import identify, identify_self
from tests.cli.shells import read_rest

if TYPE_CHECKING:
    from conftest import Cli

_BANGER = str(Path(sys.executable).with_name("banger"))


def _machine(cli: Cli, console: bytes) -> tuple[Records, Machine, Path]:
    state = cli.home / ".local/state/banger"
    records = Records(state / "banger.db")
    machine = records.add(Wish("box", "i", "k", 1, 256, 64, True), DEFAULT_SUBNET, identify_self())
    log = state / "vms" / machine.id / "console.log"
    log.parent.mkdir(parents=True)
    log.write_bytes(console)
    return records, records.update(machine, creator=None), log


def test_a_file_gets_the_console_as_it_is(cli: Cli) -> None:
    console = b"\xe2\x9c" + b"x" * 65533 + "✓\r\n\t\x1b[2J".encode() + b"\xff\r"
    _machine(cli, console)
    done = subprocess.run([_BANGER, "vm", "logs", "box"], env=cli.variables(), capture_output=True, timeout=60)
    assert (done.returncode, done.stdout, done.stderr) == (0, console, b"")


def test_a_terminal_gets_it_escaped(cli: Cli) -> None:
    _machine(cli, "a\tb\r\n\x1b[2J✓\r\n".encode())
    ours, theirs = pty.openpty()
    subprocess.run([_BANGER, "vm", "logs", "box"], env=cli.variables(), stdout=theirs, timeout=60, check=True)
    os.close(theirs)
    # The terminal itself makes CR LF of a line end.
    assert read_rest(ours).decode() == "a\tb\r\n\\x1b[2J✓\r\n"


_TEXTS = {
    "ü✓😀": "ü✓😀",
    "a\tb": "a\tb",
    "one\r\ntwo\r\r\n\r\n": "one\ntwo\n\n",
    "over\rwritten": "over\\rwritten",
    "end\r": "end",
    "\x1b[31m\x00\x7f\x9b": "\\x1b[31m\\x00\\x7f\\x9b",
}


@pytest.mark.parametrize("size", [1, 2, 3, 100])
@pytest.mark.parametrize("given", _TEXTS, ids=repr)
def test_text_is_the_same_however_it_is_cut_into_blocks(given: str, size: int) -> None:
    data, text = given.encode(), TerminalText()
    blocks = [data[at : at + size] for at in range(0, len(data), size)]
    assert "".join(map(text.clean, blocks)) + text.clean(b"", is_last=True) == _TEXTS[given]


def test_half_a_character_at_the_end_is_shown_as_such() -> None:
    text = TerminalText()
    assert text.clean(b"a\xe2\x9c") == "a"
    assert text.clean(b"", is_last=True) == "\ufffd"


def _follow(cli: Cli) -> subprocess.Popen[bytes]:
    return subprocess.Popen(
        [_BANGER, "vm", "logs", "-f", "box"], env=cli.variables(), stdout=subprocess.PIPE, stderr=subprocess.PIPE
    )


def _read_until(follower: subprocess.Popen[bytes], end: bytes) -> bytes:
    assert follower.stdout is not None
    said = b""
    while not said.endswith(end):
        block = os.read(follower.stdout.fileno(), 65536)
        assert block, said
        said += block
    return said


def test_a_log_is_followed_through_a_restart_until_its_machine_is_deleted(cli: Cli) -> None:
    records, machine, log = _machine(cli, b"begin\n")
    with _follow(cli) as follower:
        assert _read_until(follower, b"\n") == b"begin\n"
        for run in range(2):
            with subprocess.Popen(["sleep", "60"]) as monitor:
                records.update(machine, process=identify(monitor.pid))
                with log.open("ab") as file:
                    file.write(b"run %d\n" % run)
                assert _read_until(follower, b"\n") == b"run %d\n" % run
                monitor.kill()
            records.update(machine, process=None)
        with log.open("ab") as file:
            file.write(b"last words\n")
        records.remove(machine)
        rest, said = follower.communicate(timeout=60)
    assert (follower.returncode, rest, said) == (0, b"last words\n", b"")


def test_a_log_that_was_rotated_is_followed_on(cli: Cli) -> None:
    _, _, log = _machine(cli, b"x" * 100 + b"end of the old\n")
    with _follow(cli) as follower:
        _read_until(follower, b"old\n")
        assert rotate_log(log, max_bytes=100, kept_bytes=15)
        assert log.read_bytes() == b""
        assert log.with_name("console.log.1").read_bytes() == b"end of the old\n"
        with log.open("ab") as file:
            file.write(b"new\n")
        assert _read_until(follower, b"new\n") == b"new\n"
        follower.kill()
    done = subprocess.run([_BANGER, "vm", "logs", "box"], env=cli.variables(), capture_output=True, timeout=60)
    assert done.stdout == b"end of the old\nnew\n"


def test_a_log_within_bounds_stays_as_it_is(tmp_path: Path) -> None:
    log = tmp_path / "console.log"
    assert not rotate_log(log)
    log.write_bytes(b"x" * 100)
    assert not rotate_log(log, max_bytes=100)
    assert log.read_bytes() == b"x" * 100
