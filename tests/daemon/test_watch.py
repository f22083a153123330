"""What the daemon does about machines: names, tidying up, forgotten ones, logs."""

from __future__ import annotations

import contextlib
import json
import os
import time
from collections.abc import Iterator
from dataclasses import dataclass

import pytest

from banger.daemon.client import ask
from banger.daemon.diary import Diary
from banger.daemon.watch import Watch
from banger.guest.sockets import Protocol, Socket, State
from banger.machine import lifecycle, usage
from banger.machine.machines import Machines
from banger.machine.record import Machine, Wish
from banger.network import DEFAULT_SUBNET
from banger.settings import parse_settings
from tests.daemon.conftest import Daemon, dead_process, wait_until


@pytest.fixture
def watch(daemon: Daemon) -> Watch:
    """Without a daemon around it."""
    return Watch(Machines(daemon.records(), daemon.paths, parse_settings({})), Diary())


@dataclass
class Guest:
    """What the agent of every machine tells, and which machines were stopped."""

    has_connection: bool
    stopped: list[str]

    def sockets(self, *_protocols: Protocol) -> list[Socket]:
        return [Socket(Protocol.TCP, 22, State.ESTABLISHED, is_local=False)] if self.has_connection else []

    @contextlib.contextmanager
    def talk(self, *_arguments: object) -> Iterator[Guest]:
        yield self


@pytest.fixture
def guest(monkeypatch: pytest.MonkeyPatch) -> Guest:
    made = Guest(True, [])
    monkeypatch.setattr(usage, "talk", made.talk)

    def stop(_machines: Machines, machine: Machine) -> None:
        made.stopped.append(machine.name)

    monkeypatch.setattr(lifecycle, "stop", stop)
    return made


def test_names_of_machines_that_run_resolve(daemon: Daemon) -> None:
    web, stopped = daemon.add("web", runs=True), daemon.add("stopped")
    daemon.start()
    wait_until(lambda: daemon.digs("web.vm") == str(web.address))
    assert daemon.digs("-x", str(web.address)) == "web.vm."
    assert daemon.digs("stopped.vm") == ""
    # A machine that comes is known at once, without being told of.
    daemon.run(stopped)
    assert daemon.digs("stopped.vm") == str(stopped.address)
    daemon.kill(web)
    assert daemon.digs("web.vm") == ""


def test_the_ssh_configuration_follows_the_records(daemon: Daemon) -> None:
    daemon.add("web", runs=True)
    daemon.start()
    config = daemon.paths.config / "ssh_config"
    wait_until(lambda: config.exists() and "web.vm" in config.read_text())
    machine = daemon.add("late")
    wait_until(lambda: "late.vm" in config.read_text())
    daemon.records().remove(machine)
    wait_until(lambda: "late.vm" not in config.read_text())


def test_a_change_that_others_ask_about_first_reaches_the_ssh_configuration_too(daemon: Daemon) -> None:
    daemon.start()
    config = daemon.paths.config / "ssh_config"
    for name in ("one", "two", "three"):
        daemon.add(name)
        # The daemon reads the records for this answer, before it looks at them by itself.
        assert name in {each["name"] for each in ask(daemon.paths, "machines")}
        wait_until(lambda name=name: config.exists() and f"{name}.vm" in config.read_text())  # type: ignore[misc]


def test_each_that_looks_sees_a_change_whoever_looked_before(daemon: Daemon, watch: Watch) -> None:
    before = watch.look()
    assert watch.look() == before
    machine = daemon.add("web", runs=True)
    assert watch.addresses() == {"web": machine.address}
    assert watch.look() != before


@pytest.mark.skipif(os.geteuid() != 0, reason="giving back needs root")
def test_a_machine_whose_monitor_died_gives_back_what_it_held(daemon: Daemon) -> None:
    machine = daemon.add("web", runs=True)
    daemon.start()
    runtime = daemon.paths.runtime / machine.id
    assert runtime.exists()
    daemon.kill(machine)
    wait_until(lambda: not runtime.exists())
    wait_until(lambda: daemon.records().refresh(machine).process is None)
    assert daemon.records().refresh(machine).runtime == ""
    wait_until(lambda: "web: its monitor has ended" in daemon.log())


