"""Taking the server's port: what is said when that cannot be."""

from __future__ import annotations

import asyncio
import contextlib
import os
import socket
import subprocess
import sys
from pathlib import Path

import pytest

from banger.dns.holder import find_holder
from banger.dns.server import start_server
from banger.errors import BangerError, Reason
from tests.dns.questions import make_zone
from tests.ordinary_user import UID
from tests.ports import find_free_port

LOOPBACK = "127.0.0.1"


@pytest.mark.parametrize("kind", [socket.SOCK_DGRAM, socket.SOCK_STREAM])
@pytest.mark.parametrize("family", [socket.AF_INET, socket.AF_INET6])
def test_a_port_in_use_is_refused_with_the_name_of_who_has_it(kind: int, family: int) -> None:
    with take_port(family, kind) as taken, socket.socket(socket.AF_INET, other_kind(kind)) as free:
        if kind == socket.SOCK_STREAM:
            taken.listen()
        port = taken.getsockname()[1]
        with pytest.raises(BangerError) as refused:
            asyncio.run(start_server((LOOPBACK, port), make_zone()))
        assert refused.value.reason is Reason.IN_USE
        protocol = "TCP" if kind == socket.SOCK_STREAM else "UDP"
        own = Path("/proc/self/comm").read_text().strip()
        assert (
            refused.value.message
            == f"names cannot be served at {LOOPBACK}:{port}: {own} (process {os.getpid()}) has the {protocol} port"
        )
        assert f"ss -{protocol[0].lower()}lnp" in refused.value.hint
        assert "dns.listen" in refused.value.hint
        # Both or none: the other one was not kept.
        free.bind((LOOPBACK, port))


def take_port(family: int, kind: int) -> socket.socket:
    taken = socket.socket(family, kind)
    taken.bind(("::" if family == socket.AF_INET6 else LOOPBACK, find_free_port()))
    return taken


def other_kind(kind: int) -> int:
    return socket.SOCK_STREAM if kind == socket.SOCK_DGRAM else socket.SOCK_DGRAM


def test_of_somebody_elses_port_the_user_is_told() -> None:
    if os.geteuid() != 0:
        pytest.skip("another user's process needs root")
    holder = (
        "import os, socket, sys\ns = socket.socket(socket.AF_INET, socket.SOCK_DGRAM)\ns.bind(('127.0.0.1', 0))\n"
        "print(s.getsockname()[1], flush=True)\nsys.stdin.read()"
    )
    asker = (
        "import os, sys\nfrom banger.dns.holder import find_holder\n"
        f"os.setgroups([]); os.setgid({UID}); os.setuid({UID})\n"
        "print(find_holder('udp', ('127.0.0.1', int(sys.argv[1]))))"
    )
    argv = [sys.executable, "-I", "-c"]
    with subprocess.Popen([*argv, holder], stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True) as child:
        assert child.stdout is not None
        port = child.stdout.readline().strip()
        told = subprocess.run([*argv, asker, port], capture_output=True, text=True, check=True, timeout=60).stdout
        child.communicate()
    assert told == "user 0\n"


@pytest.mark.parametrize("kind", [socket.SOCK_DGRAM, socket.SOCK_STREAM])
@pytest.mark.parametrize(
    ("theirs", "ours", "is_in_the_way"),
    [
        (LOOPBACK, LOOPBACK, True),
        ("0.0.0.0", LOOPBACK, True),
        (LOOPBACK, "0.0.0.0", True),
        ("127.0.0.2", LOOPBACK, False),
        ("::", LOOPBACK, True),
        (f"::ffff:{LOOPBACK}", LOOPBACK, True),
        ("::ffff:127.0.0.2", LOOPBACK, False),
        ("::1", LOOPBACK, False),
        ("::1", "0.0.0.0", False),
    ],
)
def test_a_port_at_another_address_is_free(kind: int, theirs: str, ours: str, is_in_the_way: bool) -> None:
    """The kernel says the same."""
    family = socket.AF_INET6 if ":" in theirs else socket.AF_INET
    protocol = "udp" if kind == socket.SOCK_DGRAM else "tcp"
    with socket.socket(family, kind) as taken, socket.socket(socket.AF_INET, kind) as asker:
        taken.bind((theirs, find_free_port()))
        if kind == socket.SOCK_STREAM:
            taken.listen()
        listen = (ours, taken.getsockname()[1])
        holder = find_holder(protocol, listen)
        assert (holder is not None) == is_in_the_way
        with contextlib.nullcontext() if holder is None else pytest.raises(OSError, match="in use"):
            asker.bind(listen)


def test_an_address_that_is_not_this_hosts_is_refused() -> None:
    with pytest.raises(BangerError) as refused:
        asyncio.run(start_server(("192.0.2.1", 42069), make_zone()))
    assert refused.value.reason is Reason.BAD_INPUT


def test_a_low_port_is_for_root_and_the_way_out_is_told() -> None:
    if os.geteuid() != 0:
        pytest.skip("network namespaces need root")
    code = (
        "import asyncio, os, sys\nfrom banger.dns.server import start_server\nfrom banger.dns.zone import Zone\n"
        f"from banger.errors import BangerError\nos.setgroups([]); os.setgid({UID}); os.setuid({UID})\n"
        "try:\n    asyncio.run(start_server(('127.0.0.1', 53), Zone(dict)))\n"
        "except BangerError as error:\n    print(error.reason, error.hint)"
    )
    argv = ["unshare", "--net", "sh", "-c", 'ip link set lo up; exec "$@"', "sh", sys.executable, "-I", "-c", code]
    told = subprocess.run(argv, capture_output=True, text=True, check=True, timeout=60).stdout
    assert told.startswith("no-permission ")
    assert "net.ipv4.ip_unprivileged_port_start=53" in told
