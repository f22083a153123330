"""How the host comes to ask the server: systemd-resolved is told, everybody else by `docs/dns-routing.md`.

Where resolved does not run nothing is done, and that is no failure: an address does wherever a name does not.
"""

from __future__ import annotations

import os
from dataclasses import dataclass
from enum import StrEnum
from ipaddress import IPv4Address
from pathlib import Path

from banger.dns.zone import GATEWAY_LABEL
from banger.errors import BangerError, Reason
from banger.network import link, resolved
from banger.network.names import TOP_DOMAIN, format_local_server
from banger.network.privileges import run_helper
from banger.network.subnet import Subnet
from banger.run import run

# How long a look at the host's resolver may take; one that works answers at once.
_PROBE_S = 0.7
_STUBS = frozenset({"127.0.0.53", "127.0.0.54"})  # systemd-resolved.service(8)
_PAGE = "see docs/dns-routing.md"


class RoutingKind(StrEnum):
    """Who sends the host's questions for `.vm` to us: resolved by way of the bridge, something else, nobody."""

    RESOLVED = "resolved"
    OTHER = "other"
    NONE = "none"


@dataclass(frozen=True)
class Routing:
    """`kind` NONE is never wired; RESOLVED need not be yet, which the hint then says."""

    kind: RoutingKind
    is_wired: bool
    hint: str = ""


def ensure_routed(subnet: Subnet, listen: tuple[str, int]) -> bool:
    """resolved asks the server at `listen` for this host's names, if it runs here and the bridge is there.

    False when it does not, or when `listen` is no address of loopback: then nothing was done. Costs two questions of
    resolved when all is as it should be, and at most one sudo when it is not. Raises `BangerError`: no-permission,
    command-failed.
    """
    server = _find_local_server(listen)
    if server is None or subnet.bridge not in link.list_names() or not resolved.is_running():
        return False
    route = resolved.plan_route(subnet, server)
    if resolved.find_route(subnet.bridge) == route:
        return True
    # resolved asks who calls, not what that process may do: CAP_NET_ADMIN plays no part here.
    if os.geteuid() == 0:
        resolved.set_route(subnet, route)
    else:
        run_helper(["route-dns", subnet.bridge, str(subnet.network), format_local_server(server)])
    return True


def unroute(subnet: Subnet, listen: tuple[str, int] | None = None) -> None:
    """resolved knows nothing of ours any more. With `listen`, a way that leads to another server stays as it is: it is
    another user's. Costs and raises like `ensure_routed`.
    """
    if not resolved.is_running():
        return
    route = resolved.find_route(subnet.bridge)
    if route in (None, resolved.Route(frozenset(), frozenset())):
        return
    if listen is not None:
        server = _find_local_server(listen)
        if server is None or route != resolved.plan_route(subnet, server):
            return
    if os.geteuid() == 0:
        resolved.remove_route(subnet)
    else:
        run_helper(["unroute-dns", subnet.bridge, str(subnet.network)])


def find_routing(subnet: Subnet, listen: tuple[str, int]) -> Routing:
    """How the host finds names in `.vm` now. The server has to run: for anything but resolved, the host is asked."""
    is_asked = _is_resolved_asked()
    if is_asked and resolved.is_running():
        return _look_at_resolved(subnet, listen)
    if _finds_gateway(subnet):
        return Routing(RoutingKind.OTHER, True)
    if resolved.is_running():
        return Routing(RoutingKind.NONE, False, f"systemd-resolved runs, but /etc/resolv.conf leads elsewhere: {_PAGE}")
    return Routing(RoutingKind.NONE, False, f"nothing on this host asks banger for names in .{TOP_DOMAIN}: {_PAGE}")


def _look_at_resolved(subnet: Subnet, listen: tuple[str, int]) -> Routing:
    server = _find_local_server(listen)
    if server is not None and resolved.find_route(subnet.bridge) == resolved.plan_route(subnet, server):
        return Routing(RoutingKind.RESOLVED, True)
    if _finds_gateway(subnet):
        return Routing(RoutingKind.OTHER, True)
    if server is None:
        hint = f"dns.listen is no address of loopback, so that banger does not tell systemd-resolved of it: {_PAGE}"
    else:
        hint = "banger tells systemd-resolved when a machine starts"
    return Routing(RoutingKind.RESOLVED, False, hint)


def _find_local_server(listen: tuple[str, int]) -> tuple[IPv4Address, int] | None:
    """Where resolved reaches the server; None when that is not on loopback."""
    address = IPv4Address(listen[0])
    if address.is_unspecified:
        address = IPv4Address("127.0.0.1")
    return (address, listen[1]) if address.is_loopback else None


def _is_resolved_asked() -> bool:
    """Whether the C library's questions reach resolved: by nss-resolve(8), or by its stub in resolv.conf."""
    if any("resolve" in line.split() for line in _read("/etc/nsswitch.conf") if line.startswith("hosts:")):
        return True
    servers = (line.split()[1:2] for line in _read("/etc/resolv.conf") if line.startswith("nameserver"))
    return any(_STUBS.intersection(words) for words in servers)


def _read(path: str) -> list[str]:
    try:
        return Path(path).read_text(errors="replace").splitlines()
    except FileNotFoundError:
        return []


def _finds_gateway(subnet: Subnet) -> bool:
    """By a process of its own: the C library's patience with a silent server is 5 s and more."""
    name = f"{GATEWAY_LABEL}.{TOP_DOMAIN}."
    try:
        found = run(["getent", "ahostsv4", name], must_succeed=False, timeout_s=_PROBE_S)
    except BangerError as error:
        if error.reason in (Reason.TIMEOUT, Reason.MISSING_PROGRAM):
            return False
        raise
    return str(subnet.gateway) in found.stdout.decode("utf-8", "replace").split()
