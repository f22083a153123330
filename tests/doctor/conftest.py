"""`banger doctor` as it is installed, on a host that lacks what a test takes away: in namespaces of its own."""

from __future__ import annotations

import json
import os
import shlex
import subprocess
import sys
import tempfile
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path

import pytest

from banger.paths import Paths
from tests.ordinary_user import UID, become_user

_BANGER = Path(sys.executable).with_name("banger")


@dataclass
class Lab:
    """`prepare` is what root does in the namespaces before; with `sudoers` it is an ordinary user who asks."""

    home: Path
    folder: Path
    environment: dict[str, str] = field(default_factory=dict)
    prepare: list[str] = field(default_factory=list)
    sudoers: str | None = None

    @property
    def paths(self) -> Paths:
        return Paths.from_environment(self.variables())

    def variables(self) -> dict[str, str]:
        own = {"HOME": str(self.home), "XDG_RUNTIME_DIR": str(self.home / "run")}
        return {"PATH": os.environ["PATH"], "LC_ALL": "C.UTF-8", **own, **self.environment}

    def configure(self, text: str) -> None:
        path = self.paths.config / "config.toml"
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(text)

    def hide(self, path: str | Path) -> None:
        """As if it were not installed: what is there cannot be executed, and is no library."""
        self.prepare.append(f"mount --bind /dev/null {path}")

    def start(self, *argv: object, until: str) -> None:
        """A program that runs beside what is asked, and ends with it: it is told when its parent, the shell, does."""
        beside = shlex.join(["setpriv", "--pdeathsig", "KILL", *self._changed(), *map(str, argv)])
        self.prepare += [f"{beside} >{self.home}/said 2>&1 &", f"until {until}; do sleep 0.05; done"]

    def start_daemon(self) -> None:
        """Until it serves names, or says why it cannot."""
        status = shlex.join([*self._changed(), str(_BANGER), "daemon", "status", "--json"])
        answer = """'"serves": true|"trouble": "[^"]'"""
        self.start(_BANGER.with_name("bangerd"), until=f"{status} 2>&1 | grep -qE {answer}")

    def _changed(self) -> list[str]:
        return ["env", "-i", *(f"{name}={value}" for name, value in self.variables().items())]

    def run(self, *argv: object) -> subprocess.CompletedProcess[str]:
        script = "\n".join(["ip link set lo up", *self.prepare, 'exec "$@"'])
        user = [] if self.sudoers is None else become_user(self.folder, sudoers=self.sudoers)
        # What is not on the PATH of the test is on that of its scaffold.
        words = [*user, *self._changed(), *map(str, argv)]
        return subprocess.run(
            ["unshare", "-mn", "--propagation", "private", "sh", "-ec", script, "sh", *words],
            capture_output=True,
            text=True,
            stdin=subprocess.DEVNULL,
            timeout=60,
        )

    def banger(self, *words: str) -> subprocess.CompletedProcess[str]:
        return self.run(_BANGER, *words)

    def examine(self, *before: object) -> dict[str, tuple[str, str, str]]:
        """(status, detail, fix) of each check; `before` are words that run the command after them."""
        done = self.run(*before, _BANGER, "doctor", "--json")
        assert done.stderr == ""
        rows = {row["check"]: (row["status"], row["detail"], row["fix"]) for row in json.loads(done.stdout)}
        assert done.returncode == (1 if any(row[0] == "FAIL" for row in rows.values()) else 0)
        return rows


@pytest.fixture
def lab() -> Iterator[Lab]:
    if os.geteuid() != 0:
        pytest.skip("namespaces need root")
    # The folders of pytest are for root alone.
    with tempfile.TemporaryDirectory(prefix="banger-lab-", dir="/var/tmp") as name:
        root = Path(name)
        root.chmod(0o711)
        (root / "home").mkdir()
        (root / "folder").mkdir()
        yield Lab(root / "home", root / "folder")


@pytest.fixture
def user(lab: Lab) -> Lab:
    """An ordinary user, whom sudo lets do everything; their home is theirs."""
    os.chown(lab.home, UID, UID)
    lab.sudoers = "lab ALL=(root) NOPASSWD: ALL"
    return lab
