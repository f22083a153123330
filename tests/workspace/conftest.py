"""git with a home of its own for every test: nothing of whoever runs them counts."""

from __future__ import annotations

import os
from pathlib import Path

import pytest

from tests.workspace.repositories import CONFIG, Tree, make_project


@pytest.fixture(autouse=True)
def host_home(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """The home of the host's user, with their .gitconfig."""
    home = tmp_path / "host-home"
    home.mkdir()
    (home / ".gitconfig").write_text(CONFIG)
    for name in [*(name for name in os.environ if name.startswith("GIT_")), "XDG_CONFIG_HOME"]:
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setenv("HOME", str(home))
    monkeypatch.setenv("GIT_CONFIG_NOSYSTEM", "1")
    return home


@pytest.fixture
def project(tmp_path: Path) -> Tree:
    """A small project of one commit."""
    return make_project(tmp_path / "project")
