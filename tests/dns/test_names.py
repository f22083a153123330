"""Which zones belong to a network, and which servers the host may be led to."""

from __future__ import annotations

from ipaddress import IPv4Address, IPv4Network

import pytest

from banger.errors import BangerError, Reason
from banger.network.names import format_local_server, parse_local_server, plan_reverse_zones


@pytest.mark.parametrize(
    ("network", "number", "first", "last"),
    [
        ("172.16.0.0/24", 1, "0.16.172.in-addr.arpa", "0.16.172.in-addr.arpa"),
        ("10.9.0.0/16", 1, "9.10.in-addr.arpa", "9.10.in-addr.arpa"),
        ("10.9.128.0/17", 128, "128.9.10.in-addr.arpa", "255.9.10.in-addr.arpa"),
        ("192.168.4.0/22", 4, "4.168.192.in-addr.arpa", "7.168.192.in-addr.arpa"),
        ("192.168.4.8/29", 8, "8.4.168.192.in-addr.arpa", "15.4.168.192.in-addr.arpa"),
        ("192.168.4.128/25", 128, "128.4.168.192.in-addr.arpa", "255.4.168.192.in-addr.arpa"),
    ],
)
def test_the_reverse_zones_of_a_network_hold_it_and_nothing_else(
    network: str, number: int, first: str, last: str
) -> None:
    zones = plan_reverse_zones(IPv4Network(network))
    assert (len(zones), zones[0], zones[-1]) == (number, first, last)
    held = [address for zone in zones for address in _network_of(zone)]
    assert held == list(IPv4Network(network))


def _network_of(zone: str) -> IPv4Network:
    octets = zone.removesuffix(".in-addr.arpa").split(".")[::-1]
    return IPv4Network((".".join(octets + ["0"] * (4 - len(octets))), 8 * len(octets)))


@pytest.mark.parametrize("text", ["127.0.0.1:42069", "127.255.0.53:53", "127.0.0.1:65535"])
def test_a_server_on_loopback_is_read_as_it_is_written(text: str) -> None:
    assert format_local_server(parse_local_server(text)) == text


def test_a_server_is_an_address_and_a_port() -> None:
    assert parse_local_server("127.0.0.1:42069") == (IPv4Address("127.0.0.1"), 42069)


@pytest.mark.parametrize(
    "text",
    [
        "",
        "127.0.0.1",
        "127.0.0.1:",
        "127.0.0.1:0",
        "127.0.0.1:053",
        "127.0.0.1:65536",
        "127.0.0.1:+53",
        "127.0.0.1:53 ",
        "127.0.0.1:53#name",
        "127.1:53",
        "127.0.0.01:53",
        "0.0.0.0:53",
        "8.8.8.8:53",
        "172.16.0.1:53",
        "[::1]:53",
        "::1:53",
        "localhost:53",
        "127.0.0.1:٥٣",
        "127.0.0.1:53;reboot",
    ],
)
def test_a_server_anywhere_else_is_refused(text: str) -> None:
    with pytest.raises(BangerError) as refused:
        parse_local_server(text)
    assert refused.value.reason is Reason.BAD_INPUT
