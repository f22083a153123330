"""systemd-resolved: names in `.vm`, and those of the subnet's addresses, are asked of a DNS server on loopback.

resolved keeps DNS servers and domains for each interface; those of the bridge are ours, and go with it. Nothing is
written to a disk, and no other question takes another way. A server with a port needs systemd 246 (resolvectl(1)).

resolved leaves an interface out of account while nothing is at its other end: a bridge without a running machine
has no carrier, and a question for `.vm` then goes where all others go.

Not promised: that nothing else sets the same bridge. Of two users who route it, the later one's server counts.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from ipaddress import IPv4Address
from pathlib import Path

from banger.errors import BangerError, Reason
from banger.network import link
from banger.network.names import TOP_DOMAIN, format_local_server, plan_reverse_zones
from banger.network.subnet import Subnet
from banger.run import find_program, run

# Varlink's socket, by which nss-resolve(8) reaches it.
_SOCKET = "/run/systemd/resolve/io.systemd.Resolve"
_TIMEOUT_S = 10.0


@dataclass(frozen=True)
class Route:
    """What resolved holds for an interface, in its own words: `127.0.0.1:42069`, `~vm`."""

    servers: frozenset[str]
    domains: frozenset[str]


def is_running() -> bool:
    """Whether there is a resolved for the network namespace of this process.

    The kernel lists the sockets of this namespace only (proc(5), /proc/net/unix). That matters: resolved is told the
    number of an interface, and in another namespace that number is another interface. Nor does looking start a
    service that somebody has switched off, as a question by D-Bus would.
    """
    listed = Path("/proc/net/unix").read_text(errors="replace")
    return find_program("resolvectl") is not None and any(line.endswith(f" {_SOCKET}") for line in listed.splitlines())


def plan_route(subnet: Subnet, server: tuple[IPv4Address, int]) -> Route:
    # "~": for routing only, never appended to a name of one label (resolvectl(1), "domain").
    domains = [f"~{zone}" for zone in (TOP_DOMAIN, *plan_reverse_zones(subnet.network))]
    return Route(frozenset({format_local_server(server)}), frozenset(domains))


def find_route(bridge: str) -> Route | None:
    """What is set for the bridge now; None when there is no such interface. Needs no rights."""
    servers, domains = _show("dns", bridge), _show("domain", bridge)
    return None if servers is None or domains is None else Route(servers, domains)


def set_route(subnet: Subnet, route: Route) -> None:
    """Needs root. All of it or, when resolved refuses a part, nothing.

    Raises `BangerError`: not-found when the bridge is not there or not ours, command-failed in resolved's words.
    """
    if not _is_ours(subnet):
        raise BangerError(
            f"there is no bridge {subnet.bridge} of {subnet.network}",
            reason=Reason.NOT_FOUND,
            hint="banger makes it when a machine starts",
        )
    try:
        # The server comes last: with one, but without a domain, an interface would get questions of all kinds.
        _set("default-route", subnet.bridge, ["no"])
        # There is no chain of trust to `.vm`, and no TLS; resolved's general settings may ask for either.
        _set("dnssec", subnet.bridge, ["no"])
        _set("dnsovertls", subnet.bridge, ["no"])
        _set("domain", subnet.bridge, sorted(route.domains))
        _set("dns", subnet.bridge, sorted(route.servers))
    except BangerError:
        _revert(subnet.bridge)
        raise


def remove_route(subnet: Subnet) -> None:
    """Needs root. What `set_route` did is undone; a bridge that is not there, or not ours, is left alone."""
    if _is_ours(subnet):
        _revert(subnet.bridge)


def _is_ours(subnet: Subnet) -> bool:
    present = link.find_link(subnet.bridge)
    return present is not None and present.kind == "bridge" and present.mac == subnet.bridge_mac


def _show(verb: str, bridge: str) -> frozenset[str] | None:
    # Link 3 (banger0): ~vm ~0.16.172.in-addr.arpa
    shown = run(["resolvectl", "--no-pager", verb, bridge], must_succeed=False, timeout_s=_TIMEOUT_S)
    _, found, values = shown.stdout.decode("utf-8", "replace").partition(f"({bridge}):")
    return frozenset(values.split()) if shown.returncode == 0 and found else None


def _set(verb: str, bridge: str, values: Sequence[str]) -> None:
    run(["resolvectl", verb, bridge, *values], timeout_s=_TIMEOUT_S)


def _revert(bridge: str) -> None:
    run(["resolvectl", "revert", bridge], must_succeed=False, timeout_s=_TIMEOUT_S)
