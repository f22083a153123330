"""Each step is built once, and then found."""

from __future__ import annotations

import subprocess
import sys
import threading
import time
from collections.abc import Mapping
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import TYPE_CHECKING

import pytest

from banger.errors import BangerError, Reason
from cache import Digest, Store
from pipelines.graph import build
from pipelines.job import Job
from pipelines.step import Effect, Result, Step, walk

if TYPE_CHECKING:
    from conftest import Bench

_WAIT_S = 60


def test_a_second_build_runs_nothing(bench: Bench) -> None:
    a = bench.step("a")
    b, c = bench.step("b", a), bench.step("c", a)
    d = bench.step("d", b, c)
    assert sorted(bench.build(d)) == ["a", "b", "c", "d"]
    assert bench.build(d) == []
    assert bench.read(d.output("out")).startswith(b"d\n")


def test_where_nothing_has_to_run_neither_doit_nor_a_registry_client_is_loaded(store: Store) -> None:
    program = """
import sys
from pathlib import Path
from cache import Store
from pipelines.graph import build
from pipelines.reporter import Silent
from pipelines.step import Effect, Step

def make(job):
    with job.create("out") as sink:
        sink.write(job.step.name.encode())

class Reporter(Silent):
    def planned(self, steps):
        print("planned", *steps)
    def cached(self, step):
        print("cached", step)

a = Step("a", "a", 1, make, ("out",))
b = Step("b", "b", 1, make, ("out",), {}, {"a": a.output("out")})
end = Effect("end", {"b": b.output("out")}, print, lambda digests: len(sys.argv) > 2)
with Store.open(Path(sys.argv[1])).leased("test") as store:
    build(store, [end], Reporter())
print(*sorted({"doit", "requests", "oras"} & sys.modules.keys()))
"""
    argv = [sys.executable, "-I", "-c", program, str(store.root)]
    assert subprocess.check_output(argv, text=True).splitlines()[-1] == "doit"
    said = subprocess.check_output([*argv, "done"], text=True).splitlines()
    assert said == ["planned a b end", "cached a", "cached b", "cached end", ""]


def test_a_chain_may_be_longer_than_pythons_stack(bench: Bench) -> None:
    steps = [bench.step("step-0")]
    for number in range(1, 2 * sys.getrecursionlimit()):
        steps.append(bench.step(f"step-{number}", steps[-1]))
    assert list(walk(steps[-1:])) == steps


def test_a_step_runs_after_all_that_it_needs(bench: Bench) -> None:
    a = bench.step("a")
    b = bench.step("b", a)
    c = bench.step("c", a, b)
    assert bench.build(c) == ["a", "b", "c"]


def test_what_was_built_is_found_by_another_step_of_the_same_kind_under_another_name(bench: Bench) -> None:
    step = bench.step("a")
    bench.build(step)
    twin = Step("other:name", "a", 1, _must_not_run, ("out",))
    assert bench.build(twin) == []


def test_a_changed_parameter_runs_what_depends_on_it_and_nothing_else(bench: Bench) -> None:
    def plan(of_b: int) -> Step:
        a = bench.step("a")
        b, c = bench.step("b", a, parameters={"x": of_b}), bench.step("c", a)
        return bench.step("e", bench.step("d", b), c)

    bench.build(plan(1))
    assert bench.build(plan(2)) == ["b", "d", "e"]
    assert bench.build(plan(1)) == []


def test_a_new_version_of_a_step_runs_it_again(bench: Bench) -> None:
    bench.build(bench.step("b", bench.step("a")))
    assert bench.build(bench.step("b", bench.step("a"), version=2)) == ["b"]


def test_an_input_with_other_bytes_runs_what_reads_it(bench: Bench) -> None:
    def plan(content: bytes, version: int) -> Step:
        return bench.step("b", bench.step("a", content=lambda _job: content, version=version))

    bench.build(plan(b"one", 1))
    assert bench.build(plan(b"two", 2)) == ["a", "b"]


def test_a_step_that_gives_the_same_bytes_as_before_stops_the_change(bench: Bench) -> None:
    def plan(version: int) -> Step:
        a = bench.step("a", content=lambda _job: b"the same", version=version)
        return bench.step("c", bench.step("b", a))

    bench.build(plan(1))
    assert bench.build(plan(2)) == ["a"]


