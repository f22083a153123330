"""A connection to a port inside a guest, through the Unix socket behind Firecracker's vsock device.

Guarantees: the socket that is handed out stands at the first byte that the guest's program sent, however the
packets were cut; a guest that does not listen yet, and a connection that is dropped, are tried again until the
time is over; a monitor that has ended is noticed at once and not waited for.

Not promised: that the program in the guest is the expected one, or that it answers; this is for its client to find out.

Format: Firecracker's docs/vsock.md, "Host-Initiated Connections". The host writes `CONNECT <port>\\n`; when the
guest has accepted, Firecracker writes `OK <port on the host side>\\n`; when nobody listens, it closes.
"""

from __future__ import annotations

import re
import socket
import time
from collections.abc import Callable
from pathlib import Path

from banger.errors import BangerError, Reason
from banger.run import printable

_FIRST_PAUSE_S = 0.01
_LONGEST_PAUSE_S = 0.25
# Firecracker gives a guest 2 s to accept (CONN_REQUEST_TIMEOUT_MS), but may notice only at the next connection:
# an attempt that is older than that is better made again.
_ATTEMPT_S = 3.0
_LONGEST_LINE_BYTES = len(b"OK 4294967295\n")


def connect_guest(path: Path, port: int, timeout_s: float) -> socket.socket:
    """A blocking socket connected to a guest's vsock port. `path` is the device's `uds_path`.

    Raises `BangerError`: TIMEOUT when the guest did not accept in time, MONITOR_DIED when nobody serves `path`,
    UNAVAILABLE when what serves it does not speak as Firecracker does.
    """
    deadline = time.monotonic() + timeout_s
    pause_s = _FIRST_PAUSE_S
    while True:
        channel = _find_channel(path, port, deadline)
        if channel is not None:
            return channel
        left_s = deadline - time.monotonic()
        if left_s <= 0:
            raise BangerError(
                f"nothing in the guest accepted a connection to vsock port {port} within {timeout_s:g} s",
                reason=Reason.TIMEOUT,
                hint="the machine's log shows how far its boot came",
            )
        time.sleep(min(pause_s, left_s))
        pause_s = min(pause_s * 2, _LONGEST_PAUSE_S)


def read_acknowledgement(receive: Callable[[int], bytes]) -> int | None:
    """The host-side port that Firecracker's `OK` line names, or None when the connection closed before its end.

    Asks for one byte at a time: what follows the line belongs to the guest's program.
    """
    line = b""
    while not line.endswith(b"\n") and len(line) < _LONGEST_LINE_BYTES:
        byte = receive(1)
        if not byte:
            return None
        line += byte
    match = re.fullmatch(rb"OK ([0-9]+)\n", line)
    if match is None:
        raise BangerError(
            f"the vsock socket answered {printable(line.decode('utf-8', 'replace'))!r} instead of OK and a port",
            reason=Reason.UNAVAILABLE,
        )
    return int(match[1])


def _find_channel(path: Path, port: int, deadline: float) -> socket.socket | None:
    """One attempt; None when it failed in a way that waiting can cure."""
    attempt_end = min(deadline, time.monotonic() + _ATTEMPT_S)
    channel = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
    accepted = False
    try:

        def receive(size: int) -> bytes:
            channel.settimeout(_left_s(attempt_end))
            return channel.recv(size)

        channel.settimeout(_left_s(attempt_end))
        channel.connect(str(path))
        channel.sendall(b"CONNECT %d\n" % port)
        accepted = read_acknowledgement(receive) is not None
        if accepted:
            channel.settimeout(None)
    except (FileNotFoundError, ConnectionRefusedError) as error:
        # Firecracker binds the socket when the device is configured and keeps it to its end.
        raise BangerError(
            f"no monitor serves {path}", reason=Reason.MONITOR_DIED, hint="the machine's log holds its last words"
        ) from error
    except (TimeoutError, ConnectionResetError, BrokenPipeError, BlockingIOError):
        # BlockingIOError: the backlog is full, as can happen before the guest has its driver.
        accepted = False
    finally:
        if not accepted:
            channel.close()
    return channel if accepted else None


def _left_s(deadline: float) -> float:
    # Zero would make the socket non-blocking instead of timing out.
    return max(0.001, deadline - time.monotonic())
