"""The TAP: one guest's end of the bridge, as a device that its monitor opens by name.

A TAP is persistent (it outlives the process that made it) and belongs to one user, who may open it without further
rights. Its flags are those with which Firecracker opens it and QEMU too: a TAP without packet information, with a
virtio header and a single queue. The kernel refuses (EINVAL) to open a TAP with another number of queues than it was
made for.
"""

from __future__ import annotations

import errno
import fcntl
import os
import struct
from ipaddress import IPv4Address
from typing import TypeGuard

from banger.errors import BangerError, Reason
from banger.network import link
from banger.network.subnet import Subnet

# <linux/if_tun.h>. Without EXCL, a TAP that is there already is opened, and would be given away.
_TUNSETIFF = 0x400454CA
_TUNSETPERSIST = 0x400454CB
_TUNSETOWNER = 0x400454CC
_IFF_TAP, _IFF_NO_PI, _IFF_VNET_HDR, _IFF_TUN_EXCL = 0x0002, 0x1000, 0x4000, 0x8000
# struct ifreq: the name, then a union that is 24 bytes on 64-bit machines.
_IFREQ = struct.Struct("16sH22x")


def list_taps(subnet: Subnet) -> list[IPv4Address]:
    """The guests' addresses that have a TAP on this host, whoever owns it, lowest first. Needs no rights."""
    found = (subnet.find_address(name) for name in link.list_names())
    return sorted(address for address in found if address is not None)


def check_tap_owner(subnet: Subnet, address: IPv4Address, owner_uid: int) -> None:
    """Raises `BangerError` (no-permission) when the guest's TAP exists and is not this user's."""
    present = _find_tap(subnet.tap_of(address))
    if _is_of_another(present, owner_uid):
        owner = "root" if present.owner_uid in (None, 0) else f"user {present.owner_uid}"
        raise BangerError(
            f"{address} is in use: its TAP {present.name} belongs to {owner}, not to user {owner_uid}",
            reason=Reason.NO_PERMISSION,
            hint="choose another address: all users of a host share them",
        )


def have_other_owner(subnet: Subnet, address: IPv4Address, owner_uid: int) -> bool:
    """Whether the guest's TAP exists and is not this user's."""
    return _is_of_another(_find_tap(subnet.tap_of(address)), owner_uid)


def ensure_tap(subnet: Subnet, address: IPv4Address, owner_uid: int) -> None:
    """The guest's TAP is there, belongs to the user, and is an isolated port of the bridge, up."""
    name = subnet.tap_of(address)
    if _find_tap(name) is None:
        _make(name, owner_uid)
    # Only now: what is there may be what somebody else made meanwhile.
    check_tap_owner(subnet, address, owner_uid)
    link.ensure_no_ipv6(name)
    link.ensure_isolated_port(name, subnet.bridge)
    link.ensure_up(name)


def remove_tap(subnet: Subnet, address: IPv4Address) -> None:
    """The guest's TAP is gone, also from a monitor that has it open; a missing one is fine."""
    present = _find_tap(subnet.tap_of(address))
    if present is not None:
        link.remove_link(present.name)


def _is_of_another(present: link.Link | None, owner_uid: int) -> TypeGuard[link.Link]:
    return present is not None and present.owner_uid != owner_uid


def _find_tap(name: str) -> link.Link | None:
    present = link.find_link(name)
    if present is not None and present.kind != "tun":
        raise BangerError(
            f"the name {name} is taken by an interface that is not a TAP",
            reason=Reason.ALREADY_EXISTS,
            hint=f"look: ip -d link show {name}",
        )
    return present


def _make(name: str, owner_uid: int) -> None:
    """A TAP that is there already stays as it is."""
    request = _IFREQ.pack(name.encode("ascii"), _IFF_TAP | _IFF_NO_PI | _IFF_VNET_HDR | _IFF_TUN_EXCL)
    try:
        # Until TUNSETPERSIST the TAP goes with the descriptor: no failure leaves one without an owner.
        with open("/dev/net/tun", "r+b", buffering=0) as tun:  # noqa: PTH123
            fcntl.ioctl(tun, _TUNSETIFF, request)
            fcntl.ioctl(tun, _TUNSETOWNER, owner_uid)
            fcntl.ioctl(tun, _TUNSETPERSIST, 1)
    except FileNotFoundError as error:
        raise BangerError(
            "/dev/net/tun is missing", reason=Reason.UNAVAILABLE, hint="load the driver: sudo modprobe tun"
        ) from error
    except OSError as error:
        if error.errno == errno.EBUSY:
            return
        denied = error.errno in (errno.EPERM, errno.EACCES)
        raise BangerError(
            f"cannot make the TAP {name}: {os.strerror(error.errno or 0)}",
            reason=Reason.NO_PERMISSION if denied else Reason.IO,
        ) from error
