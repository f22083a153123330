"""Network interfaces of the host, as the kernel's rtnetlink tells them.

The only file that speaks pyroute2, which costs 100 ms to import and has no types: the import stays in one function,
and what comes out are plain values. It always means the network namespace of this process, where
`/sys/class/net` means that of whoever mounted it.

Not promised: that an interface is still there a moment later. Every change here is a single kernel call, so a
loser of a race gets an error and never a half-made interface.
"""

from __future__ import annotations

import contextlib
import errno
import socket
from collections.abc import Iterator, Set
from dataclasses import dataclass
from ipaddress import IPv4Address, IPv4Interface, IPv4Network
from pathlib import Path
from typing import Any, Literal

from banger.errors import BangerError, Reason

_MAIN_TABLE = 254
_NUD_PERMANENT = 0x80  # <linux/neighbour.h>
_DUMP_TRIES = 10


@dataclass(frozen=True)
class Link:
    """An interface: `kind` is rtnetlink's ("bridge", "tun", "veth"), empty for hardware.

    `owner_uid` is who may open a TAP; None for other kinds, and for a TAP that only root may open.
    """

    name: str
    index: int
    kind: str
    mac: str
    owner_uid: int | None


def list_names() -> list[str]:
    """The names of all interfaces; needs no rights and no pyroute2."""
    return [name for _, name in socket.if_nameindex()]


def find_link(name: str) -> Link | None:
    index = _find_index(name)
    if index is None:
        return None
    messages: list[Any] = []
    with _netlink(f"read interface {name}", forgive={errno.ENODEV}) as netlink:
        messages = list(netlink.link("get", index=index))
    for message in messages:
        owner = message.get(("linkinfo", "data", "tun_owner"))
        return Link(
            name=str(message.get("ifname")),
            index=index,
            kind=str(message.get(("linkinfo", "kind")) or ""),
            mac=str(message.get("address") or ""),
            owner_uid=None if owner is None else int(owner),
        )
    return None


def list_addresses() -> list[tuple[str, IPv4Interface]]:
    """Each interface's IPv4 addresses with the network that they span (a peer's, on a point-to-point link)."""
    found: list[tuple[str, IPv4Interface]] = []
    for message in _dump("addr"):
        name = _find_name(message["index"])
        texts = {message.get("local"), message.get("address")} - {None}
        if name is not None:
            found += [(name, IPv4Interface((str(text), int(message["prefixlen"])))) for text in texts]
    return found


def list_routes() -> list[tuple[str, IPv4Network]]:
    """The routes of the main table that leave by one interface, without default routes."""
    found: list[tuple[str, IPv4Network]] = []
    for message in _dump("route"):
        to, out = message.get("dst"), message.get("oif")
        name = None if out is None else _find_name(out)
        if name is not None and to is not None and message.get("table") == _MAIN_TABLE:
            found.append((name, IPv4Network((str(to), int(message["dst_len"])))))
    return found


def ensure_bridge_link(name: str, mac: str) -> None:
    """A bridge of this name, still down when it is new; one that is there stays as it is.

    STP off and no forward delay: a port forwards at once, and a guest cannot send BPDUs that re-shape anything.
    The MAC is part of its creation: set later, udev and the first port would have had their say.
    """
    with _netlink(f"make bridge {name}", forgive={errno.EEXIST}) as netlink:
        netlink.link(
            "add", ifname=name, kind="bridge", address=mac, br_stp_state=0, br_forward_delay=0, br_mcast_snooping=0
        )


def ensure_address(name: str, address: IPv4Interface) -> None:
    with _netlink(f"give {name} the address {address}", forgive={errno.EEXIST}) as netlink:
        netlink.addr("add", index=_get_index(name), address=str(address.ip), prefixlen=address.network.prefixlen)


def ensure_up(name: str) -> None:
    with _netlink(f"bring {name} up") as netlink:
        netlink.link("set", index=_get_index(name), state="up")