def test_an_intermediate_that_was_collected_is_not_made_again_for_nobody(bench: Bench) -> None:
    a = bench.step("a")
    b = bench.step("b", a)
    c = bench.step("c", b)
    bench.build(c)
    bench.forget(a)
    bench.forget(b)
    assert bench.build(c) == []


def test_an_intermediate_that_was_collected_is_made_again_when_it_is_needed(bench: Bench) -> None:
    a = bench.step("a")
    b = bench.step("b", a)
    c = bench.step("c", b)
    bench.build(c)
    bench.forget(a)
    bench.forget(b)
    d = bench.step("d", b)
    assert bench.build(c, d) == ["a", "b", "d"]


def test_many_layers_of_which_each_reads_all_before_it_are_looked_at_once(bench: Bench) -> None:
    layers: list[Step] = []
    for number in range(30):
        layers.append(bench.step(f"layer-{number}", *layers, content=lambda _job, made=b"%d" % number: made))
    bench.build(layers[-1])
    for layer in layers[:-1]:
        bench.forget(layer)
    # Were each asked anew by each that reads it, this would never end.
    assert bench.build(layers[-1], bench.step("other")) == ["other"]


def test_a_final_artifact_that_was_collected_is_made_again(bench: Bench) -> None:
    a = bench.step("a")
    b = bench.step("b", a)
    bench.build(b)
    bench.forget(b)
    assert bench.build(b) == ["b"]
    assert bench.build(b) == []


def test_a_target_is_made_even_if_another_target_that_reads_it_is_there(bench: Bench) -> None:
    a = bench.step("a")
    b = bench.step("b", a)
    bench.build(b)
    bench.forget(a)
    assert bench.build(a, b) == ["a"]


def test_independent_steps_overlap_in_time(bench: Bench) -> None:
    meeting = threading.Barrier(2)

    def meet(_job: Job) -> bytes:
        meeting.wait(_WAIT_S)
        return b""

    left, right = bench.step("left", content=meet), bench.step("right", content=meet)
    assert sorted(bench.build(bench.step("both", left, right))) == ["both", "left", "right"]


def test_two_threads_that_build_the_same_run_each_step_once(bench: Bench) -> None:
    inside, go_on = threading.Event(), threading.Event()

    def hold(_job: Job) -> bytes:
        inside.set()
        go_on.wait(_WAIT_S)
        return b"a"

    b = bench.step("b", bench.step("a", content=hold))
    with ThreadPoolExecutor(2) as pool:
        first = pool.submit(build, bench.store, [b], bench.reporter)
        assert inside.wait(_WAIT_S)
        second = pool.submit(build, bench.store, [b], bench.reporter)
        while ("waiting", "a") not in bench.reporter.told:
            assert not second.done()
            time.sleep(0.01)
        go_on.set()
        first.result(_WAIT_S)
        second.result(_WAIT_S)
    assert sorted(bench.runs) == ["a", "b"]


def test_two_processes_that_build_the_same_run_each_step_once(store: Store, tmp_path: Path) -> None:
    program = """
import sys, time
from pathlib import Path
from cache import Store
from pipelines.graph import build
from pipelines.reporter import Silent
from pipelines.step import Step

root, log = map(Path, sys.argv[1:])

def make(job):
    with log.open("a") as lines:
        lines.write(job.step.name + "\\n")
    time.sleep(0.2)
    with job.create("out") as sink:
        sink.write(job.step.name.encode())

a = Step("a", "a", 1, make, ("out",))
b = Step("b", "b", 1, make, ("out",), inputs={"a": a.output("out")})
c = Step("c", "c", 1, make, ("out",), inputs={"a": a.output("out")})
print("ready", flush=True)
sys.stdin.readline()
build(Store.open(root), [b, c], Silent())
"""
    log = tmp_path / "log"
    argv = [sys.executable, "-I", "-c", program, str(store.root), str(log)]
    builders = [subprocess.Popen(argv, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True) for _ in range(2)]
    for builder in builders:
        assert builder.stdout is not None
        assert builder.stdout.readline() == "ready\n"
    for builder in builders:
        assert builder.stdin is not None
        builder.stdin.write("\n")
        builder.stdin.flush()
    for builder in builders:
        builder.communicate(timeout=60)
        assert builder.returncode == 0
    assert sorted(log.read_text().split()) == ["a", "b", "c"]


