"""What the real-machine tests share.

The image and kernel are built once a session, in the host's own namespace (that is where package mirrors are reached);
everything that boots, bridges or translates addresses happens inside network namespaces.
"""

from __future__ import annotations

import os
import shutil
import subprocess
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.boot.host import DOIT, REPOSITORY, Home, Host, link_tree, namespaces


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    for item in items:
        if Path(__file__).parent in Path(str(item.path)).parents:
            item.add_marker(pytest.mark.slow)
            if os.geteuid() != 0:
                item.add_marker(pytest.mark.skip(reason="network namespaces need root"))


@pytest.fixture(scope="session")
def built(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Home]:
    """A home with the default image and kernel, built by the plain `doit` command.

    BANGER_TEST_HOME names a folder to keep it in between runs.
    """
    kept = os.environ.get("BANGER_TEST_HOME")
    root = Path(kept) if kept else tmp_path_factory.mktemp("home")
    root.mkdir(parents=True, exist_ok=True)
    home = Home(root)
    try:
        done = subprocess.run(
            [DOIT, "image", "kernel"],
            cwd=REPOSITORY,
            env=home.environment,
            capture_output=True,
            timeout=900,
            check=False,
        )
        assert done.returncode == 0, done.stdout.decode() + done.stderr.decode()
        yield home
    finally:
        shutil.rmtree(home.runtime, ignore_errors=True)
        if not kept:
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
    link_tree(built.store, home.store)
    for kind in ("images", "kernels"):
        link_tree(built.state / kind, home.state / kind)
    yield home
    shutil.rmtree(home.runtime, ignore_errors=True)


@pytest.fixture
def empty_home(tmp_path: Path) -> Iterator[Home]:
    home = Home(tmp_path)
    yield home
    shutil.rmtree(home.runtime, ignore_errors=True)