def ensure_isolated_port(name: str, bridge: str) -> None:
    """Make an interface a port of a bridge that exchanges frames with the host only, never with other such ports."""
    with _netlink(f"attach {name} to {bridge}") as netlink:
        index = _get_index(name)
        netlink.link("set", index=index, master=_get_index(bridge))
        netlink.brport("set", index=index, isolated=1)


def ensure_neighbour(name: str, address: IPv4Address, mac: str) -> None:
    """The host knows who has this address there, and asks nobody; what it believed before is forgotten."""
    with _netlink(f"note that {address} is {mac}") as netlink:
        netlink.neigh("replace", ifindex=_get_index(name), dst=str(address), lladdr=mac, state=_NUD_PERMANENT)


def remove_neighbour(name: str, address: IPv4Address) -> None:
    """The host knows nobody of this address there; it may not have known."""
    index = _find_index(name)
    if index is not None:
        with _netlink(f"forget who has {address}", forgive={errno.ENOENT, errno.ENODEV}) as netlink:
            netlink.neigh("del", ifindex=index, dst=str(address))


def remove_link(name: str) -> None:
    """Delete an interface; a missing one is fine."""
    index = _find_index(name)
    if index is not None:
        with _netlink(f"remove {name}", forgive={errno.ENODEV}) as netlink:
            netlink.link("del", index=index)


def ensure_no_ipv6(name: str) -> None:
    """The host neither has nor learns an IPv6 address there: no guest becomes its router by an advertisement."""
    knob = Path("/proc/sys/net/ipv6/conf", name, "disable_ipv6")
    # A kernel without IPv6 has no such file and is right already.
    with contextlib.suppress(FileNotFoundError):
        write_sysctl(knob, "1")


def write_sysctl(knob: Path, value: str) -> None:
    """Write a kernel setting unless it has that value: some (ip_forward) reset others on every write."""
    if knob.read_text().strip() == value:
        return
    try:
        knob.write_text(value)
    except OSError as error:
        raise BangerError(
            f"cannot set {knob} to {value}: {error.strerror}",
            reason=Reason.NO_PERMISSION,
            hint="in a container /proc/sys is often read-only: set it on the host",
        ) from error


def _find_index(name: str) -> int | None:
    try:
        return socket.if_nametoindex(name)
    except OSError:
        return None


def _get_index(name: str) -> int:
    index = _find_index(name)
    if index is None:
        raise BangerError(
            f"the interface {name} disappeared", reason=Reason.CHANGED, hint="something else removed it: try again"
        )
    return index


def _find_name(index: int) -> str | None:
    try:
        return socket.if_indextoname(index)
    except OSError:
        return None


def _dump(what: Literal["addr", "route"]) -> list[Any]:
    """A whole kernel table. The kernel says when it changed under the reading; then it is read again."""
    from pyroute2.netlink.exceptions import NetlinkDumpInterrupted

    for _ in range(_DUMP_TRIES):
        with _netlink(f"list the {what} table") as netlink:
            try:
                return list(getattr(netlink, what)("dump", family=socket.AF_INET))
            except NetlinkDumpInterrupted:
                continue
    raise BangerError(
        f"the host's {what} table changes faster than it can be read", reason=Reason.CHANGED, hint="try again"
    )


@contextlib.contextmanager
def _netlink(doing: str, *, forgive: Set[int] = frozenset()) -> Iterator[Any]:
    """An rtnetlink socket; the kernel's refusals become a `BangerError`, save those the caller forgives."""
    from pyroute2 import IPRoute
    from pyroute2.netlink.exceptions import NetlinkError

    with IPRoute() as netlink:
        try:
            yield netlink
        except NetlinkError as error:
            if error.code in forgive:
                return
            denied = error.code in (errno.EPERM, errno.EACCES)
            raise BangerError(
                f"cannot {doing}: {error.args[1] if len(error.args) > 1 else error}",
                reason=Reason.NO_PERMISSION if denied else Reason.COMMAND_FAILED,
            ) from error
