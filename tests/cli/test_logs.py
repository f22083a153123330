"""A console as it is shown: whole characters, nothing lost at the end, nothing that drives a terminal."""

from __future__ import annotations

import os
import pty
import subprocess
import sys
import threading
import time
from pathlib import Path
from typing import TYPE_CHECKING

import pytest

from banger.cli.output import TerminalText
from banger.machine.record import Machine, Records, State, Wish
from banger.network import DEFAULT_SUBNET
from banger.vmm.process import identify, identify_self

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
    said = os.read(ours, 65536)
    os.close(ours)
    # The terminal itself makes CR LF of a line end.
    assert said.decode() == "a\tb\r\n\\x1b[2J✓\r\n"


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


def test_last_words_before_the_end_are_followed(
    cli: Cli, monkeypatch: pytest.MonkeyPatch, capfdbinary: pytest.CaptureFixture[bytes]
) -> None:
    """A panic is written between the last read and the end of the monitor."""
    from click.testing import CliRunner

    from banger.cli.vm import vm

    _, _, log = _machine(cli, b"begin\n")
    for name, value in cli.variables().items():
        monkeypatch.setenv(name, value)
    states = iter([State.RUNNING, State.RUNNING, State.STOPPED])

    def look(_: Machine) -> State:
        state = next(states)
        if state is State.STOPPED:
            with log.open("ab") as file:
                file.write(b"panic\n")
        return state

    monkeypatch.setattr(Machine, "state", property(look))
    done = CliRunner().invoke(vm, ["logs", "-f", "box"])
    assert done.stdout_bytes == b"begin\npanic\n"


def test_a_log_is_followed_until_its_machine_ends(cli: Cli) -> None:
    records, machine, log = _machine(cli, b"begin\n")
    with subprocess.Popen(["sleep", "60"]) as monitor:
        records.update(machine, process=identify(monitor.pid))

        def end() -> None:
            time.sleep(1.0)
            with log.open("ab") as file:
                file.write(b"end\n")
            monitor.kill()
            monitor.wait()

        thread = threading.Thread(target=end)
        thread.start()
        argv = [_BANGER, "vm", "logs", "-f", "box"]
        done = subprocess.run(argv, env=cli.variables(), capture_output=True, timeout=60)
        thread.join()
    assert (done.returncode, done.stdout) == (0, b"begin\nend\n")
