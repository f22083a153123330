"""The DNS zones of a subnet: `.vm`, and those that lead from its addresses back to names. Pure.

Here, and not with the server that answers for them, since the helper that runs as root decides by it what it will
let somebody have routed.
"""

from __future__ import annotations

import contextlib
import re
from ipaddress import AddressValueError, IPv4Address, IPv4Network

from banger.errors import BangerError, Reason

TOP_DOMAIN = "vm"
REVERSE_DOMAIN = "in-addr.arpa"

_PORT = re.compile(r"[1-9][0-9]{0,4}")
_LAST_PORT = 65535


def plan_reverse_zones(network: IPv4Network) -> list[str]:
    """The fewest zones below `in-addr.arpa` that hold this network and nothing else (RFC 1035, section 3.5).

    Such zones are cut at the dots: 172.16.0.0/24 is one, a /20 is 16 of a /24, a /29 is 8 of one address each. From
    /16 to /32 there are at most 128.
    """
    octets = (network.prefixlen + 7) // 8
    zones = network.subnets(new_prefix=octets * 8)
    return [".".join((*reversed(str(zone.network_address).split(".")[:octets]), REVERSE_DOMAIN)) for zone in zones]


def parse_local_server(text: str) -> tuple[IPv4Address, int]:
    """`127.0.0.1:42069`: a loopback address and a port, written as `format_local_server` writes them.

    Raises `BangerError` (bad-input) for any other address: names of this host's machines are asked of this host.
    """
    host, _, port = text.rpartition(":")
    address: IPv4Address | None = None
    with contextlib.suppress(AddressValueError):
        address = IPv4Address(host)
    if address is None or not address.is_loopback or not _PORT.fullmatch(port) or int(port) > _LAST_PORT:
        raise BangerError(
            f"{text!r} is not a loopback address with a port",
            reason=Reason.BAD_INPUT,
            hint="write it like 127.0.0.1:42069",
        )
    return address, int(port)


def format_local_server(server: tuple[IPv4Address, int]) -> str:
    return f"{server[0]}:{server[1]}"
