"""Programs are started, fed, read, timed out and ended: with real processes."""

from __future__ import annotations

import os
import shlex
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Iterator, Mapping
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from banger import run as running
from banger.errors import BangerError, Reason
from banger.run import cancel_all, check, find_program, printable, resume, run, shielded, start

# From when on nobody believes any more that it comes.
_PATIENCE_S = 30
# A group leader and a member that both ignore what can be ignored; their pids, once the traps are set.
_STUBBORN = 'trap "" TERM; sh -c \'trap "" TERM; echo $$; while :; do sleep 60; done\' & echo $$; wait; sleep 60'


@pytest.fixture(autouse=True)
def _not_cancelled() -> Iterator[None]:
    resume()
    yield
    resume()


def _is_gone(pid: int) -> bool:
    try:
        state = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0]
    except (FileNotFoundError, ProcessLookupError):
        return True
    return state in "ZX"


def _wait_gone(*pids: int) -> bool:
    deadline = time.monotonic() + _PATIENCE_S
    while time.monotonic() < deadline:
        if all(map(_is_gone, pids)):
            return True
        time.sleep(0.01)
    return False


@pytest.mark.parametrize(
    "word",
    ["two  words", "a'b\"c", "line\nbreak", "ünï ✓", "\udcff\udc80", "", "--", "-n", "$HOME `id`", "*"],
)
def test_an_argument_arrives_as_it_was_given(word: str) -> None:
    program = "import os, sys; sys.stdout.buffer.write(b'|'.join(map(os.fsencode, sys.argv[1:])))"
    said = run([sys.executable, "-I", "-c", program, word, "next"])
    assert said.stdout == os.fsencode(word) + b"|next"


