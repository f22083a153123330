"""The daemon's socket: requests of this user's own processes, answered in order (docs/daemon.md)."""

from __future__ import annotations

import asyncio
import os
import socket
import struct
from collections.abc import Awaitable, Callable, Mapping
from pathlib import Path
from typing import Any

from banger.daemon.protocol import MAX_LINE_BYTES, format_refusal, format_result, parse_request
from banger.errors import BangerError, Reason

# Gives the result of a request, or raises `BangerError`.
Handler = Callable[[str, Mapping[str, Any]], Awaitable[object]]

_IDLE_S = 60.0
_MOST_CONNECTIONS = 64


class Service:
    """Listening on a Unix socket (mode 0600) until closed."""

    def __init__(self, path: Path, handle: Handler) -> None:
        self._path = path
        self._handle = handle
        self._server: asyncio.Server | None = None
        self._count = 0

    async def start(self) -> None:
        """What an earlier daemon left at the path gives way: the caller holds the lock."""
        self._path.unlink(missing_ok=True)
        listener = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
        before = os.umask(0o177)
        try:
            listener.bind(os.fspath(self._path))
        finally:
            os.umask(before)
        self._server = await asyncio.start_unix_server(self._serve, sock=listener, limit=MAX_LINE_BYTES)

    async def close(self) -> None:
        if self._server is not None:
            self._server.close()
            self._path.unlink(missing_ok=True)

    async def _serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        self._count += 1
        try:
            if self._count <= _MOST_CONNECTIONS and _is_ours(writer):
                await self._converse(reader, writer)
        except (OSError, TimeoutError, ValueError, asyncio.IncompleteReadError, asyncio.CancelledError):
            # Gone, silent for too long, a line without an end, or the end of the daemon.
            pass
        finally:
            self._count -= 1
            writer.close()

    async def _converse(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        while line := await asyncio.wait_for(reader.readline(), _IDLE_S):
            try:
                answer = format_result(await self._handle(*parse_request(line)))
            except BangerError as error:
                answer = format_refusal(error)
            writer.write(answer)
            await asyncio.wait_for(writer.drain(), _IDLE_S)


def _is_ours(writer: asyncio.StreamWriter) -> bool:
    """unix(7), SO_PEERCRED: who connected, as the kernel says."""
    connection = writer.get_extra_info("socket")
    _, uid, _ = struct.unpack("3i", connection.getsockopt(socket.SOL_SOCKET, socket.SO_PEERCRED, struct.calcsize("3i")))
    return uid in (0, os.geteuid())


def refuse_unknown(do: str, known: Mapping[str, object]) -> BangerError:
    from catalog.names import nearest

    return BangerError(f"there is no request {do!r}", reason=Reason.NOT_FOUND, hint=nearest(do, known))
