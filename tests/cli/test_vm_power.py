"""`banger vm start`, `stop` and the like, as far as they go without a machine that boots."""

from __future__ import annotations

import json
import os
import pty
import sys
from pathlib import Path
from typing import TYPE_CHECKING

import pytest

from banger.machine.record import Records, Wish
from banger.network import DEFAULT_SUBNET
from banger.paths import Paths
from banger.vmm.process import identify_self

if TYPE_CHECKING:
    from conftest import Cli

_BANGER = Path(sys.executable).with_name("banger")


def _add(cli: Cli, *names: str) -> None:
    """Machines that are stopped."""
    records = Records(Paths.from_environment(cli.variables()).database)
    for name in names:
        machine = records.add(Wish(name, "image", "kernel", 1, 256, 64, nat=True), DEFAULT_SUBNET, identify_self())
        records.update(machine, creator=None)
    records.close()


def _list(cli: Cli) -> list[str]:
    return cli.run("vm", "list", "--all", "--quiet").stdout.split()


@pytest.mark.parametrize("command", ["start", "stop", "restart", "kill", "delete"])
def test_a_program_reads_a_list_and_an_error_for_each_that_failed(cli: Cli, command: str) -> None:
    done = cli.run("vm", command, "--json", "one", "two")
    assert (done.returncode, json.loads(done.stdout)) == (1, [])
    errors = [json.loads(line)["error"] for line in done.stderr.splitlines()]
    assert [error["reason"] for error in errors] == ["not-found"] * 2
    assert "'two'" in errors[1]["message"]


def test_what_was_done_is_in_the_list_beside_what_failed(cli: Cli) -> None:
    _add(cli, "box", "web")
    done = cli.run("vm", "delete", "--json", "web", "none", "box")
    assert (done.returncode, json.loads(done.stdout)) == (1, ["web", "box"])
    assert json.loads(done.stderr)["error"]["reason"] == "not-found"
    assert _list(cli) == []


def test_for_people_each_name_is_a_line(cli: Cli) -> None:
    _add(cli, "box", "web")
    done = cli.run("vm", "delete", "web", "box")
    assert (done.returncode, done.stdout, done.stderr) == (0, "web\nbox\n", "")


def test_prune_tells_a_program_what_it_deleted(cli: Cli) -> None:
    done = cli.run("vm", "prune", "--json")
    assert (done.returncode, done.stdout, done.stderr) == (0, "[]\n", "")
    assert "no machine is stopped" in cli.run("vm", "prune").stderr
    _add(cli, "box", "web")
    done = cli.run("vm", "prune", "--json")
    assert (done.returncode, done.stdout) == (1, "")
    assert json.loads(done.stderr)["error"]["hint"] == "banger vm prune --force"
    done = cli.run("vm", "prune", "--json", "--force")
    assert (done.returncode, sorted(json.loads(done.stdout)), done.stderr) == (0, ["box", "web"], "")
    assert _list(cli) == []


@pytest.mark.parametrize(
    ("typed", "status", "left"), [(b"n\n", 1, ["box"]), (b"\n", 1, ["box"]), (b"y\n", 0, []), (b"\x04", 130, ["box"])]
)
def test_prune_that_is_told_no_says_that_nothing_was_deleted(
    cli: Cli, typed: bytes, status: int, left: list[str]
) -> None:
    _add(cli, "box")
    pid, terminal = pty.fork()
    if pid == 0:
        os.execve(_BANGER, [str(_BANGER), "vm", "prune"], cli.variables())
    said = b""
    while b"[y/N]" not in said:
        said += os.read(terminal, 4096)
    os.write(terminal, typed)
    try:
        while read := os.read(terminal, 4096):
            said += read
    except OSError:
        # EIO: it has ended.
        pass
    os.close(terminal)
    assert os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1]) == status
    assert (b"nothing was deleted" in said) is (status == 1)
    assert _list(cli) == left
