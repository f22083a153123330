"""The form of answers: the header, EDNS, what does not fit, and queries that are none."""

from __future__ import annotations

import struct
from typing import Any

import pytest
from dnslib import EDNS0, QTYPE, DNSHeader, DNSQuestion, DNSRecord, EDNSOption

from banger.dns.message import UDP_SIZE, answer
from tests.dns.questions import answers, ask, make_zone, raw, rcode, reply

REVERSE = "9.0.16.172.in-addr.arpa"
QUESTION = b"\3web\2vm\0\0\1\0\1"
OPT = b"\0\0\x29\x04\xd0\0\0\0\0\0\0"
CROWD = make_zone({f"machine-{number:03}": "172.16.0.9" for number in range(200)})


@pytest.mark.parametrize("rd", [0, 1])
@pytest.mark.parametrize(("name", "authoritative"), [("web.vm", 1), ("nobody.vm", 1), ("example.com", 0), (REVERSE, 1)])
def test_an_answer_names_its_question_and_promises_nothing(name: str, authoritative: int, rd: int) -> None:
    for over_tcp in (False, True):
        header = reply(ask(name, rd=rd, ad=1, cd=1, z=1, aa=1, ra=1, tc=1, number=54321), over_tcp=over_tcp).header
        assert (header.id, header.qr, header.opcode, header.rd) == (54321, 1, 0, rd)
        assert (header.aa, header.ra, header.tc, header.ad, header.cd, header.z) == (authoritative, 0, 0, 0, 0, 0)


@pytest.mark.parametrize("packet", [ask("web.vm", qr=1), raw(flags=0x8000), raw(flags=0xFFFF)])
def test_an_answer_is_not_answered(packet: bytes) -> None:
    assert answer(packet, over_tcp=False, zone=make_zone()) is None
    assert answer(packet, over_tcp=True, zone=make_zone()) is None


def test_no_answer_is_answered_whatever_it_answers() -> None:
    for packet in (ask("web.vm"), ask("x.y"), ask("web.vm", opcode=5), raw(counts=(9, 9, 9, 9))):
        said = answer(packet, over_tcp=False, zone=make_zone())
        assert said is not None
        assert answer(said, over_tcp=False, zone=make_zone()) is None


@pytest.mark.parametrize("opcode", [1, 2, 3, 4, 5, 15])
def test_only_questions_are_implemented(opcode: int) -> None:
    said = reply(ask("web.vm", opcode=opcode))
    assert (rcode(said), said.header.opcode, said.questions, said.rr) == ("NOTIMP", opcode, [], [])


@pytest.mark.parametrize("class_", ["CH", "CS", "Hesiod", "None", "*"])
def test_other_classes_are_refused(class_: str) -> None:
    said = reply(ask("web.vm", class_=class_))
    assert (rcode(said), said.rr, said.q.qclass) == ("REFUSED", [], DNSRecord.parse(ask("x", class_=class_)).q.qclass)


@pytest.mark.parametrize("kind", ["AXFR", "IXFR"])
@pytest.mark.parametrize("over_tcp", [False, True])
def test_the_zone_is_not_handed_out_as_a_whole(kind: str, over_tcp: bool) -> None:
    assert rcode(reply(ask("vm", kind), over_tcp=over_tcp)) == "REFUSED"


def test_a_transfer_that_names_what_the_asker_has_is_refused_too() -> None:
    query = DNSRecord.parse(ask("vm", "IXFR"))
    query.add_auth(*reply(ask("vm", "SOA")).rr)
    assert rcode(reply(bytes(query.pack()), over_tcp=True)) == "REFUSED"


@pytest.mark.parametrize("length", range(12))
def test_less_than_a_header_gets_no_answer(length: int) -> None:
    assert answer(ask("web.vm")[:length], over_tcp=True, zone=make_zone()) is None


