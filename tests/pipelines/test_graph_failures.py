"""What a build leaves when something goes wrong in it: finished steps, an error that says why, and nothing else."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import threading
import time
from pathlib import Path
from typing import TYPE_CHECKING

import pytest

from banger.errors import BangerError, Reason
from cache import Store
from pipelines.job import Job

if TYPE_CHECKING:
    from conftest import Bench

_WAIT_S = 60


def test_a_failure_is_raised_as_it_is_and_nothing_is_recorded(bench: Bench) -> None:
    error = BangerError("no", reason=Reason.UNAVAILABLE, hint="later")

    def fail(job: Job) -> bytes:
        (job.directory / "half").write_bytes(b"made")
        raise error

    a = bench.step("a")
    b = bench.step("b", a, content=fail)
    c = bench.step("c", b)
    with pytest.raises(BangerError) as caught:
        bench.build(c)
    assert caught.value is error
    assert bench.runs == ["a", "b"]
    assert bench.graph(c).record(b) is None
    assert bench.leftovers() == []
    assert ("failed", "b") in bench.reporter.told
    assert bench.reporter.told[-1] == ("close", "")


def test_a_failure_in_the_middle_of_an_output_leaves_no_object(bench: Bench) -> None:
    def fail(job: Job) -> bytes:
        with job.create("out") as sink:
            sink.write(b"half")
            raise BangerError("no", reason=Reason.IO)

    with pytest.raises(BangerError):
        bench.build(bench.step("a", content=fail))
    assert bench.store.usage().all.object_count == 0
    assert bench.leftovers() == []


def test_after_a_failure_only_what_was_not_finished_runs_again(bench: Bench) -> None:
    broken = True

    def sometimes(_job: Job) -> bytes:
        if broken:
            raise BangerError("no", reason=Reason.UNAVAILABLE)
        return b"b"

    b = bench.step("b", bench.step("a"), content=sometimes)
    with pytest.raises(BangerError):
        bench.build(b)
    broken = False
    assert bench.build(b) == ["b"]


def test_what_ran_beside_a_failure_is_kept(bench: Bench) -> None:
    both = threading.Barrier(2)
    failed = threading.Event()

    def fail(_job: Job) -> bytes:
        both.wait(_WAIT_S)
        failed.set()
        raise BangerError("no", reason=Reason.UNAVAILABLE)

    def slow(_job: Job) -> bytes:
        both.wait(_WAIT_S)
        failed.wait(_WAIT_S)
        return b"slow"

    left, right = bench.step("fail", content=fail), bench.step("slow", content=slow)
    with pytest.raises(BangerError):
        bench.build(bench.step("end", left, right))
    assert bench.build(right) == []


def test_a_bug_in_a_step_surfaces_as_itself(bench: Bench) -> None:
    def wrong(_job: Job) -> bytes:
        raise AssertionError("a bug")

    with pytest.raises(AssertionError, match="a bug"):
        bench.build(bench.step("b", bench.step("a", content=wrong)))
    assert bench.runs == ["a"]


def test_a_bug_in_a_pure_question_surfaces_as_itself(bench: Bench) -> None:
    """doit asks in its own thread whether an effect is done; it must not turn the answer into a text."""
    from pipelines.step import Effect

    def ask(_digests: object) -> bool:
        raise ZeroDivisionError

    with pytest.raises(ZeroDivisionError):
        bench.build(Effect("effect", {}, lambda _results: None, ask))


def test_a_step_that_forgets_an_output_is_a_bug(bench: Bench) -> None:
    from pipelines.step import Step

    with pytest.raises(AssertionError, match="did not make"):
        bench.build(Step("a", "a", 1, lambda _job: None, ("out",)))


def test_an_object_that_was_cut_short_is_made_again(bench: Bench) -> None:
    a = bench.step("a")
    b = bench.step("b", a)
    bench.build(a)
    path = bench.store.path(bench.object(a))
    path.chmod(0o600)
    path.write_bytes(b"cut")
    assert bench.build(b) == ["a", "b"]


_BUILDER = """
import sys
from pathlib import Path
from banger.run import run
from cache import Store
from pipelines import graph
from pipelines.reporter import Silent
from pipelines.step import Effect, Step

# The moment that a step gets is a long one where others are busy, too.
assert graph._CLEANUP_S < 2
graph._CLEANUP_S = 60

def make(job):
    (job.directory / "half").write_bytes(b"made")
    print("inside", flush=True)
    run(["sleep", "1000"])

steps = [Step(name, name, 1, make, ("out",)) for name in ("a", "b")]
end = Effect("end", {step.name: step.output("out") for step in steps}, print)
try:
    graph.build(Store.open(Path(sys.argv[1])), [end], Silent())
except KeyboardInterrupt:
    run(["true"])
    print("interrupted", flush=True)
"""


@pytest.fixture
def builder(store: Store) -> subprocess.Popen[str]:
    """A build with two steps, each in the middle of a long program."""
    process = subprocess.Popen(
        [sys.executable, "-I", "-c", _BUILDER, str(store.root)], stdout=subprocess.PIPE, text=True
    )
    assert process.stdout is not None
    assert [process.stdout.readline() for _ in range(2)] == ["inside\n", "inside\n"]
    return process


def _children(pid: int) -> list[int]:
    found = []
    for entry in Path("/proc").iterdir():
        if entry.name.isdigit():
            try:
                stat = (entry / "stat").read_text("utf-8", "replace")
            except (FileNotFoundError, ProcessLookupError):
                continue
            fields = stat.rpartition(")")[2].split()
            # Before it is `sleep`, a child does not yet die with its parent.
            if int(fields[1]) == pid and "(sleep)" in stat:
                found.append(int(entry.name))
    return found


def _wait_for_children(pid: int, count: int) -> list[int]:
    deadline = time.monotonic() + _WAIT_S
    while len(found := _children(pid)) < count:
        assert time.monotonic() < deadline
        time.sleep(0.01)
    return found


def test_ctrl_c_ends_a_build_within_two_seconds_and_leaves_nothing(
    builder: subprocess.Popen[str], store: Store
) -> None:
    children = _wait_for_children(builder.pid, 2)
    begin = time.monotonic()
    builder.send_signal(signal.SIGINT)
    said, _ = builder.communicate(timeout=_WAIT_S)
    assert time.monotonic() - begin < _WAIT_S / 2
    assert said == "interrupted\n"
    assert builder.returncode == 0
    assert list((store.root / "tmp").iterdir()) == []
    assert not any(Path(f"/proc/{child}").exists() for child in children)


def test_a_killed_build_leaves_no_process_and_the_next_one_cleans_up(
    builder: subprocess.Popen[str], store: Store
) -> None:
    children = _wait_for_children(builder.pid, 2)
    builder.kill()
    builder.communicate()
    deadline = time.monotonic() + _WAIT_S
    while any(map(_runs, children)):
        assert time.monotonic() < deadline
        time.sleep(0.01)
    assert list((store.root / "tmp").iterdir()) != []
    Store.open(store.root)
    assert list((store.root / "tmp").iterdir()) == []


def _runs(pid: int) -> bool:
    try:
        os.kill(pid, 0)
        return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0] not in "ZX"
    except (ProcessLookupError, FileNotFoundError):
        return False
