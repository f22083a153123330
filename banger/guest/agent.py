"""The agent in the guest: the QEMU guest agent, spoken to over whatever channel the monitor has.

One connection, one conversation ("QEMU Guest Agent Protocol Reference"). A guest is not trusted: what it answers is
bounded in size and time, and only ever read as data.
"""

from __future__ import annotations

import base64
import contextlib
import json
import secrets
import socket
import time
from collections.abc import Callable, Iterator
from typing import Any, TypeVar

from banger.errors import BangerError, Reason
from banger.guest.sockets import Protocol, Socket, State, parse_sockets

_T = TypeVar("_T")
_MAX_ANSWER_BYTES = 4 << 20
_WRITE_BYTES = 1 << 15
_MAX_TABLE_BYTES = 1 << 20
_POLL_FIRST_S = 0.01
_POLL_MOST_S = 0.1
_RESEND_S = 0.15
_ATTEMPT_S = 5.0


class Agent:
    """A conversation with the agent; made by `connect`."""

    def __init__(self, connection: socket.socket) -> None:
        self._connection = connection
        self._buffer = b""

    def ask(self, command: str, /, timeout_s: float = 10.0, **arguments: Any) -> Any:
        """One command, one answer. Raises `BangerError` for a refusal, silence or nonsense."""
        request: dict[str, object] = {"execute": command}
        if arguments:
            request["arguments"] = {name.replace("_", "-"): value for name, value in arguments.items()}
        try:
            self._connection.settimeout(timeout_s)
            self._connection.sendall(json.dumps(request).encode() + b"\n")
            answer = _parse(self._read_line(timeout_s))
        except TimeoutError as error:
            raise _trouble(f"the agent in the guest did not answer {command} in {timeout_s:.0f} s") from error
        except (OSError, ValueError) as error:
            raise _trouble(f"the agent in the guest broke off at {command}: {error}") from error
        if not isinstance(answer, dict) or "return" not in answer:
            refusal = answer.get("error") if isinstance(answer, dict) else None
            said = refusal.get("desc") if isinstance(refusal, dict) else None
            raise _trouble(f"the agent in the guest refused {command}: {str(said)[:200]!r}")
        return answer["return"]

    def read_file(self, path: str, most_bytes: int = 1 << 16) -> bytes:
        """The beginning of a file in the guest. No process is started for it there."""
        handle = self.ask("guest-file-open", path=path)
        try:
            return _decode(self.ask("guest-file-read", handle=handle, count=most_bytes), "buf-b64")
        finally:
            self.ask("guest-file-close", handle=handle)

    def write_file(self, path: str, content: bytes) -> None:
        """A whole file, made anew."""
        handle = self.ask("guest-file-open", path=path, mode="w")
        try:
            for at in range(0, len(content), _WRITE_BYTES):
                block = content[at : at + _WRITE_BYTES]
                self.ask("guest-file-write", handle=handle, buf_b64=base64.b64encode(block).decode(), count=len(block))
        finally:
            self.ask("guest-file-close", handle=handle)

    def sockets(self, *protocols: Protocol) -> list[Socket]:
        """The guest's sockets of these protocols."""
        found: list[Socket] = []
        for protocol in protocols:
            for path in (f"/proc/net/{protocol}", f"/proc/net/{protocol}6"):
                try:
                    table = self.read_file(path, _MAX_TABLE_BYTES)
                except BangerError:
                    # A kernel may have no IPv6.
                    if path.endswith("6"):
                        continue
                    raise
                found.extend(parse_sockets(protocol, table.decode("ascii", "replace")))
        return found

    def listens(self, port: int) -> bool:
        """Whether something in the guest accepts TCP connections."""
        return any(each.port == port and each.state is State.LISTENING for each in self.sockets(Protocol.TCP))

    def _read_line(self, timeout_s: float) -> bytes:
        deadline = time.monotonic() + timeout_s
        while b"\n" not in self._buffer:
            left = deadline - time.monotonic()
            if left <= 0:
                # Also when bytes come one by one, for ever.
                raise TimeoutError
            self._connection.settimeout(left)
            block = self._connection.recv(65536)
            if not block:
                raise OSError("the connection ended")
            self._buffer += block
            if len(self._buffer) > _MAX_ANSWER_BYTES:
                raise ValueError("the answer is too long")
        line, _, self._buffer = self._buffer.partition(b"\n")
        return line

    def synchronise(self, timeout_s: float) -> bool:
        """Wait until the agent answers, and skip what an earlier conversation left (guest-sync-delimited).

        A request made before the agent listens may be lost or kept, depending on the channel: it is repeated until
        one is answered, and a last one, which all other answers precede, ends the wait. False when time is up.
        """
        deadline = time.monotonic() + timeout_s
        sent: set[int] = set()
        while time.monotonic() < deadline:
            sent.add(self._send_sync())
            if self._await_sync(sent, min(_RESEND_S, deadline - time.monotonic())):
                last = self._send_sync()
                return self._await_sync({last}, max(1.0, deadline - time.monotonic()))
        return False

    def _send_sync(self) -> int:
        token = secrets.randbits(31)
        request = json.dumps({"execute": "guest-sync-delimited", "arguments": {"id": token}}).encode()
        # The leading 0xFF makes the agent drop a half-sent request; it puts one before its answer.
        self._connection.sendall(b"\xff" + request + b"\n")
        return token

    def _await_sync(self, tokens: set[int], timeout_s: float) -> bool:
        deadline = time.monotonic() + timeout_s
        with contextlib.suppress(TimeoutError):
            while time.monotonic() < deadline:
                _, marked, text = self._read_line(max(0.001, deadline - time.monotonic())).rpartition(b"\xff")
                with contextlib.suppress(ValueError):
                    answer = _parse(text) if marked else None
                    if isinstance(answer, dict) and answer.get("return") in list(tokens):
                        return True
        return False

    def close(self) -> None:
        self._connection.close()