@pytest.mark.parametrize(
    "packet",
    [
        pytest.param(raw(counts=(0, 0, 0, 0)), id="no question"),
        pytest.param(raw(counts=(0, 0, 0, 1), rest=OPT), id="no question, but OPT"),
        pytest.param(raw(counts=(2, 0, 0, 0), rest=QUESTION * 2), id="two questions"),
        pytest.param(raw(counts=(65535, 0, 0, 0), rest=QUESTION * 90), id="very many questions"),
        pytest.param(raw(), id="a question that is not there"),
        pytest.param(raw(rest=QUESTION[:3]), id="half a label"),
        pytest.param(raw(rest=QUESTION[:7]), id="a name without an end"),
        pytest.param(raw(rest=QUESTION[:8]), id="no type"),
        pytest.param(raw(rest=QUESTION[:-1]), id="half a class"),
        pytest.param(raw(rest=b"\xc0\x0c\0\1\0\1"), id="a name that points to itself"),
        pytest.param(raw(rest=b"\1a\xc0\x0c\0\1\0\1"), id="a name that points to its beginning"),
        pytest.param(raw(number=0xC001, flags=0x0100, rest=b"\xc0\0\0\1\0\1"), id="a name that points to the header"),
        pytest.param(raw(rest=b"\xc0\xff\0\1\0\1"), id="a name that points ahead"),
        # dnslib goes round in it to the end of the stack: the bytes of each pointer are good UTF-8 within a label.
        pytest.param(raw(rest=b"\1a" * 314 + b"\4\xc2\x80aa\xc2\x81\0\1\0\1"), id="pointers to one another"),
        pytest.param(raw(rest=b"\x40" + b"a" * 64 + b"\0\0\1\0\1"), id="a label of 64 bytes"),
        pytest.param(raw(rest=b"\x80" + b"a" * 128 + b"\0\0\1\0\1"), id="a label of a kind that does not exist"),
        pytest.param(raw(rest=(b"\x3f" + b"a" * 63) * 4 + b"\0\0\1\0\1"), id="a name of 257 bytes"),
        pytest.param(raw(rest=b"\1a" * 127 + b"\1a\0\0\1\0\1"), id="a name of 128 labels"),
        pytest.param(raw(counts=(1, 0, 0, 1), rest=QUESTION), id="an OPT that is not there"),
        pytest.param(raw(counts=(1, 0, 0, 1), rest=QUESTION + OPT[:-1]), id="half an OPT"),
        pytest.param(raw(counts=(1, 0, 0, 1), rest=QUESTION + OPT[:-1] + b"\5"), id="an OPT without its options"),
        pytest.param(raw(counts=(1, 0, 0, 2), rest=QUESTION + OPT * 2), id="two OPTs"),
        pytest.param(raw(counts=(1, 0, 0, 1), rest=QUESTION + b"\1a" + OPT), id="an OPT of a name"),
        pytest.param(raw(counts=(1, 1, 0, 0), rest=QUESTION + OPT), id="an OPT as an answer"),
        pytest.param(raw(counts=(1, 0, 1, 0), rest=QUESTION + OPT), id="an OPT as an authority"),
        pytest.param(raw(counts=(1, 0, 0, 65535), rest=QUESTION + b"\0" * 60000), id="very many records"),
        pytest.param(raw(counts=(1, 0, 0, 9), rest=QUESTION + b"\0" * 99), id="nine records"),
        pytest.param(raw(counts=(1, 0, 0, 1), rest=QUESTION + b"\x41" + b"a" * 80), id="a record of a bad label"),
        pytest.param(raw(counts=(1, 0, 0, 1), rest=QUESTION + b"\x3f" * 999), id="a record of an endless name"),
    ],
)
@pytest.mark.parametrize("over_tcp", [False, True])
def test_a_malformed_query_is_said_to_be_one(packet: bytes, over_tcp: bool) -> None:
    said = reply(packet, over_tcp=over_tcp)
    assert (rcode(said), said.header.id) == ("FORMERR", struct.unpack_from("!H", packet)[0])
    assert (said.questions, said.rr, said.auth, said.ar) == ([], [], [], [])


@pytest.mark.parametrize(
    "name",
    [
        pytest.param((b"\x3f" + b"a" * 63) * 3 + b"\x3d" + b"a" * 61 + b"\0", id="a name of 255 bytes"),
        pytest.param(b"\1a" * 127 + b"\0", id="a name of 127 labels"),
        pytest.param(b"\2\xff\xfe\2vm\0", id="a name that is no text"),
        pytest.param(b"\5a.b\0c\2vm\0", id="a label with a dot and a zero"),
        pytest.param(b"\0", id="the root"),
    ],
)
def test_a_name_that_is_only_unusual_is_looked_for_and_comes_back_byte_by_byte(name: bytes) -> None:
    query = raw(rest=name + b"\0\1\0\1")
    said = answer(query, over_tcp=False, zone=make_zone())
    assert said is not None
    assert said[12 : len(query)] == query[12:]
    assert said[3] & 0xF == (3 if name.endswith(b"\2vm\0") else 5)


