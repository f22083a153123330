"""Thirty machines, eight of them running: `vm list`, `doctor`, and names under 200 questions a second for ten seconds.

Needs a built image, as `run.py` does, and some 3 GiB of memory.
"""

from __future__ import annotations

import statistics
import subprocess
import sys
import tempfile
import time
from pathlib import Path

from common import describe, describe_machine, host

from tests.boot.bare import register_bare
from tests.boot.host import Home, Host, link_home

_RECORDS, _RUNNING = 30, 8
_RATE, _SECONDS = 200, 10
_TIMES = 20

# Run inside the namespace. An answer's time counts from when its question was due: one that is late makes those after
# it late, which shows.
_ASK = """
import socket, sys, time
from dnslib import DNSRecord
names, rate, seconds = sys.argv[1].split(","), int(sys.argv[2]), int(sys.argv[3])
asked = socket.socket(socket.AF_INET, socket.SOCK_DGRAM)
asked.settimeout(1)
asked.connect(("127.0.0.1", 42069))
begin = time.perf_counter()
for number in range(rate * seconds):
    due = begin + number / rate
    time.sleep(max(0, due - time.perf_counter()))
    asked.send(DNSRecord.question(names[number % len(names)] + ".vm").pack())
    asked.recv(512)
    print(time.perf_counter() - due)
"""


def timed(machine: Host, *words: str) -> float:
    begin = time.perf_counter()
    machine.banger(*words)
    return time.perf_counter() - begin


def make_home(machine: Host, root: Path) -> Home:
    home = Home(root)
    link_home(machine.home, home)
    register_bare(home)
    home.environment["BANGER_DAEMON_AUTOSTART"] = "true"
    return home


def main() -> None:
    describe_machine()
    # On the filesystem of the store, so that images come by hard link.
    with host() as outer, tempfile.TemporaryDirectory(dir=outer.home.root) as root:
        machine = Host(outer.namespace, outer.outside, make_home(outer, Path(root)))
        shape = ("--image", "bare", "--memory", "160M", "--vcpu", "1", "--disk-size", "64M")
        try:
            names = [f"machine-{number}" for number in range(_RECORDS)]
            for name in names:
                machine.succeed("vm", "create", "--no-start", "--name", name, *shape)
            for name in names[:_RUNNING]:
                machine.succeed("vm", "start", name)
            describe(
                f"vm list --all ({_RECORDS} machines)", [timed(machine, "vm", "list", "-a") for _ in range(_TIMES)]
            )
            describe("doctor", [timed(machine, "doctor") for _ in range(_TIMES)])
            argv = ["ip", "netns", "exec", machine.namespace, sys.executable, "-c", _ASK]
            argv += [",".join(names[:_RUNNING]), str(_RATE), str(_SECONDS)]
            took = [float(line) for line in subprocess.run(argv, capture_output=True, check=True).stdout.split()]
            describe(f"a name, {_RATE} questions a second for {_SECONDS} s", took)
            print(f"  99 of 100 within {statistics.quantiles(took, n=100)[98] * 1000:.1f} ms")
        finally:
            machine.succeed("vm", "delete", *[each["name"] for each in machine.machines()])
            machine.succeed("daemon", "stop")
            subprocess.run(["rm", "-r", str(machine.home.runtime)], check=False)


if __name__ == "__main__":
    main()
