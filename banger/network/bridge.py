"""The bridge: the guests' side of the host, holding the gateway's address.

One bridge serves all guests of a subnet and stays when the last has gone; it costs nothing and keeps its firewall.
Its fixed MAC is how it is known: a bridge of the same name with another MAC is somebody else's and left alone.

Not promised: that nothing else on the host touches it. NetworkManager and systemd-networkd leave it alone unless
told otherwise.
"""

from __future__ import annotations

from banger.errors import BangerError, Reason
from banger.network import link
from banger.network.subnet import Subnet


def ensure_bridge(subnet: Subnet) -> None:
    """The bridge is there with the gateway's address, and up.

    Raises `BangerError` (already-exists) when the name or the subnet is in use by something else.
    """
    if link.find_link(subnet.bridge) is None:
        _check_unused(subnet)
        link.ensure_bridge_link(subnet.bridge, subnet.bridge_mac)
    _check_ours(subnet, link.find_link(subnet.bridge))
    link.ensure_no_ipv6(subnet.bridge)
    if (subnet.bridge, subnet.gateway_interface) not in link.list_addresses():
        _check_unused(subnet)
        link.ensure_address(subnet.bridge, subnet.gateway_interface)
    link.ensure_up(subnet.bridge)


def check_bridge(subnet: Subnet) -> None:
    """What stands in the way of `ensure_bridge`, found without any rights. Raises `BangerError` as it does."""
    present = link.find_link(subnet.bridge)
    if present is not None:
        _check_ours(subnet, present)
    _check_unused(subnet)


def _check_ours(subnet: Subnet, present: link.Link | None) -> None:
    if present is None or present.kind != "bridge":
        raise BangerError(
            f"the name {subnet.bridge} is taken by an interface that is not a bridge",
            reason=Reason.ALREADY_EXISTS,
            hint=f"look: ip -d link show {subnet.bridge}; choose another bridge name for banger",
        )
    if present.mac != subnet.bridge_mac:
        raise BangerError(
            f"the bridge {subnet.bridge} is there already, but not as the bridge of {subnet.network}",
            reason=Reason.ALREADY_EXISTS,
            hint="choose another bridge name for banger, or remove it if it is a leftover: "
            f"sudo ip link del {subnet.bridge}",
        )


def _check_unused(subnet: Subnet) -> None:
    """No other interface of the host may span the subnet, or lead to a part of it.

    A wider route (a VPN's 172.16.0.0/12) is no conflict: the kernel prefers the narrower one, which is ours.
    """
    spanned = [(name, interface.network) for name, interface in link.list_addresses()]
    within = [(name, network) for name, network in link.list_routes() if network.subnet_of(subnet.network)]
    for name, network in (*spanned, *within):
        if name != subnet.bridge and network.overlaps(subnet.network):
            raise BangerError(
                f"the subnet {subnet.network} is in use already: {name} has {network}",
                reason=Reason.ALREADY_EXISTS,
                hint=f"choose another subnet for banger, or take {name} down",
            )
