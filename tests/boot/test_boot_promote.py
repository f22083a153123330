"""A machine becomes an image: what was installed in it comes along, and nothing of who it was."""

from __future__ import annotations

import json
import shutil
import subprocess
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.boot.host import Home, Host, link_tree
from tests.oci.tree import read_erofs

_CONTROL = """\
Package: team-tool
Version: 1.0
Architecture: all
Maintainer: Ada Löw <ada@example.org>
Description: Something to install
"""
_SETUP = """
dpkg -i /root/team-tool.deb >/dev/null
useradd --create-home --shell /bin/bash ada
install -d -m 700 -o ada /home/ada/.ssh && echo 'ssh-ed25519 AAAA ada' >/home/ada/.ssh/authorized_keys
echo 'secret command' >/home/ada/.bash_history
echo 'from the old one' >/home/ada/notes
echo 'secret line' | tee /var/log/team.log /tmp/left /root/kept-at-home >/dev/null
mkdir -p /var/log/journal/$(cat /etc/machine-id) && journalctl --flush
cp /etc/ssh/ssh_host_ed25519_key.pub /root/
rm /usr/bin/jq /etc/issue && rm -r /etc/skel && mkdir /etc/skel && echo x >/etc/skel/.new
cp /usr/bin/true /usr/local/bin/able && python3 -c 'import os
os.setxattr("/usr/local/bin/able", "security.capability", bytes.fromhex("0100000200040000000000000000000000000000"))'
hostname; cat /etc/machine-id /etc/ssh/ssh_host_ed25519_key.pub
"""
_LOOK = """
team-tool && dpkg-query -W -f '${Version}\\n' team-tool && id -un ada && cat /home/ada/notes && stat -c %U /home/ada
python3 -c 'import os
print(os.getxattr("/usr/local/bin/able", "security.capability").hex())'
ls -A /etc/skel
ls -d /home/ada/.ssh/* /home/ada/.bash_history /usr/bin/jq /etc/issue /tmp/left /root/* 2>/dev/null
grep -r 'secret line' /var/log /tmp /root
wc -l </etc/apt/mirrors/debian.list
hostname; cat /etc/machine-id /etc/ssh/ssh_host_ed25519_key.pub
"""


@pytest.fixture
def home(built: Home, tmp_path: Path) -> Iterator[Home]:
    home = Home(tmp_path / "home")
    link_tree(built.store, home.store)
    for kind in ("images", "kernels"):
        link_tree(built.state / kind, home.state / kind)
    yield home
    shutil.rmtree(home.runtime, ignore_errors=True)


def build_package(place: Path) -> bytes:
    tree = place / "team-tool"
    (tree / "DEBIAN").mkdir(parents=True)
    (tree / "DEBIAN/control").write_text(_CONTROL)
    (tree / "usr/bin").mkdir(parents=True)
    (tree / "usr/bin/team-tool").write_text("#!/bin/sh\necho it works\n")
    (tree / "usr/bin/team-tool").chmod(0o755)
    subprocess.run(["dpkg-deb", "--root-owner-group", "-b", tree, place / "it.deb"], check=True, capture_output=True)
    return (place / "it.deb").read_bytes()


def test_what_was_installed_comes_along_and_who_it_was_does_not(
    host: Host, built: Home, home: Home, tmp_path: Path
) -> None:
    host.succeed("vm", "run", "--detach", "--name", "old", home=home)
    package = build_package(tmp_path)
    host.succeed("vm", "exec", "old", "--", "sh", "-c", "cat >/root/team-tool.deb", stdin=package, home=home)
    was = host.succeed("vm", "exec", "old", "--", "sh", "-ec", _SETUP, home=home).decode().splitlines()
    refused = host.banger("image", "promote", "old", "golden", "--json", home=home)
    error = json.loads(refused.stderr.splitlines()[-1])["error"]
    assert (refused.returncode, error["reason"], error["hint"]) == (
        1,
        "wrong-state",
        "stop it first: banger vm stop old",
    )
    host.succeed("vm", "stop", "old", home=home)
    # It has its image by itself.
    shutil.rmtree(home.state / "images")
    made = json.loads(host.succeed("image", "promote", "old", "golden", "--json", home=home))
    assert {key: made[key] for key in ("name", "source", "base", "kernel")} == {
        "name": "golden",
        "source": "promoted",
        "base": "debian-bookworm",
        "kernel": "debian-6.12",
    }
    check_image(home.state / "images/golden/rootfs", built.state / "images/debian-bookworm/rootfs")
    host.succeed("vm", "delete", "old", home=home)
    argv = ["vm", "run", "--rm", "--name", "new", "--image", "golden", "--", "sh", "-c", _LOOK]
    now = host.succeed(*argv, home=home).decode().splitlines()
    assert now[:8] == [
        "it works",
        "1.0",
        "ada",
        "from the old one",
        "ada",
        "0100000200040000000000000000000000000000",
        ".new",
        "1",
    ]
    assert now[8] == "new"
    assert was[0] == "old"
    assert len(now) == 8 + len(was)
    assert not set(now[8:]) & set(was)
    again = host.banger("image", "build", "golden", home=home)
    assert b"banger image promote VM golden" in again.stderr
    host.assert_nothing_left(home)


def check_image(image: Path, base: Path) -> None:
    """Of all that a boot and its end write, nothing is there: only what was done on purpose."""
    before, after = read_erofs(base, image)
    changed = {path for path in before.keys() | after.keys() if before.get(path) != after.get(path)}
    files = {path for path in changed if {"directory"} != {tree[path].kind for tree in (before, after) if path in tree}}
    accounts = {b"etc/" + name for name in (b"passwd", b"shadow", b"group", b"gshadow", b"subuid", b"subgid")}
    assert files - accounts - {path + b"-" for path in accounts} == {
        b"etc/issue",
        b"etc/skel/.bash_logout",
        b"etc/skel/.bashrc",
        b"etc/skel/.new",
        b"etc/skel/.profile",
        b"home/ada/.bash_logout",
        b"home/ada/.bashrc",
        b"home/ada/.profile",
        b"home/ada/notes",
        b"usr/bin/jq",
        b"usr/bin/team-tool",
        b"usr/local/bin/able",
        *(path for path in files if path.startswith(b"var/lib/dpkg/")),
    }
