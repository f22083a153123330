"""An ordinary user, who may call the network helper by sudo, and nothing else of root's."""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
import tempfile
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import pytest

from banger.network.privileges import plan_helper
from tests.boot.bare import register_bare
from tests.boot.host import Home, Host, run
from tests.ordinary_user import UID, become_user

_HELPER_ONLY = f"lab ALL=(root) NOPASSWD: {' '.join(plan_helper())} *"
_SHAPE = "--image bare --memory 256M --disk-size 128M"
_QUICK_START = f"""
cd "$HOME"
git init -q repo
printf 'test:\\n\\techo done >result\\n' >repo/Makefile
git -C repo add -A
git -C repo -c user.name=lab -c user.email=lab@example.org commit -q -m one
banger vm run --rm ./repo --export patch -- sh -c 'make test; exit 42' || echo "status $?"
git -C repo apply ../patch
cat repo/result
banger vm run --detach --name mine {_SHAPE}
banger vm exec mine -- id -u
banger vm list --quiet
banger vm ports mine
banger daemon status | grep -o 'machines run; answers'
banger vm set mine --no-nat
banger vm stop mine
banger vm set mine --disk-size 256M
banger vm start mine
kill -9 "$(banger vm show mine | jq .pid)"
# bangerd has no terminal to ask for a password on: the rule is enough.
for try in $(seq 100); do ip link | grep -q bgr || break; sleep 0.1; done
ip link | grep bgr || echo "no TAP"
banger vm list --all --quiet
banger vm prune --force
banger vm list --all --quiet
banger daemon stop
"""
_SAID = """echo done >result
status 42
done
mine
0
mine
NAME   PORT   PROTOCOL   ADDRESS
mine   22     tcp        mine.vm:22
machines run; answers
mine
mine
mine
mine
no TAP
mine
mine
"""


@pytest.fixture
def home() -> Iterator[Home]:
    """Where an ordinary user can get to: pytest's own folders are for root."""
    root = Path(tempfile.mkdtemp(prefix="banger-lab-", dir="/var/tmp"))
    made = Home(root)
    yield made
    for folder in (root, made.runtime):
        shutil.rmtree(folder)


@dataclass(frozen=True)
class User:
    host: Host
    home: Home
    folder: Path

    def run(self, script: str, sudoers: str) -> subprocess.CompletedProcess[str]:
        inside = ["ip", "netns", "exec", self.host.namespace, *become_user(self.folder, sudoers=sudoers)]
        path = f"{Path(sys.executable).parent}:{os.environ['PATH']}"
        own = {"USER": "lab", "LOGNAME": "lab", "PATH": path, "BANGER_DAEMON_AUTOSTART": "true"}
        done = subprocess.run(
            [*inside, "sh", "-c", script],
            env={**self.home.environment, **own},
            stdin=subprocess.DEVNULL,
            capture_output=True,
            text=True,
            timeout=300,
            check=False,
        )
        run("chown", "-R", "0", str(self.home.root), str(self.home.runtime))
        return done


@pytest.fixture
def user(host: Host, built: Home, home: Home, tmp_path: Path) -> User:
    # A copy: a hard link would still be root's.
    for kind in ("kernels", "images"):
        shutil.copytree(built.state / kind, home.state / kind)
    register_bare(home)
    for folder in (home.root, home.runtime):
        run("chown", "-R", str(UID), str(folder))
    (tmp_path / "lab").mkdir()
    return User(host, home, tmp_path / "lab")


def test_the_quick_start_needs_no_right_but_the_network_helper(user: User) -> None:
    done = user.run(_QUICK_START, _HELPER_ONLY)
    assert done.stdout == _SAID, done.stderr
    user.host.assert_nothing_left(user.home)


def test_without_that_right_nothing_is_left_behind(user: User) -> None:
    done = user.run(f"banger vm run {_SHAPE} -- true || echo $?; banger daemon stop", "")
    assert done.stdout == "1\n"
    assert "sudo did not let banger change the host's network" in done.stderr
    user.host.assert_nothing_left(user.home)
