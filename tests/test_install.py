"""`make install` and `make uninstall`, from a copy of the sources into folders of their own."""

from __future__ import annotations

import json
import os
import shutil
import stat
import subprocess
import time
from dataclasses import dataclass
from pathlib import Path

import pytest

from tests.ports import find_free_port

_SOURCES = Path(__file__).parents[1]
_COMPLETIONS = (
    "share/bash-completion/completions/banger",
    "share/fish/vendor_completions.d/banger.fish",
    "share/zsh/site-functions/_banger",
)

pytestmark = pytest.mark.slow


@dataclass
class Installation:
    sources: Path
    home: Path
    prefix: Path

    def make(self, target: str) -> subprocess.CompletedProcess[str]:
        # A careful person's umask must not close an installation for all.
        careful = ("sh", "-c", 'umask 077; exec make "$@"', "sh")
        return self.run(*careful, "-C", self.sources, target, f"PREFIX={self.prefix}")

    def banger(self, *words: str) -> subprocess.CompletedProcess[str]:
        return self.run(self.prefix / "bin/banger", *words)

    def run(self, *argv: object) -> subprocess.CompletedProcess[str]:
        variables = {"HOME": str(self.home), "XDG_RUNTIME_DIR": str(self.home / "run")}
        return subprocess.run(
            list(map(str, argv)),
            env={**os.environ, **variables},
            cwd=self.home,
            capture_output=True,
            text=True,
            stdin=subprocess.DEVNULL,
            timeout=300,
        )


@pytest.fixture
def installation(tmp_path: Path) -> Installation:
    """From the sources that git has, and new ones; nothing that was built in the work tree."""
    copy = tmp_path / "sources"
    listed = subprocess.run(
        ["git", "ls-files", "-co", "--exclude-standard", "-z"], cwd=_SOURCES, capture_output=True, check=True
    )
    for name in filter(None, os.fsdecode(listed.stdout).split("\0")):
        if (_SOURCES / name).exists():
            (copy / name).parent.mkdir(parents=True, exist_ok=True)
            shutil.copy2(_SOURCES / name, copy / name)
    (tmp_path / "home").mkdir()
    return Installation(copy, tmp_path / "home", tmp_path / "a prefix")


def _list(folder: Path) -> set[str]:
    found = [path for path in folder.rglob("*") if path.is_symlink() or not path.is_dir()]
    return {str(path.relative_to(folder)) for path in found}


def test_an_installation_works_for_everybody_and_goes_without_a_trace(installation: Installation) -> None:
    prefix = installation.prefix
    for _ in range(2):
        done = installation.make("install")
        assert (done.returncode, done.stdout) == (0, ""), done.stderr
        assert f"installed: {prefix}/bin/banger" in done.stderr
        outside = {name for name in _list(prefix) if not name.startswith("lib/banger/")}
        assert outside == {"bin/banger", "bin/bangerd", *_COMPLETIONS}
    _check_modes(prefix)
    _check_commands(installation)

    (prefix / "bin/other").write_text("")
    (prefix / "share/zsh/site-functions/_other").write_text("")
    (prefix / "share/fish/vendor_completions.d/banger.fish").write_text("# somebody's own\n")
    others = {"bin/other", "share/zsh/site-functions/_other", "share/fish/vendor_completions.d/banger.fish"}
    (installation.home / ".config/banger").mkdir(parents=True)
    listen = f'[dns]\nlisten = "127.0.0.1:{find_free_port()}"\n'
    (installation.home / ".config/banger/config.toml").write_text(listen)
    process = json.loads(installation.banger("daemon", "start", "--json").stdout)["pid"]
    assert Path(f"/proc/{process}").exists()
    for _ in range(2):
        done = installation.make("uninstall")
        assert (done.returncode, done.stderr) == (0, "")
        _await_end(process)
        assert _list(prefix) == others
        for folder in (".config", ".local/state", ".cache"):
            assert f"  {installation.home / folder}/banger\n" in done.stdout
    assert (installation.home / ".config/banger/config.toml").exists()
    assert (installation.home / ".local/state/banger/bangerd.log").exists()


def _await_end(process: int) -> None:
    """It has said that it ends; somebody has to collect it yet."""
    deadline = time.monotonic() + 60
    while Path(f"/proc/{process}").exists():
        assert time.monotonic() < deadline
        time.sleep(0.05)


def _check_modes(prefix: Path) -> None:
    for folder, _, names in os.walk(prefix):
        for path in (Path(folder), *(Path(folder) / name for name in names)):
            assert path.stat().st_mode & (stat.S_IROTH if path.is_file() else stat.S_IXOTH), path


def _check_commands(installation: Installation) -> None:
    """The sources play no part any more, nor does the folder that one stands in."""
    prefix = installation.prefix
    (installation.home / "banger.py").write_text("raise SystemExit('not this one')\n")
    assert installation.banger("--version").stdout == installation.banger("version").stdout == "banger 0.1.0\n"
    shown = installation.run(prefix / "lib/banger/bin/python", "-I", "-c", "import banger; print(banger.__file__)")
    assert shown.stdout.startswith(f"{prefix}/lib/banger/")
    assert installation.banger("vm", "list", "--json").stdout == "[]\n"
    rows = json.loads(installation.banger("doctor", "--json").stdout)
    assert {row["check"]: row["status"] for row in rows}["default image"] == "PASS"
    assert installation.run(prefix / "bin/bangerd", "--help").returncode == 0
    agent = prefix / "lib/banger/banger-vsock-agent"
    assert agent.read_bytes() == (_SOURCES / "pipelines/runtime/banger-vsock-agent").read_bytes()
    for name, shell in zip(_COMPLETIONS, ("bash", "fish", "zsh"), strict=True):
        assert (prefix / name).read_text() == installation.banger("completion", shell).stdout


def test_a_command_of_that_name_that_is_not_ours_is_left_alone(installation: Installation) -> None:
    (installation.prefix / "bin").mkdir(parents=True)
    other = installation.prefix / "bin/banger"
    other.write_text("somebody's own")
    done = installation.make("install")
    assert done.returncode != 0
    assert f"{other} is there" in done.stderr
    assert installation.make("uninstall").returncode == 0
    assert _list(installation.prefix) == {"bin/banger"}
    assert other.read_text() == "somebody's own"
