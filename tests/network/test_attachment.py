"""What is on the host after `connect` and `disconnect`."""

import shutil
import subprocess
import sys
from ipaddress import IPv4Address

import pytest

from banger.network import DEFAULT_SUBNET

TAP5, TAP6 = "bgrac100005", "bgrac100006"
# Does not wait for an answer.
KNOCK = """
import socket, sys
with socket.socket() as knocking:
    knocking.setblocking(False)
    knocking.connect_ex((sys.argv[1], 22))
"""


def test_a_machine_gets_a_bridge_and_an_isolated_tap(host):
    host.connect("172.16.0.5")
    links = host.links()
    bridge, tap = links["banger0"], links[TAP5]
    assert bridge["linkinfo"]["info_kind"] == "bridge"
    assert bridge["linkinfo"]["info_data"]["stp_state"] == 0
    assert bridge["linkinfo"]["info_data"]["forward_delay"] == 0
    assert bridge["address"] == DEFAULT_SUBNET.bridge_mac
    assert [(a["local"], a["prefixlen"]) for a in bridge["addr_info"]] == [("172.16.0.1", 24)]
    assert "UP" in bridge["flags"]
    data = tap["linkinfo"]["info_data"]
    assert (data["type"], data["pi"], data["vnet_hdr"], data["persist"], data["multi_queue"]) == (
        "tap",
        False,
        True,
        True,
        False,
    )
    assert data["user"] == "root"
    assert tap["master"] == "banger0"
    assert tap["linkinfo"]["info_slave_data"]["isolated"] is True
    assert "UP" in tap["flags"]
    assert tap["addr_info"] == []
    for name in ("banger0", TAP5):
        assert host.run("cat", f"/proc/sys/net/ipv6/conf/{name}/disable_ipv6").stdout == "1\n"


def test_connecting_twice_is_the_same_as_once(host):
    def state():
        links = [
            (k, v["ifindex"], v["address"], v.get("master"), v["linkinfo"]["info_data"].get("user"))
            for k, v in host.links().items()
            if k != "lo"
        ]
        return sorted(links), host.run("nft", "-s", "list", "ruleset").stdout

    host.connect("172.16.0.5")
    once = state()
    host.connect("172.16.0.5")
    assert state() == once


def test_the_bridge_keeps_its_mac_while_machines_come_and_go(host):
    seen = set()
    for change in (host.connect, host.disconnect, host.connect):
        change("172.16.0.2", "172.16.0.3")
        seen.add(host.links()["banger0"]["address"])
    assert seen == {DEFAULT_SUBNET.bridge_mac}


def test_rules_that_somebody_removed_come_back_for_all_that_are_connected(host):
    host.connect("172.16.0.5")
    host.run("nft", "flush", "ruleset")
    host.connect("172.16.0.6")
    assert sorted(e["concat"][0] for e in host.elements("guests", "bridge")) == [TAP5, TAP6]
    assert host.elements("nat") == ["172.16.0.6"]
    host.connect("172.16.0.5")
    assert set(host.elements("nat")) == {"172.16.0.5", "172.16.0.6"}


def test_disconnecting_removes_exactly_that_machine(host):
    host.connect("172.16.0.5", "172.16.0.6")
    host.disconnect("172.16.0.5")
    assert set(host.links()) == {"lo", "banger0", TAP6}
    assert host.elements("nat") == ["172.16.0.6"]
    assert [e["concat"][0] for e in host.elements("guests", "bridge")] == [TAP6]


def test_disconnecting_what_is_not_there_is_fine(host):
    host.disconnect("172.16.0.5")
    host.connect("172.16.0.5")
    host.disconnect("172.16.0.5", "172.16.0.5")
    assert set(host.links()) == {"lo", "banger0"}


def test_a_running_machine_can_lose_and_regain_its_way_out(host):
    host.connect("172.16.0.5", "172.16.0.6")
    host.connect("172.16.0.5", nat=False)
    assert host.elements("nat") == ["172.16.0.6"]
    host.connect("172.16.0.5")
    assert set(host.elements("nat")) == {"172.16.0.5", "172.16.0.6"}


def test_a_host_forwards_packets_only_when_a_machine_has_a_way_out(host):
    # A new namespace begins with whatever the host has.
    host.run("sh", "-c", "echo 0 >/proc/sys/net/ipv4/ip_forward")
    host.connect("172.16.0.5", nat=False)
    assert host.run("cat", "/proc/sys/net/ipv4/ip_forward").stdout == "0\n"
    host.connect("172.16.0.5")
    assert host.run("cat", "/proc/sys/net/ipv4/ip_forward").stdout == "1\n"


def test_the_taps_on_a_host_can_be_listed(host):
    host.connect("172.16.0.200", "172.16.0.5")
    code = "from banger.network import *\nprint(*list_taps(DEFAULT_SUBNET))"
    assert host.python(code).stdout.split() == ["172.16.0.5", "172.16.0.200"]


