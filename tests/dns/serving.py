"""A server of a fixed table, as a program and as a process of a test.

    python -m tests.dns.serving ADDRESS:PORT NAME=ADDRESS...

It says `ready PORT` once it answers, and serves until it is ended.
"""

from __future__ import annotations

import asyncio
import contextlib
import os
import subprocess
import sys
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path

from banger.dns.server import start_server
from tests.dns.questions import MACHINES, make_zone

_REPOSITORY = Path(__file__).parents[2]


def plan_command(listen: str, machines: Mapping[str, str] = MACHINES) -> list[str]:
    table = [f"{name}={address}" for name, address in machines.items()]
    return [sys.executable, "-m", "tests.dns.serving", listen, *table]


@contextlib.contextmanager
def serve(
    listen: str = "127.0.0.1:0", machines: Mapping[str, str] = MACHINES, inside: Sequence[str] = ()
) -> Iterator[int]:
    """Gives the port. `inside` are words that run the command after them somewhere else."""
    argv = [*inside, *plan_command(listen, machines)]
    environment = {**os.environ, "PYTHONPATH": str(_REPOSITORY)}
    with subprocess.Popen(argv, stdout=subprocess.PIPE, text=True, env=environment) as child:
        try:
            assert child.stdout is not None
            word, _, port = child.stdout.readline().strip().partition(" ")
            assert word == "ready"
            yield int(port)
        finally:
            child.kill()


async def _serve(listen: str, machines: Mapping[str, str]) -> None:
    host, _, port = listen.rpartition(":")
    server = await start_server((host, int(port)), make_zone(machines))
    print("ready", server.address[1], flush=True)
    await asyncio.Event().wait()


if __name__ == "__main__":
    asyncio.run(_serve(sys.argv[1], dict(word.split("=") for word in sys.argv[2:])))
