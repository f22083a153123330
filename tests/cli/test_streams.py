"""Standard streams that are closed, full or left, and folders that cannot be made: one line, no traceback."""

from __future__ import annotations

import errno
import json
import os
import subprocess
import sys
from pathlib import Path
from typing import TYPE_CHECKING

import pytest

from banger.cli.output import explain_refusal
from banger.errors import Reason

if TYPE_CHECKING:
    from conftest import Cli

_BANGER = str(Path(sys.executable).with_name("banger"))


def _shell(cli: Cli, line: str) -> subprocess.CompletedProcess[str]:
    """A command line for a shell, in which `banger` is ours."""
    argv = ["bash", "-c", f'banger() {{ "{_BANGER}" "$@"; }}\n{line}']
    return subprocess.run(
        argv, env=cli.variables(), stdin=subprocess.DEVNULL, capture_output=True, text=True, timeout=60
    )


@pytest.mark.parametrize("command", ["version", "-h", "vm -h", "vm list", "vm list --json", "cache du"])
def test_a_full_stdout_is_one_line(cli: Cli, command: str) -> None:
    done = _shell(cli, f"banger {command} > /dev/full")
    assert done.returncode == 1
    *_, last = done.stderr.splitlines()
    if "--json" in command:
        assert json.loads(last)["error"]["reason"] == "no-space"
    else:
        assert done.stderr.startswith("banger: ")
        assert len(done.stderr.splitlines()) == 1


@pytest.mark.parametrize("closed", ["<&-", ">&-", "2>&-", "<&- >&- 2>&-"])
def test_streams_that_are_closed_lead_nowhere(cli: Cli, closed: str) -> None:
    done = _shell(cli, f"banger vm list {closed}")
    assert (done.returncode, done.stderr) == (0, "")
    assert _shell(cli, f"banger vm show nope {closed}").returncode == 1


def test_a_closed_stream_s_number_is_not_given_to_a_file_of_ours(cli: Cli) -> None:
    """The database would otherwise be opened as what children print to."""
    program = """
import os
from banger.cli import main
try:
    main()
except SystemExit:
    pass
with open("found", "w") as found:
    found.write(" ".join(os.readlink(f"/proc/self/fd/{n}") + str(os.get_inheritable(n)) for n in range(3)))
"""
    line = f"cd '{cli.home}'; exec '{sys.executable}' -I -c '{program}' vm list <&- >&- 2>&-"
    subprocess.run(["bash", "-c", line], env=cli.variables(), timeout=60, check=True)
    assert (cli.home / "found").read_text() == " ".join(["/dev/nullTrue"] * 3)


def test_a_full_or_left_stderr_is_no_traceback(cli: Cli) -> None:
    assert _shell(cli, "banger vm show nope 2> /dev/full").returncode == 1
    done = _shell(cli, "{ sleep 1; banger vm show nope; echo $? >&3; } 3> status 2>&1 | true; cat status; rm status")
    assert done.stdout.split() == ["141"]


@pytest.mark.parametrize("home", ["/dev/null/x", "/proc/nothing"])
def test_a_state_folder_that_cannot_be_made_is_one_line(cli: Cli, home: str) -> None:
    cli.environment = {"HOME": home}
    done = cli.run("vm", "list", "--json")
    assert (done.returncode, done.stdout) == (1, "")
    error = json.loads(done.stderr)["error"]
    assert error["reason"] == "io"
    assert home in error["message"]


@pytest.mark.parametrize(
    ("number", "reason"),
    [
        (errno.ENOSPC, Reason.NO_SPACE),
        (errno.EDQUOT, Reason.NO_SPACE),
        (errno.EACCES, Reason.NO_PERMISSION),
        (errno.EPERM, Reason.NO_PERMISSION),
        (errno.EROFS, Reason.NO_PERMISSION),
        (errno.ENOTDIR, Reason.IO),
    ],
)
def test_what_the_system_refuses_has_a_reason_and_the_name_of_the_file(number: int, reason: Reason) -> None:
    for name in ("/some/file", b"/some/file"):
        told = explain_refusal(OSError(number, os.strerror(number), name))
        assert told.reason is reason
        assert "/some/file" in told.message
    assert explain_refusal(OSError(number, os.strerror(number))).reason is reason
    assert explain_refusal(OSError(number, os.strerror(number), 7)).reason is reason
