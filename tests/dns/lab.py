"""A host of its own for a resolver: network, processes, /etc, /run and /var are apart from the real ones.

Programs are those of this host, and whatever packages are laid over them: what is written in there goes with it.
"""

from __future__ import annotations

import contextlib
import os
import shutil
import subprocess
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path

import pytest

from tests.dns.serving import serve
from tests.ordinary_user import UID

_BEGIN = """
mount -t tmpfs -o mode=755 lab "$1"
for each in etc var; do
  mkdir "$1/$each" "$1/$each.work"
  mount -t overlay -o "lowerdir=/$each,upperdir=$1/$each,workdir=$1/$each.work" overlay "/$each"
done
mount -t tmpfs -o mode=755 lab /run
ip link set lo up
echo ready
exec sleep infinity
"""
_INSTALL = """
mount -t overlay -o "lowerdir=$1/usr:/usr" overlay /usr
cp -a "$1/etc" /
ldconfig
"""
_PATIENCE_S = 60


@dataclass
class Lab:
    stack: contextlib.ExitStack
    pid: int
    folder: Path

    def argv(self, *words: object) -> list[str]:
        # nsenter stays outside and has a child inside, which shall not outlive it.
        inside = ["nsenter", "-t", str(self.pid), "-n", "-m", "-p", "setpriv", "--pdeathsig", "KILL", "--"]
        return [*inside, *map(str, words)]

    def run(self, *words: object, check: bool = True) -> str:
        argv = self.argv(*words)
        done = subprocess.run(argv, stdin=subprocess.DEVNULL, capture_output=True, text=True, timeout=60, check=False)
        assert not check or done.returncode == 0, (words, done.stdout, done.stderr)
        return done.stdout

    def write(self, path: str, text: str) -> None:
        argv = self.argv("sh", "-c", 'mkdir -p "${1%/*}" && rm -f "$1" && cat >"$1"', "sh", path)
        subprocess.run(argv, input=text, text=True, check=True, timeout=60)

    def start(self, *words: object) -> subprocess.Popen[bytes]:
        """A program for the length of the test. What it says goes to the test's own output."""
        child = self.stack.enter_context(subprocess.Popen(self.argv(*words), stdin=subprocess.DEVNULL))
        self.stack.callback(child.kill)
        return child

    def install(self, packages: Path) -> None:
        """What `fetch_packages` gave, with users for the daemons; nothing is started."""
        self.run("sh", "-ec", _INSTALL, "sh", packages)
        users = (("systemd-resolve", 991), ("unbound", 992), ("lab", UID))
        self.write(
            "/etc/passwd", Path("/etc/passwd").read_text() + "".join(f"{n}:x:{u}:{u}::/:/bin/false\n" for n, u in users)
        )
        self.write("/etc/group", Path("/etc/group").read_text() + "".join(f"{n}:x:{u}:\n" for n, u in users))

    def serve(self, machines: dict[str, str], listen: str = "127.0.0.1:42069", *, by: tuple[str, ...] = ()) -> None:
        """banger's server of names."""
        self.stack.enter_context(serve(listen, machines, self.argv(*by)))

    def hosts(self, name: str) -> list[str]:
        """What the C library finds for a name or an address, as words; nothing when there is nothing."""
        return self.run("getent", "hosts", name, check=False).split()

    def make_bridge(self) -> None:
        """As banger makes it, with the TAP of a machine that runs."""
        self.run("ip", "link", "add", "banger0", "address", "06:00:ac:10:00:01", "type", "bridge")
        self.run("ip", "addr", "add", "172.16.0.1/24", "dev", "banger0")
        self.run("ip", "link", "set", "banger0", "up")
        self.run("ip", "link", "add", "port0", "type", "veth", "peer", "name", "machine0")
        self.run("ip", "link", "set", "port0", "master", "banger0", "up")
        self.run("ip", "link", "set", "machine0", "up")


@contextlib.contextmanager
def open_lab(folder: Path) -> Iterator[Lab]:
    """`folder` is covered by a tmpfs in there."""
    if os.geteuid() != 0:
        pytest.skip("namespaces of this kind need root")
    folder.mkdir()
    words = ["unshare", "--net", "--mount", "--pid", "--fork", "--mount-proc", "--kill-child"]
    with contextlib.ExitStack() as stack:
        argv = [*words, "sh", "-ec", _BEGIN, "sh", str(folder)]
        child = stack.enter_context(subprocess.Popen(argv, stdout=subprocess.PIPE, text=True))
        stack.callback(child.kill)
        assert child.stdout is not None
        assert child.stdout.readline() == "ready\n"
        pid = int(Path(f"/proc/{child.pid}/task/{child.pid}/children").read_text())
        yield Lab(stack, pid, folder)


def fetch_packages(folder: Path, *names: str) -> Path:
    """A folder with the files of packages, and of those that they need and this host has not. Nothing is installed."""
    if os.geteuid() != 0:
        pytest.skip("namespaces of this kind need root")
    if shutil.which("apt-get") is None:
        pytest.skip("the resolvers for this test are those of Debian's archive")
    archives, root = folder / "archives", folder / "root"
    (archives / "partial").mkdir(parents=True)
    (root / "usr").mkdir(parents=True)
    (root / "etc").mkdir()
    options = [f"Dir::Cache::archives={archives}", "Debug::NoLocking=1", "APT::Sandbox::User=root"]
    argv = ["apt-get", "-qq", "-y", "-d", "--no-install-recommends", *(f"-o{option}" for option in options), "install"]
    subprocess.run([*argv, *names], stdin=subprocess.DEVNULL, check=True, timeout=300)
    for package in archives.glob("*.deb"):
        subprocess.run(["dpkg", "-x", package, root], check=True, timeout=60)
    return root


def wait_for(condition: Callable[[], object]) -> None:
    deadline = time.monotonic() + _PATIENCE_S
    while not condition():
        assert time.monotonic() < deadline
        time.sleep(0.05)
