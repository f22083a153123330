"""The guests' network on the host: a bridge, a TAP for each guest, and a firewall around them.

`connect` and `disconnect` make and remove all that one guest needs, each at the price of at most one sudo. Both are
idempotent, and safe at the same moment. Which address a guest gets is decided, and reserved,
by the caller; everything else (MAC, TAP name) follows from it.

Importing this costs little; pyroute2 is imported when something is changed.
"""

from __future__ import annotations

import os
from ipaddress import IPv4Address

from banger.network.privileges import NoRight, can_change_network, run_helper
from banger.network.subnet import DEFAULT_SUBNET, Subnet
from banger.network.tap import list_taps

__all__ = ["DEFAULT_SUBNET", "NoRight", "Subnet", "connect", "disconnect", "list_taps"]


def connect(subnet: Subnet, address: IPv4Address, *, nat: bool) -> None:
    """The TAP `subnet.tap_of(address)` is ready for a monitor of this user; see `firewall` for what a guest can reach.

    Without `nat` a guest reaches nothing beyond the host. Calling again changes `nat`, also for a running guest.
    Raises `BangerError`: already-exists when the subnet, or the name of the bridge or TAP, is in use by something else;
    no-permission, also for an address whose TAP another user has (`NoRight` for a user who may do none of this);
    missing-program.
    """
    subnet.check_guest(address)
    if can_change_network():
        from banger.network.attachment import attach

        attach(subnet, address, nat=nat, owner_uid=os.getuid())
    else:
        run_helper(
            [
                "attach",
                subnet.bridge,
                str(subnet.network),
                str(address),
                "nat" if nat else "no-nat",
                str(os.getuid()),
            ]
        )


def disconnect(subnet: Subnet, address: IPv4Address) -> None:
    """Nothing of the guest is left on the host: the TAP goes even while a monitor has it open. A missing one is fine.

    So is that of another user, who has the address by now: it stays, also for root. Raises `BangerError` like
    `connect`.
    """
    subnet.check_guest(address)
    if can_change_network():
        from banger.network.attachment import detach

        detach(subnet, address, owner_uid=os.getuid())
    else:
        run_helper(["detach", subnet.bridge, str(subnet.network), str(address)])