@contextlib.contextmanager
def connect(
    open_channel: Callable[[float], socket.socket], timeout_s: float, is_alive: Callable[[], bool] = lambda: True
) -> Iterator[Agent]:
    """Talk to the agent, waiting for it to come up if need be.

    `open_channel` connects within the seconds it is given. Raises TIMEOUT when the agent does not answer in time,
    MONITOR_DIED when `is_alive` says that there is nobody left to answer.
    """
    deadline = time.monotonic() + timeout_s
    agent: Agent | None = None
    while agent is None:
        agent = _try_connect(open_channel, deadline)
        if agent is None:
            if not is_alive():
                raise BangerError("the machine ended before its agent answered", reason=Reason.MONITOR_DIED)
            if time.monotonic() > deadline:
                raise BangerError(
                    f"the agent in the guest did not answer within {timeout_s:.0f} s", reason=Reason.TIMEOUT
                )
    try:
        yield agent
    finally:
        agent.close()


def _try_connect(open_channel: Callable[[float], socket.socket], deadline: float) -> Agent | None:
    """One attempt, short enough that the life of the monitor is looked at often; None when nobody answers yet."""
    left = max(0.05, min(_ATTEMPT_S, deadline - time.monotonic()))
    try:
        agent = Agent(open_channel(left))
    except (BangerError, OSError):
        time.sleep(_POLL_MOST_S)
        return None
    try:
        if agent.synchronise(left):
            return agent
    except (OSError, ValueError):
        # A channel that closes at once must not make this a busy loop.
        time.sleep(_POLL_MOST_S)
    agent.close()
    return None


def _parse(text: bytes) -> Any:
    """ValueError for whatever is not JSON."""
    try:
        return json.loads(text)
    except RecursionError as error:
        raise ValueError("the answer is nested too deeply") from error


def _expect(answer: Any, name: str, kind: type[_T], default: _T | None = None) -> _T:
    found = answer.get(name, default) if isinstance(answer, dict) else None
    if not isinstance(found, kind):
        raise _trouble(f"the agent in the guest gave no {name}")
    return found


def _decode(answer: Any, name: str) -> bytes:
    try:
        return base64.b64decode(_expect(answer, name, str, ""))
    except ValueError as error:
        raise _trouble(f"the agent in the guest gave a bad {name}") from error


def _trouble(what: str) -> BangerError:
    return BangerError(what, reason=Reason.GUEST)
