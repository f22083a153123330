"""The server and its clients, also those that behave badly."""

from __future__ import annotations

import asyncio
import contextlib
import socket
import struct
from collections.abc import AsyncIterator, Awaitable, Callable
from ipaddress import IPv4Address
from typing import Any

import pytest
from dnslib import DNSRecord

from banger.dns.server import DnsServer, start_server
from banger.dns.zone import Zone
from tests.dns.questions import answers, ask, make_zone, raw, rcode
from tests.ports import find_free_port

LOOPBACK = "127.0.0.1"
Scenario = Callable[[DnsServer], Awaitable[None]]
CROWD = make_zone({f"machine-{number:03}": "172.16.0.9" for number in range(200)})


def play(scenario: Scenario, zone: Zone | None = None, **options: Any) -> None:
    async def run() -> None:
        # Of any that the kernel gives, only TCP's is sure to be free.
        server = await start_server((LOOPBACK, find_free_port()), zone or make_zone(), **options)
        try:
            await asyncio.wait_for(scenario(server), 60)
        finally:
            await server.close()

    asyncio.run(run())


def framed(*packets: bytes) -> bytes:
    return b"".join(struct.pack("!H", len(packet)) + packet for packet in packets)


@contextlib.asynccontextmanager
async def connection(server: DnsServer) -> AsyncIterator[tuple[asyncio.StreamReader, asyncio.StreamWriter]]:
    reader, writer = await asyncio.open_connection(*server.address)
    try:
        yield reader, writer
    finally:
        writer.transport.abort()


async def read_answer(reader: asyncio.StreamReader) -> DNSRecord:
    (length,) = struct.unpack("!H", await reader.readexactly(2))
    return DNSRecord.parse(await reader.readexactly(length))


async def ask_by_tcp(server: DnsServer, query: bytes) -> DNSRecord:
    async with connection(server) as (reader, writer):
        writer.write(framed(query))
        return await read_answer(reader)


async def ask_by_udp(server: DnsServer, *packets: bytes) -> DNSRecord:
    """The first answer to any of the packets."""
    loop = asyncio.get_running_loop()
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as client:
        client.setblocking(False)
        client.connect(server.address)
        for packet in packets:
            await loop.sock_sendall(client, packet)
        return DNSRecord.parse(await loop.sock_recv(client, 65535))


async def assert_answers(server: DnsServer) -> None:
    for said in (await ask_by_udp(server, ask("web.vm")), await ask_by_tcp(server, ask("web.vm"))):
        assert answers(said) == [("web.vm.", "A", "172.16.0.2")]


async def assert_is_closed(reader: asyncio.StreamReader) -> None:
    with contextlib.suppress(ConnectionError):
        assert await reader.read() == b""


def test_one_port_answers_by_udp_and_tcp() -> None:
    play(assert_answers)


def test_several_questions_in_one_segment_are_answered_in_their_order() -> None:
    async def scenario(server: DnsServer) -> None:
        async with connection(server) as (reader, writer):
            writer.write(framed(*(ask(f"{name}.vm", number=at) for at, name in enumerate(["web", "nobody", "db"]))))
            said = [await read_answer(reader) for _ in range(3)]
            assert [(each.header.id, rcode(each)) for each in said] == [(0, "NOERROR"), (1, "NXDOMAIN"), (2, "NOERROR")]
            writer.write(framed(ask("db.vm", number=9)))
            assert (await read_answer(reader)).header.id == 9

    play(scenario)


def test_a_question_in_single_bytes_is_answered() -> None:
    async def scenario(server: DnsServer) -> None:
        async with connection(server) as (reader, writer):
            writer.get_extra_info("socket").setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
            for byte in framed(ask("web.vm")):
                writer.write(bytes([byte]))
                await writer.drain()
                await asyncio.sleep(0)
            assert answers(await read_answer(reader)) == [("web.vm.", "A", "172.16.0.2")]

    play(scenario)


def test_who_has_no_more_questions_still_gets_all_answers() -> None:
    async def scenario(server: DnsServer) -> None:
        async with connection(server) as (reader, writer):
            writer.write(framed(*[ask("9.0.16.172.in-addr.arpa", "PTR")] * 300))
            writer.write_eof()
            for _ in range(300):
                assert len((await read_answer(reader)).rr) == 200
            await assert_is_closed(reader)

    play(scenario, CROWD)


@pytest.mark.parametrize("sent", [b"", b"\0", framed(ask("web.vm"))[:-1], b"\xff\xff" + b"a" * 99])
def test_a_connection_that_ends_in_the_middle_harms_nobody(sent: bytes) -> None:
    async def scenario(server: DnsServer) -> None:
        async with connection(server) as (reader, writer):
            writer.write(sent)
            writer.write_eof()
            await assert_is_closed(reader)
        async with connection(server) as (_, writer):
            # RST instead of an end.
            writer.get_extra_info("socket").setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
            writer.write(sent)
        await assert_answers(server)

    play(scenario)


