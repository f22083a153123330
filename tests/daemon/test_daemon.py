"""The daemon itself: one for each user, ended and killed without loss, begun again when it should be."""

from __future__ import annotations

import concurrent.futures
import contextlib
import itertools
import os
import signal
import socket
import stat
import subprocess
import sys
import threading
import time
from collections.abc import Callable
from dataclasses import dataclass, field
from ipaddress import IPv4Network
from pathlib import Path

import pytest

import banger.daemon.daemon as daemon_module
from banger.daemon.client import ask
from banger.daemon.unit import format_unit
from banger.errors import BangerError, Reason
from banger.machine.machines import Machines
from banger.network import Subnet
from banger.settings import parse_settings
from banger.vmm.process import identify
from tests.daemon.conftest import Daemon, wait_until
from tests.ordinary_user import UID


def test_it_starts_says_how_it_is_and_ends(daemon: Daemon) -> None:
    assert daemon.banger("daemon", "status").returncode == 1
    started = daemon.start()
    assert started["version"]
    assert started["state"] == str(daemon.paths.state)
    wait_until(lambda: daemon.status()["dns"]["serves"])
    assert f"pid {started['pid']}" in daemon.succeed("daemon", "status")
    assert daemon.start()["pid"] == started["pid"]
    daemon.succeed("daemon", "stop")
    refused = daemon.banger("daemon", "status")
    assert (refused.returncode, refused.stdout) == (1, "")
    assert "banger daemon start" in refused.stderr
    assert not daemon.place.socket.exists()
    assert identify(started["pid"]) is None
    assert daemon.succeed("daemon", "stop") == ""
    assert "ended" in daemon.succeed("daemon", "logs")


def test_its_files_are_for_its_user_only(daemon: Daemon) -> None:
    daemon.start()
    for path, mode in (
        (daemon.place.folder, 0o700),
        (daemon.place.socket, 0o600),
        (daemon.place.folder / "bangerd.lock", 0o600),
        (daemon.place.log, 0o600),
    ):
        assert stat.S_IMODE(path.stat().st_mode) == mode, path


