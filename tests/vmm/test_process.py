"""A monitor's process is found again, and never confused with another."""

from __future__ import annotations

import os
import signal
import stat
import subprocess
import sys
import time
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

import pytest

from banger.errors import BangerError, Reason
from banger.vmm.process import (
    ProcessId,
    died,
    identify,
    identify_self,
    is_alive,
    kill,
    last_words,
    spawn,
    wait_gone,
)


@pytest.fixture
def child() -> Iterator[subprocess.Popen[bytes]]:
    with subprocess.Popen(["sleep", "60"]) as process:
        yield process
        process.kill()


def _identify(pid: int) -> ProcessId:
    found = identify(pid)
    assert found is not None
    return found


def test_a_process_is_known_by_more_than_its_number(child: subprocess.Popen[bytes]) -> None:
    process = _identify(child.pid)
    assert is_alive(process)
    assert not is_alive(replace(process, start_ticks=process.start_ticks - 1))
    assert not is_alive(replace(process, boot_id="another boot"))
    assert identify_self().pid == os.getpid()


@pytest.mark.parametrize("name", [b") R 1 (", b"a b", b"\xff\xfe", b"((", b"new\nline"])
def test_a_process_with_an_odd_name_is_identified(tmp_path: Path, name: bytes) -> None:
    program = os.fsencode(tmp_path) + b"/" + name
    Path(os.fsdecode(program)).symlink_to("/bin/sleep")
    with subprocess.Popen([program, "60"]) as process:
        try:
            while Path(f"/proc/{process.pid}/comm").read_bytes().strip() != name:
                time.sleep(0.01)
            before = _identify(process.pid)
            assert abs(before.start_ticks - _identify(os.getpid()).start_ticks) < 3600 * os.sysconf("SC_CLK_TCK")
            assert is_alive(before)
        finally:
            process.kill()


def test_a_zombie_and_a_number_that_nobody_has_are_no_processes() -> None:
    process = subprocess.Popen(["true"])
    os.waitid(os.P_PID, process.pid, os.WEXITED | os.WNOWAIT)
    assert identify(process.pid) is None
    process.wait()
    assert identify(process.pid) is None
    assert identify(2**22) is None


def test_a_signal_reaches_the_process_and_no_successor(child: subprocess.Popen[bytes]) -> None:
    process = _identify(child.pid)
    kill(replace(process, start_ticks=process.start_ticks + 1))
    assert not wait_gone(process, 0.05)
    kill(process, signal.SIGTERM)
    assert wait_gone(process, 10)
    kill(process)


def test_waiting_ends_when_a_process_of_somebody_else_ends() -> None:
    # A grandchild: its parent is gone, so it is not ours to wait for.
    started = subprocess.run(["sh", "-c", "sleep 60 >/dev/null 2>&1 & echo $!"], capture_output=True, check=True)
    process = _identify(int(started.stdout))
    assert not wait_gone(process, 0.05)
    kill(process)
    assert wait_gone(process, 10)


def test_a_monitor_has_a_session_of_its_own_and_a_private_log(tmp_path: Path) -> None:
    log = tmp_path / "log"
    log.write_text("before\n")
    log.chmod(0o600)
    process = spawn(["sh", "-c", "ps -o sid= -p $$; pwd; cat; echo err >&2"], log)
    assert process.wait(timeout=20) == 0
    before, session, folder, error = log.read_text().split()
    assert (before, folder, error) == ("before", "/", "err")
    assert int(session) == process.pid
    spawn(["true"], tmp_path / "fresh").wait()
    assert stat.S_IMODE((tmp_path / "fresh").stat().st_mode) == 0o600


def test_a_monitor_outlives_the_one_who_started_it(tmp_path: Path) -> None:
    program = (
        "import sys; from pathlib import Path; from banger.vmm.process import spawn;"
        "print(spawn(['sleep', '60'], Path(sys.argv[1])).pid)"
    )
    done = subprocess.run([sys.executable, "-I", "-c", program, tmp_path / "log"], capture_output=True, check=True)
    process = _identify(int(done.stdout))
    assert not wait_gone(process, 0.1)
    kill(process)
    assert wait_gone(process, 10)


def test_a_monitor_that_is_not_installed_is_told(tmp_path: Path) -> None:
    with pytest.raises(BangerError) as caught:
        spawn(["there-is-no-such-monitor"], tmp_path / "log")
    assert caught.value.reason is Reason.MISSING_PROGRAM
    assert not (tmp_path / "log").exists()


def test_last_words_are_few_and_safe_for_a_terminal(tmp_path: Path) -> None:
    log = tmp_path / "log"
    log.write_bytes(b"old\n" * 5000 + "".join(f"line {n}\n\n" for n in range(20)).encode() + b"\x1b[2Jend\xff\n")
    words = last_words(log)
    assert len(words.splitlines()) < 10
    assert words.splitlines()[-1].startswith("  | \\x1b[2Jend")
    assert "\x1b" not in words
    assert last_words(log, log.stat().st_size) == ""
    assert last_words(tmp_path / "missing") == ""
    error = died("box", ["prog", "a b"], log)
    assert error.reason is Reason.MONITOR_DIED
    assert "prog 'a b'" in error.message
    assert "end" in error.message
