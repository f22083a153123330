"""What the daemon does about machines: names, tidying up, forgotten ones, logs."""

from __future__ import annotations

import json
import os

import pytest

from banger.daemon.client import ask
from banger.machine.record import Wish
from banger.network import DEFAULT_SUBNET
from tests.daemon.conftest import Daemon, dead_process, wait_until


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
    assert "web: its monitor has ended" in daemon.log()


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