def test_of_many_that_are_started_at_once_one_stays(daemon: Daemon) -> None:
    pids: list[int] = []
    threads = [threading.Thread(target=lambda: pids.append(daemon.start()["pid"])) for _ in range(6)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert len(pids) == 6
    assert set(pids) == {daemon.status()["pid"]}


def test_a_second_one_leaves_the_first_alone(daemon: Daemon) -> None:
    pid = daemon.start()["pid"]
    second = subprocess.run(
        [Path(sys.executable).with_name("bangerd")], env=daemon.variables, capture_output=True, text=True, timeout=30
    )
    assert second.returncode == 0
    assert "already" in second.stderr
    assert daemon.status()["pid"] == pid


def test_one_that_was_just_ending_is_followed_by_another(daemon: Daemon) -> None:
    daemon.runtime.mkdir(mode=0o700)
    daemon.place.prepare()
    lock = daemon.place.lock()
    assert lock is not None
    pids: list[int] = []
    thread = threading.Thread(target=lambda: pids.append(daemon.start()["pid"]))
    thread.start()
    wait_until(lambda: daemon.place.log.exists() and "already" in daemon.log())
    os.close(lock)
    thread.join()
    assert pids == [daemon.status()["pid"]]


def test_a_killed_one_gives_way_to_the_next_and_machines_go_on(daemon: Daemon) -> None:
    machine = daemon.add("web", runs=True)
    pid = daemon.start()["pid"]
    os.kill(pid, signal.SIGKILL)
    wait_until(lambda: daemon.banger("daemon", "status").returncode == 1)
    # Its socket is still there, and nobody behind it.
    assert daemon.place.socket.exists()
    assert daemon.records().refresh(machine).state == "running"
    assert daemon.start()["pid"] != pid
    assert daemon.status()["running"] == 1


@pytest.mark.parametrize("kind", ["link", "foreign"])
def test_a_folder_that_somebody_else_could_have_put_there_is_refused(daemon: Daemon, kind: str, tmp_path: Path) -> None:
    daemon.runtime.mkdir(mode=0o700)
    if kind == "link":
        (tmp_path / "theirs").mkdir(mode=0o700)
        daemon.place.folder.symlink_to(tmp_path / "theirs")
    else:
        if os.geteuid() != 0:
            pytest.skip("only root can give a folder away")
        daemon.place.folder.mkdir(mode=0o700)
        os.chown(daemon.place.folder, UID, UID)
    refused = daemon.banger("daemon", "start")
    assert refused.returncode == 1
    assert "is not a folder of yours" in refused.stderr
    assert list((tmp_path / "theirs").glob("*")) == []


def test_it_begins_again_when_the_configuration_is_another(daemon: Daemon) -> None:
    pid = daemon.start()["pid"]
    config = daemon.paths.config / "config.toml"
    config.parent.mkdir(parents=True, exist_ok=True)
    config.write_text("nonsense = 1\n")
    wait_until(lambda: "nonsense" in daemon.log())
    assert daemon.status()["pid"] == pid
    config.write_text('auto_stop_stale_after = "2h"\n')
    wait_until(lambda: "beginning again" in daemon.log())
    # The same process, another program in it.
    wait_until(lambda: daemon.log().count(f"pid {pid})") == 2)
    wait_until(lambda: daemon.banger("daemon", "status").returncode == 0)


def test_one_that_begins_again_can_be_stopped_at_any_moment(daemon: Daemon) -> None:
    config = daemon.paths.config / "config.toml"
    config.parent.mkdir(parents=True, exist_ok=True)
    for number, pause_s in enumerate((0.0, 0.1)):
        pid = daemon.start()["pid"]
        said = daemon.log().count("beginning again")
        config.write_text(f'auto_stop_stale_after = "{number + 2}h"\n')
        wait_until(lambda said=said: daemon.log().count("beginning again") > said)  # type: ignore[misc]
        time.sleep(pause_s)
        # Its lock tells all the while that it is there.
        assert daemon.place.find_holder() == pid
        stopped = daemon.banger("daemon", "stop")
        assert (stopped.returncode, stopped.stderr) == (0, "")
        assert identify(pid) is None
        assert not daemon.place.socket.exists()


def test_what_is_no_request_gets_a_refusal_and_the_connection_goes_on(daemon: Daemon) -> None:
    daemon.start()
    with socket.socket(socket.AF_UNIX) as connection:
        connection.settimeout(20)
        connection.connect(str(daemon.place.socket))
        answers = connection.makefile()
        for line, expected in (
            (b"hello\n", "bad-input"),
            (b'{"do": "statuss"}\n', "did you mean 'status'?"),
            (b'{"do": "status"}\n', '"ok"'),
        ):
            connection.sendall(line)
            assert expected in answers.readline()


def test_a_line_without_an_end_ends_the_connection_and_nothing_else(daemon: Daemon) -> None:
    daemon.start()
    with socket.socket(socket.AF_UNIX) as connection:
        connection.settimeout(20)
        connection.connect(str(daemon.place.socket))
        try:
            for _ in range(40):
                connection.sendall(b"x" * 65536)
            assert connection.recv(1) == b""
        except (BrokenPipeError, ConnectionResetError):
            pass
    assert daemon.status()["pid"]


def test_more_connections_than_it_takes_are_closed(daemon: Daemon) -> None:
    daemon.start()
    held = []
    for _ in range(70):
        connection = socket.socket(socket.AF_UNIX)
        connection.settimeout(20)
        connection.connect(str(daemon.place.socket))
        held.append(connection)
    assert held[-1].recv(1) == b""
    for connection in held:
        connection.close()
    wait_until(lambda: daemon.banger("daemon", "status").returncode == 0)


def test_a_port_in_use_is_told_and_the_rest_works(daemon: Daemon) -> None:
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as other:
        other.bind(("127.0.0.1", daemon.port))
        daemon.start()
        wait_until(lambda: daemon.status()["dns"]["trouble"])
        assert str(daemon.port) in daemon.status()["dns"]["trouble"]
        assert str(daemon.port) in daemon.succeed("daemon", "status")
    wait_until(lambda: daemon.status()["dns"]["serves"])


@dataclass
class Resolver:
    """A host's resolver that can be told, or not, and a daemon of this process that tells it."""

    answers: list[bool | BangerError]
    takes_s: float = 0.0
    asked: list[float] = field(default_factory=list)
    untold: list[tuple[str, int] | None] = field(default_factory=list)
    untell: Callable[[], None] = lambda: None

    def ensure_routed(self, _subnet: Subnet, _listen: tuple[str, int]) -> bool:
        self.asked.append(time.monotonic())
        time.sleep(self.takes_s)
        answer = self.answers.pop(0) if len(self.answers) > 1 else self.answers[0]
        if isinstance(answer, BangerError):
            raise answer
        return answer

    def unroute(self, _subnet: Subnet, listen: tuple[str, int] | None = None) -> None:
        self.untold.append(listen)
        self.untell()

    def run(self, daemon: Daemon, monkeypatch: pytest.MonkeyPatch, until: Callable[[], object]) -> bool:
        """From its begin to its end, which it is asked for once it is `until`; whether it wants to begin again."""
        monkeypatch.setattr(daemon_module, "ensure_routed", self.ensure_routed)
        monkeypatch.setattr(daemon_module, "unroute", self.unroute)
        monkeypatch.setattr(daemon_module, "_LOOK_S", 0.01)
        daemon.place.prepare()
        monkeypatch.setattr(daemon_module, "is_link", lambda _name: True)
        subnet = Subnet("banger-test", IPv4Network("10.213.77.0/29"))
        settings = parse_settings({"dns": {"listen": f"127.0.0.1:{daemon.port}"}})
        machines = Machines(daemon.records(), daemon.paths, settings, subnet)

        def end() -> None:
            try:
                wait_until(until)
            finally:
                # One that begins again has ended by itself.
                with contextlib.suppress(BangerError):
                    ask(daemon.paths, "stop")

        with concurrent.futures.ThreadPoolExecutor(1) as executor:
            ended = executor.submit(end)
            again = daemon_module.run_daemon(machines, daemon.place)
            ended.result()
        return again


_REFUSED = BangerError("sudo wants a password", reason=Reason.NO_PERMISSION)


def test_a_resolver_that_cannot_be_told_yet_is_told_later_and_only_once(
    daemon: Daemon, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(daemon_module, "_ROUTE_AGAIN_S", 0.2)
    resolver = Resolver([_REFUSED, False, _REFUSED, True], takes_s=0.1)
    told: list[float] = []

    def is_told() -> bool:
        if len(resolver.asked) >= 4:
            told.append(time.monotonic())
        # For a while longer: it is not asked again.
        return bool(told) and time.monotonic() > told[0] + 1.0

    assert not resolver.run(daemon, monkeypatch, is_told)
    assert len(resolver.asked) == 4
    # From the end of one word with it, and ever later.
    pauses = [later - earlier - 0.1 for earlier, later in itertools.pairwise(resolver.asked)]
    assert all(pause >= least for pause, least in zip(pauses, (0.2, 0.4, 0.8), strict=True))
    assert resolver.untold == [("127.0.0.1", daemon.port)]


@pytest.mark.parametrize("answer", [False, _REFUSED])
def test_a_resolver_that_was_not_told_is_left_alone_at_the_end(
    daemon: Daemon, monkeypatch: pytest.MonkeyPatch, answer: bool | BangerError
) -> None:
    resolver = Resolver([answer])
    resolver.run(daemon, monkeypatch, lambda: resolver.asked)
    assert len(resolver.asked) == 1
    assert resolver.untold == []


def test_one_that_begins_again_leaves_the_resolver_as_it_is(daemon: Daemon, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(daemon_module, "_RENEW_S", 0.2)
    config = daemon.paths.config / "config.toml"
    config.parent.mkdir(parents=True, exist_ok=True)

    def change() -> bool:
        if resolver.asked and not config.exists():
            config.write_text('auto_stop_stale_after = "2h"\n')
        return not daemon.place.socket.exists() and bool(resolver.asked)

    resolver = Resolver([True])
    assert resolver.run(daemon, monkeypatch, change)
    assert resolver.untold == []


@pytest.mark.parametrize("trouble", ["refused", "silent"])
def test_a_resolver_that_cannot_be_untold_keeps_nobody_waiting(
    daemon: Daemon, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str], trouble: str
) -> None:
    monkeypatch.setattr(daemon_module, "_UNROUTE_S", 2.0)
    waiting = threading.Event()

    def untell() -> None:
        if trouble == "refused":
            raise _REFUSED
        waiting.wait(120)

    resolver = Resolver([True], untell=untell)
    began = time.monotonic()
    resolver.run(daemon, monkeypatch, lambda: resolver.asked)
    waiting.set()
    assert time.monotonic() - began < 60
    assert len(resolver.untold) == 1
    assert "still asks here for .vm" in capsys.readouterr().err


_ASK = """
import os, socket, sys
os.setgid(int(sys.argv[2])); os.setuid(int(sys.argv[2]))
connection = socket.socket(socket.AF_UNIX)
connection.settimeout(20)
connection.connect(sys.argv[1])
try:
    connection.sendall(b'{"do": "status"}\\n')
    print(connection.recv(100))
except ConnectionError:
    print(b"")
"""


@pytest.mark.skipif(os.geteuid() != 0, reason="only root can become somebody else")
def test_somebody_else_is_told_nothing_even_where_he_can_reach_the_socket(daemon: Daemon) -> None:
    daemon.start()
    for path in (daemon.runtime, daemon.place.folder, daemon.place.socket):
        path.chmod(0o777)
    answers = {
        uid: subprocess.run(
            ["/usr/bin/python3", "-I", "-c", _ASK, str(daemon.place.socket), str(uid)],
            capture_output=True,
            text=True,
            timeout=60,
            check=True,
        ).stdout
        for uid in (UID, 0)
    }
    assert answers[UID] == "b''\n"
    assert "protocol" in answers[0]


def test_a_host_without_a_systemd_of_the_user_is_told_so(daemon: Daemon) -> None:
    daemon.environment["XDG_CONFIG_HOME"] = str(daemon.folder / "config")
    daemon.environment["DBUS_SESSION_BUS_ADDRESS"] = "unix:path=/nonexistent"
    refused = daemon.banger("daemon", "install")
    assert refused.returncode == 1
    assert "systemd" in refused.stderr
    assert not (daemon.folder / "config/systemd").exists()
    assert daemon.banger("daemon", "uninstall").returncode == 0


def test_systemd_takes_the_unit_as_it_is_written(tmp_path: Path) -> None:
    path = tmp_path / "bangerd.service"
    program = tmp_path / "a b$c%d"
    program.write_text("#!/bin/sh\n")
    program.chmod(0o755)
    path.write_text(format_unit(program, tmp_path / "log"))
    done = subprocess.run(["systemd-analyze", "verify", str(path)], capture_output=True, text=True)
    assert (done.returncode, done.stderr) == (0, "")
