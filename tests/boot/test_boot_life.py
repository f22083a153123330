"""One small machine through all that can be done with it, by its name, with the daemon beside it."""

from __future__ import annotations

import json
import os
import re
import subprocess
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from banger.vmm.process import identify
from tests.boot.bare import register_bare
from tests.boot.host import OUTSIDE_ADDRESS, Home, Host, link_home, run

NAME = "lively"
_BUSYBOX = "/run/banger/bin/busybox"
_SERVE = (
    f"mkdir -p /srv; echo hello >/srv/index.html; {_BUSYBOX} httpd -p 8000 -h /srv; {_BUSYBOX} httpd -p 127.0.0.1:8001"
)


@pytest.fixture(scope="module")
def home(built: Home, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Home]:
    root = tmp_path_factory.mktemp("life")
    made = Home(root)
    link_home(built, made)
    register_bare(made)
    made.environment["BANGER_DAEMON_AUTOSTART"] = "true"
    yield made
    run("rm", "-rf", str(made.runtime))


@pytest.fixture(scope="module")
def machine(host: Host, home: Home) -> Iterator[dict[str, Any]]:
    host.succeed(
        "vm", "create", "--name", NAME, "--image", "bare", "--memory", "256M", "--disk-size", "256M", home=home
    )
    host.succeed("vm", "exec", NAME, "--", "sh", "-c", _SERVE, home=home)
    shown: dict[str, Any] = json.loads(host.succeed("vm", "show", NAME, home=home))
    yield shown
    host.succeed("vm", "delete", NAME, home=home)
    host.succeed("daemon", "stop", home=home)
    host.assert_nothing_left(home)


@pytest.fixture
def show(host: Host, home: Home, machine: dict[str, Any]) -> Callable[[], dict[str, Any]]:
    return lambda: json.loads(host.succeed("vm", "show", NAME, home=home))


def _wait_until(holds: Callable[[], object], seconds: float = 60) -> None:
    deadline = time.monotonic() + seconds
    while not holds():
        assert time.monotonic() < deadline, "it never came to be so"
        time.sleep(0.1)


def test_the_daemon_came_by_itself(host: Host, home: Home, machine: dict[str, Any]) -> None:
    status = json.loads(host.succeed("daemon", "status", "--json", home=home))
    assert (status["machines"], status["running"]) == (1, 1)
    assert status["dns"]["serves"]


def test_a_resolver_that_was_told_leads_getent_ssh_and_curl_to_it(
    host: Host, home: Home, machine: dict[str, Any]
) -> None:
    """As docs/dns-routing.md tells for dnsmasq."""
    page = (Path(__file__).parents[2] / "docs/dns-routing.md").read_text()
    recipe = next(block for block in re.findall(r"^```\S*\n(.*?)^```$", page, re.M | re.S) if "server=/vm/" in block)
    folder = home.root / "resolver"
    folder.mkdir()
    (folder / "vm.conf").write_text(recipe)
    (folder / "resolv.conf").write_text("nameserver 127.0.0.1\n")
    host.succeed("ssh-config", "--install", home=home)
    argv = ["dnsmasq", "--keep-in-foreground", "--no-resolv", "--no-hosts", "--listen-address=127.0.0.1"]
    argv += ["--bind-interfaces", "--pid-file=", "--user=root", f"--conf-file={folder / 'vm.conf'}"]
    inside = ["ip", "netns", "exec", host.namespace]
    with subprocess.Popen([*inside, *argv]) as dnsmasq:
        try:
            # A mount namespace of its own: nobody else's resolv.conf is touched.
            mounted = f'mount --bind {folder / "resolv.conf"} /etc/resolv.conf && exec "$@"'

            def ask(*words: str) -> subprocess.CompletedProcess[str]:
                command = [*inside, "unshare", "-m", "sh", "-ec", mounted, "sh", *words]
                # ssh looks for its files in the home of the account, not of the environment.
                return subprocess.run(command, capture_output=True, text=True, env=home.environment, timeout=60)

            _wait_until(lambda: ask("getent", "hosts", f"{NAME}.vm").returncode == 0)
            assert ask("getent", "hosts", f"{NAME}.vm").stdout.split()[0] == machine["address"]
            assert ask("getent", "hosts", machine["address"]).stdout.split()[1] == f"{NAME}.vm"
            assert ask("curl", "--silent", f"http://{NAME}.vm:8000/").stdout == "hello\n"
            config = home.root / ".ssh/config"
            done = ask("ssh", "-F", str(config), f"{NAME}.vm", "id -un; /bin/busybox cat /etc/hostname")
            assert (done.returncode, done.stdout) == (0, f"root\n{NAME}\n"), done.stderr
        finally:
            dnsmasq.kill()
    host.succeed("ssh-config", "--uninstall", home=home)


def test_its_ports_are_listed_with_where_they_can_be_reached(host: Host, home: Home, machine: dict[str, Any]) -> None:
    found = {
        each["port"]: each["address"] for each in json.loads(host.succeed("vm", "ports", NAME, "--json", home=home))
    }
    assert (found[22], found[8000], found[8001]) == (f"{NAME}.vm:22", f"{NAME}.vm:8000", "")


def test_what_it_uses_is_told(host: Host, home: Home, machine: dict[str, Any]) -> None:
    # Counted every other second.
    _wait_until(lambda: json.loads(host.succeed("vm", "stats", "--json", home=home))[0]["received_bytes"])
    (told,) = json.loads(host.succeed("vm", "stats", "--json", home=home))
    assert told["memory_bytes"] > 32 << 20
    assert 0 < told["disk_bytes"] < told["disk_size_bytes"] == 2 * 256 << 20
    assert told["sent_bytes"] > 0


