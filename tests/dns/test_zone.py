"""What is answered for which name, in whole packets and without a network."""

from __future__ import annotations

from ipaddress import IPv4Address

import pytest

from banger.dns.message import TTL_S
from banger.dns.zone import Zone
from banger.errors import BangerError, Reason
from tests.dns.questions import answers, ask, authority, make_zone, rcode, reply

REVERSE = "0.16.172.in-addr.arpa."


@pytest.mark.parametrize(
    ("name", "address"),
    [
        ("web.vm", "172.16.0.2"),
        ("build-01.vm", "172.16.0.254"),
        ("api.web.vm", "172.16.0.2"),
        ("_http._tcp.web.vm", "172.16.0.2"),
        ("db.web.vm", "172.16.0.2"),
        ("_gateway.vm", "172.16.0.1"),
    ],
)
def test_a_machines_name_and_all_below_it_have_its_address(name: str, address: str) -> None:
    said = reply(ask(name))
    assert (rcode(said), answers(said), authority(said)) == ("NOERROR", [(f"{name}.", "A", address)], [])
    assert said.rr[0].ttl == TTL_S
    assert 1 <= TTL_S <= 5


@pytest.mark.parametrize("name", ["WEB.vm", "web.VM", "wEb.vM", "ApI.Web.vm"])
def test_the_spelling_of_the_question_counts_for_nothing_and_comes_back_as_it_was(name: str) -> None:
    said = reply(ask(name))
    assert [(owner, address) for owner, _, address in answers(said)] == [(f"{name}.", "172.16.0.2")]
    assert str(said.q.qname) == f"{name}."


@pytest.mark.parametrize(
    "kind", ["AAAA", "MX", "TXT", "HTTPS", "SRV", "SOA", "NS", "PTR", "CNAME", "DS", "OPT", "TSIG"]
)
def test_a_machine_has_an_address_and_nothing_else(kind: str) -> None:
    said = reply(ask("web.vm", kind))
    assert (rcode(said), answers(said), authority(said)) == ("NOERROR", [], [("vm.", "SOA")])


@pytest.mark.parametrize(
    "name",
    [
        "nobody.vm",
        "www.nobody.vm",
        "vm.vm",
        "gateway.vm",
        "webb.vm",
        "we.vm",
        "*.vm",
        [b"web.vm", b"vm"],
        [b"a.web", b"vm"],
        [b"w\xc3\xa9b", b"vm"],
        [b"\0", b"vm"],
        [b"x" * 63, b"vm"],
    ],
)
@pytest.mark.parametrize("kind", ["A", "AAAA", "ANY"])
def test_a_name_that_no_machine_has_does_not_exist(name: str | list[bytes], kind: str) -> None:
    said = reply(ask(name, kind))
    assert (rcode(said), answers(said), authority(said)) == ("NXDOMAIN", [], [("vm.", "SOA")])


def test_that_there_is_no_such_name_may_be_kept_for_as_short_a_time_as_an_address() -> None:
    (soa,) = reply(ask("nobody.vm")).auth
    # RFC 2308, section 5: the lesser of the two.
    assert (soa.ttl, soa.rdata.times[-1]) == (TTL_S, TTL_S)


@pytest.mark.parametrize(
    ("name", "kind", "found"),
    [
        ("vm", "SOA", [("vm.", "SOA", "vm. nobody.invalid. 1 3600 1200 604800 2")]),
        ("vm", "NS", [("vm.", "NS", "vm.")]),
        ("VM", "ANY", [("VM.", "SOA", "vm. nobody.invalid. 1 3600 1200 604800 2"), ("VM.", "NS", "vm.")]),
        (REVERSE, "SOA", [(REVERSE, "SOA", f"{REVERSE} nobody.invalid. 1 3600 1200 604800 2")]),
        (REVERSE, "NS", [(REVERSE, "NS", REVERSE)]),
        ("web.vm", "ANY", [("web.vm.", "A", "172.16.0.2")]),
        (f"5.{REVERSE}", "ANY", [(f"5.{REVERSE}", "PTR", "db.vm.")]),
    ],
)
def test_each_zone_has_a_beginning_and_any_gives_what_there_is(
    name: str, kind: str, found: list[tuple[str, str, str]]
) -> None:
    said = reply(ask(name, kind))
    assert (rcode(said), answers(said), authority(said)) == ("NOERROR", found, [])


@pytest.mark.parametrize("kind", ["A", "AAAA", "MX"])
@pytest.mark.parametrize("name", ["vm.", REVERSE])
def test_the_beginning_of_a_zone_has_no_address(name: str, kind: str) -> None:
    said = reply(ask(name, kind))
    assert (rcode(said), answers(said), authority(said)) == ("NOERROR", [], [(name, "SOA")])


