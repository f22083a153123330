"""A guest's attachment to the host: all of its network in one call, for a process that has the right to make it.

Both calls are idempotent and safe at the same moment, also for the same guest: they take turns (`network_lock`). A
failure half-way leaves nothing open: a TAP is attached only after the firewall knows it, and a second `attach` or a
`detach` tidies up.
"""

from __future__ import annotations

from ipaddress import IPv4Address
from pathlib import Path

from banger.network.bridge import ensure_bridge
from banger.network.firewall import admit, check_firewall, expel
from banger.network.link import ensure_neighbour, remove_neighbour, write_sysctl
from banger.network.network_lock import network_locked
from banger.network.subnet import Subnet
from banger.network.tap import check_tap_owner, ensure_tap, have_other_owner, remove_tap

_IP_FORWARD = Path("/proc/sys/net/ipv4/ip_forward")


def attach(subnet: Subnet, address: IPv4Address, *, nat: bool, owner_uid: int) -> None:
    """The guest's TAP is ready to be opened by its owner, behind the firewall."""
    subnet.check_guest(address)
    with network_locked():
        check_tap_owner(subnet, address, owner_uid)
        check_firewall()
        ensure_bridge(subnet)
        admit(subnet, address, nat=nat)
        ensure_tap(subnet, address, owner_uid)
        # The address may have been another guest's a moment ago, which the host may still be asking for: its question
        # running out would refuse a connection to the new guest ("No route to host").
        ensure_neighbour(subnet.bridge, address, subnet.mac_of(address))
        if nat:
            # For the whole host: answers from outside arrive by another interface, and must be forwarded too.
            write_sysctl(_IP_FORWARD, "1")


def detach(subnet: Subnet, address: IPv4Address, *, owner_uid: int) -> None:
    """Nothing of this user's guest is left on the host.

    Where another user has a TAP by now, nothing of ours is left to begin with: TAP and firewall stay as they are.
    """
    subnet.check_guest(address)
    with network_locked():
        if not have_other_owner(subnet, address, owner_uid):
            remove_tap(subnet, address)
            remove_neighbour(subnet.bridge, address)
            expel(subnet, address)
