"""The graph: steps as doit tasks over the store.

doit decides the order and runs independent steps side by side; whether a step is up to date is decided here, by the
store's records alone (doit's own database stays in memory and is thrown away). What this adds to doit:

* A step is not run for the sake of bytes that nobody needs: with the final artifact there, an intermediate one that
  was collected stays collected. Its record still tells its digest, and so the keys of what comes after it.
* One builder per key, across processes and threads; who waits says for whom, and then finds the finished record.
* What is not here is looked for in the remote cache, and taken from there instead of being made; of what only leads to
  it, the record will do. When the cache fails in the middle, what it was to spare us is made after all.
* Ctrl-C ends all child processes, waits for the running jobs to clean up, and raises KeyboardInterrupt.
"""

from __future__ import annotations

import threading
import time
from collections.abc import Callable, Mapping, Sequence
from contextlib import AbstractContextManager
from typing import TYPE_CHECKING, Any

from banger.errors import BangerError, Reason
from banger.run import cancel_all, is_cancelled, resume, shielded
from cache import Digest, Holder, Object, Record, Store, key_of
from cache.trace import Point, reach
from pipelines.doit_parts import DoitReporter, WakefulQueue, format_task_name
from pipelines.job import Job
from pipelines.reporter import Reporter
from pipelines.step import Artifact, Effect, Result, Step, dependencies, walk

if TYPE_CHECKING:
    from pipelines.remote import RemoteCache

_PARALLEL_JOBS = 4
_CLEANUP_S = 1.5
# How old an answer of the outside may be that somebody else got, when one is asked for anew.
_FRESH_S = 24 * 3600
# By how much their clock may be ahead of ours.
_CLOCK_S = 300


