from ipaddress import IPv4Address, IPv4Network

import pytest

from banger.errors import BangerError, Reason
from banger.network import DEFAULT_SUBNET, Subnet
from banger.network.subnet import parse_address


def test_the_default_is_the_documented_network():
    assert (DEFAULT_SUBNET.bridge, str(DEFAULT_SUBNET.network)) == ("banger0", "172.16.0.0/24")
    assert str(DEFAULT_SUBNET.gateway) == "172.16.0.1"


def test_every_address_but_the_hosts_own_is_for_guests():
    addresses = list(DEFAULT_SUBNET.guest_addresses())
    assert (str(addresses[0]), str(addresses[-1]), len(addresses)) == ("172.16.0.2", "172.16.0.254", 253)
    assert all(map(DEFAULT_SUBNET.has_guest, addresses))


@pytest.mark.parametrize("address", ["172.16.0.0", "172.16.0.1", "172.16.0.255", "172.16.1.5", "127.0.0.1"])
def test_other_addresses_have_neither_mac_nor_tap(address):
    for ask in (DEFAULT_SUBNET.mac_of, DEFAULT_SUBNET.tap_of, DEFAULT_SUBNET.check_guest):
        with pytest.raises(BangerError) as caught:
            ask(IPv4Address(address))
        assert caught.value.reason is Reason.BAD_INPUT


def test_each_guest_has_a_mac_of_its_own_that_no_vendor_gave_out():
    macs = [DEFAULT_SUBNET.mac_of(address) for address in DEFAULT_SUBNET.guest_addresses()]
    assert len({*macs, DEFAULT_SUBNET.bridge_mac}) == len(macs) + 1
    assert all(int(mac[:2], 16) & 0b11 == 0b10 for mac in macs)
    assert DEFAULT_SUBNET.mac_of(IPv4Address("172.16.0.5")) == "06:00:ac:10:00:05"


@pytest.mark.parametrize("network", ["172.16.0.0/24", "10.0.0.0/16", "192.168.255.248/29"])
def test_the_name_of_a_tap_tells_its_address(network):
    subnet = Subnet("b", IPv4Network(network))
    for address in subnet.guest_addresses():
        tap = subnet.tap_of(address)
        assert len(tap) <= 15
        assert subnet.find_address(tap) == address


@pytest.mark.parametrize(
    "name", ["eth0", "bgr", "bgrac10000", "bgrac1000055", "bgrAC100005", "bgr0a000005", "bgrac100001"]
)
def test_other_interfaces_are_no_guests_tap(name):
    assert DEFAULT_SUBNET.find_address(name) is None


@pytest.mark.parametrize(
    "bridge",
    ["", "a" * 16, "Banger", "0br", "br.1", "../all", "all", "default", "lo", 'b"', "b r", "b\n", "bé", "bgr0", "-b"],
)
def test_no_subnet_is_built_on_a_bad_bridge_name(bridge):
    with pytest.raises(BangerError) as caught:
        Subnet(bridge, DEFAULT_SUBNET.network)
    assert caught.value.reason is Reason.BAD_INPUT


@pytest.mark.parametrize(
    "network", ["8.8.8.0/24", "127.0.0.0/24", "10.0.0.0/15", "10.0.0.0/30", "0.0.0.0/0", "172.32.0.0/24"]
)
def test_no_subnet_is_built_on_addresses_of_others_or_of_a_silly_size(network):
    with pytest.raises(BangerError) as caught:
        Subnet("banger0", IPv4Network(network))
    assert caught.value.reason is Reason.BAD_INPUT


@pytest.mark.parametrize(
    "text", ["", "1", "172.16.0", "172.16.0.05", " 172.16.0.5", "172.16.0.5\n", "172.16.0.5/24", "::1"]
)
def test_an_address_is_read_in_one_form_only(text):
    assert parse_address("172.16.0.5") == IPv4Address("172.16.0.5")
    with pytest.raises(BangerError) as caught:
        parse_address(text)
    assert caught.value.reason is Reason.BAD_INPUT
