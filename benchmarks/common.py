"""What the benchmarks share: a home with the default image built, a namespace to boot in, and a way to say figures."""

from __future__ import annotations

import os
import platform
import statistics
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

sys.path.insert(0, str(Path(__file__).parents[1]))

from tests.boot.host import Home, Host, namespaces


@contextmanager
def host() -> Iterator[Host]:
    """The user's own cache and images (so run `make run` first), in a network namespace made for the occasion."""
    root = Path(os.environ.get("BANGER_TEST_HOME", str(Path.home())))
    home = Home(root)
    if "BANGER_TEST_HOME" not in os.environ:
        for variable, default in (("XDG_CACHE_HOME", ".cache"), ("XDG_STATE_HOME", ".local/state")):
            home.environment[variable] = os.environ.get(variable, str(root / default))
    with namespaces() as (inner, outer):
        try:
            yield Host(inner, outer, home)
        finally:
            home.runtime.rmdir() if not any(home.runtime.iterdir()) else None


def describe(what: str, seconds: list[float]) -> float:
    """Print median, least and most; give the median."""
    middle = statistics.median(seconds)
    print(f"{what:<58} {middle:8.3f} s   ({min(seconds):.3f} to {max(seconds):.3f}, {len(seconds)} times)")
    return middle


def describe_machine() -> None:
    memory_gib = os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES") / 2**30
    print(f"{os.cpu_count()} cores, {memory_gib:.0f} GiB, {platform.platform()}, Python {platform.python_version()}")
