"""What a build tells while it runs: a small interface that the progress display and `--json` events hang on.

Methods are called from several threads; an implementation guards its own state.
"""

from __future__ import annotations

from typing import Protocol

from banger.errors import BangerError


class Reporter(Protocol):
    def planned(self, steps: list[str]) -> None:
        """The names of all steps of this run, in an order in which they can be done."""

    def cached(self, step: str) -> None:
        """Nothing to do: the result is in the store."""

    def started(self, step: str) -> None: ...

    def waiting(self, step: str, on_what: str) -> None:
        """Somebody else is making the same thing at this moment."""

    def progress(self, step: str, what: str, done: int | None = None, total: int | None = None) -> None:
        """`done` and `total` are bytes."""

    def finished(self, step: str, duration_s: float, size_bytes: int) -> None:
        """`size_bytes` is zero for what leaves nothing in the store."""

    def fetching(self, step: str) -> None:
        """Its result is being taken from the remote cache; followed by `fetched`, or by `started` when that fails."""

    def fetched(self, step: str, duration_s: float, size_bytes: int) -> None:
        """The result came from the remote cache: nothing was run."""

    def failed(self, step: str, error: BangerError) -> None: ...

    def note(self, text: str) -> None:
        """One line a user should read."""

    def close(self) -> None:
        """The build is over, well or not."""


class Silent:
    """Says nothing."""

    def planned(self, steps: list[str]) -> None: ...
    def cached(self, step: str) -> None: ...
    def started(self, step: str) -> None: ...
    def waiting(self, step: str, on_what: str) -> None: ...
    def progress(self, step: str, what: str, done: int | None = None, total: int | None = None) -> None: ...
    def finished(self, step: str, duration_s: float, size_bytes: int) -> None: ...
    def fetching(self, step: str) -> None: ...
    def fetched(self, step: str, duration_s: float, size_bytes: int) -> None: ...
    def failed(self, step: str, error: BangerError) -> None: ...
    def note(self, text: str) -> None: ...
    def close(self) -> None: ...
