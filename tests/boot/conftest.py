"""What the real-machine tests share.

The image and kernel are built once a session, in the host's own namespace (that is where package mirrors are reached);
everything that boots, bridges or translates addresses happens inside network namespaces.
"""

from __future__ import annotations

import fcntl
import os
import shutil
import subprocess
from collections.abc import Iterator
from pathlib import Path
from typing import IO

import pytest

from tests.boot.host import DOIT, REPOSITORY, Home, Host, link_home, namespaces

_BUILD_S = 900


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    for item in items:
        if Path(__file__).parent in Path(str(item.path)).parents:
            item.add_marker(pytest.mark.slow)
            # The first of them waits for the image, whose packages come from a mirror that may be slow.
            item.add_marker(pytest.mark.timeout(_BUILD_S + 600))
            if os.geteuid() != 0:
                item.add_marker(pytest.mark.skip(reason="network namespaces need root"))


@pytest.fixture(scope="session")
def built(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Home]:
    """A home with the default image and kernel, built by the plain `doit` command.

    They are built once for all processes of a run, each of which then has a home of its own with hard links to them.
    BANGER_TEST_HOME names a folder to keep them in between runs.
    """
    base = tmp_path_factory.getbasetemp()
    shared = base.parent if "PYTEST_XDIST_WORKER" in os.environ else base
    kept = os.environ.get("BANGER_TEST_HOME")
    root = Path(kept) if kept else shared / "built"
    root.mkdir(parents=True, exist_ok=True)
    home = Home(base / "home")
    with (shared / "users").open("a") as users:
        # Held by all that use it: the last to go cleans up.
        fcntl.flock(users, fcntl.LOCK_SH)
        try:
            _build(Home(root))
            link_home(Home(root), home)
            yield home
        finally:
            for each in (home.runtime, home.root):
                shutil.rmtree(each, ignore_errors=True)
            if not kept:
                _remove_after_the_last(users, root)


def _build(home: Home) -> None:
    """Whoever comes second waits for the first, and finds everything there."""
    done = subprocess.run(
        [DOIT, "image", "kernel"],
        cwd=REPOSITORY,
        env=home.environment,
        capture_output=True,
        timeout=_BUILD_S,
        check=False,
    )
    shutil.rmtree(home.runtime)
    assert done.returncode == 0, done.stdout.decode() + done.stderr.decode()


def _remove_after_the_last(users: IO[str], root: Path) -> None:
    try:
        fcntl.flock(users, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        return
    shutil.rmtree(root, ignore_errors=True)


@pytest.fixture(scope="module")
def host(built: Home) -> Iterator[Host]:
    """A namespace that stands for the host, joined to one that stands for the outside."""
    with namespaces() as (inner, outer):
        yield Host(inner, outer, built)


@pytest.fixture
def clean_home(built: Home, tmp_path: Path) -> Iterator[Home]:
    """Another user's folders, sharing the built store and names by hard link: nothing is built again."""
    home = Home(tmp_path)
    link_home(built, home)
    yield home
    shutil.rmtree(home.runtime, ignore_errors=True)


@pytest.fixture
def empty_home(tmp_path: Path) -> Iterator[Home]:
    home = Home(tmp_path)
    yield home
    shutil.rmtree(home.runtime, ignore_errors=True)
