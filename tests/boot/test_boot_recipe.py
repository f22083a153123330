"""Recipes whose steps run in real microVMs: what runs again, what comes out, and what is left of a stopped build."""

from __future__ import annotations

import shutil
import signal
import struct
import subprocess
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.boot.host import OUTSIDE_ADDRESS, Home, Host, link_tree
from tests.boot.test_boot_oci import make_image
from tests.oci.layers import device, file, folder, layer, symlink
from tests.oci.tree import read_erofs

_CAPABILITY = struct.pack("<5I", 0x02000001, 0x2400, 0, 0, 0)
_TOOLS = "awk cat chmod chown grep hostname id ip ln ls mkdir mkfifo mknod mv ping printf rm sleep touch truncate"
_MAKE = """
# With the network, and nothing of the builder's own in the image afterwards.
ping -c 1 -W 5 OUTSIDE >/dev/null
grep -q builder /etc/hosts && test "$(hostname)" = builder && test -f /etc/resolv.conf
test "$GREETING" = 'it'"'"'s $HOME' && test "$(cat /etc/motd)" = hello && test "$(id -u)" = 0
echo x >/run/x; echo x >/tmp/x; echo x >/dev/shm/x
mv /opt/able /opt/moved
mkdir -p /c3/deep && cd /c3
echo file >one; ln one two; ln one deep/three; chown 70000:80000 one; chmod 6755 one
ln -s /nowhere link; mknod null c 1 3; mknod disk b 8 1; mkfifo pipe
truncate -s 3000000 sparse; printf end >>sparse
touch "$(printf 'we\\nird \\377')"
touch $(awk 'BEGIN { while (i++ < 250) printf "n" }')
chmod 1777 deep
sleep 1000 &
"""
_DELETE = """
rm /etc/gone /c3/two
rm -r /opt/folder; mkdir /opt/folder; touch /opt/folder/new
rm -r /opt/tree; echo a file now >/opt/tree
ls -d /run/x /tmp/x 2>/dev/null && exit 1
ip link | grep eth0 && exit 1
echo deleted
"""


@pytest.fixture(scope="module")
def home(built: Home, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Home]:
    home = Home(tmp_path_factory.mktemp("recipe-home"))
    link_tree(built.store, home.store)
    link_tree(built.state / "kernels", home.state / "kernels")
    yield home
    shutil.rmtree(home.runtime, ignore_errors=True)