class Graph:
    """The state of one run: which steps there are, and what is known about each."""

    def __init__(
        self,
        store: Store,
        targets: Sequence[Step | Effect],
        reporter: Reporter,
        *,
        refresh: bool = False,
        remote: RemoteCache | None = None,
    ):
        """With `refresh`, steps that resolve ask again, whatever is recorded here.

        What was never asked here is taken from the remote cache all the same, if it was asked there within a day.
        """
        self.store = store
        self.targets = targets
        self.reporter = reporter
        self.remote = remote
        self.nodes = list(walk(targets))
        self.errors: list[BaseException] = []
        self._consumers: dict[str, list[Step | Effect]] = {node.name: [] for node in self.nodes}
        for node in self.nodes:
            for needed in dependencies(node):
                self._consumers[needed.name].append(node)
        self._stale = {node.name for node in self.nodes if refresh and isinstance(node, Step) and node.resolves}
        # Only what was found is remembered, with its key: a miss may become a hit while others build.
        self._known: dict[str, tuple[Digest, Record]] = {}
        self._running: dict[threading.Event, Step | Effect] = {}
        self._guard = threading.Lock()

    # What is known

    def key(self, step: Step) -> Digest | None:
        """The step's key; None while the digest of an input is not known yet."""
        known = self._known.get(step.name)
        if known is not None:
            return known[0]
        digests: dict[str, Digest] = {}
        for name, source in step.inputs.items():
            if isinstance(source, Artifact):
                found = self.record(source.step)
                if found is None:
                    return None
                digests[name] = found.outputs[source.name].digest
            else:
                digests[name] = source
        return key_of(step.kind, step.version, step.parameters, digests)

    def record(self, step: Step) -> Record | None:
        """What the step gave when it last ran with these inputs; says nothing of whether the bytes are there."""
        if step.name not in self._known:
            key = self.key(step)
            record = None if key is None else self._find_record(step, key)
            if key is None or record is None or set(record.outputs) != set(step.outputs):
                return None
            self._known[step.name] = (key, record)
            if self.remote is not None and self.store.find_record(key) is None and self.store.has_outputs(record):
                self._put_records(step)
        return self._known[step.name][1]

    def _find_record(self, step: Step, key: Digest) -> Record | None:
        record = self.store.find_record(key)
        if record is not None or self.remote is None:
            return None if step.name in self._stale else record
        record = self.remote.find_record(key)
        if record is None or (step.name in self._stale and not -_CLOCK_S <= time.time() - record.made_at <= _FRESH_S):
            return None
        return record

    def is_present(self, step: Step) -> bool:
        """The step has run and all of its outputs are in the store."""
        record = self.record(step)
        return record is not None and self.store.has_outputs(record)

    def is_current(self, node: Step | Effect) -> bool:
        """Nothing to do: the result is there, or its digest is known and nobody needs the bytes."""
        return self._is_current(node, {})

    def _is_current(self, node: Step | Effect, seen: dict[str, bool]) -> bool:
        """`seen` is what was found on the way: a layer is read by all that come after it, and each by the next."""
        if node.name not in seen:
            seen[node.name] = self._look_at(node, seen)
        return seen[node.name]

    def _look_at(self, node: Step | Effect, seen: dict[str, bool]) -> bool:
        if isinstance(node, Effect):
            digests = self._effect_digests(node)
            return digests is not None and node.is_done(digests)
        if self.record(node) is None:
            return False
        return self.is_present(node) or (
            node not in self.targets
            and bool(self._consumers[node.name])
            and not any(self._will_read(user, seen) for user in self._consumers[node.name])
        )

    def _will_read(self, user: Step | Effect, seen: dict[str, bool]) -> bool:
        return isinstance(user, Effect) or not (self._is_current(user, seen) or self._find_missing(user))

    def _find_missing(self, step: Step) -> list[str]:
        """The outputs that can be had from the remote cache instead of running the step."""
        if self.remote is None:
            return []
        from pipelines.remote import find_missing  # with all that speaks to registries

        record, key = self.record(step), self.key(step)
        return [] if record is None or key is None else find_missing(self.remote, self.store, key, record)

    def results(self, effect: Effect) -> dict[str, Result]:
        """The inputs of an effect, all of them finished."""
        found: dict[str, Result] = {}
        for name, artifact in effect.inputs.items():
            record, key = self.record(artifact.step), self.key(artifact.step)
            assert record is not None, f"{artifact.step.name} is not built"
            assert key is not None
            found[name] = Result(record.outputs[artifact.name], key, record)
        return found

    def _effect_digests(self, effect: Effect) -> dict[str, Digest] | None:
        digests = {}
        for name, artifact in effect.inputs.items():
            if not self.is_present(artifact.step):
                return None
            record = self.record(artifact.step)
            assert record is not None
            digests[name] = record.outputs[artifact.name].digest
        return digests

    def _is_all_current(self) -> bool:
        """Every digest is known, and the ends are there: then nobody reads what is between, and doit is not needed."""
        ends = {node.name for node in self.targets}
        return all(isinstance(node, Effect) or self.record(node) is not None for node in self.nodes) and all(
            self.is_current(node) for node in self.nodes if isinstance(node, Effect) or node.name in ends
        )

    # What is done

    def build(self) -> None:
        """Run what is missing. Raises the first error of a step, or KeyboardInterrupt."""
        self.reporter.planned([node.name for node in self.nodes])
        if self._is_all_current():
            for node in self.nodes:
                self.reporter.cached(node.name)
            return
        from doit.control import TaskControl
        from doit.dependency import Dependency, SqliteDB
        from doit.runner import SUCCESS, MThreadRunner
        from doit.task import Stream, dict_to_task

        control = TaskControl([dict_to_task(task) for task in self.tasks()])
        # Each once: after one that comes again doit forgets the rest.
        control.process(list(dict.fromkeys(format_task_name(target.name) for target in self.targets)))
        runner = MThreadRunner(
            Dependency(SqliteDB, ":memory:"),
            DoitReporter(self.reporter),
            stream=Stream(0),
            num_process=_PARALLEL_JOBS,
        )
        runner.Queue = WakefulQueue
        try:
            status = runner.run_all(control.task_dispatcher())
        except BaseException:
            self.cancel()
            raise
        if self.errors:
            # What ran beside the one that failed has finished by now, and is kept.
            raise self.errors[0]
        assert status == SUCCESS, f"doit ended with {status}"

    def cancel(self) -> None:
        """End what still runs and wait until it has cleaned up after itself.

        A step gets a moment: what it leaves is swept up later. An effect is short, and done or undone as a whole.
        """
        with self._guard:
            running = dict(self._running)
        if not running:
            return
        cancel_all()
        deadline = time.monotonic() + _CLEANUP_S
        for done, node in running.items():
            done.wait(None if isinstance(node, Effect) else max(0.0, deadline - time.monotonic()))
        resume()

    def tasks(self) -> list[dict[str, Any]]:
        """The nodes as doit task dictionaries, for `build` and for the plain `doit` command."""
        return [
            {
                "name": format_task_name(node.name),
                "doc": f"{type(node).__name__.lower()} {node.name}",
                "actions": [(self._run, [node])],
                "uptodate": [self._uptodate(node)],
                "task_dep": [format_task_name(needed.name) for needed in dependencies(node)],
                # doit's capture swaps sys.stdout, which breaks under threads.
                "io": {"capture": False},
            }
            for node in self.nodes
        ]

    def _uptodate(self, node: Step | Effect) -> Callable[[], bool]:
        return lambda: self.is_current(node)

    def _run(self, node: Step | Effect) -> Any:
        """doit's action: errors are kept here, since doit would turn them into text (which its own command shows)."""
        from doit.exceptions import TaskFailed

        done = threading.Event()
        with self._guard:
            self._running[done] = node
        try:
            if is_cancelled():
                raise KeyboardInterrupt
            if isinstance(node, Effect):
                self._run_effect(node)
            else:
                self._run_step(node)
        except BangerError as error:
            self.reporter.failed(node.name, error)
            self.errors.append(error)
            return TaskFailed("\n".join(filter(None, (error.message, error.hint))))
        except BaseException as error:  # noqa: BLE001 - raised again by build(), in the main thread
            self.errors.append(error)
            return False
        finally:
            done.set()
            with self._guard:
                self._running.pop(done)
        return True

    def _run_effect(self, effect: Effect) -> None:
        self.reporter.started(effect.name)
        begin = time.monotonic()
        with shielded():
            effect.act(self.results(effect))
        self.reporter.finished(effect.name, time.monotonic() - begin, 0)

    def _run_step(self, step: Step) -> None:
        if self._fetch(step):
            return
        for needed in dependencies(step):
            # What was left out since the remote cache had what comes after it.
            if isinstance(needed, Step) and not self.is_present(needed):
                self._run_step(needed)
        key = self.key(step)
        assert key is not None, f"{step.name} ran before its inputs"
        with self._lock(step, key):
            if self.is_present(step):
                self.reporter.cached(step.name)
                return
            self.reporter.started(step.name)
            reach(Point.STEP_STARTED)
            begin = time.time()
            inputs = self._input_objects(step)
            with self.store.temporary_dir() as directory:
                job = Job(step, self.store, inputs, directory, self.reporter)
                step.build(job)
                outputs = job.finish()
            reach(Point.STEP_BUILT)
            record = Record(
                step=step.kind,
                version=step.version,
                parameters=step.parameters,
                inputs={name: made.digest for name, made in inputs.items()},
                outputs=outputs,
                made_at=begin,
                duration_s=time.time() - begin,
            )
            self.store.put_record(key, record)
            reach(Point.STEP_RECORDED)
            if step.name in self._known and self._known[step.name][1].outputs != outputs:
                self._forget_followers(step)
            self._known[step.name] = (key, record)
            self._stale.discard(step.name)
        self.reporter.finished(step.name, record.duration_s, sum(made.size_bytes for made in outputs.values()))

    def _fetch(self, step: Step) -> bool:
        """Take the step's result from the remote cache; False when it has to be made."""
        record, key = self.record(step), self.key(step)
        if record is None or key is None or not self._find_missing(step):
            return False
        from pipelines.remote import fetch_missing

        with self._lock(step, key):
            if not fetch_missing(self.remote, self.store, self.reporter, step.name, key, record):
                return False
            self._put_records(step)
        return True

    def _put_records(self, step: Step) -> None:
        """Keep what the remote cache told of a step whose bytes are here, and of those that lead to it."""
        for node in walk([step]):
            assert isinstance(node, Step)
            record, key = self.record(node), self.key(node)
            if record is not None and key is not None and self.store.find_record(key) is None:
                self.store.put_record(key, record)

    def _forget_followers(self, step: Step) -> None:
        """What follows from what the step gave elsewhere need not follow from what it gave here."""
        for user in self._consumers[step.name]:
            if isinstance(user, Step) and user.name in self._known and not self.is_present(user):
                del self._known[user.name]
                self._forget_followers(user)

    def _lock(self, step: Step, key: Digest) -> AbstractContextManager[None]:
        def tell(holder: Holder) -> None:
            self.reporter.waiting(step.name, describe_holder(holder))

        return self.store.lock(key, step.name, tell, is_cancelled)

    def _input_objects(self, step: Step) -> Mapping[str, Object]:
        inputs: dict[str, Object] = {}
        for name, source in step.inputs.items():
            assert isinstance(source, Artifact), f"{step.name} is recorded, not built"
            record = self.record(source.step)
            assert record is not None
            inputs[name] = record.outputs[source.name]
        return inputs


def describe_holder(holder: Holder) -> str:
    """Who is at what others wait for, as what, and since when: one that is stuck can be looked at."""
    who = "another process" if holder.pid is None else f"process {holder.pid}"
    since = "" if holder.since is None else time.strftime(", since %H:%M:%S", time.localtime(holder.since))
    return f"{who} is at it{f' ({holder.what})' if holder.what else ''}{since}"


def build(
    store: Store,
    targets: Sequence[Step | Effect],
    reporter: Reporter,
    *,
    refresh: bool = False,
    remote: RemoteCache | None = None,
) -> Graph:
    """Build the targets. When the outside moved on since it was last resolved, resolve again, once."""
    graph = Graph(store, targets, reporter, refresh=refresh, remote=remote)
    try:
        graph.build()
    except BangerError as error:
        if error.reason is not Reason.CHANGED or refresh:
            raise
        reporter.note(f"{error.message}: resolving again")
        graph = Graph(store, targets, reporter, refresh=True, remote=remote)
        graph.build()
    finally:
        reporter.close()
    return graph
