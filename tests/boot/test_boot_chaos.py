"""Forty rounds of accidents: commands, daemon and monitors are killed at any moment; what is left is the truth."""

from __future__ import annotations

import contextlib
import json
import os
import random
import signal
import subprocess
import time
from collections import Counter
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path

import pytest

from banger.network import DEFAULT_SUBNET
from tests.boot.bare import register_bare
from tests.boot.host import Home, Host, processes_with

_ROUNDS = 40
_KINDS = ("command", "mark", "daemon", "monitor")
_NAMES = ("one", "two", "three", "four")
_VERBS = {
    "missing": ("create",),
    "creating": ("delete",),
    "stopped": ("start", "start", "start", "stop", "delete"),
    "running": ("mark", "mark", "mark", "stop", "restart", "kill", "delete"),
}
_SHAPE = ("--image", "bare", "--memory", "160M", "--vcpu", "1", "--disk-size", "128M")


@dataclass
class Chaos:
    """One command at a time for each machine, several machines side by side."""

    host: Host
    home: Home
    chance: random.Random
    busy: dict[str, subprocess.Popen[bytes]] = field(default_factory=dict)
    # Machines whose marker was written and synced, and that nobody has begun to delete since.
    marked: set[str] = field(default_factory=set)
    told: list[str] = field(default_factory=list)
    # How often each kind of accident really hit something.
    hits: Counter[str] = field(default_factory=Counter)

    def round(self) -> None:
        act = self.chance.choices(
            (self.command, self.kill_daemon, self.kill_monitor, self.restart_daemon), weights=(75, 8, 12, 5)
        )[0]
        act()
        time.sleep(self.chance.uniform(0.1, 1.2))

    def command(self) -> None:
        name = self.chance.choice(_NAMES)
        self.settle(name)
        verb = self.chance.choice(_VERBS[self.state(name)])
        self.told.append(f"{verb} {name}")
        if verb == "mark":
            self.mark(name)
            return
        if verb == "delete":
            self.marked.discard(name)
        words = {"create": ("vm", "create", "--name", name, *_SHAPE)}.get(verb, ("vm", verb, name))
        child = self.host.start(*words, home=self.home, start_new_session=True)
        self.busy[name] = child
        if self.chance.random() < 0.4:
            time.sleep(self.chance.uniform(0.0, 1.2))
            is_running = child.poll() is None
            self.hits["command"] += is_running
            self.told.append(f"kill -9 of that ({'running' if is_running else 'ended'})")
            with contextlib.suppress(ProcessLookupError):
                # `ip netns exec` has become banger: the pid is its own. What it has started it takes with it.
                os.kill(child.pid, signal.SIGKILL)

    def state(self, name: str) -> str:
        return next((each["state"] for each in self.host.machines(self.home) if each["name"] == name), "missing")

    def mark(self, name: str) -> None:
        script = f"echo {name} >/etc/marker; /bin/busybox sync; /bin/busybox cat /etc/marker"
        done = self.host.banger("vm", "exec", name, "--", "sh", "-c", script, home=self.home)
        if done.returncode == 0 and done.stdout == f"{name}\n".encode():
            self.marked.add(name)
            self.hits["mark"] += 1

    def settle(self, name: str) -> None:
        child = self.busy.pop(name, None)
        if child is not None:
            child.communicate(timeout=200)

    def kill_daemon(self) -> None:
        self.told.append("kill -9 of the daemon")
        for pid in self.daemons():
            self.hits["daemon"] += 1
            os.kill(pid, signal.SIGKILL)

    def restart_daemon(self) -> None:
        self.told.append("daemon restarted")
        self.host.banger("daemon", "stop", home=self.home)
        self.host.succeed("daemon", "start", home=self.home)

    def kill_monitor(self) -> None:
        monitors = self.host.monitors(self.home)
        if monitors:
            self.told.append("kill -9 of a monitor, or of what a command has started")
            with contextlib.suppress(ProcessLookupError):
                os.kill(self.chance.choice(monitors), signal.SIGKILL)
                self.hits["monitor"] += 1

    def daemons(self) -> list[int]:
        status = self.host.banger("daemon", "status", "--json", home=self.home)
        return [json.loads(status.stdout)["pid"]] if status.returncode == 0 else []