def test_records_beside_the_question_are_stepped_over() -> None:
    signature = b"\1k\xc0\x0c\0\xfa\0\xff\0\0\0\0\0\x04abcd"
    said = reply(raw(counts=(1, 0, 0, 2), rest=QUESTION + OPT + signature))
    assert (answers(said), len(said.ar)) == ([("web.vm.", "A", "172.16.0.2")], 1)
    assert answers(reply(raw(rest=QUESTION + b"and more"))) == answers(said)


@pytest.mark.parametrize("name", ["web.vm", "nobody.vm", "example.com", "vm"])
def test_who_asks_with_edns_is_answered_with_edns(name: str) -> None:
    assert reply(ask(name)).ar == []
    (opt,) = reply(ask(name, edns=4096)).ar
    assert (opt.rtype, opt.edns_len, opt.edns_ver, opt.edns_rcode, opt.rdata) == (QTYPE.OPT, UDP_SIZE, 0, 0, [])
    assert not opt.edns_do


def test_options_are_not_looked_at() -> None:
    query = DNSRecord(DNSHeader(id=7, bitmap=0), q=DNSQuestion("web.vm"))
    query.add_ar(EDNS0(udp_len=1232, flags="do", opts=[EDNSOption(10, b"12345678"), EDNSOption(65001, b"\xff" * 99)]))
    said = reply(bytes(query.pack()))
    assert (answers(said), said.ar[0].rdata) == ([("web.vm.", "A", "172.16.0.2")], [])


@pytest.mark.parametrize("version", [1, 255])
def test_another_version_of_edns_is_not_spoken(version: int) -> None:
    query = DNSRecord(DNSHeader(id=7, bitmap=0), q=DNSQuestion("web.vm"))
    query.add_ar(EDNS0(udp_len=1232, version=version))
    said = reply(bytes(query.pack()))
    # BADVERS is 16: the lower four bits stand in the header.
    assert (said.header.rcode, said.ar[0].edns_rcode, said.ar[0].edns_ver, said.rr) == (0, 1, 0, [])


@pytest.mark.parametrize(
    ("size", "fits"), [(None, 512), (0, 512), (511, 512), (512, 512), (900, 900), (1232, 1232), (65535, 1232)]
)
def test_by_udp_an_answer_is_whole_or_said_to_be_cut(size: int | None, fits: int) -> None:
    def length(crowd: int, over_tcp: bool) -> tuple[int, DNSRecord]:
        zone = make_zone({f"m{number:03}": "172.16.0.9" for number in range(crowd)})
        said = answer(ask(REVERSE, "PTR", edns=size), over_tcp=over_tcp, zone=zone)
        assert said is not None
        return len(said), DNSRecord.parse(said)

    sizes = {crowd: length(crowd, True)[0] for crowd in range(1, 100)}
    most = max(crowd for crowd, wanted in sizes.items() if wanted <= fits)
    whole_bytes, whole = length(most, False)
    assert (whole_bytes, whole.header.tc, len(whole.rr)) == (sizes[most], 0, most)
    cut_bytes, cut = length(most + 1, False)
    assert cut_bytes < 100
    assert (cut.header.tc, cut.header.aa, cut.rr, cut.auth) == (1, 1, [], [])
    assert len(cut.ar) == (size is not None)


@pytest.mark.parametrize("edns", [None, 512])
def test_by_tcp_nothing_is_cut(edns: int | None) -> None:
    said = reply(ask(REVERSE, "PTR", edns=edns), CROWD, over_tcp=True)
    assert (said.header.tc, len(said.rr), said.header.a) == (0, 200, 200)
    assert reply(ask(REVERSE, "PTR", edns=edns), CROWD).header.tc == 1


def test_every_other_answer_fits_by_udp_without_edns() -> None:
    longest: Any = [b"a" * 63, b"b" * 63, b"c" * 63, b"d" * 54, b"web", b"vm"]
    for kind in ("A", "AAAA", "ANY"):
        said = answer(ask(longest, kind), over_tcp=False, zone=make_zone())
        assert said is not None
        assert len(said) <= 512
        assert DNSRecord.parse(said).header.tc == 0