def test_a_resolved_step_is_asked_again_only_on_request(bench: Bench) -> None:
    answers = iter([b"1", b"1", b"2"])
    lock = bench.step("lock", content=lambda _job: next(answers), resolves=True)
    b = bench.step("b", lock)
    assert bench.build(b) == ["lock", "b"]
    assert bench.build(b) == []
    assert bench.build(b, refresh=True) == ["lock"]
    assert bench.build(b, refresh=True) == ["lock", "b"]
    assert bench.build(b) == []


def test_when_the_outside_has_changed_it_is_resolved_again_once(bench: Bench) -> None:
    answers = iter([b"old", b"new"])
    lock = bench.step("lock", content=lambda _job: next(answers), resolves=True)

    def fetch(job: Job) -> bytes:
        if job.input("lock").read_bytes() == b"old":
            raise BangerError("the archive has changed", reason=Reason.CHANGED)
        return b"fetched"

    assert bench.build(bench.step("fetch", lock, content=fetch)) == ["lock", "fetch", "lock", "fetch"]
    assert bench.build(bench.step("fetch", lock, content=fetch)) == []


def test_when_the_outside_changes_all_the_time_the_build_gives_up(bench: Bench) -> None:
    lock = bench.step("lock", content=lambda _job: b"", resolves=True)

    def fetch(_job: Job) -> bytes:
        raise BangerError("the archive has changed", reason=Reason.CHANGED)

    with pytest.raises(BangerError) as caught:
        bench.build(bench.step("fetch", lock, content=fetch))
    assert caught.value.reason is Reason.CHANGED
    assert bench.runs == ["lock", "fetch", "lock", "fetch"]


def test_an_effect_always_runs_and_is_handed_what_was_made(bench: Bench) -> None:
    a = bench.step("a")
    seen: list[Mapping[str, Result]] = []
    effect = Effect("boot", {"disk": a.output("out")}, seen.append)
    assert bench.build(effect) == ["a"]
    assert bench.build(effect) == []
    assert len(seen) == 2
    result = seen[0]["disk"]
    assert result.made == bench.object(a)
    assert bench.store.find_record(result.key) == result.record


def test_an_effect_that_is_done_runs_no_more_until_its_inputs_differ(bench: Bench) -> None:
    names: dict[str, Digest] = {}

    def plan(version: int) -> Effect:
        a = bench.step("a", content=lambda _job: str(version).encode(), version=version)

        def act(results: Mapping[str, Result]) -> None:
            bench.runs.append("effect")
            names.update({role: result.made.digest for role, result in results.items()})

        return Effect("name", {"a": a.output("out")}, act, lambda digests: names == digests)

    assert bench.build(plan(1)) == ["a", "effect"]
    assert bench.build(plan(1)) == []
    assert bench.build(plan(2)) == ["a", "effect"]


def test_an_effect_runs_after_the_effects_it_waits_for(bench: Bench) -> None:
    order: list[str] = []
    first = Effect("first", {}, lambda _results: order.append("first"))
    second = Effect("second", {}, lambda _results: order.append("second"), after=(first,))
    bench.build(second)
    assert order == ["first", "second"]


def test_a_build_tells_the_reporter_what_it_does(bench: Bench) -> None:
    a = bench.step("a")
    bench.build(a)
    assert bench.reporter.told == [("started", "a"), ("finished", "a"), ("close", "")]
    bench.reporter.told.clear()
    bench.build(a)
    assert bench.reporter.told == [("cached", "a"), ("close", "")]


def test_a_build_leaves_doit_s_database_nowhere(bench: Bench, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    bench.build(bench.step("a"))
    assert [path.name for path in tmp_path.iterdir()] == ["store"]


def _must_not_run(_job: Job) -> None:
    raise AssertionError("it is there already")