@pytest.mark.parametrize(
    ("octet", "name"), [("2", "web.vm."), ("5", "db.vm."), ("254", "build-01.vm."), ("1", "_gateway.vm.")]
)
def test_an_address_leads_back_to_its_machine(octet: str, name: str) -> None:
    said = reply(ask(f"{octet}.{REVERSE}", "PTR"))
    assert (rcode(said), answers(said)) == ("NOERROR", [(f"{octet}.{REVERSE}", "PTR", name)])
    other = reply(ask(f"{octet}.0.16.172.IN-ADDR.ARPA", "A"))
    assert (rcode(other), answers(other), authority(other)) == ("NOERROR", [], [(REVERSE, "SOA")])


@pytest.mark.parametrize(
    "label", ["3", "0", "255", "256", "02", "-2", "x", "2.2", "web", [b"2\0"], [b"2.0"], [b"\xd9\xa2"], [b"9" * 63]]
)
def test_an_address_without_a_machine_does_not_exist(label: str | list[bytes]) -> None:
    name = f"{label}.{REVERSE}" if isinstance(label, str) else [*label, *REVERSE.rstrip(".").encode().split(b".")]
    said = reply(ask(name, "PTR"))
    assert (rcode(said), answers(said), authority(said)) == ("NXDOMAIN", [], [(REVERSE, "SOA")])


@pytest.mark.parametrize(
    "name",
    [
        ".",
        "com",
        "web",
        "web.vm.example.com",
        "vm.com",
        "web.vmm",
        "xvm",
        "arpa",
        "in-addr.arpa",
        "172.in-addr.arpa",
        "16.172.in-addr.arpa",
        "1.16.172.in-addr.arpa",
        "2.1.16.172.in-addr.arpa",
        "2.0.16.172.ip6.arpa",
    ],
)
@pytest.mark.parametrize("kind", ["A", "PTR", "SOA", "ANY"])
def test_outside_of_the_zones_nothing_is_said(name: str, kind: str) -> None:
    said = reply(ask(name, kind))
    assert (rcode(said), said.rr, said.auth, said.header.aa) == ("REFUSED", [], [], 0)


def test_a_wide_network_has_names_between_its_zone_and_its_addresses() -> None:
    zone = make_zone({"far": "10.9.8.7"}, "10.9.0.0/16")
    assert answers(reply(ask("7.8.9.10.in-addr.arpa", "PTR"), zone)) == [("7.8.9.10.in-addr.arpa.", "PTR", "far.vm.")]
    between = reply(ask("8.9.10.in-addr.arpa", "PTR"), zone)
    # To deny it would deny all below it: RFC 8020.
    assert (rcode(between), answers(between), authority(between)) == ("NOERROR", [], [("9.10.in-addr.arpa.", "SOA")])
    for label in ("256", "08", "x"):
        assert rcode(reply(ask(f"{label}.9.10.in-addr.arpa", "PTR"), zone)) == "NXDOMAIN"


def test_a_narrow_network_says_nothing_of_its_neighbours() -> None:
    zone = make_zone({"web": "192.168.4.10"}, "192.168.4.8/29")
    name = "10.4.168.192.in-addr.arpa."
    assert answers(reply(ask(name, "PTR"), zone)) == [(name, "PTR", "web.vm.")]
    assert rcode(reply(ask("7.4.168.192.in-addr.arpa", "PTR"), zone)) == "REFUSED"
    assert rcode(reply(ask("16.4.168.192.in-addr.arpa", "PTR"), zone)) == "REFUSED"
    assert rcode(reply(ask("4.168.192.in-addr.arpa", "SOA"), zone)) == "REFUSED"
    # Each address is a zone: without a machine it exists and has no name.
    unused = reply(ask("11.4.168.192.in-addr.arpa", "PTR"), zone)
    assert (answers(unused), authority(unused)) == ([], [("11.4.168.192.in-addr.arpa.", "SOA")])
    assert rcode(reply(ask(f"x.{name}", "PTR"), zone)) == "NXDOMAIN"


def test_an_address_with_several_names_has_all_of_them() -> None:
    zone = make_zone({"b": "172.16.0.9", "a": "172.16.0.9", "c": "172.16.0.8"})
    found = answers(reply(ask(f"9.{REVERSE}", "PTR"), zone))
    assert [name for _, _, name in found] == ["a.vm.", "b.vm."]


def test_what_a_machine_is_called_is_looked_up_for_each_question() -> None:
    machines: dict[str, IPv4Address] = {}
    zone = Zone(lambda: machines)
    assert rcode(reply(ask("new.vm"), zone)) == "NXDOMAIN"
    machines["new"] = IPv4Address("172.16.0.77")
    assert answers(reply(ask("new.vm"), zone)) == [("new.vm.", "A", "172.16.0.77")]
    del machines["new"]
    assert rcode(reply(ask(f"77.{REVERSE}", "PTR"), zone)) == "NXDOMAIN"


def test_records_that_cannot_be_read_are_a_failure_of_the_server() -> None:
    def fail() -> dict[str, IPv4Address]:
        raise BangerError("the disk is gone", reason=Reason.IO)

    zone = Zone(fail)
    said = reply(ask("web.vm", edns=1232), zone)
    assert (rcode(said), said.rr, len(said.ar)) == ("SERVFAIL", [], 1)
    assert rcode(reply(ask("_gateway.vm"), zone)) == "NOERROR"
