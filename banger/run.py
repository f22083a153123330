"""The one way to run another program: an argument list, never a shell.

Guarantees: every child is the leader of a session of its own (a terminal's Ctrl-C reaches only banger, which
then ends its children itself), dies with banger even when that is killed with SIGKILL (`setpriv --pdeathsig`),
and is gone with its whole process group when its `with` block or `run` call ends, however it ends.
A failure names the command in a form that can be pasted, and the end of what the program said.

Not promised: a grandchild that makes a session of its own escapes the group; programs that do so run
inside a PID namespace (see `pipelines/namespace.py`).
"""

from __future__ import annotations

import contextlib
import os
import shlex
import shutil
import signal
import subprocess
import tempfile
import threading
import time
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import IO

from banger.errors import BangerError, Reason

_STDERR_TAIL_LINES = 8
_TERM_GRACE_S = 0.7

# Which Debian package brings a program, where the names differ.
_PACKAGE_OF = {
    "qemu-system-x86_64": "qemu-system-x86",
    "mkfs.erofs": "erofs-utils",
    "mke2fs": "e2fsprogs",
    "debugfs": "e2fsprogs",
    "depmod": "kmod",
    "nft": "nftables",
    "ssh": "openssh-client",
    "ssh-keygen": "openssh-client",
    "newuidmap": "uidmap",
    "unshare": "util-linux",
    "setpriv": "util-linux",
    "ip": "iproute2",
    "apt-get": "apt",
}

_SECRETS = ("BANGER_SIGNING_KEY", "COSIGN_PASSWORD", "BANGER_REGISTRY_PASSWORD")

_children: set[subprocess.Popen[bytes]] = set()
_children_lock = threading.Lock()
_cancelled = threading.Event()
_shield = threading.local()


@dataclass(frozen=True)
class Completed:
    """What a finished program gave: `stdout` is empty unless it was captured."""

    returncode: int
    stdout: bytes
    stderr: bytes


def find_program(name: str) -> str | None:
    """Absolute path of a program, also where an ordinary user's PATH lacks the sbin folders."""
    path = os.environ.get("PATH", os.defpath)
    return shutil.which(name, path=f"{path}:/usr/local/sbin:/usr/sbin:/sbin")


def get_program(name: str) -> str:
    """Like `find_program`, but a missing program is an error that says which package to install."""
    found = find_program(name)
    if found is None:
        raise BangerError(
            f"the program {name!r} is missing",
            reason=Reason.MISSING_PROGRAM,
            hint=f"install it: sudo apt-get install {_PACKAGE_OF.get(name, name)}",
        )
    return found


def format_command(argv: Sequence[str]) -> str:
    return shlex.join(argv)


def cancel_all() -> None:
    """End every running child and refuse to start new ones: for Ctrl-C, from the main thread."""
    _cancelled.set()
    with _children_lock:
        children = list(_children)
    _end(children)


def resume() -> None:
    """Children may be started again: what was cancelled has ended, and its owner has cleaning up to do."""
    _cancelled.clear()


def is_cancelled() -> bool:
    """Asked by long work that is not a child process, so that it ends soon after Ctrl-C too."""
    return _cancelled.is_set() and not getattr(_shield, "up", False)


@contextlib.contextmanager
def shielded() -> Iterator[None]:
    """What this thread runs is not cancelled: for short work that must be done whole or undone by itself."""
    before = getattr(_shield, "up", False)
    _shield.up = True
    try:
        yield
    finally:
        _shield.up = before


def child_environment(changes: Mapping[str, str | None]) -> dict[str, str]:
    """Ours with changes (None takes a variable out), and without the secrets that are for us alone.

    What is started may start what nobody has vouched for: the scripts of a package, say.
    """
    wanted = {**os.environ, **dict.fromkeys(_SECRETS), **changes}
    return {name: value for name, value in wanted.items() if value is not None}