def test_a_missing_program_names_the_package_that_has_it(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(running.shutil, "which", lambda *_args, **_more: None)
    with pytest.raises(BangerError) as caught:
        run(["mkfs.erofs", "x"])
    assert caught.value.reason is Reason.MISSING_PROGRAM
    assert "erofs-utils" in caught.value.hint


def test_programs_of_sbin_are_found_with_the_path_of_an_ordinary_user(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("PATH", "/nowhere")
    assert find_program("mke2fs") == "/usr/sbin/mke2fs"
    assert find_program("there-is-no-such-program") is None


def test_a_failure_shows_a_command_that_can_be_pasted_and_the_last_words() -> None:
    argv = [
        "sh",
        "-c",
        'for i in $(seq 30); do echo "line $i" >&2; done; printf "\\033[31mred\\a\\n" >&2; exit 3',
        "a b",
    ]
    with pytest.raises(BangerError) as caught:
        run(argv)
    assert caught.value.reason is Reason.COMMAND_FAILED
    first, *said = caught.value.message.partition("\n  | ")
    command = first.partition(": ")[2]
    assert shlex.split(command) == argv
    assert "status 3" in first
    shown = said[1].splitlines()
    assert shown[-1].endswith("\\x1b[31mred\\x07")
    assert shown[-2].endswith("line 30")
    assert len(shown) < 20
    assert "\x1b" not in caught.value.message.removeprefix(first)


def test_a_death_by_signal_is_told_as_one() -> None:
    with pytest.raises(BangerError, match="signal 9"):
        run(["sh", "-c", "kill -9 $$"])


def test_a_failure_that_is_wanted_is_only_reported() -> None:
    done = run(["sh", "-c", "echo out; echo err >&2; exit 7"], must_succeed=False)
    assert (done.returncode, done.stdout, done.stderr) == (7, b"out\n", b"err\n")


def test_a_full_disk_has_a_reason_of_its_own() -> None:
    with pytest.raises(BangerError) as caught:
        run(["dd", "if=/dev/zero", "of=/dev/full", "count=1"])
    assert caught.value.reason is Reason.NO_SPACE
    assert caught.value.hint


def test_bytes_that_are_not_text_do_not_break_a_failure() -> None:
    with pytest.raises(BangerError) as caught:
        check(["prog", "\udcff"], 1, b"\xff\xfe bad \x9b31m\n")
    assert "\x9b" not in caught.value.message


def test_ten_megabytes_go_in_and_out_at_the_same_time() -> None:
    data = os.urandom(10 << 20)
    assert run(["cat"], stdin=data, timeout_s=_PATIENCE_S).stdout == data


def test_a_program_that_reads_nothing_is_no_failure() -> None:
    assert run(["true"], stdin=bytes(10 << 20)).returncode == 0


def test_much_on_stderr_blocks_nothing() -> None:
    done = run(["sh", "-c", "head -c 5000000 /dev/zero >&2; echo ok"], timeout_s=_PATIENCE_S)
    assert done.stdout == b"ok\n"
    assert len(done.stderr) == 5_000_000


def test_without_input_a_program_reads_an_empty_file() -> None:
    assert run(["cat"], timeout_s=_PATIENCE_S).stdout == b""


def test_files_can_stand_for_input_and_output(tmp_path: Path) -> None:
    (tmp_path / "in").write_bytes(b"content")
    with (tmp_path / "in").open("rb") as source, (tmp_path / "out").open("wb") as sink:
        assert run(["cat"], stdin=source, stdout=sink).stdout == b""
    assert (tmp_path / "out").read_bytes() == b"content"


def test_variables_are_added_to_those_of_the_process(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("BANGER_TEST_OLD", "old")
    said = run(["sh", "-c", "echo $BANGER_TEST_OLD $BANGER_TEST_NEW"], env={"BANGER_TEST_NEW": "new"})
    assert said.stdout == b"old new\n"


def test_a_timeout_ends_the_whole_group_even_if_it_ignores_the_polite_signal(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    real = subprocess.Popen.communicate

    def wait(child: subprocess.Popen[bytes], *given: bytes | None, timeout: float) -> tuple[bytes, bytes]:
        """The time counts from when both can ignore it."""
        while len((tmp_path / "pids").read_text().splitlines()) < 2:
            time.sleep(0.01)
        return real(child, *given, timeout=timeout)

    monkeypatch.setattr(subprocess.Popen, "communicate", wait)
    with (tmp_path / "pids").open("wb") as sink, pytest.raises(BangerError) as caught:
        run(["sh", "-c", _STUBBORN], stdout=sink, timeout_s=0.5)
    assert caught.value.reason is Reason.TIMEOUT
    pids = [int(word) for word in (tmp_path / "pids").read_text().split()]
    assert len(pids) == 2
    assert _wait_gone(*pids)


def test_nothing_of_the_group_outlives_a_leader_that_ended_well(tmp_path: Path) -> None:
    with (tmp_path / "pid").open("wb") as sink:
        run(["sh", "-c", "sleep 60 & echo $!"], stdout=sink)
    assert _wait_gone(int((tmp_path / "pid").read_text()))


def test_an_error_in_the_block_ends_the_child() -> None:
    with pytest.raises(ZeroDivisionError), start(["sleep", "60"]) as child:
        raise ZeroDivisionError
    assert child.returncode is not None


def test_cancelling_ends_all_children_within_a_second_and_refuses_new_ones(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Three that ignore the polite signal: their grace, which is less than a second, runs at the same time."""
    assert running._TERM_GRACE_S < 1
    # Of a machine that has other things to do, too.
    monkeypatch.setattr(running, "_TERM_GRACE_S", 4.0)
    ready, interrupted = threading.Barrier(4), []

    def work(number: int) -> None:
        path = tmp_path / str(number)
        try:
            with path.open("wb") as sink, start(["sh", "-c", _STUBBORN], stdout=sink) as child:
                while len(path.read_text().splitlines()) < 2:
                    time.sleep(0.01)
                ready.wait()
                child.wait()
        except KeyboardInterrupt:
            interrupted.append(number)

    workers = [threading.Thread(target=work, args=(number,)) for number in range(3)]
    for worker in workers:
        worker.start()
    ready.wait(timeout=_PATIENCE_S)
    begin = time.monotonic()
    cancel_all()
    assert time.monotonic() - begin < 2 * running._TERM_GRACE_S
    for worker in workers:
        worker.join(timeout=_PATIENCE_S)
    assert sorted(interrupted) == [0, 1, 2]
    pids = [int(word) for number in range(3) for word in (tmp_path / str(number)).read_text().split()]
    assert _wait_gone(*pids)
    with pytest.raises(KeyboardInterrupt):
        run(["true"])
    resume()
    assert run(["true"]).returncode == 0


def test_a_child_born_while_everything_is_cancelled_is_ended_too() -> None:
    class Cancelling(Mapping[str, str]):
        """An environment that is read between the look at the flag and the birth of the child."""

        def __getitem__(self, key: str) -> str:
            raise KeyError(key)

        def __iter__(self) -> Iterator[str]:
            cancel_all()
            return iter(())

        def __len__(self) -> int:
            return 0

    begin = time.monotonic()
    with pytest.raises(KeyboardInterrupt):
        run(["sleep", "100"], env=Cancelling())
    assert time.monotonic() - begin < _PATIENCE_S


def test_shielded_work_is_not_cancelled() -> None:
    with shielded(), start(["sh", "-c", "sleep 0.3; exit 4"]) as child:
        cancel_all()
        with shielded():
            pass
        assert run(["true"]).returncode == 0
        assert child.wait() == 4
    with pytest.raises(KeyboardInterrupt):
        run(["true"])


def test_a_child_dies_with_a_banger_that_is_killed() -> None:
    program = """
import sys
from banger.run import start
with start(["sh", "-c", "echo $$; exec sleep 60"], stdout=sys.stdout) as child:
    child.wait()
"""
    with subprocess.Popen([sys.executable, "-I", "-c", program], stdout=subprocess.PIPE) as parent:
        assert parent.stdout is not None
        child = int(parent.stdout.readline())
        assert not _is_gone(child)
        parent.send_signal(signal.SIGKILL)
        parent.wait()
        assert _wait_gone(child)


@settings(max_examples=200)
@given(st.text())
def test_printable_text_holds_nothing_that_a_terminal_obeys(text: str) -> None:
    shown = printable(text)
    assert shown.isprintable()
    assert printable(shown) == shown


def test_secrets_that_are_for_us_alone_are_not_handed_on(monkeypatch: pytest.MonkeyPatch) -> None:
    for name in ("BANGER_SIGNING_KEY", "COSIGN_PASSWORD", "BANGER_REGISTRY_PASSWORD", "HARMLESS"):
        monkeypatch.setenv(name, "told")
    for changes in (None, {"OTHER": "told"}):
        said = run(["env"], env=changes).stdout.decode().splitlines()
        assert {line.partition("=")[0] for line in said if line.endswith("=told")} == {"HARMLESS", *(changes or {})}