def test_its_way_out_can_be_closed_and_opened_while_it_runs(host: Host, home: Home, machine: dict[str, Any]) -> None:
    def reaches() -> bool:
        words = (_BUSYBOX, "nc", "-w", "3", OUTSIDE_ADDRESS, "7777")
        return host.banger("vm", "exec", NAME, "--", *words, home=home).stdout == b"out here\n"

    server = ["ip", "netns", "exec", host.outside, "busybox", "nc", "-ll", "-p", "7777", "-e", "echo", "out here"]
    with subprocess.Popen(server) as listening:
        try:
            _wait_until(reaches)
            host.succeed("vm", "set", NAME, "--no-nat", home=home)
            assert not reaches()
            host.succeed("vm", "set", NAME, "--nat", home=home)
            assert reaches()
        finally:
            listening.kill()


def test_what_needs_it_stopped_is_refused_while_it_runs(host: Host, home: Home, machine: dict[str, Any]) -> None:
    refused = host.banger("vm", "set", NAME, "--vcpu", "2", home=home)
    assert refused.returncode == 1
    assert f"banger vm stop {NAME}".encode() in refused.stderr


def test_it_grows_and_its_log_is_followed_through_a_restart(
    host: Host, home: Home, show: Callable[[], dict[str, Any]]
) -> None:
    host.succeed("vm", "exec", NAME, "--", "sh", "-c", "echo kept >/root/kept; /bin/busybox sync", home=home)
    follower = host.start("vm", "logs", "-f", NAME, home=home)
    host.succeed("vm", "stop", NAME, home=home)
    smaller = host.banger("vm", "set", NAME, "--disk-size", "128M", home=home)
    assert b"they can grow, not shrink" in smaller.stderr
    host.succeed("vm", "set", NAME, "--disk-size", "512M", "--vcpu", "2", "--memory", "320M", home=home)
    host.succeed("vm", "restart", NAME, home=home)
    shown = show()
    assert (shown["state"], shown["vcpus"], shown["memory_mib"], shown["disk_mib"]) == ("running", 2, 320, 512)
    script = "df -m / /root | awk 'NR > 1 { print $2 }'; nproc; cat /root/kept"
    script = f"export PATH=/run/banger/bin/applets; {script}"
    *sizes, processors, kept = host.succeed("vm", "exec", NAME, "--", "sh", "-c", script, home=home).decode().split()
    assert all(450 < int(size) <= 512 for size in sizes)
    assert len(sizes) == 2
    assert (processors, kept) == ("2", "kept")
    follower.terminate()
    said, _ = follower.communicate(timeout=60)
    assert said.count(b"Linux version") == 2


def test_a_monitor_that_is_killed_is_noticed_and_tidied_up_after(
    host: Host, home: Home, show: Callable[[], dict[str, Any]]
) -> None:
    os.kill(show()["pid"], 9)
    _wait_until(lambda: host.taps() == [])
    assert show()["state"] == "stopped"
    _wait_until(lambda: b"its monitor has ended" in host.succeed("daemon", "logs", home=home))
    host.succeed("vm", "start", NAME, home=home)


def test_a_daemon_that_is_killed_comes_back_with_the_next_command(
    host: Host, home: Home, show: Callable[[], dict[str, Any]]
) -> None:
    pid = json.loads(host.succeed("daemon", "status", "--json", home=home))["pid"]
    os.kill(pid, 9)
    _wait_until(lambda: identify(pid) is None)
    assert host.succeed("vm", "exec", NAME, "--", "echo", "still here", home=home) == b"still here\n"
    _wait_until(lambda: host.banger("daemon", "status", home=home).returncode == 0)
    assert show()["state"] == "running"


def test_one_that_nobody_uses_is_stopped(host: Host, home: Home, show: Callable[[], dict[str, Any]]) -> None:
    config = home.root / "config/banger/config.toml"
    config.parent.mkdir(parents=True, exist_ok=True)
    config.write_text('auto_stop_stale_after = "6s"\n')
    session = host.start("vm", "exec", NAME, "--", _BUSYBOX, "sleep", "20", home=home)
    # The daemon sees another configuration by itself, and a session for as long as there is one.
    _wait_until(lambda: b"beginning again" in host.succeed("daemon", "logs", home=home))
    assert session.wait(timeout=60) == 0
    assert show()["state"] == "running"
    _wait_until(lambda: show()["state"] == "stopped", 120)
    assert "not used for" in host.succeed("daemon", "logs", home=home).decode()
    config.unlink()
    refused = host.banger("vm", "kill", NAME, home=home)
    assert (refused.returncode, b"does not run" in refused.stderr) == (1, True)


def test_several_names_are_done_and_the_bad_ones_told(host: Host, home: Home, machine: dict[str, Any]) -> None:
    done = host.banger("vm", "stop", "nobody", NAME, home=home)
    assert (done.returncode, done.stdout) == (1, f"{NAME}\n".encode())
    assert b"nobody" in done.stderr


def test_prune_takes_what_is_stopped_and_asks_first(host: Host, home: Home, machine: dict[str, Any]) -> None:
    host.succeed("vm", "create", "--no-start", "--name", "idle", "--image", "bare", "--disk-size", "64M", home=home)
    host.succeed("vm", "start", NAME, home=home)
    refused = host.banger("vm", "prune", home=home)
    assert refused.returncode == 1
    assert b"--force" in refused.stderr
    assert host.succeed("vm", "prune", "--force", home=home) == b"idle\n"
    assert [each["name"] for each in host.machines(home)] == [NAME]
