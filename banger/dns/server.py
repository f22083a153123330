"""Who says it: one port, by UDP and TCP, on the caller's event loop.

A zone answers at once and from memory, so there is nothing to wait for between a question and its answer. By TCP
(RFC 7766) any number of questions come one after another, or several before the first answer; answers keep their
order.

Bounded, whatever a client does: the number of connections (the one that was silent for longest makes room for a new
one), the time a message may take to arrive or an answer to be fetched, and what is read ahead.
"""

from __future__ import annotations

import asyncio
import contextlib
import errno
import os
import socket

from banger.dns.holder import find_holder
from banger.dns.message import answer
from banger.dns.zone import Zone
from banger.errors import BangerError, Reason

IDLE_S = 10.0
MAX_CONNECTIONS = 64

_LENGTH_BYTES = 2  # RFC 1035, section 4.2.2
_LONGEST_MESSAGE = 65535


class DnsServer:
    """Answers until it is closed. `address` is where: with the port that was chosen, if 0 was asked for."""

    def __init__(self, zone: Zone, idle_s: float, max_connections: int) -> None:
        self.address: tuple[str, int] = ("", 0)
        self._zone = zone
        self._idle_s = idle_s
        self._max_connections = max_connections
        # Longest silent first.
        self._connections: dict[asyncio.Task[None], asyncio.StreamWriter] = {}
        self._datagrams: socket.socket | None = None
        self._listener: asyncio.Server | None = None
        self._is_closed = False

    async def open(self, listen: tuple[str, int]) -> None:
        with contextlib.ExitStack() as stack:
            stream, datagrams = _bind(listen, stack)
            self.address = stream.getsockname()
            self._listener = await asyncio.start_server(self._serve_connection, sock=stream)
            stack.pop_all()
        self._datagrams = datagrams
        asyncio.get_running_loop().add_reader(datagrams, self._serve_datagram, datagrams)

    async def close(self) -> None:
        """Both sockets and every connection are closed when this returns. Closing again is fine."""
        self._is_closed = True
        if self._datagrams is not None and self._listener is not None:
            asyncio.get_running_loop().remove_reader(self._datagrams)
            self._datagrams.close()
            self._listener.close()
            self._datagrams = None
        tasks = list(self._connections)
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)
        # What was told to close does so at the loop's next turn.
        await asyncio.sleep(0)

    def _serve_datagram(self, datagrams: socket.socket) -> None:
        try:
            packet, asker = datagrams.recvfrom(_LONGEST_MESSAGE)
        except OSError:
            return  # that of an earlier answer, whose asker has gone
        said = answer(packet, over_tcp=False, zone=self._zone)
        # Nobody waits for a datagram for ever: what the kernel does not take now is dropped.
        with contextlib.suppress(OSError):
            if said is not None:
                datagrams.sendto(said, asker)

    async def _serve_connection(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        task = asyncio.current_task()
        assert task is not None
        while len(self._connections) >= self._max_connections:
            self._connections.pop(next(iter(self._connections))).transport.abort()
        self._connections[task] = writer
        try:
            while not self._is_closed and await self._serve_message(reader, writer):
                # Most recent last; and others have their turn, even when the next message is here already.
                if self._connections.pop(task, None) is not None:
                    self._connections[task] = writer
                await asyncio.sleep(0)
            writer.close()
            async with asyncio.timeout(self._idle_s):
                await writer.wait_closed()
        except OSError:
            pass  # gone, or too slow (TimeoutError)
        finally:
            self._connections.pop(task, None)
            writer.transport.abort()

    async def _serve_message(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> bool:
        """False when there is nothing more to be said: the end, or what only speaks something like DNS."""
        try:
            async with asyncio.timeout(self._idle_s):
                length = int.from_bytes(await reader.readexactly(_LENGTH_BYTES), "big")
                packet = await reader.readexactly(length)
        except asyncio.IncompleteReadError:
            return False
        said = answer(packet, over_tcp=True, zone=self._zone)
        if said is None:
            return False
        writer.write(len(said).to_bytes(_LENGTH_BYTES, "big") + said)
        async with asyncio.timeout(self._idle_s):
            await writer.drain()
        return True


async def start_server(
    listen: tuple[str, int], zone: Zone, *, idle_s: float = IDLE_S, max_connections: int = MAX_CONNECTIONS
) -> DnsServer:
    """Answers come from now on, by UDP and TCP, at an IPv4 address and a port (0: any).

    Raises `BangerError`, with neither taken: in-use, no-permission (a port below 1024), bad-input (an address that is
    not this host's).
    """
    server = DnsServer(zone, idle_s, max_connections)
    await server.open(listen)
    return server


def _bind(listen: tuple[str, int], stack: contextlib.ExitStack) -> tuple[socket.socket, socket.socket]:
    """Both sockets of a port, bound: TCP, UDP."""
    stream = stack.enter_context(socket.socket(socket.AF_INET, socket.SOCK_STREAM))
    # A connection of the server before this one may linger in TIME_WAIT. For UDP the option would let two have a port.
    stream.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
    datagram = stack.enter_context(socket.socket(socket.AF_INET, socket.SOCK_DGRAM))
    protocol = "tcp"
    try:
        stream.bind(listen)
        stream.listen()
        protocol = "udp"
        datagram.bind(stream.getsockname())
    except OSError as error:
        raise _refusal(listen, protocol, error) from error
    for each in (stream, datagram):
        each.setblocking(False)
    return stream, datagram


def _refusal(listen: tuple[str, int], protocol: str, error: OSError) -> BangerError:
    where = f"{listen[0]}:{listen[1]}"
    match error.errno:
        case errno.EADDRINUSE:
            holder = find_holder(protocol, listen)
            return BangerError(
                f"names cannot be served at {where}: "
                + (f"{holder} has" if holder else "something has had")
                + f" the {protocol.upper()} port",
                reason=Reason.IN_USE,
                hint=f"look: ss -{protocol[0]}lnp 'sport = :{listen[1]}'; choose another with the setting dns.listen",
            )
        case errno.EACCES:
            return BangerError(
                f"names cannot be served at {where}: ports below 1024 are root's",
                reason=Reason.NO_PERMISSION,
                hint="choose another port with the setting dns.listen, or allow it for all: "
                f"sudo sysctl net.ipv4.ip_unprivileged_port_start={listen[1]}",
            )
        case errno.EADDRNOTAVAIL:
            return BangerError(
                f"names cannot be served at {where}: this host has no such address",
                reason=Reason.BAD_INPUT,
                hint="choose another with the setting dns.listen",
            )
        case _:
            return BangerError(f"names cannot be served at {where}: {os.strerror(error.errno or 0)}", reason=Reason.IO)