def test_a_host_knows_a_machine_s_mac_and_asks_nobody(host):
    def neighbours():
        return [(entry["dst"], entry.get("lladdr"), entry["state"]) for entry in host.json("ip", "-4", "-j", "neigh")]

    host.connect("172.16.0.5", "172.16.0.6")
    host.disconnect("172.16.0.5")
    other = ("172.16.0.6", DEFAULT_SUBNET.mac_of(IPv4Address("172.16.0.6")), ["PERMANENT"])
    assert neighbours() == [other]
    # A connection to who has gone: the host asks who has the address now, once a second, three times if not told more.
    host.run("sysctl", "-qw", "net.ipv4.neigh.banger0.mcast_solicit=60")
    host.python(KNOCK, "172.16.0.5")
    assert ("172.16.0.5", None, ["INCOMPLETE"]) in neighbours()
    host.connect("172.16.0.5")
    mine = ("172.16.0.5", DEFAULT_SUBNET.mac_of(IPv4Address("172.16.0.5")), ["PERMANENT"])
    assert sorted(neighbours()) == [mine, other]
    host.disconnect("172.16.0.5", "172.16.0.5")
    assert neighbours() == [other]


@pytest.mark.parametrize("round_", range(2))
def test_machines_connected_at_the_same_moment_do_not_disturb_each_other(host, round_):
    addresses = [f"172.16.0.{number}" for number in range(10, 18)]
    code = (
        "import sys\nfrom ipaddress import IPv4Address\nimport pyroute2\nfrom banger.network import *\n"
        "print('ready', flush=True); sys.stdin.readline()\n"
        "connect(DEFAULT_SUBNET, IPv4Address(sys.argv[1]), nat=True)"
    )
    children = [
        subprocess.Popen(
            host.argv(sys.executable, "-I", "-c", code, address),
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
        )
        for address in addresses
    ]
    for child in children:
        assert child.stdout.readline() == "ready\n"
    for child in children:
        child.stdin.write("go\n")
        child.stdin.flush()
    errors = [child.communicate(timeout=120)[1] for child in children]
    assert [child.returncode for child in children] == [0] * 8, errors
    assert set(host.elements("nat")) == set(addresses)
    assert len(host.elements("guests", "bridge")) == 8
    taps = [link for name, link in host.links().items() if name.startswith("bgr")]
    assert len(taps) == 8
    assert all(tap["linkinfo"]["info_slave_data"]["isolated"] for tap in taps)


@pytest.mark.parametrize("address", ["172.16.0.9/24", "172.16.3.1/12", "172.16.0.77/32"])
def test_a_subnet_that_the_host_uses_elsewhere_is_refused(host, outside, address):
    host.run("ip", "addr", "add", address, "dev", "up0")
    reason, message, _ = host.connect_refusal("172.16.0.5")
    assert reason == "already-exists"
    assert "up0" in message
    assert "banger0" not in host.links()


def test_a_subnet_that_is_routed_elsewhere_is_refused(host, outside):
    host.run("ip", "route", "add", "172.16.0.128/25", "via", outside.address)
    reason, message, _ = host.connect_refusal("172.16.0.5")
    assert reason == "already-exists"
    assert "up0" in message


def test_a_wider_route_such_as_that_of_a_vpn_is_no_conflict(host, outside):
    host.run("ip", "route", "add", "172.16.0.0/12", "via", outside.address)
    host.connect("172.16.0.5")


def test_a_bridge_name_that_belongs_to_something_else_is_refused(host):
    host.run("ip", "link", "add", "banger0", "type", "veth", "peer", "name", "other")
    assert host.connect_refusal("172.16.0.5")[0] == "already-exists"
    host.run("ip", "link", "del", "banger0")
    host.run("ip", "link", "add", "banger0", "type", "bridge")
    before = host.links()["banger0"]
    assert host.connect_refusal("172.16.0.5")[0] == "already-exists"
    assert host.links()["banger0"] == before


def test_a_tap_of_another_user_is_neither_taken_over_nor_removed(host, user):
    host.connect("172.16.0.5", nat=False)
    assert user.connect_refusal("172.16.0.5")[0] == "no-permission"
    assert host.links()[TAP5]["linkinfo"]["info_data"]["user"] == "root"
    assert host.elements("nat") == []
    user.disconnect("172.16.0.5")
    assert TAP5 in host.links()
    assert [e["concat"][0] for e in host.elements("guests", "bridge")] == [TAP5]


def test_root_removes_no_tap_of_another_user(host, user):
    user.connect("172.16.0.5")
    host.disconnect("172.16.0.5")
    assert host.links()[TAP5]["linkinfo"]["info_data"]["user"] == user.uid
    assert host.elements("nat") == ["172.16.0.5"]
    assert [e["concat"][0] for e in host.elements("guests", "bridge")] == [TAP5]
    user.disconnect("172.16.0.5")
    assert TAP5 not in host.links()


def test_an_interface_that_only_looks_like_a_tap_is_left_alone(host):
    host.run("ip", "link", "add", TAP5, "type", "veth", "peer", "name", "other")
    assert host.connect_refusal("172.16.0.5")[0] == "already-exists"
    with pytest.raises(subprocess.CalledProcessError):
        host.disconnect("172.16.0.5")
    assert TAP5 in host.links()


def test_without_nft_nothing_is_changed(host):
    reason, _, hint = host.refusal(
        f"import subprocess\nsubprocess.run(['mount', '--bind', '/dev/null', {shutil.which('nft')!r}], check=True)\n"
        "from ipaddress import IPv4Address\nfrom banger.network import *\n"
        "connect(DEFAULT_SUBNET, IPv4Address('172.16.0.5'), nat=True)"
    )
    assert reason == "missing-program"
    assert "nftables" in hint
    assert set(host.links()) == {"lo"}
