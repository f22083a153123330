"""What the small commands cost, beside what Python itself does: in a home of its own, with 30 machines on record."""

from __future__ import annotations

import os
import subprocess
import sys
import tempfile
import time
from collections.abc import Mapping, Sequence
from dataclasses import replace
from pathlib import Path

from common import describe, describe_machine

from banger.machine.record import Records, Wish
from banger.network import DEFAULT_SUBNET
from banger.paths import Paths
from banger.vmm.process import identify_self

_BANGER = str(Path(sys.executable).with_name("banger"))
_TIMES = 20
_MACHINES = 30


def main() -> None:
    describe_machine()
    with tempfile.TemporaryDirectory(prefix="banger-startup-") as home:
        own = {"HOME": home, "XDG_RUNTIME_DIR": f"{home}/run", "BANGER_DAEMON_AUTOSTART": "false"}
        environment = {**os.environ, **own}
        for name in ("XDG_CONFIG_HOME", "XDG_STATE_HOME", "XDG_CACHE_HOME"):
            environment.pop(name, None)
        _fill(Paths.from_environment(environment))
        _measure("python -c pass", [sys.executable, "-c", "pass"], environment)
        for words in (["--version"], ["vm", "list"], ["vm", "list", "--all", "--json"], ["doctor"]):
            _measure(f"banger {' '.join(words)}", [_BANGER, *words], environment)
        for line in ("banger vm ssh ", "banger vm run --image ", "banger "):
            asked = {"_BANGER_COMPLETE": "bash_complete", "COMP_WORDS": line, "COMP_CWORD": ""}
            _measure(f"{line}<Tab>", [_BANGER], {**environment, **asked})


def _fill(paths: Paths) -> None:
    records = Records(paths.database)
    wish = Wish("", "debian-bookworm", "debian-6.12", 1, 1024, 8192, nat=True)
    for number in range(_MACHINES):
        machine = records.add(replace(wish, name=f"machine-{number}"), DEFAULT_SUBNET, identify_self())
        records.update(machine, creator=None, process=identify_self())
    records.close()


def _measure(what: str, argv: Sequence[str], environment: Mapping[str, str]) -> None:
    seconds = []
    for _ in range(_TIMES):
        begin = time.perf_counter()
        # Of doctor, 1 is an answer too.
        subprocess.run(argv, env=environment, stdin=subprocess.DEVNULL, stdout=subprocess.DEVNULL, check=False)
        seconds.append(time.perf_counter() - begin)
    describe(what, seconds)


if __name__ == "__main__":
    main()
