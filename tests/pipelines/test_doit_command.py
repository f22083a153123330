"""The graph as the plain `doit` command shows it."""

from __future__ import annotations

import signal
import subprocess
import sys
from pathlib import Path

_CHECKOUT = Path(__file__).parents[2]
_DOIT = Path(sys.executable).with_name("doit")


def _doit(tmp_path: Path, word: str, *more: str, **variables: str) -> subprocess.CompletedProcess[str]:
    environment = {
        "HOME": str(tmp_path),
        "PATH": "/usr/bin:/bin",
        "XDG_RUNTIME_DIR": str(tmp_path / "run"),
        **variables,
    }
    # A network namespace without any interface that is up: nothing outside can be asked.
    offline = ["unshare", "--map-root-user", "--net"]
    return subprocess.run(
        [*offline, _DOIT, word, "-f", _CHECKOUT / "dodo.py", *more],
        cwd=tmp_path,
        env=environment,
        capture_output=True,
        text=True,
    )


def test_doit_lists_the_graph_without_a_network(tmp_path: Path) -> None:
    done = _doit(tmp_path, "list", "--all")
    assert done.returncode == 0, done.stderr
    names = {line.split()[0] for line in done.stdout.splitlines() if line.strip()}
    assert {"rootfs:debian-bookworm", "home:debian-bookworm", "system:debian-bookworm"} <= names
    assert {f"{kind}:debian-6.12" for kind in ("packages", "vmlinux", "modules", "initramfs", "kernel")} <= names
    assert {"lock:image-debian-bookworm", "lock:kernel-debian-6.12", "image:debian-bookworm"} <= names


def test_doit_leaves_no_database(tmp_path: Path) -> None:
    _doit(tmp_path, "list", "--all")
    assert not list(_CHECKOUT.glob(".doit*"))
    assert not list(tmp_path.glob(".doit*"))


def test_doit_knows_what_is_not_built(tmp_path: Path) -> None:
    done = _doit(tmp_path, "list", "--all", "--status")
    assert done.returncode == 0, done.stderr
    statuses = {line.split()[1]: line.split()[0] for line in done.stdout.splitlines() if line.strip()}
    assert statuses["rootfs:debian-bookworm"] == "R"


def test_doit_holds_what_it_uses_until_it_ends_and_leaves_nothing(tmp_path: Path) -> None:
    leases = tmp_path / ".cache/banger/leases"
    done = _doit(tmp_path, "list", "--all", BANGER_KILL_AT="lease-made")
    assert done.returncode == -signal.SIGKILL, "it took no lease"
    assert len(list(leases.iterdir())) == 1
    done = _doit(tmp_path, "list", "--all")
    assert (done.returncode, done.stderr) == (0, "")
    assert list(leases.iterdir()) == []


def test_an_image_that_is_damaged_stands_in_the_way_of_itself_only(tmp_path: Path) -> None:
    folder = tmp_path / ".local/state/banger/images/broken"
    folder.mkdir(parents=True)
    (folder / "manifest.json").write_text("{")
    done = _doit(tmp_path, "list", "--all")
    assert (done.returncode, "image:broken" in done.stdout) == (0, False), done.stderr
    assert "left out: the manifest of image 'broken' is damaged" in done.stderr
    assert "image:debian-bookworm" in done.stdout
    asked = _doit(tmp_path, "run", "image:broken")
    assert asked.returncode != 0
    assert "error: the manifest of image 'broken' is damaged" in asked.stderr
    assert "Traceback" not in asked.stderr
