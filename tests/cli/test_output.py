"""What is printed where, for people and for programs, and what a small command must not pay for."""

from __future__ import annotations

import json
import os
import pty
import signal
import subprocess
import sys
from typing import TYPE_CHECKING

import pytest

from tests.cli.shells import read_rest

if TYPE_CHECKING:
    from conftest import Cli

_COMMANDS = [
    [],
    ["vm"],
    ["image"],
    ["kernel"],
    ["cache"],
    ["version"],
    *(["vm", name] for name in "run create start stop delete list ps show ssh exec logs".split()),  # noqa: SIM905
    ["image", "list"],
    ["image", "build"],
    ["kernel", "list"],
    ["cache", "du"],
    ["cache", "verify"],
]


@pytest.mark.parametrize("command", _COMMANDS, ids=" ".join)
def test_every_command_explains_itself(cli: Cli, command: list[str]) -> None:
    done = cli.run(*command, "-h")
    assert done.returncode == 0, done.stderr
    assert done.stdout.startswith("Usage: banger")
    assert done.stderr == ""
    assert not (cli.home / ".local").exists()


def test_the_version_is_told(cli: Cli) -> None:
    from banger import __version__

    assert cli.run("--version").stdout == cli.run("version").stdout == f"banger {__version__}\n"


@pytest.mark.parametrize("noun", ["vm", "image", "kernel"])
def test_a_list_of_nothing_is_an_empty_list_of_json(cli: Cli, noun: str) -> None:
    done = cli.run(noun, "list", "--json")
    assert (done.returncode, done.stderr) == (0, "")
    assert done.stdout == "[]\n"


@pytest.mark.parametrize("noun", ["vm", "image", "kernel"])
def test_a_list_for_people_has_a_head(cli: Cli, noun: str) -> None:
    done = cli.run(noun, "list")
    assert (done.returncode, done.stderr) == (0, "")
    assert "NAME" in done.stdout
    assert len(done.stdout.splitlines()) == 1


def test_a_quiet_list_of_nothing_is_nothing(cli: Cli) -> None:
    assert cli.run("vm", "list", "-q").stdout == ""


def test_an_empty_store_is_measured(cli: Cli) -> None:
    usage = json.loads(cli.run("cache", "du", "--json").stdout)
    assert (usage["objects"], usage["size_bytes"]) == (0, 0)


def _on_a_terminal(cli: Cli, *words: str) -> str:
    """stderr of a command that has a terminal for it."""
    ours, theirs = pty.openpty()
    banger = [os.path.join(os.path.dirname(sys.executable), "banger"), *words]  # noqa: PTH118, PTH120
    subprocess.run(banger, env=cli.variables(), stdin=theirs, stdout=theirs, stderr=theirs, timeout=60)
    os.close(theirs)
    return read_rest(ours).decode()


@pytest.mark.parametrize(
    ("variables", "has_colour"),
    [({}, True), ({"NO_COLOR": "1"}, False), ({"TERM": "dumb"}, False), ({"NO_COLOR": ""}, True)],
)
def test_colour_is_for_terminals_that_want_it(cli: Cli, variables: dict[str, str], has_colour: bool) -> None:
    cli.environment = {"TERM": "xterm-256color", **variables}
    said = _on_a_terminal(cli, "vm", "show", "nope")
    assert "there is no machine" in said
    assert ("\x1b" in said) == has_colour


@pytest.mark.parametrize("words", [["vm", "show", "nope"], ["vm", "list"], ["vm", "-h"]], ids=" ".join)
def test_without_a_terminal_nothing_is_coloured(cli: Cli, words: list[str]) -> None:
    cli.environment = {"TERM": "xterm-256color", "FORCE_COLOR": "1"}
    done = cli.run(*words)
    assert "\x1b" not in done.stdout + done.stderr


@pytest.mark.parametrize("words", [["vm", "list"], ["vm", "list", "--json"], ["-h"], ["version"]], ids=" ".join)
def test_a_reader_that_has_gone_is_no_traceback(cli: Cli, words: list[str]) -> None:
    read, write = os.pipe()
    os.close(read)
    banger = [os.path.join(os.path.dirname(sys.executable), "banger"), *words]  # noqa: PTH118, PTH120
    done = subprocess.run(banger, env=cli.variables(), stdout=write, stderr=subprocess.PIPE, text=True, timeout=60)
    os.close(write)
    assert done.stderr == ""
    assert done.returncode == 128 + signal.SIGPIPE


_HEAVY = {"rich", "pyroute2", "doit", "requests", "oras", "paramiko"}


@pytest.mark.parametrize(
    "words", [["vm", "list"], ["vm", "list", "--json"], ["vm", "show", "nope"], ["-h"], ["image", "list"]], ids=" ".join
)
def test_a_small_command_does_not_pay_for_what_builds_images(cli: Cli, words: list[str]) -> None:
    program = """
import sys
from banger.cli import main
try:
    main()
except SystemExit:
    pass
print("\\n".join(sys.modules), file=sys.stderr)
"""
    done = subprocess.run(
        [sys.executable, "-I", "-c", program, *words], env=cli.variables(), capture_output=True, text=True, timeout=60
    )
    loaded = set(done.stderr.split())
    assert "banger.cli.main" in loaded
    assert loaded & _HEAVY == set()


def test_the_folder_one_stands_in_is_not_imported_from(cli: Cli) -> None:
    """`cache` and `catalog` are common names; a folder of the user's must not take their place."""
    for name in ("cache", "catalog", "pipelines", "banger", "json"):
        (cli.home / f"{name}.py").write_text("raise SystemExit('imported from the current directory')\n")
    done = cli.run("vm", "list", "--json")
    assert (done.returncode, done.stdout) == (0, "[]\n")
