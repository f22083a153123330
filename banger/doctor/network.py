"""The guests' network among what else the host has: its subnet, and whether packets get through."""

from __future__ import annotations

import os
from collections.abc import Mapping
from pathlib import Path

from banger.doctor.finding import Check, Finding, Subject, passed, warned
from banger.doctor.programs import PATIENCE_S
from banger.errors import BangerError
from banger.network import list_taps
from banger.network.bridge import check_bridge
from banger.network.link import list_names
from banger.network.privileges import can_change_network
from banger.run import run

_IP_FORWARD = Path("/proc/sys/net/ipv4/ip_forward")
_DOCKER = "docker0"


def check_subnet(subject: Subject) -> Finding:
    check_bridge(subject.subnet)
    count = len(list_taps(subject.subnet))
    is_there = subject.subnet.bridge in list_names()
    return passed(
        f"{subject.subnet.network}: {subject.subnet.bridge} is there, with {count} machine{'' if count == 1 else 's'}"
        if is_there
        else f"{subject.subnet.network} is free; {subject.subnet.bridge} comes with the first machine"
    )


def check_forwarding(_subject: Subject, knob: Path = _IP_FORWARD) -> Finding:
    if knob.read_text().strip() == "1":
        return passed("on")
    if can_change_network() and not os.access(knob, os.W_OK):
        return warned(
            "off, and cannot be switched on here: machines cannot reach outside",
            "on the host: sudo sysctl net.ipv4.ip_forward=1",
        )
    return passed("off; switched on with the first machine that reaches outside")


def check_docker(subject: Subject) -> Finding:
    """Where it drops what is forwarded, guests need a rule in its own chain (see the head of `network/firewall.py`)."""
    if _DOCKER not in list_names():
        return passed("no Docker here that could be in the way")
    bridge = subject.subnet.bridge
    fix = f"sudo iptables -I DOCKER-USER -i {bridge} -j ACCEPT; sudo iptables -I DOCKER-USER -o {bridge} -j ACCEPT"
    if not can_change_network():
        return warned("Docker is here, and may drop what machines send outside; only root can see", fix)
    if "policy drop" in _list_chain("FORWARD") and f'"{bridge}"' not in _list_chain("DOCKER-USER"):
        return warned("Docker drops what machines send outside", fix)
    return passed("Docker lets machines through")


def _list_chain(name: str) -> str:
    """A chain of the table that iptables(8) fills; nothing where there is no such chain."""
    try:
        listed = run(["nft", "list", "chain", "ip", "filter", name], must_succeed=False, timeout_s=PATIENCE_S)
    except BangerError:
        return ""
    return listed.stdout.decode("utf-8", "replace")


CHECKS: Mapping[str, Check] = {
    "subnet": check_subnet,
    "forwarding": check_forwarding,
    "docker": check_docker,
}
