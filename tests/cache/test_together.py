"""Everybody at once: builders of overlapping graphs, some of which are killed, with gc and verify beside them."""

from __future__ import annotations

import os
import random
import select
import signal
import subprocess
import sys
import time
from collections import Counter
from collections.abc import Iterator
from contextlib import ExitStack
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING

import pytest

from cache import Policy, Store
from cache.trace import Point

if TYPE_CHECKING:
    from conftest import Start

_SECONDS = 60
_PROCESSES = 8
_THREADS = 2
_STEPS = 24
# From when on nobody believes any more that it goes on. Generous, since the machine may be a slow one.
_STUCK_S = 240
# Where builders come by again and again.
_PLACES = [
    Point.TEMPORARY_MADE,
    Point.OBJECT_WRITTEN,
    Point.OBJECT_SYNCED,
    Point.OBJECT_NAMED,
    Point.OBJECT_DONE,
    Point.FILE_SYNCED,
    Point.FILE_NAMED,
    Point.LOCK_TAKEN,
    Point.LEASE_MADE,
    Point.LEASE_HELD,
    Point.GROWTH_NOTED,
    Point.STEP_STARTED,
    Point.STEP_BUILT,
    Point.STEP_RECORDED,
]

# A line of the log is one write to its end, so lines are whole and in the order in which things happened.
_COMMON = """
import faulthandler, os, random, signal, sys, threading, time
from pathlib import Path
from blake3 import blake3
from banger.errors import BangerError, Reason
from cache import Policy, Store
from cache import trace
from pipelines.graph import build
from pipelines.reporter import Silent
from pipelines.step import Step

faulthandler.register(signal.SIGUSR1)
folder, count, seed = Path(sys.argv[1]), int(sys.argv[2]), sys.argv[3]
root, stop = folder / "store", folder / "stop"
log = os.open(folder / "log", os.O_WRONLY | os.O_APPEND | os.O_CREAT)

def tell(*words):
    os.write(log, " ".join(map(str, (os.getpid(), threading.get_native_id(), *words))).encode() + b"\\n")

needs = [random.Random(number).sample(range(number), min(number, number % 4)) for number in range(count)]
contents = []
for number, before in enumerate(needs):
    whole = blake3(b"%d" % number + b"".join(contents[each] for each in before)).hexdigest()
    contents.append(whole.encode() * (1 + number * 50))

def plan(chance):
    def make(job):
        tell("start", job.step.name)
        time.sleep(chance.random() * 0.05)
        if chance.random() < 0.05:
            tell("failed", job.step.name)
            raise BangerError("by chance", reason=Reason.UNAVAILABLE)
        before = b"".join(job.input(name).read_bytes() for name in job.step.inputs)
        with job.create("out") as sink:
            sink.write(blake3(job.step.name.encode() + before).hexdigest().encode() * (1 + int(job.step.name) * 50))
        tell("made", job.step.name)

    steps = []
    for number, before in enumerate(needs):
        inputs = {str(each): steps[each].output("out") for each in before}
        steps.append(Step(str(number), f"step-{number}", 1, make, ("out",), {}, inputs))
    return steps

class Reporter(Silent):
    def waiting(self, step, on_what):
        tell("waiting", step, on_what.replace(" ", "_"))
    def finished(self, step, duration_s, size_bytes):
        tell("finished", step)

def build_some(chance):
    steps = plan(chance)
    targets = chance.sample(steps, chance.randint(1, 4))
    with Store.open(root).leased("building some") as store:
        try:
            graph = build(store, targets, Reporter())
        except BangerError as error:
            assert error.message == "by chance", error
            return
        for target in targets:
            found = store.path(graph.record(target).outputs["out"]).read_bytes()
            assert found == contents[int(target.name)], target.name
"""

_BUILDER = (
    _COMMON
    + """
def work(chance):
    try:
        while not stop.exists():
            build_some(chance)
            tell("built")
    except BaseException:
        faulthandler.dump_traceback()
        sys.excepthook(*sys.exc_info())
        os._exit(3)

threads = [threading.Thread(target=work, args=[random.Random(f"{seed}-{each}")]) for each in range(int(sys.argv[4]))]
for thread in threads: thread.start()
for thread in threads: thread.join()
"""
)

_COLLECTOR = (
    _COMMON
    + """
names = {blake3(content).hexdigest(): number for number, content in enumerate(contents)}

def on_point(point):
    if point is trace.Point.GC_PUT_BACK:
        [aside] = root.glob("gc-*")
        tell("put-back", names[aside.name.removeprefix("gc-")])

trace.on_point = on_point
chance = random.Random(seed)
while not stop.exists():
    policy = chance.choice([Policy(young_s=0, older_than_s=0), Policy(max_bytes=40_000, young_s=0)])
    for dropped in Store.open(root).collect(policy, {}).dropped:
        tell("dropped", names[dropped.digest])
    time.sleep(chance.random() * 0.2)
"""
)

