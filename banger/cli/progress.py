"""What a build tells, for three kinds of readers: a terminal, a log, a program."""

from __future__ import annotations

import json
import sys
import threading
import time
from typing import Any

from banger.cli.output import paint, printable_lines, say, want_colour
from banger.errors import BangerError
from banger.run import printable
from banger.sizes import format_bytes
from pipelines.reporter import Reporter, Silent


def make_reporter(*, quiet: bool, as_json: bool) -> Reporter:
    if as_json:
        return JsonLines()
    if quiet:
        return Silent()
    return Terminal() if sys.stderr.isatty() and want_colour() else Lines()


def may_ask(step: str) -> bool:
    """Whether the step may ask for a password on the terminal (sudo, for a machine's network): a live view wipes it."""
    return step.startswith("vm:")


class Lines:
    """One line a step; the steps that were found ready share one. The end says how many the remote cache spared."""

    def __init__(self) -> None:
        self._guard = threading.RLock()
        self._cached: list[str] = []
        self._fetched: list[int] = []
        self._told = 0

    def planned(self, steps: list[str]) -> None: ...

    def cached(self, step: str) -> None:
        with self._guard:
            self._cached.append(step)

    def started(self, step: str) -> None:
        self._line("start", step)

    def waiting(self, step: str, on_what: str) -> None:
        self._line("wait", f"{step}: {on_what}")

    def progress(self, step: str, what: str, done: int | None = None, total: int | None = None) -> None: ...

    def finished(self, step: str, duration_s: float, size_bytes: int) -> None:
        size = f"  {format_bytes(size_bytes)}" if size_bytes else ""
        self._line("done", f"{step}  {duration_s:.1f} s{size}")

    def fetching(self, step: str) -> None:
        self._line("fetch", step)

    def fetched(self, step: str, duration_s: float, size_bytes: int) -> None:
        with self._guard:
            self._fetched.append(size_bytes)
            self._line("fetched", f"{step}  {duration_s:.1f} s  {format_bytes(size_bytes)}")

    def failed(self, step: str, error: BangerError) -> None:
        self._line("failed", step)

    def note(self, text: str) -> None:
        self._line("note", text)

    def close(self) -> None:
        with self._guard:
            self._flush()
            if len(self._fetched) > self._told:
                self._told = len(self._fetched)
                steps = f"{self._told} step{'s' if self._told > 1 else ''}"
                self._print("remote", f"{steps} came from the remote cache, {format_bytes(sum(self._fetched))}")

    def _flush(self) -> None:
        with self._guard:
            if self._cached:
                cached, self._cached = self._cached, []
                self._print("cached", ", ".join(cached))

    def _line(self, verb: str, text: str) -> None:
        with self._guard:
            self._flush()
            self._print(verb, text)

    def _print(self, verb: str, text: str) -> None:
        say(f"{verb:<7} {text}")


class Terminal(Lines):
    """Lines for what is over, and below them a live view of what runs (rich is only loaded when something runs).

    A step that may ask something is not in the view, and while nothing else runs there is no view.
    """

    _COLOURS = {
        "done": "green",
        "cached": "green",
        "fetched": "green",
        "failed": "red",
        "note": "yellow",
        "wait": "yellow",
    }

    def __init__(self) -> None:
        super().__init__()
        self._running: dict[str, tuple[float, str]] = {}
        self._live: Any = None

    def started(self, step: str) -> None:
        with self._guard:
            self._flush()
            if not may_ask(step):
                self._running[step] = (time.monotonic(), "")
            self._show()

    def progress(self, step: str, what: str, done: int | None = None, total: int | None = None) -> None:
        size = "" if done is None else f"  {format_bytes(done)}" + (f" of {format_bytes(total)}" if total else "")
        with self._guard:
            if step in self._running:
                self._running[step] = (self._running[step][0], what + size)

    def finished(self, step: str, duration_s: float, size_bytes: int) -> None:
        with self._guard:
            self._running.pop(step, None)
            super().finished(step, duration_s, size_bytes)
            self._show()

    def fetching(self, step: str) -> None:
        self.started(step)

    def fetched(self, step: str, duration_s: float, size_bytes: int) -> None:
        with self._guard:
            self._running.pop(step, None)
            super().fetched(step, duration_s, size_bytes)
            self._show()

    def failed(self, step: str, error: BangerError) -> None:
        with self._guard:
            self._running.pop(step, None)
            super().failed(step, error)
            self._show()

    def close(self) -> None:
        with self._guard:
            super().close()
            self._running.clear()
            self._show()

    def _print(self, verb: str, text: str) -> None:
        if self._live is not None:
            from rich.text import Text

            line = Text.assemble((f"{verb:<7}", self._COLOURS.get(verb, "")), " ", printable_lines(text))
            self._live.console.print(line, soft_wrap=True)
        else:
            say(text, before=paint(f"{verb:<7} ", fg=self._COLOURS.get(verb)))

    def _show(self) -> None:
        if self._running and self._live is None:
            from rich.console import Console
            from rich.live import Live

            self._live = Live(
                get_renderable=self._render, console=Console(stderr=True), transient=True, refresh_per_second=8
            )
            self._live.start()
        elif not self._running and self._live is not None:
            live, self._live = self._live, None
            live.stop()

    def _render(self) -> Any:
        from rich.spinner import Spinner
        from rich.table import Table
        from rich.text import Text

        # Copied, not locked: rich draws from a thread of its own and holds a lock that printing needs.
        table = Table.grid(padding=(0, 1))
        for step, (begin, what) in list(self._running.items()):
            seconds = f"{time.monotonic() - begin:4.0f} s"
            table.add_row(
                Spinner("dots"), Text(printable(step), style="bold"), Text(seconds), Text(printable(what), style="dim")
            )
        return table


class JsonLines:
    """One JSON object a line on stderr: {"event": …, "step": …, …}."""

    def __init__(self) -> None:
        self._guard = threading.Lock()

    def planned(self, steps: list[str]) -> None:
        self._write("planned", steps=steps)

    def cached(self, step: str) -> None:
        self._write("cached", step=step)

    def started(self, step: str) -> None:
        self._write("started", step=step)

    def waiting(self, step: str, on_what: str) -> None:
        self._write("waiting", step=step, on=on_what)

    def progress(self, step: str, what: str, done: int | None = None, total: int | None = None) -> None:
        # Bytes come by the megabyte: a reader of lines wants the stages.
        if done is None:
            self._write("progress", step=step, what=what)

    def finished(self, step: str, duration_s: float, size_bytes: int) -> None:
        self._write("finished", step=step, duration_s=round(duration_s, 3), size_bytes=size_bytes)

    def fetching(self, step: str) -> None:
        self._write("fetching", step=step)

    def fetched(self, step: str, duration_s: float, size_bytes: int) -> None:
        self._write("fetched", step=step, duration_s=round(duration_s, 3), size_bytes=size_bytes)

    def failed(self, step: str, error: BangerError) -> None:
        self._write("failed", step=step, reason=error.reason, message=error.message)

    def note(self, text: str) -> None:
        self._write("note", text=text)

    def close(self) -> None: ...

    def _write(self, event: str, **values: object) -> None:
        with self._guard:
            print(json.dumps({"event": event, **values}), file=sys.stderr, flush=True)
