"""Whatever arrives: nothing is raised, what is said is well-formed, and no packet is much work."""

from __future__ import annotations

import struct
import sys
from types import FrameType
from typing import Any

from dnslib import DNSRecord
from hypothesis import example, given, settings
from hypothesis import strategies as st

from banger.dns.message import answer
from tests.dns.questions import ask, make_zone, raw

ZONE = make_zone()
QUERIES = [
    ask(name, kind, edns=edns)
    for name in ("web.vm", "nobody.vm", "vm", "2.0.16.172.in-addr.arpa", "example.com")
    for kind in ("A", "ANY", "PTR")
    for edns in (None, 512, 4096)
]
POINTERS = st.integers(0, 0x3FFF).map(lambda target: struct.pack("!H", 0xC000 | target))
NEAR_POINTERS = st.integers(0, 60).map(lambda target: struct.pack("!H", 0xC000 | target))
LABELS = st.binary(max_size=63).map(lambda label: bytes([len(label)]) + label)
BAD_LABELS = st.tuples(st.integers(64, 255), st.binary(max_size=70)).map(lambda each: bytes([each[0]]) + each[1])
NAMES = st.lists(LABELS | POINTERS | NEAR_POINTERS | BAD_LABELS, max_size=20).map(b"".join)
RECORDS = st.tuples(NAMES, st.binary(min_size=10, max_size=10), st.binary(max_size=30)).map(b"".join)
# Eight records whose names have 127 labels; an ordinary question takes a tenth of it.
MOST_STEPS = 6000


def judge(packet: bytes, *, over_tcp: bool) -> None:
    said = answer(packet, over_tcp=over_tcp, zone=ZONE)
    if said is None:
        assert len(packet) < 12 or packet[2] & 0x80
        return
    assert said[:2] == packet[:2]
    assert said[2] & 0x80
    assert len(said) <= (65535 if over_tcp else 1232)
    questions, answers = struct.unpack_from("!HH", said, 4)
    assert questions <= 1
    assert answers <= 2
    # dnslib reads no label that is not UTF-8, though it may stand in a question.
    if said[12:].isascii():
        DNSRecord.parse(said)


@given(st.binary(max_size=600), st.booleans())
@settings(max_examples=400)
def test_random_bytes(packet: bytes, over_tcp: bool) -> None:
    judge(packet, over_tcp=over_tcp)


@given(st.sampled_from(QUERIES), st.lists(st.tuples(st.integers(0, 80), st.integers(0, 255)), max_size=4), st.data())
@settings(max_examples=600)
def test_queries_with_changed_bytes_and_other_lengths(
    query: bytes, changes: list[tuple[int, int]], data: st.DataObject
) -> None:
    packet = bytearray(query)
    for at, value in changes:
        packet[at % len(packet)] = value
    length = data.draw(st.integers(0, len(packet)) | st.just(len(packet)))
    judge(bytes(packet[:length]) + data.draw(st.binary(max_size=20)), over_tcp=data.draw(st.booleans()))


@given(
    st.tuples(*[st.integers(0, 9) | st.sampled_from([0, 1, 65535])] * 4),
    st.integers(0, 0x7FFF) | st.sampled_from([0, 0x0100]),
    st.lists(NAMES | RECORDS, max_size=12).map(b"".join),
)
@settings(max_examples=600)
@example((1, 0, 0, 0), 0x0100, b"\xc0\x0c\0\1\0\1")
@example((1, 0, 0, 8), 0, b"\3web\2vm\0\0\1\0\1" + b"\xc0\x0c\0\1\0\1\0\0\0\0\0\0" * 8)
def test_names_of_pointers_and_wrong_counts(counts: tuple[int, int, int, int], flags: int, rest: bytes) -> None:
    judge(raw(flags=flags, counts=counts, rest=rest), over_tcp=True)


def test_no_packet_is_more_work_than_a_few_thousand_steps() -> None:
    loop = b"\x3f" + b"a" * 63
    hostile = [
        raw(counts=(1, 0, 0, 65535), rest=b"\3web\2vm\0\0\1\0\1" + b"\0" * 65000),
        raw(counts=(65535, 65535, 65535, 65535), rest=b"\xc0\x0c\0\1\0\1" * 10000),
        raw(counts=(1, 0, 0, 8), rest=b"\3web\2vm\0\0\1\0\1" + (b"\1a" * 126 + b"\xc0\x0c" + b"\0" * 10) * 200),
        raw(counts=(1, 0, 0, 8), rest=loop * 1000),
        raw(rest=b"\1a" * 32000),
        # Goes round between header and question for whoever follows.
        raw(number=0x1234, flags=0x0001, rest=b"\1a\xc0\x02\0\1\0\1"),
    ]
    assert steps_of(QUERIES[0]) < MOST_STEPS / 10
    for packet in hostile:
        assert steps_of(packet) < MOST_STEPS


def steps_of(packet: bytes) -> int:
    """Lines of Python that are run for one packet: the same on every machine."""
    steps = 0

    def count(_frame: FrameType, _event: str, _argument: object) -> Any:
        nonlocal steps
        steps += 1
        return count

    answer(packet, over_tcp=True, zone=ZONE)  # what is imported is imported
    before = sys.gettrace()
    sys.settrace(count)
    try:
        answer(packet, over_tcp=True, zone=ZONE)
    finally:
        sys.settrace(before)
    return steps