_VERIFIER = (
    _COMMON
    + """
while not stop.exists():
    findings = list(Store.open(root).verify())
    assert not findings, findings
    tell("verified")
"""
)


@dataclass
class Crowd:
    """The programs that run now, and which of them were killed."""

    folder: Path
    running: dict[int, subprocess.Popen[str]] = field(default_factory=dict)
    builders: set[int] = field(default_factory=set)
    killed: set[int] = field(default_factory=set)
    problems: list[str] = field(default_factory=list)

    def start(self, program: str, seed: str, place: str | None = None) -> None:
        errors = (self.folder / f"errors-{seed}").open("w+")
        argv = [sys.executable, "-I", "-c", program, self.folder, _STEPS, seed, _THREADS]
        process = subprocess.Popen(
            [str(each) for each in argv],
            stdin=subprocess.DEVNULL,
            stderr=errors,
            text=True,
            env={**os.environ, **({} if place is None else {"BANGER_KILL_AT": place})},
        )
        errors.close()
        self.running[process.pid] = process
        if place is not None:
            self.builders.add(process.pid)

    def wait(self, timeout_s: float) -> list[subprocess.Popen[str]]:
        """Those that ended, as soon as there is one."""
        with ExitStack() as stack:
            fds = {os.pidfd_open(pid): pid for pid in self.running}
            for fd in fds:
                stack.callback(os.close, fd)
            ended, _, _ = select.select(list(fds), [], [], max(0.0, timeout_s))
            processes = [self.running.pop(fds[fd]) for fd in ended]
        for process in processes:
            status = process.wait()
            if status == -signal.SIGKILL and process.pid in self.builders:
                self.killed.add(process.pid)
            elif status != 0:
                self.problems.append(f"process {process.pid} ended with {status}")
        return processes

    def kill_all(self) -> None:
        for process in self.running.values():
            process.kill()
            process.wait()

    def tell_errors(self) -> str:
        return "\n".join(path.read_text() for path in sorted(self.folder.glob("errors-*")))

    def tell_who_waits(self) -> str:
        """For a person: the stacks of all threads, and who holds which lock."""
        for pid in self.running:
            os.kill(pid, signal.SIGUSR1)
        time.sleep(2)  # nobody tells when a dump is whole
        locks = [f"{path.name[:12]}: {path.read_text()}" for path in (self.folder / "store/locks").iterdir()]
        return "\n".join([self.tell_errors(), *locks, *(self.folder / "log").read_text().splitlines()[-50:]])


@pytest.fixture
def crowd(tmp_path: Path) -> Iterator[Crowd]:
    folder = tmp_path / "crowd"
    folder.mkdir()
    crowd = Crowd(folder)
    try:
        yield crowd
    finally:
        crowd.kill_all()


@pytest.mark.slow
@pytest.mark.timeout(_SECONDS + _STUCK_S + 120)
def test_many_build_at_once_beside_gc_and_verify_and_nothing_is_lost_or_made_twice(crowd: Crowd) -> None:
    chance = random.Random(7)
    seeds = iter(range(1 << 30))

    def start_builder() -> None:
        crowd.start(_BUILDER, f"builder-{next(seeds)}", f"{chance.choice(_PLACES)}:{chance.randint(1, 400)}")

    crowd.start(_COLLECTOR, "collector")
    crowd.start(_VERIFIER, "verifier")
    for _ in range(_PROCESSES):
        start_builder()
    end = time.monotonic() + _SECONDS
    while (left := end - time.monotonic()) > 0 and not crowd.problems:
        if not crowd.wait(min(1.0, left)):
            # At a place of nobody's choosing.
            victim = chance.choice(sorted(crowd.builders & crowd.running.keys()))
            crowd.running[victim].kill()
        for _ in range(_PROCESSES - len(crowd.builders & crowd.running.keys())):
            start_builder()
    (crowd.folder / "stop").touch()
    stuck = time.monotonic() + _STUCK_S
    while crowd.running:
        crowd.wait(stuck - time.monotonic())
        if time.monotonic() > stuck:
            pytest.fail(f"some do not end:\n{crowd.tell_who_waits()}")
    assert not crowd.problems, (crowd.problems, crowd.tell_errors())

    lines = [line.split() for line in (crowd.folder / "log").read_text().splitlines()]
    counts = Counter(line[2] for line in lines)
    print(f"{dict(counts)}, {len(crowd.killed)} killed")
    assert crowd.killed
    for what in ("built", "failed", "waiting", "dropped", "verified"):
        assert counts[what], f"it never came to that: {what}"
    assert find_two_at_once(lines, crowd.killed) == []
    assert count_repeats(lines, crowd.killed) == {}

    store = Store.open(crowd.folder / "store")
    assert list(store.verify()) == []
    assert list((store.root / "tmp").iterdir()) == list((store.root / "leases").iterdir()) == []
    store.collect(Policy(older_than_s=0, young_s=0), {})
    assert store.usage().all.object_count == 0


