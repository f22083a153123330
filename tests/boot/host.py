"""A user of banger with folders of its own, and a host for machines: a network namespace, with an outside."""

from __future__ import annotations

import json
import os
import subprocess
import sys
import uuid
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

REPOSITORY = Path(__file__).parents[2]
BANGER = str(Path(sys.executable).parent / "banger")
DOIT = str(Path(sys.executable).parent / "doit")
OUTSIDE_ADDRESS = "198.51.100.1"
HOST_ADDRESS = "198.51.100.2"
TIMEOUT_S = 400


@dataclass
class Home:
    """The folders of one user of banger, apart from everybody else's."""

    root: Path
    environment: dict[str, str] = field(default_factory=dict)

    def __post_init__(self) -> None:
        runtime = Path("/run") / f"bt-{uuid.uuid4().hex[:8]}"
        runtime.mkdir(mode=0o700)
        self.runtime = runtime
        self.environment = {
            **os.environ,
            "HOME": str(self.root),
            "XDG_CACHE_HOME": str(self.root / "cache"),
            "XDG_STATE_HOME": str(self.root / "state"),
            "XDG_CONFIG_HOME": str(self.root / "config"),
            "XDG_RUNTIME_DIR": str(runtime),
            # npm's settings, which say where its registry is, are the user's.
            "NPM_CONFIG_USERCONFIG": str(Path.home() / ".npmrc"),
            "NO_COLOR": "1",
            # Those that want one start it.
            "BANGER_DAEMON_AUTOSTART": "false",
        }

    @property
    def store(self) -> Path:
        return Path(self.environment["XDG_CACHE_HOME"]) / "banger"

    @property
    def state(self) -> Path:
        return Path(self.environment["XDG_STATE_HOME"]) / "banger"

    def manifest(self, kind: str, name: str) -> dict[str, Any]:
        found: dict[str, Any] = json.loads((self.state / kind / name / "manifest.json").read_text())
        return found


@dataclass
class Host:
    """Runs banger inside the namespace, as `home`."""

    namespace: str
    outside: str
    home: Home

    def argv(self, *words: str) -> list[str]:
        return ["ip", "netns", "exec", self.namespace, BANGER, *words]

    def banger(
        self,
        *words: str,
        stdin: bytes | None = None,
        environment: dict[str, str] | None = None,
        home: Home | None = None,
    ) -> subprocess.CompletedProcess[bytes]:
        return subprocess.run(
            self.argv(*words),
            input=stdin,
            stdin=subprocess.DEVNULL if stdin is None else None,
            capture_output=True,
            env={**(home or self.home).environment, **(environment or {})},
            timeout=TIMEOUT_S,
            check=False,
        )

    def start(self, *words: str, home: Home | None = None, **options: Any) -> subprocess.Popen[bytes]:
        return subprocess.Popen(
            self.argv(*words),
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            env=(home or self.home).environment,
            **options,
        )

    def succeed(self, *words: str, stdin: bytes | None = None, home: Home | None = None) -> bytes:
        done = self.banger(*words, stdin=stdin, home=home)
        assert done.returncode == 0, done.stderr.decode()
        return done.stdout

    def machines(self, home: Home | None = None) -> list[dict[str, Any]]:
        found: list[dict[str, Any]] = json.loads(self.succeed("vm", "list", "--all", "--json", home=home))
        return found

    def inside(self, *words: str) -> str:
        """A command in the host's namespace."""
        return run("ip", "netns", "exec", self.namespace, *words)

    def taps(self) -> list[str]:
        links = json.loads(self.inside("ip", "-json", "link"))
        return [link["ifname"] for link in links if link["ifname"].startswith("bgr")]

    def monitors(self, home: Home | None = None) -> list[int]:
        """Monitors whose command line names a folder of this home."""
        return processes_with(str((home or self.home).root))

    def assert_nothing_left(self, home: Home | None = None) -> None:
        """No record, process, TAP, socket, disk or temporary file."""
        home = home or self.home
        assert self.machines(home) == []
        assert self.monitors(home) == []
        assert self.taps() == []
        assert list((home.state / "vms").glob("*")) == []
        # A lock stays: to remove it would let two have it.
        assert [path.name for path in (home.runtime / "banger").glob("*") if path.name != "bangerd.lock"] == []
        assert list((home.store / "tmp").iterdir()) == []


def run(*words: str) -> str:
    return subprocess.run(words, check=True, capture_output=True, text=True, timeout=60).stdout


def processes_with(text: str) -> list[int]:
    """Processes that have a text in their command line, but for banger itself."""
    found = []
    for path in Path("/proc").glob("[0-9]*/cmdline"):
        try:
            words = path.read_bytes().split(b"\0")
        except (FileNotFoundError, ProcessLookupError):
            continue
        if any(text.encode() in word for word in words) and int(path.parent.name) != os.getpid():
            found.append(int(path.parent.name))
    return found


class namespaces:
    def __enter__(self) -> tuple[str, str]:
        token = uuid.uuid4().hex[:6]
        self.names = (f"bth-{token}", f"bto-{token}")
        inner, outer = self.names
        for name in self.names:
            run("ip", "netns", "add", name)
            run("ip", "-n", name, "link", "set", "lo", "up")
        run("ip", "link", "add", "out", "netns", inner, "type", "veth", "peer", "name", "in", "netns", outer)
        run("ip", "-n", inner, "addr", "add", f"{HOST_ADDRESS}/24", "dev", "out")
        run("ip", "-n", outer, "addr", "add", f"{OUTSIDE_ADDRESS}/24", "dev", "in")
        run("ip", "-n", inner, "link", "set", "out", "up")
        run("ip", "-n", outer, "link", "set", "in", "up")
        run("ip", "-n", inner, "route", "add", "default", "via", OUTSIDE_ADDRESS)
        return self.names

    def __exit__(self, *_error: object) -> None:
        for name in self.names:
            for pid in run("ip", "netns", "pids", name).split():
                subprocess.run(["kill", "-9", pid], check=False)
            run("ip", "netns", "del", name)


def link_tree(source: Path, destination: Path) -> None:
    destination.parent.mkdir(parents=True, exist_ok=True)
    run("cp", "--archive", "--link", str(source), str(destination))


def link_home(source: Home, destination: Home) -> None:
    """All that was built there is here too, by hard link; machines are not."""
    link_tree(source.store, destination.store)
    for kind in ("images", "kernels"):
        link_tree(source.state / kind, destination.state / kind)


def events(stderr: bytes) -> Sequence[dict[str, Any]]:
    """The JSON lines among what a run said on stderr."""
    return [json.loads(line) for line in stderr.decode().splitlines() if line.startswith("{")]
