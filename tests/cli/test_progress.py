"""What a build tells, and to whom: nothing unescaped on a terminal, nothing but JSON lines for a program."""

from __future__ import annotations

import io
import json
import sys
from typing import Any

import click
import pytest
from rich.console import Console

from banger.cli.app import App
from banger.cli.progress import Terminal


class _Tty(io.StringIO):
    def isatty(self) -> bool:
        return True


def _make_terminal(monkeypatch: pytest.MonkeyPatch) -> Terminal:
    """No fixture: pytest sets a stderr of its own between a fixture and its test."""
    monkeypatch.setenv("TERM", "xterm-256color")
    monkeypatch.delenv("NO_COLOR", raising=False)
    monkeypatch.setattr(sys, "stderr", _Tty())
    return Terminal()


def _said() -> str:
    stderr: Any = sys.stderr
    return str(stderr.getvalue())


def test_no_control_character_of_a_program_reaches_the_terminal(monkeypatch: pytest.MonkeyPatch) -> None:
    terminal = _make_terminal(monkeypatch)
    bad = "\x1b]0;title\x07\x9b2J\r"
    terminal.started(f"step{bad}")
    terminal.progress(f"step{bad}", bad)
    console = Console(file=io.StringIO(), width=300, force_terminal=True, color_system=None)
    console.print(terminal._render())
    terminal.note(f"said {bad}")
    terminal.finished(f"step{bad}", 1.0, 0)
    terminal.close()
    drawn: Any = console.file
    for text in (_said(), drawn.getvalue()):
        assert "\\x1b]0;title\\x07\\x9b2J\\r" in text
        assert "\x1b]" not in text
        assert "\x07" not in text
        assert "\x9b" not in text


def test_while_a_machine_is_made_nothing_is_redrawn_over_a_question_for_a_password(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    terminal = _make_terminal(monkeypatch)
    terminal.started("rootfs")
    assert terminal._live is not None
    terminal.finished("rootfs", 1.0, 0)
    terminal.started("vm:box")
    terminal.progress("vm:box", "booting")
    assert terminal._live is None
    before = _said()
    terminal.finished("vm:box", 1.0, 0)
    assert terminal._live is None
    assert "vm:box" not in before
    assert "vm:box" in _said()


def test_with_json_a_line_for_people_is_a_line_of_json(capsys: pytest.CaptureFixture[str]) -> None:
    with click.Context(click.Command("banger"), obj={"quiet": False}):
        _, say = App().voices(as_json=True)
        say("vmm: qemu\x1b")
        assert json.loads(capsys.readouterr().err) == {"event": "note", "text": "vmm: qemu\x1b"}
        _, say = App().voices(as_json=False)
        say("vmm: qemu")
        assert capsys.readouterr().err == "vmm: qemu\n"


def test_a_quiet_program_is_told_no_line_for_people(capsys: pytest.CaptureFixture[str]) -> None:
    with click.Context(click.Command("banger"), obj={"quiet": True}):
        for as_json in (True, False):
            _, say = App().voices(as_json)
            say("vmm: qemu")
    assert capsys.readouterr().err == ""


def test_making_a_machine_for_a_program_says_json_lines_only(monkeypatch: pytest.MonkeyPatch) -> None:
    from click.testing import CliRunner

    from banger.cli.vm import vm
    from banger.errors import BangerError, Reason

    def make(_machines: object, _store: object, _order: object, reporter: Any, say: Any, **_: object) -> None:
        say("spec: …")
        reporter.started("step")
        raise BangerError("enough", reason=Reason.GUEST)

    monkeypatch.setattr("banger.machine.run.create_machine", make)
    monkeypatch.setattr("banger.machine.run.run_machine", make)
    monkeypatch.setattr(App, "machines", None)
    monkeypatch.setattr(App, "store", None)
    for words in (["create", "--json"], ["run", "--json"]):
        done = CliRunner().invoke(vm, words)
        assert [json.loads(line)["event"] for line in done.stderr.splitlines()] == ["note", "started"]