@pytest.mark.skipif(os.geteuid() != 0, reason="giving back needs root")
def test_what_died_while_no_daemon_ran_is_tidied_up_when_one_comes(daemon: Daemon) -> None:
    machine = daemon.add("web", runs=True)
    daemon.kill(machine)
    half = daemon.records().add(Wish("half", "i", "k", 1, 256, 64, True), DEFAULT_SUBNET, dead_process())
    (daemon.paths.machines / half.id).mkdir()
    daemon.start()
    wait_until(lambda: [each.name for each in daemon.records().list()] == ["web"])
    wait_until(lambda: daemon.records().list()[0].runtime == "")
    assert not (daemon.paths.machines / half.id).exists()


def test_stats_are_counted_all_the_time(daemon: Daemon) -> None:
    daemon.add("web", runs=True)
    (daemon.paths.machines / daemon.records().list()[0].id / "system.ext4").write_bytes(b"x" * 8192)
    daemon.start()
    wait_until(lambda: ask(daemon.paths, "stats")[0]["memory_bytes"] > 0)
    (told,) = json.loads(daemon.succeed("vm", "stats", "web", "--json"))
    assert (told["name"], told["state"], told["disk_size_bytes"]) == ("web", "running", 8192)
    daemon.succeed("daemon", "stop")
    (counted,) = json.loads(daemon.succeed("vm", "stats", "web", "--json"))
    assert counted["memory_size_bytes"] == told["memory_size_bytes"] == 256 << 20


def test_a_console_log_is_kept_within_bounds(daemon: Daemon) -> None:
    machine = daemon.add("web", runs=True)
    log = daemon.paths.machines / machine.id / "console.log"
    log.write_bytes(b"x" * (17 << 20))
    daemon.start()
    wait_until(lambda: log.stat().st_size == 0)
    assert log.with_name("console.log.1").stat().st_size == 4 << 20


def test_a_machine_that_nobody_can_be_asked_about_is_not_stopped(daemon: Daemon) -> None:
    """Its guest does not say whether somebody is there."""
    machine = daemon.add("web", runs=True)
    daemon.records().update(machine, used_at=1.0)
    daemon.environment["BANGER_AUTO_STOP_STALE_AFTER"] = "1s"
    daemon.start()
    wait_until(lambda: "web: " in daemon.log())
    assert "not used for" not in daemon.log()
    assert daemon.records().refresh(machine).state == "running"


def test_a_machine_is_not_stopped_as_soon_as_a_long_ssh_session_ends(
    daemon: Daemon, watch: Watch, guest: Guest
) -> None:
    machine = daemon.add("web", runs=True)
    daemon.records().update(machine, used_at=time.time() - 590.0)
    watch.stop_stale(600)
    noted = daemon.records().refresh(machine).used_at
    assert noted == pytest.approx(time.time(), abs=30.0)
    # Not more than once a minute.
    watch.stop_stale(600)
    assert daemon.records().refresh(machine).used_at == noted
    guest.has_connection = False
    daemon.records().update(machine, used_at=time.time() - 70.0)
    watch.stop_stale(600)
    assert guest.stopped == []
    daemon.records().update(machine, used_at=time.time() - 601.0)
    watch.stop_stale(600)
    assert guest.stopped == ["web"]


def test_a_machine_with_a_session_of_bangers_is_not_stopped(daemon: Daemon, watch: Watch, guest: Guest) -> None:
    machine = daemon.add("web", runs=True)
    daemon.records().update(machine, used_at=1.0)
    guest.has_connection = False
    with usage.in_session(Machines(daemon.records(), daemon.paths, parse_settings({})), machine):
        watch.stop_stale(600)
    assert guest.stopped == []
