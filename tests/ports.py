"""Ports for servers of tests, on 127.0.0.1."""

from __future__ import annotations

import itertools
import os
import random
import socket

# Below those that the kernel gives to connections (ip(7), ip_local_port_range): one of these that is free now may be
# somebody's in a moment.
_LEAST, _MOST = 20_000, 32_000
_WORKERS = 8


def _plan_ports() -> itertools.cycle[int]:
    """Those of this process among the workers of one run, each once before any comes again.

    Between its choice and its use, a port would be as free for others.
    """
    worker = int(os.environ.get("PYTEST_XDIST_WORKER", "gw0").removeprefix("gw")) % _WORKERS
    share = list(range(_LEAST, _MOST))[worker::_WORKERS]
    begin = random.SystemRandom().randrange(len(share))
    return itertools.cycle(share[begin:] + share[:begin])


_ports = _plan_ports()


def find_free_port() -> int:
    """One that nobody has, neither of UDP nor of TCP."""
    for port in _ports:
        try:
            for kind in (socket.SOCK_DGRAM, socket.SOCK_STREAM):
                with socket.socket(socket.AF_INET, kind) as probe:
                    probe.bind(("127.0.0.1", port))
        except OSError:
            continue
        return port
    raise AssertionError("it goes round")
