"""A monitor's process: started apart from banger, found again later, and never confused with another.

A process is known by its pid and its start time (clock ticks since boot, proc(5) stat field 22), never by a bare
pid: pids are used again. A monitor is the leader of a session of its own, so the end of banger or of its terminal
does not reach it.
"""

from __future__ import annotations

import contextlib
import os
import signal
import subprocess
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path

from banger.errors import BangerError, Reason
from banger.run import child_environment, format_command, get_program, printable

_LAST_WORDS_BYTES = 4096
_LAST_WORDS_LINES = 6


@dataclass(frozen=True)
class ProcessId:
    """`start_ticks` is in clock ticks since `boot_id`'s boot."""

    pid: int
    start_ticks: int
    boot_id: str


OnSpawned = Callable[["ProcessId"], None]

# Waits for a line before it becomes the program. If whoever is to send it dies first, the line never comes, and neither
# does the program. Pid and start time stay the same.
_HELD = 'read go && exec "$@" </dev/null'


def spawn(argv: Sequence[str], log: Path, on_spawned: OnSpawned = lambda _process: None) -> subprocess.Popen[bytes]:
    """Start a monitor in a session of its own, its output appended to `log` (made with mode 0600).

    `on_spawned` is told the identity before the program itself begins: once it has returned (having recorded it, so
    that no monitor can run that nobody knows of), the program is let go.
    """
    program = get_program(argv[0])
    fd = os.open(log, os.O_WRONLY | os.O_CREAT | os.O_APPEND | os.O_CLOEXEC, 0o600)
    try:
        child = subprocess.Popen(
            [get_program("sh"), "-c", _HELD, "sh", program, *argv[1:]],
            stdin=subprocess.PIPE,
            stdout=fd,
            stderr=fd,
            start_new_session=True,
            cwd="/",
            env=child_environment({}),
        )
    finally:
        os.close(fd)
    assert child.stdin is not None
    try:
        process = identify(child.pid)
        if process is not None:
            on_spawned(process)
        with contextlib.suppress(BrokenPipeError):
            child.stdin.write(b"go\n")
            child.stdin.close()
    except BaseException:
        child.kill()
        child.wait()
        raise
    return child


def identify(pid: int) -> ProcessId | None:
    """The identity of a running process; None when there is none or it is a zombie."""
    try:
        stat = Path(f"/proc/{pid}/stat").read_text("utf-8", "replace")
    except (FileNotFoundError, ProcessLookupError):
        return None
    # The name in parentheses may hold spaces and parentheses: fields are counted after the last one.
    fields = stat[stat.rindex(")") + 2 :].split()
    if fields[0] in "ZX":
        return None
    return ProcessId(pid, int(fields[19]), _boot_id())


def identify_self() -> ProcessId:
    me = identify(os.getpid())
    assert me is not None
    return me


def is_alive(process: ProcessId) -> bool:
    return identify(process.pid) == process


def kill(process: ProcessId, number: signal.Signals = signal.SIGKILL) -> None:
    """Send a signal if it still is the same process; a process that is gone is no error.

    A pidfd is opened before the identity is checked, so that the signal cannot reach a successor.
    """
    try:
        fd = os.pidfd_open(process.pid)
    except ProcessLookupError:
        return
    try:
        if is_alive(process):
            signal.pidfd_send_signal(fd, number)
    except ProcessLookupError:
        return
    finally:
        os.close(fd)


def wait_gone(process: ProcessId, timeout_s: float) -> bool:
    """Wait until the process has ended; False when it still runs after `timeout_s`.

    Works for processes that are not our children (poll on a pidfd); our own are reaped on the way.
    """
    import select

    try:
        fd = os.pidfd_open(process.pid)
    except ProcessLookupError:
        return True
    try:
        if not is_alive(process):
            _reap(process.pid)
            return True
        poller = select.poll()
        poller.register(fd, select.POLLIN)
        deadline = time.monotonic() + timeout_s
        gone = bool(poller.poll(max(0, int((deadline - time.monotonic()) * 1000))))
    finally:
        os.close(fd)
    if gone:
        _reap(process.pid)
    return gone


def last_words(log: Path, start: int = 0) -> str:
    """The end of what a monitor wrote to its log after byte `start`, safe for a terminal, for an error message."""
    try:
        with log.open("rb") as file:
            size = file.seek(0, os.SEEK_END)
            file.seek(max(start, size - _LAST_WORDS_BYTES))
            text = file.read().decode("utf-8", "replace")
    except FileNotFoundError:
        return ""
    lines = [line for line in text.splitlines() if line.strip()]
    return "\n".join("  | " + printable(line) for line in lines[-_LAST_WORDS_LINES:])


def died(name: str, argv: Sequence[str], log: Path, start: int = 0) -> BangerError:
    """The error for a monitor that ended when it should run, with its last words."""
    words = last_words(log, start)
    return BangerError(
        f"the monitor of {name!r} ended at start: {format_command(argv)}" + (f"\n{words}" if words else ""),
        reason=Reason.MONITOR_DIED,
        hint="the lines above are its last words",
    )


def _boot_id() -> str:
    return Path("/proc/sys/kernel/random/boot_id").read_text().strip()


def _reap(pid: int) -> None:
    """Collect the status if it was our child, so that no zombie stays behind."""
    try:
        os.waitpid(pid, os.WNOHANG)
    except ChildProcessError:
        return
