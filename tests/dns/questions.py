"""Queries as bytes, and answers taken apart again by dnslib."""

from __future__ import annotations

import struct
from collections.abc import Mapping
from ipaddress import IPv4Address, IPv4Network
from typing import Any

from dnslib import CLASS, EDNS0, QTYPE, RCODE, DNSHeader, DNSQuestion, DNSRecord

from banger.dns.message import answer
from banger.dns.zone import Zone
from banger.network.subnet import Subnet

MACHINES = {"web": "172.16.0.2", "db": "172.16.0.5", "build-01": "172.16.0.254"}


def make_zone(machines: Mapping[str, str] = MACHINES, network: str = "172.16.0.0/24") -> Zone:
    table = {name: IPv4Address(address) for name, address in machines.items()}
    return Zone(lambda: table, Subnet("banger0", IPv4Network(network)))


def ask(name: str | list[bytes], kind: str = "A", *, edns: int | None = None, number: int = 7, **fields: Any) -> bytes:
    """A query. `edns` is the client's UDP size; `class_` and header fields (opcode, rd, qr, …) may be given."""
    class_ = fields.pop("class_", "IN")
    question = DNSQuestion(name, getattr(QTYPE, kind), getattr(CLASS, class_))
    query = DNSRecord(DNSHeader(id=number, bitmap=0, **fields), q=question)
    if edns is not None:
        query.add_ar(EDNS0(udp_len=edns))
    return bytes(query.pack())


def reply(query: bytes, zone: Zone | None = None, *, over_tcp: bool = False) -> DNSRecord:
    said = answer(query, over_tcp=over_tcp, zone=zone or make_zone())
    assert said is not None
    return DNSRecord.parse(said)


def rcode(record: DNSRecord) -> str:
    return str(RCODE.get(record.header.rcode))


def answers(record: DNSRecord) -> list[tuple[str, str, str]]:
    """(owner, type, data) of each answer."""
    return [(str(each.rname), QTYPE.get(each.rtype), str(each.rdata)) for each in record.rr]


def authority(record: DNSRecord) -> list[tuple[str, str]]:
    return [(str(each.rname), QTYPE.get(each.rtype)) for each in record.auth]


def raw(number: int = 7, flags: int = 0, counts: tuple[int, int, int, int] = (1, 0, 0, 0), rest: bytes = b"") -> bytes:
    return struct.pack("!6H", number, flags, *counts) + rest
