"""How it is said: a query's bytes to the bytes of its answer. Pure but for the zone's lookup.

The rules are those of RFC 1035 (section 4: the format), 2308 (negative answers), 6891 (EDNS) and 8482 (ANY). Answers
are authoritative; nothing is ever asked elsewhere.

Guaranteed: no bytes make `answer` raise, an answer is never answered (two servers cannot keep each other busy), and
the work for one packet is bounded: a question's name has at most 255 bytes and no pointers, and of what follows at
most `_MOST_RECORDS` records are stepped over, unread. That is why dnslib packs answers here but does not take queries
apart: it follows pointers into one another to the end of the stack, and refuses a label that is not UTF-8.
"""

from __future__ import annotations

import struct
from dataclasses import dataclass
from enum import IntEnum
from ipaddress import IPv4Address
from typing import TYPE_CHECKING, Any

from banger.dns.zone import Entry, Name, RecordType, Zone
from banger.errors import BangerError

if TYPE_CHECKING:
    from dnslib import RR

# How long a resolver may keep an answer, also that there is no such name.
TTL_S = 2
# What goes through any network without fragments, as resolvers agreed in 2020 ("DNS flag day").
UDP_SIZE = 1232
_LEAST_UDP_SIZE = 512  # RFC 1035, section 4.2.1
_TCP_SIZE = 65535

_HEADER = struct.Struct("!6H")
_QUESTION_END = struct.Struct("!2H")
_RECORD_END = struct.Struct("!2HIH")
_LONGEST_NAME, _LONGEST_LABEL, _POINTER = 255, 63, 0xC0
# A query has an OPT, and perhaps a signature; one for IXFR also the SOA of its zone.
_MOST_RECORDS = 8

_QR, _AA, _TC, _RD = 1 << 15, 1 << 10, 1 << 9, 1 << 8
_OPCODE = 0xF << 11
_CLASS_IN = 1
_TYPE_OPT, _TYPE_IXFR, _TYPE_AXFR, _TYPE_ANY = 41, 251, 252, 255


class Rcode(IntEnum):
    """RFC 6895, section 2.3. BADVERS is one that only an OPT has room for."""

    NOERROR = 0
    FORMERR = 1
    SERVFAIL = 2
    NXDOMAIN = 3
    NOTIMP = 4
    REFUSED = 5
    BADVERS = 16


@dataclass(frozen=True)
class _Query:
    """`edns` is (UDP size of the client, version); None without EDNS."""

    name: Name
    kind: int
    class_: int
    edns: tuple[int, int] | None


class _Malformed(Exception):
    pass


def answer(packet: bytes, *, over_tcp: bool, zone: Zone) -> bytes | None:
    """What to send back; None for nothing: what is shorter than a header or says that it is an answer."""
    if len(packet) < _HEADER.size:
        return None
    number, flags, *counts = _HEADER.unpack_from(packet)
    if flags & _QR:
        return None
    reply = _Reply(number, _QR | flags & (_OPCODE | _RD))
    if flags & _OPCODE:
        return reply.pack(Rcode.NOTIMP)
    try:
        query = _parse_query(packet, counts)
    except _Malformed:
        return reply.pack(Rcode.FORMERR)
    reply.query = query
    if not over_tcp:
        reply.limit_bytes = min(max(_LEAST_UDP_SIZE, query.edns[0] if query.edns else 0), UDP_SIZE)
    if query.edns and query.edns[1] > 0:
        return reply.pack(Rcode.BADVERS)
    if query.class_ != _CLASS_IN or query.kind in (_TYPE_IXFR, _TYPE_AXFR):
        return reply.pack(Rcode.REFUSED)
    try:
        entry = zone.find(query.name)
    except BangerError:
        return reply.pack(Rcode.SERVFAIL)
    if entry is None:
        return reply.pack(Rcode.REFUSED)
    reply.flags |= _AA
    return reply.pack(Rcode.NOERROR if entry.exists else Rcode.NXDOMAIN, entry)


