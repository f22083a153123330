"""The `banger` command as it is installed, each time in a home of its own."""

from __future__ import annotations

import os
import subprocess
import sys
from dataclasses import dataclass, field
from pathlib import Path

import pytest

_BANGER = Path(sys.executable).with_name("banger")


@dataclass
class Cli:
    home: Path
    environment: dict[str, str] = field(default_factory=dict)

    def run(self, *words: str) -> subprocess.CompletedProcess[str]:
        return subprocess.run(
            [_BANGER, *words],
            env=self.variables(),
            cwd=self.home,
            capture_output=True,
            text=True,
            stdin=subprocess.DEVNULL,
            timeout=60,
        )

    def variables(self) -> dict[str, str]:
        own = {"HOME": str(self.home), "XDG_RUNTIME_DIR": str(self.home / "run"), "BANGER_DAEMON_AUTOSTART": "false"}
        return {"PATH": os.environ["PATH"], "LC_ALL": "C.UTF-8", **own, **self.environment}

    def configure(self, text: str) -> None:
        folder = self.home / ".config/banger"
        folder.mkdir(parents=True, exist_ok=True)
        (folder / "config.toml").write_text(text)

    def left(self) -> set[str]:
        """What is in the state folder and outlives a refusal: the database may, nothing else."""
        state = self.home / ".local/state/banger"
        found = {path.name for path in state.rglob("*")} if state.exists() else set()
        return found - {"banger.db", "banger.db-wal", "banger.db-shm"}


@pytest.fixture
def cli(tmp_path: Path) -> Cli:
    return Cli(tmp_path)
