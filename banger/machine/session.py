"""A session in a machine: a shell for a person, or one command with its exit status.

Both have the environment and the folder that the machine's image asks for, if it has a config. A workspace is where
either begins.
A command's status is banger's: 0 to 255, and 128 plus the signal for a command that a signal ended. ssh's own failure
(255) is told apart from a command that ended with 255, and becomes an error.
"""

from __future__ import annotations

import os
import secrets
import sys
from collections.abc import Sequence
from dataclasses import replace

from banger.errors import BangerError, Reason
from banger.guest import command, ssh
from banger.machine import image_config, inside
from banger.machine.image_config import RunAs
from banger.machine.machines import Machines
from banger.machine.record import Machine, State
from banger.machine.usage import in_session
from banger.vmm.process import wait_gone
from banger.workspace.record import find_workspace

_POWER_OFF_S = 5.0
_WORKSPACE = "/root/repo"
_LONGEST_ASKED_BYTES = 8000


def open_shell(machines: Machines, machine: Machine, run_as: RunAs = RunAs.ROOT) -> int:
    """An interactive shell; gives the shell's status."""
    refuse_stopped(machine)
    line = command.format_shell(_plan_surroundings(machines, machine, run_as))
    asked = None if line is None else command.format_for_any_shell(line)
    with in_session(machines, machine):
        status = ssh.run_ssh(machines.access(machine), asked, tty=_has_terminal())
    # Powered off from inside, it takes the connection down first and ends a moment later.
    was_powered_off = (
        status == ssh.SSH_FAILED
        and machine.process is not None
        and wait_gone(machine.process, _POWER_OFF_S * machine.slowdown)
    )
    return 0 if was_powered_off else status


def run_command(machines: Machines, machine: Machine, argv: Sequence[str], run_as: RunAs = RunAs.ROOT) -> int:
    """Run a command with this process's stdin, stdout and stderr; a TTY only when both ends have one."""
    refuse_stopped(machine)
    status_file = f"/run/banger/status-{secrets.token_hex(8)}"
    line = command.format_command(argv, _plan_surroundings(machines, machine, run_as), status_file)
    with in_session(machines, machine):
        status = ssh.run_ssh(machines.access(machine), _send_line(machines, machine, line), tty=_has_terminal())
    if status != ssh.SSH_FAILED:
        return status
    told = inside.read_status_file(machines, machine, status_file)
    if told is None:
        raise BangerError(
            f"the connection to {machine.name!r} failed or broke; the command's exit status is not known",
            reason=Reason.GUEST,
            hint=f"look at its console: banger vm logs {machine.name}",
        )
    return told


def run_entrypoint(machines: Machines, machine: Machine, arguments: Sequence[str], run_as: RunAs = RunAs.IMAGE) -> int:
    """What a container of the image would run; `arguments` take the place of its Cmd."""
    argv = image_config.plan_entrypoint(image_config.find_config(machines, machine), machine.image, arguments)
    return run_command(machines, machine, argv, run_as)


def refuse_stopped(machine: Machine) -> None:
    if machine.state is not State.RUNNING:
        raise BangerError(
            f"{machine.name!r} is {machine.state}",
            reason=Reason.WRONG_STATE,
            hint=f"start it: banger vm start {machine.name}",
        )


def _send_line(machines: Machines, machine: Machine, line: str) -> str:
    """What to ask ssh for, so that `line` is run. A long one goes by the agent: dropbear ends at 9000 bytes."""
    asked = command.format_for_any_shell(line)
    if len(asked) <= _LONGEST_ASKED_BYTES:
        return asked
    path = f"/run/banger/line-{secrets.token_hex(8)}"
    inside.write_guest_file(machines, machine, path, os.fsencode(f"{command.format_removal(path)}\n{line}\n"))
    return f"/bin/sh {path}"


def _plan_surroundings(machines: Machines, machine: Machine, run_as: RunAs) -> command.Surroundings:
    around = image_config.plan_surroundings(image_config.find_config(machines, machine), run_as)
    has_workspace = find_workspace(machines.folder(machine)) is not None
    return replace(around, folder=_WORKSPACE) if has_workspace else around


def _has_terminal() -> bool:
    return sys.stdin.isatty() and sys.stdout.isatty()
