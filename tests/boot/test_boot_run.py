"""`vm run`: what is left when it ends, and what happens when it does not end well."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import time
from pathlib import Path

import pytest

from banger.vmm.process import identify
from tests.boot.bare import register_bare
from tests.boot.host import Home, Host, events, processes_with
from tests.boot.test_boot_machine import talk


@pytest.fixture(scope="module")
def small(host: Host) -> list[str]:
    """Words for a machine of little: what is asked here of most is not about the image."""
    return ["--image", register_bare(host.home), "--memory", "256M"]


def test_rm_leaves_nothing_and_passes_the_status_on(host: Host) -> None:
    done = host.banger("vm", "run", "--rm", "--", "sh", "-c", "uname -s; exit 42")
    assert (done.returncode, done.stdout) == (42, b"Linux\n")
    said = done.stderr.decode()
    assert said.index("spec:") < said.index("cached")
    assert "vmm: QEMU" in said or "vmm: Firecracker" in said
    host.assert_nothing_left()


def test_the_second_run_finds_every_step_cached_but_the_machine(host: Host) -> None:
    done = host.banger("vm", "run", "--rm", "--json", "--", "true")
    assert done.returncode == 0, done.stderr.decode()
    seen = events(done.stderr)
    planned = next(event["steps"] for event in seen if event["event"] == "planned")
    ran = [event["step"] for event in seen if event["event"] == "finished"]
    assert [step for step in planned if step.startswith("vm:")] == ran
    assert {event["step"] for event in seen if event["event"] == "cached"} == set(planned) - set(ran)
    host.assert_nothing_left()


def test_four_machines_at_once_each_have_an_address(host: Host, small: list[str]) -> None:
    names = [f"four-{number}" for number in range(4)]
    running = [host.start("vm", "run", "--detach", *small, "--name", name) for name in names]
    for process, name in zip(running, names, strict=True):
        output, said = process.communicate(timeout=400)
        assert (process.returncode, output) == (0, f"{name}\n".encode()), said.decode()
    machines = {each["name"]: each for each in host.machines()}
    assert len({each["address"] for each in machines.values()}) == 4
    for name in names:
        assert host.succeed("vm", "exec", name, "--", "hostname").decode().strip() == name
    neighbour = machines[names[1]]["address"]
    alone = host.banger("vm", "exec", names[0], "--", "ping", "-c1", "-W2", neighbour)
    assert alone.returncode != 0
    done = host.banger("vm", "delete", *names, "no-such-machine")
    assert done.returncode == 1
    assert done.stdout.decode().split() == names
    assert b"no-such-machine" in done.stderr
    host.assert_nothing_left()


def test_leaving_the_shell_leaves_the_machine_and_says_how_to_end_it(host: Host, small: list[str]) -> None:
    output, status = talk(host, ["vm", "run", *small, "--name", "left"], b"exit 3\n")
    assert status == 3
    assert "banger vm stop left" in output
    assert "banger vm delete left" in output
    assert [each["state"] for each in host.machines()] == ["running"]
    host.succeed("vm", "delete", "left")
    host.assert_nothing_left()


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_a_signal_during_the_command_deletes_an_rm_machine(
    host: Host, small: list[str], number: signal.Signals
) -> None:
    process = host.start("vm", "run", "--rm", *small, "--name", "cut", "--", "sh", "-c", "echo ready; sleep 600")
    assert process.stdout is not None
    assert process.stdout.readline() == b"ready\n"
    process.send_signal(number)
    _, said = process.communicate(timeout=60)
    assert process.returncode == 130, said.decode()
    host.assert_nothing_left()


def test_a_machine_that_is_not_ready_in_time_is_kept_to_be_looked_at(host: Host) -> None:
    done = host.banger("vm", "run", "--rm", "--name", "slow", "--ssh-timeout", "0.5", "--", "true")
    assert done.returncode == 1
    assert b"banger vm logs slow" in done.stderr
    assert [each["state"] for each in host.machines()] == ["running"]
    host.succeed("vm", "delete", "slow")
    host.assert_nothing_left()


def test_a_monitor_that_dies_is_quoted_and_nothing_stays(host: Host, clean_home: Home, tmp_path: Path) -> None:
    folder = tmp_path / "bin"
    folder.mkdir()
    monitor = folder / "qemu-system-x86_64"
    monitor.write_text("#!/bin/sh\necho 'the flux capacitor is empty' >&2\nexit 3\n")
    monitor.chmod(0o755)
    path = {"PATH": f"{folder}:{os.environ['PATH']}"}
    done = host.banger("vm", "run", "--", "true", home=clean_home, environment=path)
    assert (done.returncode, done.stdout) == (1, b"")
    assert b"the flux capacitor is empty" in done.stderr
    host.assert_nothing_left(clean_home)


def test_killed_while_the_monitor_starts_the_record_still_leads_to_it(
    host: Host, clean_home: Home, tmp_path: Path
) -> None:
    folder = tmp_path / "bin"
    folder.mkdir()
    monitor = folder / "qemu-system-x86_64"
    # Takes for ever to answer.
    monitor.write_text("#!/bin/sh\nexec sleep 1000\n")
    monitor.chmod(0o755)
    clean_home.environment["PATH"] = f"{folder}:{os.environ['PATH']}"
    process = host.start("vm", "create", "--name", "lost", home=clean_home)
    deadline = time.monotonic() + 60
    while not any(each["state"] == "running" for each in host.machines(clean_home)):
        assert time.monotonic() < deadline
    pid = host.machines(clean_home)[0]["pid"]
    process.kill()
    process.communicate()
    assert identify(pid) is not None
    host.succeed("vm", "delete", "lost", home=clean_home)
    assert identify(pid) is None
    host.assert_nothing_left(clean_home)


def test_a_missing_program_names_its_package(host: Host, clean_home: Home, tmp_path: Path) -> None:
    folder = tmp_path / "bin"
    folder.mkdir()
    for program in ("ip", "nft", "ssh-keygen", "ssh", "setpriv", "qemu-system-x86_64"):
        (folder / program).symlink_to(subprocess.check_output(["which", program], text=True).strip())
    hidden = "/usr/sbin/mke2fs"
    script = f'mount --bind /dev/null {hidden} && exec "$@"'
    argv = ["unshare", "--mount", "sh", "-c", script, "sh", *host.argv("vm", "run", "--", "true")]
    done = subprocess.run(
        argv, env=clean_home.environment, stdin=subprocess.DEVNULL, capture_output=True, timeout=100, check=False
    )
    assert done.returncode == 1
    assert b"mke2fs" in done.stderr
    assert b"e2fsprogs" in done.stderr
    host.assert_nothing_left(clean_home)


def test_a_full_disk_is_named_and_nothing_stays(host: Host, clean_home: Home) -> None:
    """Machines on a filesystem of their own, too small for the copy that it takes there."""
    vms = clean_home.state / "vms"
    vms.mkdir(mode=0o700)
    script = 'mount -t tmpfs -o size=64M,mode=0700 tmpfs "$0" && "$@"; status=$?; ls -A "$0" >&2; exit $status'
    argv = ["unshare", "--mount", "sh", "-c", script, str(vms), *host.argv("vm", "run", "--json", "--", "true")]
    done = subprocess.run(
        argv, env=clean_home.environment, stdin=subprocess.DEVNULL, capture_output=True, timeout=100, check=False
    )
    assert done.returncode == 1
    last = json.loads(done.stderr.decode().strip().splitlines()[-1])
    assert last["error"]["reason"] == "no-space"
    host.assert_nothing_left(clean_home)


def test_a_wiped_cache_breaks_nothing_and_asks_nobody(host: Host, clean_home: Home) -> None:
    subprocess.run(["rm", "-rf", str(clean_home.store)], check=True)
    done = host.banger("vm", "create", "--no-start", "--name", "again", "--json", home=clean_home)
    assert done.returncode == 0, done.stderr.decode()
    # There is no way out of the namespace to any mirror: all of it came from the names' hard links.
    assert {event["step"] for event in events(done.stderr) if event["event"] == "finished"} <= {"mirrors", "vm:again"}
    assert host.machines(clean_home)[0]["state"] == "stopped"
    host.succeed("vm", "delete", "again", home=clean_home)
    assert host.banger("cache", "verify", home=clean_home).returncode == 0
    host.assert_nothing_left(clean_home)


def test_the_cache_may_go_while_a_machine_runs(host: Host, clean_home: Home) -> None:
    words = ["--name", "stays", "--image", register_bare(clean_home), "--memory", "256M"]
    host.succeed("vm", "run", "--detach", *words, home=clean_home)
    subprocess.run(["rm", "-rf", str(clean_home.store)], check=True)
    write = ["vm", "exec", "stays", "--", "sh", "-c", "echo kept >/etc/kept; ls /bin/busybox"]
    assert host.succeed(*write, home=clean_home) == b"/bin/busybox\n"
    for verb in ("stop", "start"):
        host.succeed("vm", verb, "stays", home=clean_home)
    assert host.succeed("vm", "exec", "stays", "--", "cat", "/etc/kept", home=clean_home) == b"kept\n"
    host.succeed("vm", "delete", "stays", home=clean_home)
    assert host.banger("cache", "verify", home=clean_home).returncode == 0
    host.assert_nothing_left(clean_home)


def test_killed_in_the_middle_it_is_rolled_back_by_the_next_command(host: Host, clean_home: Home) -> None:
    process = host.start("vm", "create", "--no-start", "--name", "torn", "--json", home=clean_home)
    deadline = time.monotonic() + 60
    while not list((clean_home.state / "vms").glob("*/rootfs")):
        assert time.monotonic() < deadline
        assert process.poll() is None
    process.kill()
    process.communicate()
    host.banger("vm", "start", "torn", home=clean_home)
    if [each["state"] for each in host.machines(clean_home)] == ["stopped"]:
        # It was quicker than the kill.
        host.succeed("vm", "delete", "torn", home=clean_home)
    host.assert_nothing_left(clean_home)
    assert processes_with(str(clean_home.root)) == []
