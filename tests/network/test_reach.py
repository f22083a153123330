"""Who can reach whom, shown with real packets. Each "cannot" comes with the change that would make it a "can"."""

import time

import pytest

# An ARP reply that claims an address for this guest's own MAC.
CLAIM = """
import socket, sys
from ipaddress import IPv4Address
own = bytes.fromhex(open("/sys/class/net/eth0/address").read().strip().replace(":", ""))
claimed, told = IPv4Address(sys.argv[1]).packed, IPv4Address(sys.argv[2]).packed
broadcast = b"\\xff" * 6
frame = broadcast + own + b"\\x08\\x06" + bytes.fromhex("0001080006040002") + own + claimed + broadcast + told
with socket.socket(socket.AF_PACKET, socket.SOCK_RAW) as raw:
    raw.bind(("eth0", 0))
    raw.send(frame)
"""
PING = """
import socket, struct, sys
with socket.socket(socket.AF_INET, socket.SOCK_RAW, socket.IPPROTO_ICMP) as raw:
    raw.settimeout(float(sys.argv[2]))
    body = struct.pack("!BBHHH", 8, 0, 0, 7, 1)
    total = sum(struct.unpack("!4H", body))
    raw.sendto(struct.pack("!BBHHH", 8, 0, ~(total + (total >> 16)) & 0xffff, 7, 1), (sys.argv[1], 0))
    while raw.recv(999)[20] != 0:
        pass
"""


def answers_ping(guest, timeout_s=30):
    return guest.python(PING, "172.16.0.1", timeout_s, check=False).returncode == 0


def test_with_nat_a_guest_reaches_the_world_under_the_hosts_address(host, outside):
    outside.serve(outside.address, 80)
    guest = host.guest("172.16.0.5", nat=True)
    assert guest.ask(outside.address, 80) == outside.host_address


def test_without_nat_a_guest_reaches_nothing_beyond_the_host(host, outside):
    outside.serve(outside.address, 80)
    guest = host.guest("172.16.0.5", nat=False)
    host.connect("172.16.0.6", nat=True)  # another machine's way out is not this one's
    assert guest.asks_in_vain(outside.address, 80)
    host.connect("172.16.0.5", nat=True)
    assert guest.ask(outside.address, 80) == outside.host_address


def test_the_world_cannot_reach_a_guest(host, outside):
    guest = host.guest("172.16.0.5", nat=True)
    guest.serve("172.16.0.5", 80)
    assert outside.asks_in_vain("172.16.0.5", 80)
    host.run("nft", "flush", "chain", "ip", "banger", "forward")
    assert outside.ask("172.16.0.5", 80) == outside.address


@pytest.mark.parametrize("nat", [True, False])
def test_the_host_reaches_a_guests_service(host, nat):
    guest = host.guest("172.16.0.5", nat=nat)
    guest.serve("172.16.0.5", 22)
    assert host.ask("172.16.0.5", 22) == "172.16.0.1"


def test_a_guest_reaches_no_service_of_the_host_unless_it_is_opened(host, outside):
    host.serve("0.0.0.0", 80)
    guest = host.guest("172.16.0.5", nat=True)
    assert guest.asks_in_vain("172.16.0.1", 80)
    assert guest.asks_in_vain(outside.host_address, 80)
    host.run("nft", "add", "element", "ip", "banger", "host_services", "{ tcp . 80 }")
    assert guest.ask("172.16.0.1", 80) == "172.16.0.5"
    host.connect("172.16.0.6")  # what was opened stays open
    assert guest.ask("172.16.0.1", 80) == "172.16.0.5"


def test_a_guest_can_ping_the_host(host):
    assert answers_ping(host.guest("172.16.0.5", nat=False))


