"""The guests' network among others, and who serves and asks for names; each in a network of its own."""

from __future__ import annotations

import json
import sys
from typing import TYPE_CHECKING

import pytest

from banger.dns.routing import Routing, RoutingKind
from banger.doctor import names
from banger.doctor.finding import Subject
from banger.machine.record import Records, Wish
from banger.network import DEFAULT_SUBNET
from banger.paths import Paths
from banger.settings.document import Document
from banger.settings.load import configure
from banger.vmm.process import identify_self

if TYPE_CHECKING:
    from conftest import Lab


def _make_interface(name: str, address: str) -> list[str]:
    return [
        f"ip link add {name} type bridge",
        f"ip addr add {address} dev {name}",
        f"ip link set {name} up",
    ]


@pytest.mark.parametrize("address", ["172.16.0.9/24", "172.16.0.200/30", "172.16.5.1/12"])
def test_a_subnet_that_is_in_use_fails(lab: Lab, address: str) -> None:
    lab.prepare += _make_interface("other0", address)
    status, detail, fix = lab.examine()["subnet"]
    assert status == "FAIL"
    assert "other0" in detail
    assert "other0" in fix


def test_a_wider_route_is_no_conflict(lab: Lab) -> None:
    lab.prepare += [*_make_interface("other0", "10.0.0.1/24"), "ip route add 172.16.0.0/12 via 10.0.0.2"]
    assert lab.examine()["subnet"][0] == "PASS"


def test_a_stranger_s_bridge_of_that_name_fails(lab: Lab) -> None:
    lab.prepare.append("ip link add banger0 type bridge")
    status, detail, fix = lab.examine()["subnet"]
    assert status == "FAIL"
    assert "banger0" in detail
    assert "ip link del banger0" in fix


def test_our_own_bridge_is_told_with_its_machines(lab: Lab) -> None:
    connect = (
        "from banger.network import *; [connect(DEFAULT_SUBNET, a, nat=False) for a in (DEFAULT_SUBNET.network[7],)]"
    )
    lab.prepare.append(f"{sys.executable} -I -c '{connect}'")
    assert lab.examine()["subnet"][:2] == ("PASS", "172.16.0.0/24: banger0 is there, with 1 machine")


def test_forwarding_that_cannot_be_switched_on_is_told(lab: Lab) -> None:
    lab.prepare.append("echo 0 >/proc/sys/net/ipv4/ip_forward")
    assert lab.examine()["forwarding"][0] == "PASS"
    lab.prepare.append("mount -o bind,ro /proc/sys /proc/sys")
    status, _, fix = lab.examine()["forwarding"]
    assert (status, fix) == ("WARN", "on the host: sudo sysctl net.ipv4.ip_forward=1")
    lab.prepare[0] = "echo 1 >/proc/sys/net/ipv4/ip_forward"
    assert lab.examine()["forwarding"][:2] == ("PASS", "on")


_DOCKER = """nft -f - <<'EOF'
table ip filter {
    chain FORWARD { type filter hook forward priority 0; policy drop; jump DOCKER-USER; }
    chain DOCKER-USER { }
}
EOF"""


def test_docker_that_drops_what_machines_send_is_told(lab: Lab) -> None:
    lab.prepare += _make_interface("docker0", "172.17.0.1/16")
    assert lab.examine()["docker"][0] == "PASS"
    lab.prepare.append(_DOCKER)
    status, _, fix = lab.examine()["docker"]
    assert status == "WARN"
    assert "iptables -I DOCKER-USER -i banger0 -j ACCEPT" in fix
    # As iptables-nft(8) does it.
    lab.prepare += [f"nft insert rule ip filter DOCKER-USER {way} banger0 accept" for way in ("iifname", "oifname")]
    assert lab.examine()["docker"][:2] == ("PASS", "Docker lets machines through")


def test_an_ordinary_user_cannot_see_what_docker_does(user: Lab) -> None:
    user.prepare += _make_interface("docker0", "172.17.0.1/16")
    status, detail, _ = user.examine()["docker"]
    assert status == "WARN"
    assert "only root can see" in detail


def test_a_daemon_is_told_and_where_it_serves_names(lab: Lab) -> None:
    assert "it starts with the next machine" in lab.examine()["daemon"][1]
    lab.start_daemon()
    rows = lab.examine()
    assert rows["daemon"][0] == rows["dns"][0] == "PASS"
    assert "runs (process " in rows["daemon"][1]
    assert rows["dns"][1] == "served at 127.0.0.1:42069"


def test_a_daemon_that_does_not_start_by_itself_is_told(lab: Lab) -> None:
    lab.configure("[daemon]\nautostart = false\n")
    assert "daemon.autostart" in lab.examine()["daemon"][1]


def test_machines_that_run_without_a_daemon_have_no_names(lab: Lab) -> None:
    records = Records(lab.paths.database)
    machine = records.add(Wish("box", "image", "kernel", 1, 256, 64, nat=True), DEFAULT_SUBNET, identify_self())
    records.update(machine, creator=None, process=identify_self())
    records.close()
    assert lab.examine()["daemon"][::2] == ("WARN", "banger daemon start")