@pytest.mark.parametrize("packet", [b"", b"\0" * 11, ask("web.vm", qr=1), b"GET / HTTP/1.1\r\n\r\n"[2:]])
def test_what_cannot_be_answered_ends_its_connection(packet: bytes) -> None:
    async def scenario(server: DnsServer) -> None:
        async with connection(server) as (reader, writer):
            writer.write(framed(packet, ask("web.vm")))
            if len(packet) > 11 and not packet[2] & 0x80:
                assert rcode(await read_answer(reader)) in ("FORMERR", "NOTIMP")
            else:
                await assert_is_closed(reader)
        await assert_answers(server)

    play(scenario)


def test_a_malformed_question_is_answered_and_the_next_as_well() -> None:
    async def scenario(server: DnsServer) -> None:
        async with connection(server) as (reader, writer):
            writer.write(framed(raw(number=3), ask("web.vm", number=4)))
            said = [await read_answer(reader), await read_answer(reader)]
            assert [(each.header.id, rcode(each)) for each in said] == [(3, "FORMERR"), (4, "NOERROR")]

    play(scenario)


def test_datagrams_that_are_none_are_passed_over() -> None:
    async def scenario(server: DnsServer) -> None:
        said = await ask_by_udp(server, b"", b"x", ask("web.vm", qr=1), b"\xff" * 2000, ask("web.vm", number=77))
        assert said.header.id == 77

    play(scenario)


def test_who_says_nothing_or_too_little_is_let_go() -> None:
    async def scenario(server: DnsServer) -> None:
        async with connection(server) as (silent, _), connection(server) as (slow, writer):

            async def drip() -> None:
                # Never silent, and never done.
                with contextlib.suppress(ConnectionError):
                    while True:
                        writer.write(b"\x10")
                        await writer.drain()
                        await asyncio.sleep(0.02)

            dripping = asyncio.create_task(drip())
            await assert_is_closed(silent)
            await assert_is_closed(slow)
            dripping.cancel()
        await assert_answers(server)

    play(scenario, idle_s=1.5)


def test_who_does_not_fetch_the_answers_is_let_go() -> None:
    async def scenario(server: DnsServer) -> None:
        with socket.socket() as client:
            client.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 4096)
            client.setblocking(False)
            await asyncio.get_running_loop().sock_connect(client, server.address)
            with pytest.raises(ConnectionError):
                await ask_for_ever(client)

    play(scenario, CROWD, idle_s=0.3)


async def ask_for_ever(client: socket.socket) -> None:
    while True:
        packets = framed(*[ask("9.0.16.172.in-addr.arpa", "PTR")] * 100)
        await asyncio.get_running_loop().sock_sendall(client, packets)


def test_the_connection_that_was_silent_for_longest_makes_room() -> None:
    async def scenario(server: DnsServer) -> None:
        async with contextlib.AsyncExitStack() as stack:
            first, second, third = [await stack.enter_async_context(connection(server)) for _ in range(3)]
            for reader, writer in (first, second, third, first):
                writer.write(framed(ask("web.vm")))
                await read_answer(reader)
            fourth = await stack.enter_async_context(connection(server))
            await assert_is_closed(second[0])
            for reader, writer in (first, third, fourth):
                writer.write(framed(ask("db.vm")))
                assert answers(await read_answer(reader)) == [("db.vm.", "A", "172.16.0.5")]

    play(scenario, max_connections=3)


def test_a_flood_of_connections_keeps_nobody_out() -> None:
    async def scenario(server: DnsServer) -> None:
        async with contextlib.AsyncExitStack() as stack:
            for _ in range(300):
                await stack.enter_async_context(connection(server))
            await assert_answers(server)

    play(scenario)


def test_closing_gives_back_both_ports_and_ends_every_connection() -> None:
    async def scenario() -> None:
        server = await start_server((LOOPBACK, 0), make_zone())
        async with connection(server) as (reader, writer), connection(server) as (other, _):
            writer.write(framed(ask("web.vm")) + b"\0\x20half")
            await read_answer(reader)
            await server.close()
            await assert_is_closed(reader)
            await assert_is_closed(other)
            again = await start_server(server.address, make_zone())
            assert again.address == server.address
            await assert_answers(again)
            await again.close()
            await again.close()
            with pytest.raises(ConnectionError):
                await asyncio.open_connection(*server.address)

    asyncio.run(scenario())


def test_a_machine_that_comes_later_is_found() -> None:
    machines: dict[str, IPv4Address] = {}

    async def scenario(server: DnsServer) -> None:
        assert rcode(await ask_by_udp(server, ask("new.vm"))) == "NXDOMAIN"
        machines["new"] = IPv4Address("172.16.0.9")
        assert answers(await ask_by_udp(server, ask("new.vm"))) == [("new.vm.", "A", "172.16.0.9")]

    play(scenario, Zone(lambda: machines))
