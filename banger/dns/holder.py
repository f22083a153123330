"""Who has a port: the answer to "address already in use", as far as the kernel tells it without further rights.

The tables of /proc/net (proc(5)) name every socket of this network namespace and its owner's uid; which process has
it open is told for processes of one's own, and for root.
"""

from __future__ import annotations

import os
import sys
from collections.abc import Iterator
from ipaddress import IPv4Address, IPv6Address, ip_address
from pathlib import Path

from banger.run import printable

_PROC = Path("/proc")
_LISTENING = "0A"  # TCP_LISTEN, <net/tcp_states.h>


def find_holder(protocol: str, listen: tuple[str, int]) -> str | None:
    """`dnsmasq (process 812)`, or `user 0`, for "udp" or "tcp"; None when nobody is in the way (any more).

    `listen` is an IPv4 address and a port. In the way is who has the port at that address, or at all addresses.
    """
    for inode, uid in _find_sockets(protocol, listen):
        process = _find_process(inode)
        return f"user {uid}" if process is None else process
    return None


def _find_sockets(protocol: str, listen: tuple[str, int]) -> Iterator[tuple[str, str]]:
    """Inode and uid."""
    wanted, port = IPv4Address(listen[0]), f"{listen[1]:04X}"
    for table in (protocol, f"{protocol}6"):
        try:
            lines = (_PROC / "net" / table).read_text().splitlines()
        except FileNotFoundError:
            continue  # a kernel without IPv6
        for fields in map(str.split, lines[1:]):
            address, _, number = fields[1].partition(":")
            if number != port or (protocol == "tcp" and fields[3] != _LISTENING):
                continue
            if _is_in_the_way(_parse_address(address), wanted):
                yield fields[9], fields[7]


def _parse_address(text: str) -> IPv4Address | IPv6Address:
    """Of /proc/net: words of 32 bits as a number of this host's, so that the bytes in memory are the network's."""
    words = (int(text[at : at + 8], 16) for at in range(0, len(text), 8))
    return ip_address(b"".join(word.to_bytes(4, sys.byteorder) for word in words))


def _is_in_the_way(theirs: IPv4Address | IPv6Address, ours: IPv4Address) -> bool:
    if isinstance(theirs, IPv6Address):
        if theirs.is_unspecified:
            # Most such sockets take IPv4 too (ipv6(7), IPV6_V6ONLY); which do not, the table leaves out.
            return True
        if theirs.ipv4_mapped is None:
            return False
        theirs = theirs.ipv4_mapped
    return theirs == ours or theirs.is_unspecified or ours.is_unspecified


def _find_process(inode: str) -> str | None:
    wanted = f"socket:[{inode}]"
    for folder in _PROC.iterdir():
        if not folder.name.isdigit():
            continue
        try:
            if any(_opens(descriptor, wanted) for descriptor in os.scandir(folder / "fd")):
                return f"{printable((folder / 'comm').read_text().strip())} (process {folder.name})"
        except OSError:
            continue  # somebody else's, or gone
    return None


def _opens(descriptor: os.DirEntry[str], wanted: str) -> bool:
    try:
        return os.readlink(descriptor) == wanted  # noqa: PTH115
    except FileNotFoundError:
        return False  # closed meanwhile
