"""The arithmetic of the guests' network: which address, MAC and TAP name belong together.

Everything about one guest follows from its address, so nothing of it needs to be stored, and what is found on a
host (`bgrac100005`) can be told back to the guest that it served. Pure: nothing here looks at the host.

A `Subnet` that exists is valid: these values reach a helper that runs as root, kernel paths and nftables text.
"""

from __future__ import annotations

import re
from collections.abc import Iterator
from dataclasses import dataclass
from ipaddress import AddressValueError, IPv4Address, IPv4Interface, IPv4Network

from banger.errors import BangerError, Reason

TAP_PREFIX = "bgr"

# RFC 1918. Anything else would let a typing error take the host's route to a part of the Internet.
_PRIVATE = (IPv4Network("10.0.0.0/8"), IPv4Network("172.16.0.0/12"), IPv4Network("192.168.0.0/16"))
_WIDEST_PREFIX, _NARROWEST_PREFIX = 16, 29

# Linux takes 15 bytes (IFNAMSIZ less the NUL) of nearly anything; these letters need no quoting anywhere.
_BRIDGE_NAME = re.compile(r"[a-z][a-z0-9_-]{0,14}")
# The first three are folders of /proc/sys/net/*/conf or no bridge ever.
_RESERVED_NAMES = frozenset({"all", "default", "lo"})
_TAP_NAME = re.compile(TAP_PREFIX + r"([0-9a-f]{8})")


@dataclass(frozen=True)
class Subnet:
    """The guests' network on one bridge of the host. Raises `BangerError` (bad-input) for values it cannot have."""

    bridge: str
    network: IPv4Network

    def __post_init__(self) -> None:
        if not _BRIDGE_NAME.fullmatch(self.bridge) or self.bridge in _RESERVED_NAMES:
            raise BangerError(
                f"{self.bridge!r} cannot be the name of a bridge",
                reason=Reason.BAD_INPUT,
                hint="use up to 15 lower-case letters, digits, '-' and '_', beginning with a letter",
            )
        if self.bridge.startswith(TAP_PREFIX):
            raise BangerError(
                f"a bridge cannot be called {self.bridge!r}: names that begin with {TAP_PREFIX!r} are for TAPs",
                reason=Reason.BAD_INPUT,
                hint="choose another name",
            )
        prefix = self.network.prefixlen
        if not (_WIDEST_PREFIX <= prefix <= _NARROWEST_PREFIX) or not any(map(self.network.subnet_of, _PRIVATE)):
            raise BangerError(
                f"{self.network} cannot be the guests' network",
                reason=Reason.BAD_INPUT,
                hint=f"use a private network (10/8, 172.16/12 or 192.168/16) of size /{_WIDEST_PREFIX} to "
                f"/{_NARROWEST_PREFIX}",
            )

    @property
    def gateway(self) -> IPv4Address:
        """The host's own address on the bridge: the first of the network."""
        return self.network[1]

    @property
    def gateway_interface(self) -> IPv4Interface:
        return IPv4Interface((self.gateway, self.network.prefixlen))

    def guest_addresses(self) -> Iterator[IPv4Address]:
        """Every address a guest can have, lowest first."""
        return (address for address in self.network.hosts() if address != self.gateway)

    def has_guest(self, address: IPv4Address) -> bool:
        """Whether a guest can have this address, without walking a /16."""
        ends = (self.network.network_address, self.network.broadcast_address, self.gateway)
        return address in self.network and address not in ends

    def check_guest(self, address: IPv4Address) -> None:
        """Raises `BangerError` (bad-input) unless a guest can have this address."""
        if not self.has_guest(address):
            raise BangerError(
                f"{address} is not a guest's address in {self.network}",
                reason=Reason.BAD_INPUT,
                hint=f"guests have {self.network[2]} to {self.network[-2]}",
            )

    def mac_of(self, address: IPv4Address) -> str:
        """A guest's MAC: locally administered, unicast, and never the same for two addresses."""
        self.check_guest(address)
        return _mac(address)

    @property
    def bridge_mac(self) -> str:
        """The bridge's MAC. Fixed, since guests keep it in their ARP tables while TAPs come and go."""
        return _mac(self.gateway)

    def tap_of(self, address: IPv4Address) -> str:
        """The name of a guest's TAP on the host; `find_address` is the way back."""
        self.check_guest(address)
        return f"{TAP_PREFIX}{int(address):08x}"

    def find_address(self, tap: str) -> IPv4Address | None:
        """The guest's address that a TAP was named for; None for other interfaces and other subnets."""
        matched = _TAP_NAME.fullmatch(tap)
        if matched is None:
            return None
        address = IPv4Address(int(matched[1], 16))
        return address if self.has_guest(address) else None


DEFAULT_SUBNET = Subnet("banger0", IPv4Network("172.16.0.0/24"))


def parse_address(text: str) -> IPv4Address:
    """`172.16.0.5`. Inverse of `str`."""
    try:
        return IPv4Address(text)
    except AddressValueError as error:
        raise BangerError(
            f"{text!r} is not an IPv4 address", reason=Reason.BAD_INPUT, hint="write it like 172.16.0.5"
        ) from error


def _mac(address: IPv4Address) -> str:
    # 06: the "locally administered" bit set, the "group" bit clear (IEEE 802-2014, 8.2).
    return ":".join(f"{byte:02x}" for byte in (0x06, 0x00, *address.packed))
