"""The tools that a workspace asks for, by mise (mise.jdx.dev): on a best effort, told in a log in the guest.

Whatever comes of it, it never fails a run. `mise trust` and `mise install` run in the background of a shell, and before
a command, which then runs with what they installed.
"""

from __future__ import annotations

import re
import subprocess
from collections.abc import Callable, Sequence
from pathlib import PurePosixPath
from shlex import quote

from banger.guest import ssh
from banger.guest.command import format_for_any_shell
from banger.machine.inside import start_guest_program
from banger.machine.machines import Machines
from banger.machine.record import Machine
from banger.run import start

# mise.jdx.dev/configuration.html, and asdf's file.
_CONFIGS = (".mise.toml", "mise.toml", ".tool-versions", ".mise/config.toml", "mise/config.toml", ".config/mise.toml")
_NO_MISE = 91
_SCRIPT = """\
cd /root/repo || exit 92
export HOME=/root MISE_YES=1 PATH=$PATH:/root/.local/bin:/usr/local/bin:/usr/bin:/bin
[ "$2" = net ] || export MISE_OFFLINE=1
mkdir -p "${1%/*}" && exec >>"$1" 2>&1 </dev/null
command -v mise >/dev/null || { echo "this image has no mise"; exit 91; }
mise trust && mise install
"""


def find_config(paths: Sequence[str]) -> str | None:
    """The file that asks for tools, of a workspace's files."""
    return next((name for name in _CONFIGS if name in paths), None)


def name_log(root: str) -> str:
    """Where the guest keeps the log of this workspace's tools."""
    name = re.sub(r"[^A-Za-z0-9._-]", "_", PurePosixPath(root).name) or "repo"
    return f"/root/.cache/banger/vm-run-tooling-{name}.log"


def start_install(machines: Machines, machine: Machine, log: str) -> None:
    """In the background."""
    arguments = ["setsid", "sh", "-c", _SCRIPT, "sh", log, _net(machine)]
    start_guest_program(machines, machine, "/run/banger/bin/busybox", arguments)


def install(machines: Machines, machine: Machine, config: str, log: str, say: Callable[[str], None]) -> bool:
    """Wait for it; whether all tools are there. Says why they are not."""
    say(f"tools of {config}: installing (log: {log})")
    line = f"set -- {quote(log)} {_net(machine)}\n{_SCRIPT}"
    argv = ssh.plan_ssh(machines.access(machine), format_for_any_shell(line), tty=False)
    with start(argv, stderr=subprocess.DEVNULL) as child:
        status = child.wait()
    if status == 0:
        return True
    if status == _NO_MISE:
        why = f"the image {machine.image!r} has no mise"
    elif not machine.nat:
        why = "the machine has no outbound network (--no-nat)"
    else:
        why = "mise failed"
    say(f"tools of {config}: not all of them are there: {why}; the command runs without (log: {log})")
    return False


def _net(machine: Machine) -> str:
    """Without a way out mise need not wait for answers that never come."""
    return "net" if machine.nat else "none"


def wrap(command: Sequence[str]) -> list[str]:
    """The same command with the tools on its PATH."""
    program = "/usr/bin/env" if "=" in command[0] else None
    return ["mise", "exec", "--", *([program] if program else []), *command]
