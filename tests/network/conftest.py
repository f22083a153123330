"""A host, the world outside and guests, each a network namespace of its own; nothing touches the real host's.

A guest is the kernel's own network stack behind a real TAP: `pump.py` plays the monitor.
"""

import contextlib
import itertools
import json
import os
import subprocess
import sys
from dataclasses import dataclass, field
from ipaddress import IPv4Address
from pathlib import Path

import pytest

from banger.network import DEFAULT_SUBNET
from tests.ordinary_user import ALL_RIGHTS, UID, become_user

OUTSIDE, HOST_OUTSIDE = "198.51.100.2", "198.51.100.1"
_numbers = itertools.count()

# Tells each caller who he seems to be.
_SERVE = """
import socket, sys
server = socket.create_server((sys.argv[1], int(sys.argv[2])))
print("ready", flush=True)
while True:
    connection, peer = server.accept()
    connection.sendall(peer[0].encode())
    connection.close()
"""
_ASK = """
import socket, sys
try:
    source = (sys.argv[3], 0) if sys.argv[3] else None
    server = sys.argv[1], int(sys.argv[2])
    connection = socket.create_connection(server, timeout=float(sys.argv[4]), source_address=source)
    print(connection.makefile().read())
except OSError as error:
    sys.exit(f"refused: {error}")
"""
_CONNECT = """
import sys
from ipaddress import IPv4Address
from banger.network import DEFAULT_SUBNET, connect
for word in sys.argv[2:]:
    connect(DEFAULT_SUBNET, IPv4Address(word), nat=sys.argv[1] == "nat")
"""
_DISCONNECT = """
import sys
from ipaddress import IPv4Address
from banger.network import DEFAULT_SUBNET, disconnect
for word in sys.argv[1:]:
    disconnect(DEFAULT_SUBNET, IPv4Address(word))
"""
# Shows an error as tests want to see it.
_REPORTING = """
import json, sys
from banger.errors import BangerError
try:
    exec(sys.argv.pop(1))
except BangerError as error:
    print(json.dumps([error.reason, error.message, error.hint]))
    sys.exit(9)
"""


@dataclass
class Namespace:
    name: str
    stack: contextlib.ExitStack

    def run(self, *argv, check=True):
        argv = self.argv(*argv)
        return subprocess.run(argv, stdin=subprocess.DEVNULL, check=check, capture_output=True, text=True, timeout=60)

    def argv(self, *argv):
        return ["ip", "netns", "exec", self.name, *map(str, argv)]

    def python(self, code, *arguments, check=True):
        return self.run(sys.executable, "-I", "-c", code, *arguments, check=check)

    def start(self, *argv):
        """A program that says `ready`, until the end of the test."""
        child = self.stack.enter_context(subprocess.Popen(self.argv(*argv), stdout=subprocess.PIPE, text=True))
        self.stack.callback(child.kill)
        assert child.stdout.readline() == "ready\n"
        return child

    def serve(self, address, port):
        return self.start(sys.executable, "-I", "-c", _SERVE, address, port)

    def ask(self, address, port, *, source="", timeout_s=30):
        """What a service answers, or None for no answer."""
        asked = self.python(_ASK, address, port, source, timeout_s, check=False)
        return asked.stdout.strip() if asked.returncode == 0 else None

    def asks_in_vain(self, address, port, *, source=""):
        return self.ask(address, port, source=source, timeout_s=0.8) is None

    def json(self, *argv):
        return json.loads(self.run(*argv).stdout)


@dataclass
class Host(Namespace):
    guests: dict = field(default_factory=dict)

    def connect(self, *addresses, nat=True):
        return self.python(_CONNECT, "nat" if nat else "no-nat", *addresses)

    def disconnect(self, *addresses):
        return self.python(_DISCONNECT, *addresses)

    def refusal(self, code):
        """The [reason, message, hint] of the BangerError with which the code ends."""
        ended = self.python(_REPORTING, code, check=False)
        assert ended.returncode == 9, ended.stdout + ended.stderr
        return json.loads(ended.stdout)

    def connect_refusal(self, address):
        return self.refusal(
            "from ipaddress import IPv4Address\nfrom banger.network import DEFAULT_SUBNET, connect\n"
            f"connect(DEFAULT_SUBNET, IPv4Address({address!r}), nat=True)"
        )

    def links(self):
        return {link["ifname"]: link for link in self.json("ip", "-d", "-j", "addr")}

    def elements(self, set_name, family="ip"):
        listed = self.json("nft", "-j", "list", "set", family, "banger", set_name)["nftables"]
        return next(item["set"] for item in listed if "set" in item).get("elem", [])

    def guest(self, address, *, nat=True):
        """A machine that is connected and running."""
        self.connect(address, nat=nat)
        guest = new_namespace(self.stack)
        tap = DEFAULT_SUBNET.tap_of(IPv4Address(address))
        self.start(sys.executable, "-I", Path(__file__).with_name("pump.py"), tap, f"/run/netns/{guest.name}")
        guest.run(
            "sh",
            "-ec",
            f"ip link set eth0 address {DEFAULT_SUBNET.mac_of(IPv4Address(address))} up; "
            f"ip addr add {address}/24 dev eth0; ip route add default via {DEFAULT_SUBNET.gateway}",
        )
        return guest


def new_namespace(stack, kind=Namespace):
    name = f"banger-test-{os.getpid()}-{next(_numbers)}"
    subprocess.run(["ip", "netns", "add", name], check=True)
    stack.callback(subprocess.run, ["ip", "netns", "del", name], check=True)
    namespace = kind(name, stack)
    namespace.run("ip", "link", "set", "lo", "up")
    return namespace


@pytest.fixture
def host():
    """A host that nothing was done to, whose uplink `up0` leads to the world outside."""
    if os.geteuid() != 0:
        pytest.skip("network namespaces need root")
    with contextlib.ExitStack() as stack:
        yield new_namespace(stack, Host)


@pytest.fixture
def outside(host):
    """The world beyond the host. It knows no way back to the guests' addresses but through the host."""
    world = new_namespace(host.stack)
    host.run("ip", "link", "add", "up0", "type", "veth", "peer", "name", "eth0", "netns", world.name)
    host.run("sh", "-ec", f"ip addr add {HOST_OUTSIDE}/24 dev up0; ip link set up0 up")
    world.run("sh", "-ec", f"ip addr add {OUTSIDE}/24 dev eth0; ip link set eth0 up")
    world.run("ip", "route", "add", str(DEFAULT_SUBNET.network), "via", HOST_OUTSIDE)
    world.address, world.host_address = OUTSIDE, HOST_OUTSIDE
    return world


@dataclass
class User(Host):
    """An ordinary user of the host; `sudoers` says what sudo allows, `hidden` is a program that is not installed."""

    uid: int = UID
    sudoers: str = ALL_RIGHTS
    hidden: str = ""
    folder: Path = Path()

    def argv(self, *argv):
        return super().argv(*become_user(self.folder, self.uid, self.sudoers, self.hidden), *argv)


@pytest.fixture
def user(host, tmp_path):
    return User(host.name, host.stack, folder=tmp_path)