def test_guests_cannot_reach_each_other(host):
    one, two = host.guest("172.16.0.5"), host.guest("172.16.0.6")
    two.serve("172.16.0.6", 80)
    # Where br_netfilter is loaded, the forward chain sees bridged packets too; this is about the ports.
    host.run("nft", "flush", "chain", "ip", "banger", "forward")
    assert one.asks_in_vain("172.16.0.6", 80)
    for tap in ("bgrac100005", "bgrac100006"):
        host.run("bridge", "link", "set", "dev", tap, "isolated", "off")
    one.run("ip", "neigh", "flush", "dev", "eth0")
    assert one.ask("172.16.0.6", 80) == "172.16.0.5"


def test_guests_cannot_reach_each_other_by_way_of_the_gateway(host):
    one, two = host.guest("172.16.0.5"), host.guest("172.16.0.6")
    two.serve("172.16.0.6", 80)
    one.run("ip", "route", "add", "172.16.0.6/32", "via", "172.16.0.1")
    two.run("ip", "route", "add", "172.16.0.5/32", "via", "172.16.0.1")
    assert one.asks_in_vain("172.16.0.6", 80)
    host.run("nft", "flush", "chain", "ip", "banger", "forward")
    assert one.ask("172.16.0.6", 80) == "172.16.0.5"


def test_a_guest_cannot_speak_with_another_guests_address(host, outside):
    outside.serve(outside.address, 80)
    guest = host.guest("172.16.0.5")
    host.connect("172.16.0.6")
    guest.run("ip", "addr", "add", "172.16.0.6/24", "dev", "eth0")
    assert guest.ask(outside.address, 80, source="172.16.0.5") == outside.host_address
    assert guest.asks_in_vain(outside.address, 80, source="172.16.0.6")
    host.run("nft", "delete", "table", "bridge", "banger")
    # Or the answer would go to the MAC whose address it is.
    host.run("ip", "neigh", "del", "172.16.0.6", "dev", "banger0")
    assert guest.ask(outside.address, 80, source="172.16.0.6") == outside.host_address


def test_a_guest_cannot_speak_with_another_mac(host):
    guest = host.guest("172.16.0.5")
    assert answers_ping(guest)
    guest.run("ip", "link", "set", "eth0", "address", "06:00:ac:10:00:06")
    assert not answers_ping(guest, timeout_s=0.8)


def test_a_guest_cannot_claim_another_guests_address(host):
    def believed():
        return host.json("ip", "-j", "neigh", "show", "172.16.0.6")[0].get("lladdr")

    one, two = host.guest("172.16.0.5"), host.guest("172.16.0.6")
    two.serve("172.16.0.6", 80)
    # A host believes no change within a second of the last.
    host.run("sysctl", "-qw", "net.ipv4.neigh.banger0.locktime=0", "net.ipv4.conf.banger0.arp_accept=1")
    # The firewall alone holds: here the host asks, as for machines of an older version.
    host.run("ip", "neigh", "del", "172.16.0.6", "dev", "banger0")
    assert host.ask("172.16.0.6", 80) == "172.16.0.1"
    one.python(CLAIM, "172.16.0.6", "172.16.0.1")
    assert believed() == "06:00:ac:10:00:06"
    host.run("nft", "delete", "table", "bridge", "banger")
    one.python(CLAIM, "172.16.0.6", "172.16.0.1")
    deadline = time.monotonic() + 30
    while believed() != "06:00:ac:10:00:05":
        assert time.monotonic() < deadline
        time.sleep(0.05)
    # What the host knows without asking holds alone, too.
    host.run("ip", "neigh", "replace", "172.16.0.6", "lladdr", "06:00:ac:10:00:06", "dev", "banger0")
    one.python(CLAIM, "172.16.0.6", "172.16.0.1")
    assert believed() == "06:00:ac:10:00:06"


def test_disconnecting_cuts_a_running_guest_off(host, outside):
    outside.serve(outside.address, 80)
    guest = host.guest("172.16.0.5")
    assert guest.ask(outside.address, 80) == outside.host_address
    host.disconnect("172.16.0.5")
    assert guest.asks_in_vain(outside.address, 80)
