"""Where the right to change the host's network comes from: this process has it, or one `sudo` asks for it.

Guaranteed: at most one sudo per change; a refusal, wherever it happens, is a `BangerError` here.
"""

from __future__ import annotations

import json
import os
import subprocess
import sys
from collections.abc import Sequence
from pathlib import Path

from banger.errors import BangerError, Reason
from banger.run import find_program, format_command, printable

# The helper's first line: without it, it was sudo that refused.
STARTED = "banger-network-helper"

_CAP_NET_ADMIN = 12  # <linux/capability.h>
_STDERR_TAIL_LINES = 5


class NoRight(BangerError):
    """This user may not change the network at all: nothing was begun."""

    def __init__(self, message: str, hint: str) -> None:
        super().__init__(message, reason=Reason.NO_PERMISSION, hint=hint)


def can_change_network() -> bool:
    """Whether this process, and the nft that it starts, may change the network.

    Being root says nothing: containers take capabilities away. Without being root a program that we start keeps a
    capability only when it is ambient, so that one given to the interpreter's file is not enough.
    """
    sets = dict(line.split(":\t") for line in Path("/proc/self/status").read_text().splitlines() if ":\t" in line)
    usable = int(sets["CapEff"], 16)
    if os.geteuid() != 0:
        usable &= int(sets["CapAmb"], 16)
    return bool(usable >> _CAP_NET_ADMIN & 1)


def run_helper(arguments: Sequence[str]) -> None:
    """Let `banger.network.helper` make one change as root. Its refusal is raised as if it had happened here."""
    argv = [_get_sudo(), *_sudo_options(), *plan_helper(), *arguments]
    # Not by way of `run`: sudo asks for a password on the terminal of its session, and `run` starts a new one.
    # Nor `subprocess.run`: on Ctrl-C it kills the child, which is root's and cannot be killed by us.
    inherit = _have_terminal()
    child = subprocess.Popen(
        argv,
        stdin=None if inherit else subprocess.DEVNULL,
        stdout=subprocess.PIPE,
        stderr=None if inherit else subprocess.PIPE,
    )
    with child:
        out, err = child.communicate()
    lines = out.decode("utf-8", "replace").splitlines()
    said = "".join(f"\n  | {line}" for line in _tail(err or b""))
    if lines[:1] != [STARTED]:
        raise NoRight(
            "sudo did not let banger change the host's network" + said,
            hint="run `sudo -v` first, or run banger on a terminal where sudo can ask",
        )
    if child.returncode != 0:
        refusal = _find_refusal(lines[1:])
        if refusal is not None:
            raise refusal
        raise BangerError(
            f"the network helper failed with status {child.returncode}: {format_command(argv)}" + said,
            reason=Reason.COMMAND_FAILED,
        )


def plan_helper() -> list[str]:
    """The helper's command line, always by the same words: a rule of sudoers(5) compares them."""
    python = Path(sys.executable).with_name("python")
    return [str(python) if python.exists() else sys.executable, "-I", "-m", "banger.network.helper"]


def _get_sudo() -> str:
    sudo, root = find_program("sudo"), os.geteuid() == 0
    if root or sudo is None:
        what = "this root" if root else "this user"
        raise NoRight(
            f"{what} may not change the host's network (CAP_NET_ADMIN is missing)",
            hint="in a container: start it with --cap-add NET_ADMIN --device /dev/net/tun"
            if root
            else "install sudo (apt-get install sudo, as root) and allow it for this user, or run banger as root",
        )
    return sudo


def _sudo_options() -> list[str]:
    """Without a terminal a question for a password would wait for ever, or fail with a worse message."""
    return ["--"] if _have_terminal() else ["-n", "--"]


def _have_terminal() -> bool:
    # A service has no standard input at all.
    return sys.stdin is not None and sys.stdin.isatty()


def _find_refusal(lines: Sequence[str]) -> BangerError | None:
    try:
        told = json.loads(lines[-1])
        return BangerError(str(told["message"]), hint=str(told["hint"]), reason=Reason(told["reason"]))
    except (IndexError, ValueError, KeyError, TypeError):
        return None


def _tail(stderr: bytes) -> list[str]:
    return [printable(line) for line in stderr.decode("utf-8", "replace").splitlines()[-_STDERR_TAIL_LINES:]]