@pytest.fixture(scope="module")
def recipe(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with the base beside it: an image that has busybox, and little else."""
    place = tmp_path_factory.mktemp("recipes")
    image = layer(
        *(folder(name) for name in ("bin", "etc", "opt", "opt/folder", "opt/tree", "opt/tree/deep", "tmp", "var")),
        folder("root", mode=0o700),
        file("bin/busybox", Path("/usr/bin/busybox").read_bytes(), mode=0o755),
        *(symlink(f"bin/{name}", "busybox") for name in ("sh", "test", *_TOOLS.split())),
        # A link that leads nowhere, as of images that leave it to systemd-resolved.
        symlink("etc/resolv.conf", "../run/systemd/resolve/stub-resolv.conf"),
        file("etc/gone", b"gone"),
        file("etc/kept", b"kept"),
        file("opt/folder/old", b"old"),
        file("opt/able", b"able", mode=0o755, xattrs={"security.capability": _CAPABILITY}),
        file("root/notes", b"notes"),
        device("opt/zero", b"3", 1, 5),
    )
    make_image(place / "base", [image], {"env": "GREETING=it's $HOME"})
    (place / "team-tools/files").mkdir(parents=True)
    (place / "team-tools/files/motd").write_text("hello")
    return place / "team-tools"


def write_recipe(recipe: Path, third: str) -> None:
    steps = [_MAKE.replace("OUTSIDE", OUTSIDE_ADDRESS), _DELETE, third]
    text = 'base = "oci:../base:it"\n[[file]]\nsource = "files/motd"\ntarget = "/etc/motd"\nmode = "0640"\n'
    for number, step in enumerate(steps):
        text += "[[run]]\n" + _format_command(step) + ("network = false\n" if number == 1 else "")
    (recipe / "recipe.toml").write_text(text)


def _format_command(step: str) -> str:
    escaped = step.replace("\\", "\\\\").replace('"', '\\"')
    return f'command = """{escaped}"""\n'


def ran(stderr: bytes) -> list[str]:
    """Which steps were run, of those that boot a machine."""
    words = [line.split() for line in stderr.decode().splitlines()]
    return [line[1].partition(":")[0] for line in words if line[:1] == ["done"] and line[1].startswith(("run-", "unp"))]


def test_a_recipe_runs_what_has_changed_and_its_image_holds_what_the_steps_made(
    host: Host, home: Home, recipe: Path
) -> None:
    write_recipe(recipe, "echo it is broken; ls /not-there; echo never")
    failed = host.banger("image", "build", "--recipe", str(recipe), home=home)
    check_failure(failed, home)
    write_recipe(recipe, "echo third >/etc/third")
    first = host.banger("image", "build", "--recipe", str(recipe), home=home)
    assert (first.returncode, first.stdout, ran(first.stderr)) == (0, b"team-tools\n", ["run-3"]), first.stderr
    second = host.banger("image", "build", "--recipe", str(recipe), home=home)
    assert (second.returncode, ran(second.stderr)) == (0, [])
    write_recipe(recipe, "echo drittens >/etc/third")
    third = host.banger("image", "build", "--recipe", str(recipe), home=home)
    assert (third.returncode, ran(third.stderr)) == (0, ["run-3"])
    host.assert_nothing_left(home)
    check_image(home.state / "images/team-tools/rootfs")
    argv = ["vm", "run", "--rm", "--image", "team-tools", "--memory", "256M", "--"]
    done = host.banger(*argv, "sh", "-c", "cat /etc/third /etc/motd /root/notes; echo $GREETING", home=home)
    assert done.stdout == b"drittens\nhellonotesit's $HOME\n", done.stderr
    host.assert_nothing_left(home)


def check_failure(failed: subprocess.CompletedProcess[bytes], home: Home) -> None:
    said = failed.stderr.decode()
    assert (failed.returncode, ran(failed.stderr)) == (1, ["unpack", "run-1", "run-2"]), said
    assert "run-3:team-tools failed with status 1" in said
    assert "  | it is broken\n  | ls: /not-there: No such file or directory\n" in said
    assert "never" not in said
    kept = home.state / "build.log"
    assert str(kept) in said
    assert kept.read_text().splitlines() == ["it is broken", "ls: /not-there: No such file or directory"]
    assert not (home.state / "images/team-tools").exists()


def check_image(rootfs: Path) -> None:
    tree = read_erofs(rootfs)[0]
    assert {each for each in tree if each.startswith(b"etc/")} == {
        b"etc/kept",
        b"etc/motd",
        b"etc/resolv.conf",
        b"etc/third",
    }
    assert tree[b"etc/resolv.conf"].target == b"../run/systemd/resolve/stub-resolv.conf"
    assert (tree[b"etc/motd"].mode, tree[b"etc/motd"].uid) == (0o640, 0)
    for folder_of_the_builder in (b"run/", b"tmp/", b"dev/", b"proc/", b"lib/"):
        assert not [each for each in tree if each.startswith(folder_of_the_builder)]
    one = tree[b"c3/one"]
    assert (one.uid, one.gid, one.mode, one.group) == (70000, 80000, 0o6755, (b"c3/deep/three", b"c3/one"))
    assert tree[b"c3/link"].target == b"/nowhere"
    assert [tree[name].rdev for name in (b"c3/null", b"c3/disk", b"opt/zero")] == [(1, 3), (8, 1), (1, 5)]
    assert (tree[b"c3/pipe"].kind, tree[b"c3/sparse"].size_bytes, tree[b"c3/deep"].mode) == ("fifo", 3000003, 0o1777)
    assert {b"c3/we\nird \xff", b"c3/" + b"n" * 250} <= tree.keys()
    assert dict(tree[b"opt/moved"].xattrs) == {"security.capability": _CAPABILITY}
    assert b"opt/able" not in tree
    assert {each for each in tree if each.startswith(b"opt/folder")} == {b"opt/folder", b"opt/folder/new"}
    assert tree[b"opt/tree"].kind == "file"
    assert tree[b"root/notes"].size_bytes == 5


def test_a_build_that_is_stopped_leaves_nothing(host: Host, home: Home, recipe: Path) -> None:
    write_recipe(recipe, "sleep 1000")
    process = start_until_it_runs(host, home, recipe)
    process.send_signal(signal.SIGINT)
    assert process.wait(30) == 130
    host.assert_nothing_left(home)


def test_what_a_killed_build_leaves_goes_with_the_next_command(host: Host, home: Home, recipe: Path) -> None:
    write_recipe(recipe, "sleep 1000")
    process = start_until_it_runs(host, home, recipe)
    process.kill()
    process.wait(30)
    assert host.monitors(home)
    assert host.banger("image", "promote", "nothing", "at-all", home=home).returncode == 1
    host.assert_nothing_left(home)


def start_until_it_runs(host: Host, home: Home, recipe: Path) -> subprocess.Popen[bytes]:
    process = host.start("image", "build", "--recipe", str(recipe), home=home)
    deadline = time.monotonic() + 60
    # A guest that prints, with a network.
    while not (host.taps() and any(log.stat().st_size for log in (home.store / "tmp").glob("*/console.log"))):
        assert time.monotonic() < deadline
        assert process.poll() is None
        time.sleep(0.1)
    return process
