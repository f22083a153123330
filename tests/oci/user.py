"""Somebody who runs banger and doit with a home of their own."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path
from typing import Any

from banger.paths import Paths

BIN = Path(sys.executable).parent
REPOSITORY = Path(__file__).parents[2]


class User:
    """Somebody with a home, where nobody is logged in anywhere."""

    def __init__(self, home: Path) -> None:
        home.mkdir(exist_ok=True)
        self.environment = {"HOME": str(home), "XDG_RUNTIME_DIR": str(home / "run"), "PATH": os.environ["PATH"]}
        self.paths = Paths.from_environment(self.environment)

    def run(self, *words: str, stdin: bytes = b"") -> subprocess.CompletedProcess[bytes]:
        return subprocess.run(
            [*words], env=self.environment, cwd=REPOSITORY, input=stdin, capture_output=True, timeout=60
        )

    def banger(self, *words: str, stdin: bytes = b"") -> str:
        done = self.run(str(BIN / "banger"), *words, stdin=stdin)
        assert done.returncode == 0, done.stderr.decode()
        self.said = done.stderr.decode()
        return done.stdout.decode()

    def refusal(self, *words: str) -> dict[str, str]:
        done = self.run(str(BIN / "banger"), *words, "--json")
        assert done.returncode == 1, done.stdout
        assert done.stdout == b""
        error: dict[str, str] = json.loads(done.stderr.splitlines()[-1])["error"]
        return error

    def show(self, name: str) -> dict[str, Any]:
        found: dict[str, Any] = json.loads(self.banger("image", "show", name))
        return found