@pytest.fixture
def chaos(host: Host, clean_home: Home) -> Iterator[Chaos]:
    register_bare(clean_home)
    clean_home.environment["BANGER_DAEMON_AUTOSTART"] = "true"
    # Of one seed, so that what failed can be looked at again.
    made = Chaos(host, clean_home, random.Random(20))
    yield made
    host.banger("daemon", "stop", home=clean_home)


def test_after_forty_rounds_of_accidents_what_is_listed_is_what_there_is(chaos: Chaos) -> None:
    host, home = chaos.host, chaos.home
    for _ in range(_ROUNDS):
        chaos.round()
    while not (chaos.marked and all(chaos.hits[kind] for kind in _KINDS)):
        # Or something would not have been tried, or nothing be left to look for.
        chaos.round()
    for name in _NAMES:
        chaos.settle(name)
    story = "\n".join(chaos.told)
    host.succeed("daemon", "start", home=home)
    _wait_for_truth(chaos, story)

    listed = {machine["name"]: machine for machine in host.machines(home)}
    assert chaos.marked <= listed.keys(), story
    running = {name for name, machine in listed.items() if machine["state"] == "running"}
    for name in sorted(chaos.marked):
        if name not in running:
            host.succeed("vm", "start", name, home=home)
        found = host.succeed("vm", "exec", name, "--", "/bin/busybox", "cat", "/etc/marker", home=home)
        assert found == f"{name}\n".encode(), story
    if listed:
        host.succeed("vm", "delete", *listed, home=home)
    host.succeed("daemon", "stop", home=home)
    host.assert_nothing_left(home)
    assert processes_with(str(home.root)) == []
    assert str(home.root) not in Path("/proc/self/mountinfo").read_text()


def _wait_for_truth(chaos: Chaos, story: str) -> None:
    """The daemon tidies up within seconds, beginning with those that were killed last."""
    deadline = time.monotonic() + 150
    while (trouble := _find_trouble(chaos)) and time.monotonic() < deadline:
        time.sleep(0.5)
    assert not trouble, f"{trouble}\n{story}"


def _find_trouble(chaos: Chaos) -> str:
    host, home = chaos.host, chaos.home
    listed = host.machines(home)
    running = [machine for machine in listed if machine["state"] == "running"]
    expected = {
        "states": ({machine["state"] for machine in listed} - {"running", "stopped"}, set()),
        "processes": (sorted(host.monitors(home)), sorted(machine["pid"] for machine in running)),
        "taps": (sorted(host.taps()), sorted(_tap(machine["address"]) for machine in running)),
        "firewall": (_admitted(host), sorted(_tap(machine["address"]) for machine in running)),
        "sockets": (
            sorted(path.name for path in (home.runtime / "banger").iterdir() if path.is_dir()),
            sorted(machine["id"] for machine in running),
        ),
        "folders": (
            sorted(path.name for path in (home.state / "vms").iterdir()),
            sorted(machine["id"] for machine in listed),
        ),
    }
    return "; ".join(f"{what}: {found}, not {wanted}" for what, (found, wanted) in expected.items() if found != wanted)


def _tap(address: str) -> str:
    from ipaddress import IPv4Address

    return DEFAULT_SUBNET.tap_of(IPv4Address(address))


def _admitted(host: Host) -> list[str]:
    tables = json.loads(host.inside("nft", "-j", "list", "set", "bridge", "banger", "guests"))["nftables"]
    elements = next(each["set"] for each in tables if "set" in each).get("elem", [])
    return sorted(element["concat"][0] for element in elements)
