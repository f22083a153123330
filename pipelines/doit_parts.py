"""What the graph hands to doit in the place of its own: names, a queue and a reporter."""

from __future__ import annotations

import queue
from typing import Any
from urllib.parse import unquote

from pipelines.reporter import Reporter

# How often a wait looks up, in seconds.
_LOOK_UP_S = 0.2


def format_task_name(name: str) -> str:
    """doit reads `=` as an assignment and `*` as a pattern, and has no names with them."""
    return name.replace("%", "%25").replace("=", "%3D").replace("*", "%2A")


class WakefulQueue(queue.Queue[Any]):
    """doit's queue between its threads, whose `get` looks up now and then.

    A signal that comes in the instant before a wait without end is only handled after it (so it is in CPython): a
    Ctrl-C that waits for a step of an hour is none.
    """

    def get(self, block: bool = True, timeout: float | None = None) -> Any:
        while True:
            try:
                return super().get(timeout=_LOOK_UP_S)
            except queue.Empty:
                continue


class DoitReporter:
    """doit's reporter interface, of which only `up to date` is of use: the rest is told by the graph itself."""

    def __init__(self, reporter: Reporter) -> None:
        self._reporter = reporter

    def skip_uptodate(self, task: Any) -> None:
        self._reporter.cached(unquote(task.name))

    def add_failure(self, task: Any, fail: Any) -> None:
        """Failures of ours were told already; one of doit's own is a bug that must not pass silently."""

    def runtime_error(self, msg: str) -> None:
        raise AssertionError(msg)

    def cleanup_error(self, exception: Any) -> None:
        raise exception

    def initialize(self, tasks: Any, selected_tasks: Any) -> None: ...
    def get_status(self, task: Any) -> None: ...
    def execute_task(self, task: Any) -> None: ...
    def add_success(self, task: Any) -> None: ...
    def skip_ignore(self, task: Any) -> None: ...
    def teardown_task(self, task: Any) -> None: ...
    def complete_run(self) -> None: ...
