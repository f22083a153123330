"""Who has a port: the answer to "address already in use", as far as the kernel tells it without further rights.

The tables of /proc/net (proc(5)) name every socket of this network namespace and its owner's uid; which process has
it open is told for processes of one's own, and for root.
"""

from __future__ import annotations

import os
from collections.abc import Iterator
from pathlib import Path

from banger.run import printable

_PROC = Path("/proc")
_LISTENING = "0A"  # TCP_LISTEN, <net/tcp_states.h>


def find_holder(protocol: str, port: int) -> str | None:
    """`dnsmasq (process 812)`, or `user 0`, for "udp" or "tcp"; None when nobody has it any more."""
    for inode, uid in _find_sockets(protocol, port):
        process = _find_process(inode)
        return f"user {uid}" if process is None else process
    return None


def _find_sockets(protocol: str, port: int) -> Iterator[tuple[str, str]]:
    """Inode and uid. Of any address: a socket for all of them is in the way as well, also one for IPv6."""
    for table in (protocol, f"{protocol}6"):
        try:
            lines = (_PROC / "net" / table).read_text().splitlines()
        except FileNotFoundError:
            continue  # a kernel without IPv6
        for fields in map(str.split, lines[1:]):
            if fields[1].endswith(f":{port:04X}") and (protocol == "udp" or fields[3] == _LISTENING):
                yield fields[9], fields[7]


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
