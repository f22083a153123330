"""Real stores in real folders, and real other processes that share or break them."""

from __future__ import annotations

import shutil
import subprocess
import sys
import tempfile
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from cache import Store

Start = Callable[..., subprocess.Popen[str]]


@pytest.fixture
def store(tmp_path: Path) -> Store:
    return Store.open(tmp_path / "store")


@pytest.fixture
def start() -> Iterator[Start]:
    """Start a Python program of its own. It says "ready" on a line of its own, and hears us on its standard input."""
    running: list[subprocess.Popen[str]] = []

    def start_one(program: str, *arguments: object, before: tuple[str, ...] = ()) -> subprocess.Popen[str]:
        process = subprocess.Popen(
            [*before, sys.executable, "-I", "-c", program, *map(str, arguments)],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
        )
        running.append(process)
        return process

    yield start_one
    for process in running:
        if process.poll() is None:
            process.kill()
        process.communicate()


@pytest.fixture
def other_filesystem(tmp_path: Path) -> Iterator[Path]:
    """A folder on /dev/shm, which is a tmpfs and not where the store is."""
    folder = Path(tempfile.mkdtemp(dir="/dev/shm"))
    try:
        assert folder.stat().st_dev != tmp_path.stat().st_dev
        yield folder
    finally:
        shutil.rmtree(folder)
