"""Ports for servers of tests, on 127.0.0.1."""

from __future__ import annotations

import random
import socket

# Below those that the kernel gives to connections (ip(7), ip_local_port_range): one of these that is free now may be
# somebody's in a moment.
_LEAST, _MOST = 20_000, 32_000


def find_free_port() -> int:
    """One that nobody has, neither of UDP nor of TCP."""
    while True:
        port = random.SystemRandom().randint(_LEAST, _MOST)
        try:
            for kind in (socket.SOCK_DGRAM, socket.SOCK_STREAM):
                with socket.socket(socket.AF_INET, kind) as probe:
                    probe.bind(("127.0.0.1", port))
        except OSError:
            continue
        return port