def find_two_at_once(lines: list[list[str]], killed: set[int]) -> list[list[str]]:
    """Where somebody started to make what another was making."""
    makers: dict[str, tuple[str, str]] = {}
    found = []
    for pid, thread, what, *step in lines:
        if what == "start":
            if step[0] in makers and int(makers[step[0]][0]) not in killed:
                found.append([pid, thread, what, *step])
            makers[step[0]] = (pid, thread)
        elif what in ("made", "failed"):
            found += [] if makers.pop(step[0], None) == (pid, thread) else [[pid, thread, what, *step]]
    return found


def count_repeats(lines: list[list[str]], killed: set[int]) -> Counter[str]:
    """How often each step was made and recorded, beyond once and once more for each time that it was collected.

    One that gc put back was away for an instant, in which somebody may have looked for it.
    """
    made = Counter((pid, step[0]) for pid, _, what, *step in lines if what == "made")
    finished = Counter((pid, step[0]) for pid, _, what, *step in lines if what == "finished")
    for (pid, step), count in made.items():
        # Between the two only a kill can come, and then nobody knows whether it was recorded.
        assert count == finished[pid, step] or (count > finished[pid, step] and int(pid) in killed), (pid, step)
    times = Counter[str]()
    for (_, step), count in finished.items():
        times[step] += count
    times -= Counter(step[0] for _, _, what, *step in lines if what in ("dropped", "put-back"))
    return Counter({step: count - 1 for step, count in times.items() if count > 1})


_STUCK = """
import sys, time
from pathlib import Path
from cache import Store
from pipelines.graph import build
from pipelines.reporter import Silent
from pipelines.step import Step

def make(job):
    print("ready", flush=True)
    sys.stdin.readline()
    with job.create("out") as sink:
        sink.write(b"made by " + sys.argv[2].encode())

class Reporter(Silent):
    def waiting(self, step, on_what):
        print(on_what, flush=True)

with Store.open(Path(sys.argv[1])).leased("building") as store:
    step = Step(sys.argv[2], "stuck", 1, make, ("out",))
    try:
        graph = build(store, [step], Reporter())
        print(store.path(graph.record(step).outputs["out"]).read_text(), flush=True)
    except KeyboardInterrupt:
        print("interrupted", flush=True)
"""


def read_line(process: subprocess.Popen[str]) -> str:
    assert process.stdout is not None
    line = process.stdout.readline()
    assert line, process.communicate()
    return line.rstrip("\n")


def go_on(process: subprocess.Popen[str]) -> None:
    assert process.stdin is not None
    process.stdin.write("go on\n")
    process.stdin.flush()


def stop(process: subprocess.Popen[str]) -> None:
    process.send_signal(signal.SIGSTOP)
    os.waitid(os.P_PID, process.pid, os.WSTOPPED)


def test_a_builder_that_is_stopped_is_named_to_who_waits_and_goes_on_when_continued(store: Store, start: Start) -> None:
    before = time.time()
    builder = start(_STUCK, store.root, "first")
    assert read_line(builder) == "ready"
    stop(builder)
    waiter = start(_STUCK, store.root, "second")
    said = read_line(waiter)
    expected = f"process {builder.pid} is at it (first), since "
    moments = {time.strftime("%H:%M:%S", time.localtime(each)) for each in range(int(before), int(time.time()) + 1)}
    assert said in {expected + moment for moment in moments}
    builder.send_signal(signal.SIGCONT)
    go_on(builder)
    assert read_line(builder) == "made by first"
    assert read_line(waiter) == "made by first"
    assert (builder.wait(), waiter.wait()) == (0, 0)


def test_who_waits_for_a_builder_that_is_stopped_can_be_interrupted(store: Store, start: Start) -> None:
    builder = start(_STUCK, store.root, "first")
    assert read_line(builder) == "ready"
    stop(builder)
    waiter = start(_STUCK, store.root, "second")
    assert read_line(waiter).startswith(f"process {builder.pid} ")
    waiter.send_signal(signal.SIGINT)
    assert read_line(waiter) == "interrupted"
    assert waiter.wait() == 0
    builder.send_signal(signal.SIGCONT)
    go_on(builder)
    assert read_line(builder) == "made by first"


def test_when_a_builder_that_is_stopped_is_killed_who_waits_makes_it(store: Store, start: Start) -> None:
    builder = start(_STUCK, store.root, "first")
    assert read_line(builder) == "ready"
    stop(builder)
    waiter = start(_STUCK, store.root, "second")
    assert read_line(waiter).startswith(f"process {builder.pid} ")
    builder.kill()
    assert read_line(waiter) == "ready"
    go_on(waiter)
    assert read_line(waiter) == "made by second"