def _parse_query(packet: bytes, counts: list[int]) -> _Query:
    questions, *records = counts
    # RFC 9619: one question, no more. None at all is for those who want a cookie (RFC 7873), which we have not.
    if questions != 1 or sum(records) > _MOST_RECORDS:
        raise _Malformed
    try:
        name, at = _parse_name(packet, _HEADER.size)
        kind, class_ = _QUESTION_END.unpack_from(packet, at)
        at += _QUESTION_END.size
        edns = None
        for number in range(sum(records)):
            owner = packet[at]
            at = _skip_name(packet, at)
            type_, size, ttl, length = _RECORD_END.unpack_from(packet, at)
            at += _RECORD_END.size + length
            if type_ != _TYPE_OPT:
                continue
            # RFC 6891, section 6.1.1: at most one, of the root, and in the last section.
            if edns or owner or number < records[0] + records[1]:
                raise _Malformed
            edns = size, ttl >> 16 & 0xFF
    except (struct.error, IndexError) as error:
        raise _Malformed from error
    if at > len(packet):
        raise _Malformed
    return _Query(name, kind, class_, edns)


def _parse_name(packet: bytes, at: int) -> tuple[Name, int]:
    """A name without pointers, and where it ends: before the only question there is nothing to point to."""
    begin, labels = at, []
    while length := packet[at]:
        if length > _LONGEST_LABEL or at + length >= len(packet):
            raise _Malformed
        labels.append(packet[at + 1 : at + 1 + length])
        at += 1 + length
        if at + 1 - begin > _LONGEST_NAME:
            raise _Malformed
    return tuple(labels), at + 1


def _skip_name(packet: bytes, at: int) -> int:
    """Where a name ends that may end with a pointer, which is not followed."""
    begin = at
    while length := packet[at]:
        if length >= _POINTER:
            return at + 2
        at += 1 + length
        if length > _LONGEST_LABEL or at + 1 - begin > _LONGEST_NAME:
            raise _Malformed
    return at + 1


@dataclass
class _Reply:
    """What is known so far of the answer. Without a `query` that could be read it is a header."""

    number: int
    flags: int
    query: _Query | None = None
    limit_bytes: int = _TCP_SIZE

    def pack(self, rcode: Rcode, entry: Entry | None = None) -> bytes:
        packed = self._pack(rcode, self.flags, entry)
        # RFC 2181, section 9: all of it or, with TC set, nothing that could be taken for all.
        return packed if len(packed) <= self.limit_bytes else self._pack(rcode, self.flags | _TC, None)

    def _pack(self, rcode: Rcode, flags: int, entry: Entry | None) -> bytes:
        from dnslib import EDNS0, DNSHeader, DNSQuestion, DNSRecord

        message = DNSRecord(DNSHeader(id=self.number, bitmap=flags | rcode & 0xF))
        query = self.query
        if query is not None:
            message.add_question(DNSQuestion(list(query.name), query.kind, query.class_))
            if entry is not None:
                answers = _plan_answers(entry, query)
                message.add_answer(*answers)
                if not answers:
                    message.add_auth(_record(list(entry.apex), RecordType.SOA, entry.apex))
            if query.edns is not None:
                message.add_ar(EDNS0(udp_len=UDP_SIZE, ext_rcode=rcode >> 4))
        return bytes(message.pack())


def _plan_answers(entry: Entry, query: _Query) -> list[RR]:
    """What the name has of the wanted type. Whoever wants ANY gets all, which is little: RFC 8482, section 4.1."""
    return [
        _record(list(query.name), kind, value)
        for kind, values in entry.records.items()
        if query.kind in (kind, _TYPE_ANY)
        for value in values
    ]


def _record(owner: list[bytes], kind: RecordType, value: IPv4Address | Name) -> RR:
    from dnslib import NS, PTR, RR, SOA, A

    data: Any
    if isinstance(value, IPv4Address):
        data = A(str(value))
    elif kind is RecordType.SOA:
        # RFC 6303, section 3. The last number is how long "no" may be kept: RFC 2308, section 4.
        data = SOA(list(value), "nobody.invalid", (1, 3600, 1200, 604800, TTL_S))
    else:
        data = {RecordType.NS: NS, RecordType.PTR: PTR}[kind](list(value))
    return RR(owner, kind, _CLASS_IN, TTL_S, data)
