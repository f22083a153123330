"""The daemon as commands see it: asked over its socket, started when it is not there."""

from __future__ import annotations

import os
import socket
import struct
import subprocess
import sys
import time
from typing import Any

from banger.daemon.place import Place
from banger.daemon.protocol import MAX_LINE_BYTES, format_request, parse_answer
from banger.errors import BangerError, Reason
from banger.paths import Paths
from banger.run import child_environment

# Patience with a host that has much else to do: one that works answers at once.
_ANSWER_S = 5.0
_START_S = 20.0
# For how long one that holds the lock may not answer: it may have begun just now, or begin again.
_BEGIN_S = 10.0
_POLL_S = 0.02


def ask(paths: Paths, do: str, *, timeout_s: float = _ANSWER_S, **arguments: object) -> Any:
    """One request, one answer. Raises UNAVAILABLE when no daemon of this user answers, or what it refuses with."""
    connection = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM | socket.SOCK_CLOEXEC)
    with connection:
        connection.settimeout(timeout_s)
        try:
            connection.connect(os.fspath(Place.of(paths).socket))
            _check_peer(connection)
            connection.sendall(format_request(do, **arguments))
            line = _read_line(connection)
        except OSError as error:
            raise _not_there(str(error)) from error
    return parse_answer(line)


def find_status(paths: Paths) -> dict[str, Any] | None:
    """What the daemon says of itself; None when there is none."""
    try:
        status: dict[str, Any] = ask(paths, "status")
    except BangerError as error:
        if error.reason is Reason.UNAVAILABLE:
            return None
        raise
    return status


def ensure_started(paths: Paths) -> None:
    """See that there is one, or that there will be in a moment: it is not waited for."""
    place = Place.of(paths)
    place.prepare()
    _spawn_if_none(place)


def start(paths: Paths) -> dict[str, Any]:
    """Start it and wait until it answers; gives its status. One that is there already is fine."""
    place = Place.of(paths)
    place.prepare()
    if (status := find_status(paths)) is not None:
        return status
    began = place.log.stat().st_size if place.log.exists() else 0
    child = _spawn(place)
    deadline = time.monotonic() + _START_S
    while time.monotonic() < deadline:
        if (status := find_status(paths)) is not None:
            return status
        if child.poll():
            break
        # One that ended well had found another, which is coming up, or was ending.
        if child.returncode == 0:
            child = _spawn_if_none(place) or child
        time.sleep(_POLL_S)
    from banger.vmm.process import last_words

    words = last_words(place.log, began)
    raise BangerError(
        "bangerd did not come up" + (f"\n{words}" if words else ""),
        reason=Reason.UNAVAILABLE,
        hint=f"its log: {place.log}",
    )


def stop(paths: Paths) -> bool:
    """Ask it to end and wait until it has; False when there was none."""
    place = Place.of(paths)
    if not place.folder.is_dir():
        return False
    from banger.vmm.process import identify, wait_gone

    deadline = time.monotonic() + _BEGIN_S
    while True:
        try:
            process = identify(ask(paths, "stop")["pid"])
            break
        except BangerError as error:
            if error.reason is not Reason.UNAVAILABLE:
                raise
            pid = place.find_holder()
            if pid is None:
                return False
            if time.monotonic() > deadline:
                raise BangerError(
                    f"bangerd (pid {pid}) does not answer",
                    reason=Reason.UNAVAILABLE,
                    hint=f"kill {pid}; machines go on",
                ) from error
            time.sleep(_POLL_S)
    if process is not None and not wait_gone(process, _START_S):
        raise BangerError("bangerd does not end", reason=Reason.TIMEOUT, hint=f"kill {process.pid}")
    return True


def _spawn_if_none(place: Place) -> subprocess.Popen[bytes] | None:
    """None when there is one: whoever holds the lock is, or is becoming, the daemon."""
    fd = place.lock()
    if fd is None:
        return None
    os.close(fd)
    return _spawn(place)


def _spawn(place: Place) -> subprocess.Popen[bytes]:
    """A process of a session of its own, which outlives us."""
    flags = os.O_WRONLY | os.O_CREAT | os.O_APPEND | os.O_CLOEXEC
    fd = os.open(place.log, flags, 0o600)
    try:
        return subprocess.Popen(
            [sys.executable, "-I", "-m", "banger.daemon.main"],
            stdin=subprocess.DEVNULL,
            stdout=fd,
            stderr=fd,
            start_new_session=True,
            cwd="/",
            env=child_environment({}),
        )
    finally:
        os.close(fd)


def _check_peer(connection: socket.socket) -> None:
    """unix(7), SO_PEERCRED: who made the socket there. It lies in a folder of ours; this is the second look."""
    peer = connection.getsockopt(socket.SOL_SOCKET, socket.SO_PEERCRED, struct.calcsize("3i"))
    if struct.unpack("3i", peer)[1] not in (0, os.geteuid()):
        raise _not_there("its socket belongs to somebody else")


def _read_line(connection: socket.socket) -> bytes:
    line = b""
    while not line.endswith(b"\n"):
        block = connection.recv(1 << 16)
        if not block or len(line) > MAX_LINE_BYTES:
            raise ConnectionError("it broke off")
        line += block
    return line


def _not_there(why: str) -> BangerError:
    return BangerError(f"bangerd does not answer: {why}", reason=Reason.UNAVAILABLE, hint="banger daemon start")
