"""A real bangerd with folders and a port of its own, beside machines whose monitors are `sleep`."""

from __future__ import annotations

import contextlib
import json
import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import pytest

from banger.daemon.place import Place
from banger.machine.record import Machine, Records, Wish
from banger.network import DEFAULT_SUBNET
from banger.paths import Paths
from banger.vmm.process import ProcessId, identify, identify_self
from tests.ports import find_free_port

_BIN = Path(sys.executable).parent
_PATIENCE_S = 60.0


@dataclass
class Daemon:
    folder: Path
    port: int
    environment: dict[str, str] = field(default_factory=dict)
    children: list[subprocess.Popen[bytes]] = field(default_factory=list)

    @property
    def variables(self) -> dict[str, str]:
        return {
            "PATH": os.environ["PATH"],
            "HOME": str(self.folder),
            # Names of sockets have a limit that pytest's folders may come near.
            "XDG_RUNTIME_DIR": str(self.runtime),
            "BANGER_DNS_LISTEN": f"127.0.0.1:{self.port}",
            **self.environment,
        }

    @property
    def runtime(self) -> Path:
        return Path("/tmp") / f"bd-{self.port}"

    @property
    def paths(self) -> Paths:
        return Paths.from_environment(self.variables)

    @property
    def place(self) -> Place:
        return Place.of(self.paths)

    def banger(self, *words: str) -> subprocess.CompletedProcess[str]:
        return subprocess.run(
            [_BIN / "banger", *words],
            env=self.variables,
            capture_output=True,
            text=True,
            stdin=subprocess.DEVNULL,
            timeout=60,
        )

    def succeed(self, *words: str) -> str:
        done = self.banger(*words)
        assert done.returncode == 0, done.stderr
        return done.stdout

    def start(self) -> dict[str, Any]:
        found: dict[str, Any] = json.loads(self.succeed("daemon", "start", "--json"))
        return found

    def status(self) -> dict[str, Any]:
        found: dict[str, Any] = json.loads(self.succeed("daemon", "status", "--json"))
        return found

    def log(self) -> str:
        return self.place.log.read_text()

    def records(self) -> Records:
        return Records(self.paths.database)

    def add(self, name: str, *, runs: bool = False) -> Machine:
        """A machine as it is after its creation; its monitor, if it runs, is a process of ours."""
        records = self.records()
        machine = records.add(Wish(name, "i", "k", 1, 256, 64, True), DEFAULT_SUBNET, identify_self())
        (self.paths.machines / machine.id).mkdir(parents=True)
        machine = records.update(machine, creator=None)
        return self.run(machine) if runs else machine

    def run(self, machine: Machine) -> Machine:
        child = subprocess.Popen(["sleep", "600"])
        self.children.append(child)
        runtime = self.paths.runtime / machine.id
        runtime.mkdir(mode=0o700, parents=True)
        return self.records().update(machine, process=identify(child.pid), runtime=str(runtime), monitor="qemu")

    def kill(self, machine: Machine) -> None:
        assert machine.process is not None
        os.kill(machine.process.pid, signal.SIGKILL)
        for child in self.children:
            if child.pid == machine.process.pid:
                child.wait()

    def digs(self, *words: str) -> str:
        argv = ["dig", "+short", "+time=20", "+tries=1", "@127.0.0.1", "-p", str(self.port), *words]
        return subprocess.run(argv, capture_output=True, text=True, check=False).stdout.strip()


def wait_until(holds: Callable[[], object]) -> None:
    deadline = time.monotonic() + _PATIENCE_S
    while not holds():
        assert time.monotonic() < deadline, "it never came to be so"
        time.sleep(0.05)


def dead_process() -> ProcessId:
    """The identity of a process that has ended."""
    with subprocess.Popen(["sleep", "600"]) as child:
        process = identify(child.pid)
        child.kill()
    assert process is not None
    return process


@pytest.fixture
def daemon(tmp_path: Path) -> Iterator[Daemon]:
    """It is not running yet."""
    made = Daemon(tmp_path, find_free_port())
    try:
        yield made
    finally:
        made.banger("daemon", "stop")
        for child in made.children:
            child.kill()
            child.wait()
        with contextlib.suppress(FileNotFoundError):
            subprocess.run(["rm", "-r", str(made.runtime)], check=False, capture_output=True)