def _hold(lab: Lab, protocol: str, address: str = "127.0.0.1") -> None:
    """Somebody else has the port."""
    program = (
        "import socket, sys, time\n"
        'server = socket.socket(socket.AF_INET, socket.SOCK_STREAM if sys.argv[1] == "tcp" else socket.SOCK_DGRAM)\n'
        "server.bind((sys.argv[3], 42069))\n"
        'if sys.argv[1] == "tcp": server.listen()\n'
        'open(sys.argv[2], "x").close()\n'
        "time.sleep(60)"
    )
    held = lab.home / "held"
    lab.start(sys.executable, "-I", "-c", program, protocol, held, address, until=f"rm {held} 2>/dev/null")


@pytest.mark.parametrize("protocol", ["udp", "tcp"])
def test_a_port_that_another_has_fails(lab: Lab, protocol: str) -> None:
    _hold(lab, protocol)
    status, detail, fix = lab.examine()["dns"]
    assert status == "FAIL"
    assert f"{protocol.upper()} port 42069 is held by python" in detail
    assert fix == f"set dns.listen to a free port in {lab.paths.config / 'config.toml'}"
    lab.configure('[dns]\nlisten = "127.0.0.1:42070"\n')
    assert lab.examine()["dns"][1] == "to be served at 127.0.0.1:42070, which is free"


@pytest.mark.parametrize("protocol", ["udp", "tcp"])
def test_a_port_that_another_has_at_another_address_is_free(lab: Lab, protocol: str) -> None:
    lab.prepare += _make_interface("other0", "10.0.0.1/24")
    _hold(lab, protocol, "10.0.0.1")
    assert lab.examine()["dns"][:2] == ("PASS", "to be served at 127.0.0.1:42069, which is free")
    lab.environment["BANGER_DNS_LISTEN"] = "0.0.0.0:42069"
    status, _, fix = lab.examine()["dns"]
    assert (status, fix) == ("FAIL", "set dns.listen to a free port in BANGER_DNS_LISTEN")


def test_a_daemon_that_cannot_serve_names_fails(lab: Lab) -> None:
    _hold(lab, "udp")
    lab.start_daemon()
    rows = lab.examine()
    assert rows["daemon"][0] == "PASS"
    assert rows["dns"][0] == "FAIL"
    assert "42069" in rows["dns"][1]
    assert rows["dns"][2] == f"set dns.listen to a free port in {lab.paths.config / 'config.toml'}"


def test_a_host_that_asks_nobody_for_names_is_told_where_to_read_on(lab: Lab) -> None:
    assert lab.examine()["dns routing"][0] == "PASS"
    # One that asks us would get no answer either.
    lab.prepare += _make_interface("banger0", "172.16.0.1/24")
    assert lab.examine()["dns routing"][0] == "PASS"
    lab.start_daemon()
    assert lab.examine()["dns routing"][::2] == ("WARN", "docs/dns-routing.md")


def test_a_resolved_that_nobody_asks_is_told_with_what_asks_it(monkeypatch: pytest.MonkeyPatch) -> None:
    subject = Subject(Paths.from_environment({"HOME": "/nowhere"}), configure(Document(), {}, {}))
    monkeypatch.setattr(names, "find_status", lambda _paths: {})
    monkeypatch.setattr(names, "find_routing", lambda *_: Routing(RoutingKind.NONE, False))
    for is_running in (True, False):
        monkeypatch.setattr(names.resolved, "is_running", lambda it=is_running: it)
        assert ("ln -sf ../run/systemd/resolve/stub-resolv.conf" in names.check_routing(subject).fix) is is_running


def test_a_host_whose_resolver_asks_us_is_fine(lab: Lab) -> None:
    (lab.home / "resolv.conf").write_text("nameserver 127.0.0.1\n")
    (lab.home / "nsswitch.conf").write_text("hosts: files dns\n")
    lab.prepare += [f"mount --bind {lab.home}/{name} /etc/{name}" for name in ("resolv.conf", "nsswitch.conf")]
    # On a host with nothing but loopback the C library asks for no IPv4 address (getaddrinfo(3), AI_ADDRCONFIG).
    lab.prepare += _make_interface("other0", "10.0.0.1/24")
    lab.configure('[dns]\nlisten = "127.0.0.1:53"\n')
    lab.start_daemon()
    assert lab.examine()["dns routing"][:2] == ("PASS", "the host's resolver finds names in .vm")


def test_the_person_s_ssh_configuration_is_looked_at(lab: Lab) -> None:
    assert "banger ssh-config --install" in lab.examine()["ssh config"][1]
    lab.banger("ssh-config", "--install")
    assert lab.examine()["ssh config"][1].startswith("ssh NAME.vm works")
    config = lab.home / ".ssh/config"
    config.write_text(config.read_text().splitlines(keepends=True)[0])
    assert lab.examine()["ssh config"][0] == "WARN"
    config.unlink()
    config.mkdir()
    assert lab.examine()["ssh config"][0] == "FAIL"


def test_a_daemon_that_is_asked_twice_is_still_one(lab: Lab) -> None:
    """Looking starts none."""
    lab.examine()
    done = lab.banger("daemon", "status", "--json")
    assert json.loads(done.stderr)["error"]["reason"] == "unavailable"