@contextlib.contextmanager
def start(
    argv: Sequence[str],
    *,
    stdin: int | IO[bytes] = subprocess.DEVNULL,
    stdout: int | IO[bytes] = subprocess.DEVNULL,
    stderr: int | IO[bytes] | None = None,
    env: Mapping[str, str | None] | None = None,
) -> Iterator[subprocess.Popen[bytes]]:
    """Start a program for the length of a `with` block; its process group is ended at the end of it.

    `env` is what changes in the environment: None takes a variable out of it.

    On a clean way out the caller has waited already; the status is the caller's to judge (`check`).
    """
    program = get_program(argv[0])
    full = [get_program("setpriv"), "--pdeathsig", "KILL", "--", program, *argv[1:]]
    if is_cancelled():
        raise KeyboardInterrupt
    child = subprocess.Popen(
        full,
        stdin=stdin,
        stdout=stdout,
        stderr=stderr,
        env=child_environment({} if env is None else env),
        start_new_session=True,
    )
    if not getattr(_shield, "up", False):
        with _children_lock:
            _children.add(child)
    try:
        # Once more: `cancel_all` may have come between the first look and the child's entry in the list.
        if is_cancelled():
            raise KeyboardInterrupt
        yield child
    finally:
        # Ended first: to close a pipe that another thread reads from means to wait for that thread.
        _end([child])
        for stream in (child.stdin, child.stdout, child.stderr):
            if stream is not None:
                with contextlib.suppress(OSError):
                    stream.close()
        with _children_lock:
            _children.discard(child)
    if is_cancelled():
        raise KeyboardInterrupt


def check(argv: Sequence[str], returncode: int, stderr: bytes) -> None:
    """Raise a `BangerError` for a non-zero status, with the command and the end of its stderr."""
    if returncode == 0:
        return
    lines = [line for line in stderr.decode("utf-8", "replace").splitlines() if line.strip()]
    said = "\n".join("  | " + printable(line) for line in lines[-_STDERR_TAIL_LINES:])
    how = f"was killed by signal {-returncode}" if returncode < 0 else f"failed with status {returncode}"
    no_space = any("no space left on device" in line.lower() for line in lines)
    raise BangerError(
        f"{argv[0]} {how}: {format_command(argv)}" + (f"\n{said}" if said else ""),
        reason=Reason.NO_SPACE if no_space else Reason.COMMAND_FAILED,
        hint="free some disk space" if no_space else "",
    )


def run(
    argv: Sequence[str],
    *,
    stdin: bytes | IO[bytes] | None = None,
    stdout: IO[bytes] | None = None,
    env: Mapping[str, str | None] | None = None,
    must_succeed: bool = True,
    timeout_s: float | None = None,
) -> Completed:
    """Run a program to its end. Output is captured unless `stdout` names an open file.

    Raises `BangerError` for a missing program, a non-zero status (unless `must_succeed` is false) or a timeout.
    """
    with tempfile.TemporaryFile() as stderr:
        feed = stdin if isinstance(stdin, bytes) else None
        source: int | IO[bytes]
        if isinstance(stdin, bytes):
            source = subprocess.PIPE
        else:
            source = subprocess.DEVNULL if stdin is None else stdin
        with start(
            argv, stdin=source, stdout=subprocess.PIPE if stdout is None else stdout, stderr=stderr, env=env
        ) as child:
            try:
                out, _ = child.communicate(feed, timeout=timeout_s)
            except subprocess.TimeoutExpired as expired:
                raise BangerError(
                    f"{argv[0]} did not finish within {timeout_s} s: {format_command(argv)}",
                    reason=Reason.TIMEOUT,
                ) from expired
        stderr.seek(0)
        said = stderr.read()
    if must_succeed:
        check(argv, child.returncode, said)
    return Completed(child.returncode, out or b"", said)


def printable(text: str) -> str:
    """Text from a program, guest or archive, made safe for a terminal: control characters become escapes."""
    return "".join(c if c.isprintable() else c.encode("unicode_escape").decode("ascii") for c in text)


def _end(children: Sequence[subprocess.Popen[bytes]]) -> None:
    """Terminate, then kill, whole process groups; returns when the leaders are reaped."""
    for child in children:
        if child.poll() is None:
            _signal_group(child, signal.SIGTERM)
    deadline = time.monotonic() + _TERM_GRACE_S
    for child in children:
        with contextlib.suppress(subprocess.TimeoutExpired):
            child.wait(timeout=max(0.0, deadline - time.monotonic()))
        # Also when the leader has ended: its number stays taken as long as anybody is left in its group.
        _signal_group(child, signal.SIGKILL)
        child.wait()


def _signal_group(child: subprocess.Popen[bytes], number: signal.Signals) -> None:
    with contextlib.suppress(ProcessLookupError, PermissionError):
        os.killpg(child.pid, number)
