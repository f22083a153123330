"""The sockets of a guest, as its kernel lists them: proc_net_tcp(5), /proc/net/tcp, tcp6, udp and udp6."""

from __future__ import annotations

import re
from collections.abc import Iterator
from dataclasses import dataclass
from enum import StrEnum
from ipaddress import IPv4Address, IPv6Address

_LINE = re.compile(r"^\s*\d+: ([0-9A-F]{8}|[0-9A-F]{32}):([0-9A-F]{4}) [0-9A-F]+:[0-9A-F]{4} ([0-9A-F]{2}) ")
_V4_IN_V6 = 96


class Protocol(StrEnum):
    TCP = "tcp"
    UDP = "udp"


class State(StrEnum):
    ESTABLISHED = "established"
    LISTENING = "listening"
    OTHER = "other"


# The kernel's include/net/tcp_states.h; a UDP socket that nobody is connected to shows as CLOSE.
_STATES = {
    Protocol.TCP: {"01": State.ESTABLISHED, "0A": State.LISTENING},
    Protocol.UDP: {"01": State.ESTABLISHED, "07": State.LISTENING},
}


@dataclass(frozen=True)
class Socket:
    """`port` is the guest's own; `is_local` for one that only the guest itself can reach."""

    protocol: Protocol
    port: int
    state: State
    is_local: bool


def parse_sockets(protocol: Protocol, table: str) -> Iterator[Socket]:
    """Lines of another form are passed over: a guest may say anything."""
    for line in table.splitlines():
        found = _LINE.match(line)
        if found is not None:
            state = _STATES[protocol].get(found[3], State.OTHER)
            yield Socket(protocol, int(found[2], 16), state, _parse_address(found[1]).is_loopback)


def _parse_address(text: str) -> IPv4Address | IPv6Address:
    """Each 32 bits are printed as one number of the machine's byte order, here little-endian."""
    words = bytes.fromhex(text)
    packed = b"".join(words[at : at + 4][::-1] for at in range(0, len(words), 4))
    if len(packed) == 4:
        return IPv4Address(packed)
    address = IPv6Address(packed)
    return address.ipv4_mapped or address
