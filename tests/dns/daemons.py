"""The daemons of a host that looks after its resolver, as they run in a lab, and banger's word with them."""

from __future__ import annotations

import json
import sys
from pathlib import Path

from tests.dns.lab import Lab, wait_for

LISTEN = ("127.0.0.1", 42069)
_BUS = "/run/dbus/system_bus_socket"
_CALL = """
import json, sys
from dataclasses import asdict
from banger.dns import routing
from banger.dns.routing import ensure_routed, find_routing, unroute
from banger.errors import BangerError
from banger.network import DEFAULT_SUBNET
verb, address, port = sys.argv[1:]
routing._PROBE_S = 30.0
try:
    match verb:
        case "ensure": print(json.dumps(ensure_routed(DEFAULT_SUBNET, (address, int(port)))))
        case "find": print(json.dumps(asdict(find_routing(DEFAULT_SUBNET, (address, int(port))))))
        case "unroute": print(json.dumps(unroute(DEFAULT_SUBNET)))
except BangerError as error:
    print(json.dumps([error.reason, error.message]))
"""


def start_bus(lab: Lab) -> None:
    """The system's D-Bus, unless it is there already."""
    if not _is_there(lab, _BUS):
        lab.run("mkdir", "-p", "/run/dbus")
        lab.start("dbus-daemon", "--system", "--nofork", "--nopidfile")
        wait_for(lambda: _is_there(lab, _BUS))


def _is_there(lab: Lab, path: str) -> bool:
    return path in lab.run("cat", "/proc/net/unix")


def prepare_resolved(lab: Lab, packages: Path, config: str = "", *, is_asked: bool = True) -> None:
    """resolved runs, and unless `is_asked` is false it is what the C library asks. `config` is for its [Resolve]."""
    lab.install(packages)
    lab.write("/etc/resolv.conf", f"nameserver 127.0.0.{53 if is_asked else 9}\n")
    lab.write("/etc/nsswitch.conf", "passwd: files\ngroup: files\nhosts: files dns\n")
    lab.write("/etc/systemd/resolved.conf", f"[Resolve]\nLLMNR=no\nMulticastDNS=no\n{config}\n")
    start_bus(lab)
    lab.run("install", "-d", "-o", "systemd-resolve", "-g", "systemd-resolve", "/run/systemd/resolve")
    start_resolved(lab)


def start_resolved(lab: Lab) -> None:
    child = lab.start("/usr/lib/systemd/systemd-resolved")
    wait_for(lambda: "Global" in lab.run("resolvectl", "status", check=False) or child.poll() is not None)
    assert child.poll() is None


def start_network_manager(lab: Lab, config: str = "") -> None:
    """It has an uplink to look after, without which it asks nobody."""
    lab.run("sh", "-ec", "ip link add up0 type veth peer name peer0; ip link set peer0 up")
    profile = "/etc/NetworkManager/system-connections/up.nmconnection"
    lab.write(
        profile,
        "[connection]\nid=up\ntype=ethernet\ninterface-name=up0\n"
        "[ipv4]\nmethod=manual\naddress1=198.51.100.5/24,198.51.100.1\ndns=198.51.100.1\n[ipv6]\nmethod=disabled\n",
    )
    lab.run("chmod", "600", profile)
    lab.write("/etc/NetworkManager/conf.d/lab.conf", config)
    lab.run("mkdir", "-p", "/var/lib/NetworkManager", "/run/NetworkManager")
    # It waits for udev, which is not there, unless /sys cannot be written.
    lab.run("mount", "-t", "sysfs", "-o", "ro", "sysfs", "/sys")
    start_bus(lab)
    lab.start("NetworkManager", "--no-daemon", "--log-level=WARN")


def call(lab: Lab, verb: str, listen: tuple[str, int] = LISTEN, *, by: list[str] | None = None) -> object:
    """What banger's function gives, or [reason, message] of its refusal. `by` are words that run it as others."""
    return json.loads(lab.run(*(by or []), sys.executable, "-I", "-c", _CALL, verb, *listen))
