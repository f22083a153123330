"""The network for an ordinary user, by way of sudo, and what the helper refuses."""

import contextlib
import json
import os
import pty
import shutil
import subprocess
import sys
import time

import pytest

from banger.network.helper import get_caller_uid, leave_environment
from banger.network.privileges import plan_helper

GOOD = ["attach", "banger0", "172.16.0.0/24", "172.16.0.5", "no-nat", "4242"]
GOOD_ROUTE = ["route-dns", "banger0", "172.16.0.0/24", "127.0.0.1:42069"]


def call_helper(host, *arguments, sudo_uid=None):
    environment = ["env", "-u", "SUDO_UID"] if sudo_uid is None else ["env", f"SUDO_UID={sudo_uid}"]
    return host.run(*environment, sys.executable, "-I", "-m", "banger.network.helper", *arguments, check=False)


def test_an_ordinary_user_gets_a_tap_of_his_own_by_sudo(host, user):
    user.connect("172.16.0.5")
    assert host.links()["bgrac100005"]["linkinfo"]["info_data"]["user"] == user.uid
    assert host.elements("nat") == ["172.16.0.5"]
    user.disconnect("172.16.0.5")
    assert "bgrac100005" not in host.links()


def test_a_sudoers_rule_for_the_helper_alone_is_enough(host, user):
    user.sudoers = f"lab ALL=(root) NOPASSWD: {' '.join(plan_helper())} *"
    user.connect("172.16.0.5")
    assert "bgrac100005" in host.links()


def test_qemu_opens_the_tap_as_its_owner_without_further_rights(host, user):
    user.connect("172.16.0.5")
    argv = ["qemu-system-x86_64", "-M", "none", "-nodefaults", "-display", "none"]
    netdev = "tap,id=n0,ifname=bgrac100005,script=no,downscript=no"
    child = subprocess.Popen(
        user.argv(*argv, "-netdev", netdev), stdin=subprocess.DEVNULL, stderr=subprocess.PIPE, text=True
    )
    try:
        deadline = time.monotonic() + 60
        while "LOWER_UP" not in host.links()["bgrac100005"]["flags"]:
            assert child.poll() is None, child.stderr.read()
            assert time.monotonic() < deadline
            time.sleep(0.1)
    finally:
        child.kill()
        child.communicate()


def test_what_the_helper_refuses_is_what_the_user_sees(host, user):
    host.run("ip", "link", "add", "banger0", "type", "veth", "peer", "name", "other")
    reason, message, hint = user.connect_refusal("172.16.0.5")
    assert reason == "already-exists"
    assert "banger0" in message
    assert hint


def test_a_refused_password_is_said_with_a_way_out(host, user):
    user.sudoers = "lab ALL=(root) ALL"
    reason, message, hint = user.connect_refusal("172.16.0.5")
    assert reason == "no-permission"
    assert "password" in message
    assert "sudo -v" in hint
    assert set(host.links()) == {"lo"}


def test_a_missing_sudo_is_said_with_a_way_out(host, user):
    user.hidden = shutil.which("sudo")
    reason, _, hint = user.connect_refusal("172.16.0.5")
    assert reason == "no-permission"
    assert "install sudo" in hint


@pytest.mark.parametrize(("password", "works"), [("sesame", True), ("wrong", False)])
def test_sudo_asks_for_a_password_on_the_terminal(host, user, password, works):
    user.sudoers = "Defaults:lab passwd_tries=1\nlab ALL=(root) ALL"
    code = (
        "from ipaddress import IPv4Address\nfrom banger.network import *\n"
        "connect(DEFAULT_SUBNET, IPv4Address('172.16.0.5'), nat=True)"
    )
    argv = user.argv(sys.executable, "-I", "-c", code)
    pid, terminal = pty.fork()
    if pid == 0:
        os.execvp(argv[0], argv)
    screen = b""
    with contextlib.suppress(OSError):  # EIO: everybody has left the terminal
        while read := os.read(terminal, 4096):
            screen += read
            if screen.endswith(b": ") and b"assword" in screen:
                os.write(terminal, password.encode() + b"\n")
    os.close(terminal)
    _, status = os.waitpid(pid, 0)
    assert (status == 0) is works, screen
    assert ("bgrac100005" in host.links()) is works
    assert works or b"sudo did not let banger" in screen


def test_root_without_the_capability_is_told_so(host):
    ended = host.run(
        "setpriv",
        "--bounding-set",
        "-net_admin",
        "--inh-caps",
        "-net_admin",
        sys.executable,
        "-I",
        "-c",
        "from ipaddress import IPv4Address\nfrom banger.network import *\n"
        "connect(DEFAULT_SUBNET, IPv4Address('172.16.0.5'), nat=True)",
        check=False,
    )
    assert ended.returncode == 1
    assert "CAP_NET_ADMIN" in ended.stderr


def test_the_helper_does_what_it_is_told_exactly(host):
    done = call_helper(host, *GOOD, sudo_uid=4242)
    assert (done.returncode, done.stdout) == (0, "banger-network-helper\n")
    assert "bgrac100005" in host.links()
    assert call_helper(host, "detach", *GOOD[1:4], sudo_uid=4242).returncode == 0
    assert "bgrac100005" not in host.links()


@pytest.mark.parametrize(
    ("place", "word", "reason"),
    [
        (0, "Attach", "bad-input"),
        (0, "--help", "bad-input"),
        (0, "detach", "bad-input"),
        (1, "../../all", "bad-input"),
        (1, "all", "bad-input"),
        (1, 'b" }; flush ruleset', "bad-input"),
        (1, "", "bad-input"),
        (2, "0.0.0.0/0", "bad-input"),
        (2, "8.8.8.0/24", "bad-input"),
        (2, "172.16.0.1/24", "bad-input"),
        (2, "172.16.0.0/255.255.255.0", "bad-input"),
        (2, "172.16.0.0/24\n", "bad-input"),
        (3, "172.16.0.1", "bad-input"),
        (3, "172.16.1.5", "bad-input"),
        (3, "172.16.0.5; rm", "bad-input"),
        (4, "yes", "bad-input"),
        (5, "0", "no-permission"),
        (5, "4243", "no-permission"),
        (5, "-1", "bad-input"),
        (5, "4294967295", "bad-input"),
        (5, "04242", "bad-input"),
        (5, "root", "bad-input"),
    ],
)
def test_the_helper_refuses_wrong_arguments(host, place, word, reason):
    arguments = [word if n == place else good for n, good in enumerate(GOOD)]
    refused = call_helper(host, *arguments, sudo_uid=4242)
    told = json.loads(refused.stdout.splitlines()[1])
    assert (refused.returncode, told["reason"], set(told)) == (1, reason, {"message", "hint", "reason"})
    assert set(host.links()) == {"lo"}


@pytest.mark.parametrize(
    ("place", "word", "reason"),
    [
        (0, "unroute-dns", "bad-input"),
        (0, "route", "bad-input"),
        (1, "lo", "bad-input"),
        (1, "--help", "bad-input"),
        (1, "wlan0", "bad-input"),
        (1, "banger0; reboot", "bad-input"),
        (1, "../banger0", "bad-input"),
        (2, "0.0.0.0/0", "bad-input"),
        (2, "8.8.8.0/24", "bad-input"),
        (2, "172.16.0.1/24", "bad-input"),
        (2, "172.16.1.0/24", "bad-input"),
        (2, "com", "bad-input"),
        (3, "127.0.0.1", "bad-input"),
        (3, "127.0.0.1:0", "bad-input"),
        (3, "127.0.0.1:99999", "bad-input"),
        (3, "127.0.0.1:53#tls.example", "bad-input"),
        (3, "127.0.0.1:53%eth0", "bad-input"),
        (3, "127.0.0.1:53 192.0.2.1", "bad-input"),
        (3, "192.0.2.1:53", "bad-input"),
        (3, "0.0.0.0:53", "bad-input"),
        (3, "[::1]:53", "bad-input"),
        (3, "localhost:53", "bad-input"),
        (3, "", "bad-input"),
    ],
)
def test_the_helper_leads_names_nowhere_else(host, place, word, reason):
    host.run("ip", "link", "add", "banger0", "address", "06:00:ac:10:00:01", "type", "bridge")
    host.run("ip", "link", "add", "wlan0", "type", "bridge")
    arguments = [word if n == place else good for n, good in enumerate(GOOD_ROUTE)]
    refused = call_helper(host, *arguments, sudo_uid=4242)
    assert (refused.returncode, json.loads(refused.stdout.splitlines()[1])["reason"]) == (1, reason)


@pytest.mark.parametrize("arguments", [GOOD, ["detach", *GOOD[1:4]], GOOD_ROUTE, ["unroute-dns", *GOOD_ROUTE[1:3]]])
@pytest.mark.parametrize(
    ("bridge", "network", "address", "bridge_mac"),
    [
        pytest.param("evil", "172.16.0.0/24", "172.16.0.5", "06:00:ac:10:00:01", id="other bridge"),
        pytest.param("banger0", "10.1.0.0/16", "10.1.2.3", "06:00:0a:01:00:01", id="other network"),
        pytest.param("banger0", "172.16.0.0/16", "172.16.0.5", "06:00:ac:10:00:01", id="wider network"),
    ],
)
def test_the_helper_changes_no_other_network(host, arguments, bridge, network, address, bridge_mac):
    # As if banger had made it, so that nothing but the words stands in the way.
    host.run("ip", "link", "add", bridge, "address", bridge_mac, "type", "bridge")
    before = host.links()
    arguments = [arguments[0], bridge, network, *(address if word == GOOD[3] else word for word in arguments[3:])]
    refused = call_helper(host, *arguments, sudo_uid=4242)
    assert refused.returncode == 1
    assert json.loads(refused.stdout.splitlines()[1])["reason"] == "bad-input"
    assert host.links() == before
    assert host.run("nft", "list", "ruleset").stdout == ""


def test_what_runs_as_root_is_not_looked_for_where_the_caller_says(host, tmp_path):
    """As sudo hands PATH on, where no `secure_path` is set."""
    told = tmp_path / "told"
    for name in ("nft", "setpriv"):
        (tmp_path / name).write_text(f'#!/bin/sh\necho "$0" >>{told}\n')
        (tmp_path / name).chmod(0o755)
    there = f"PATH={tmp_path}:{os.environ['PATH']}"
    argv = ["env", "SUDO_UID=4242", there, sys.executable, "-I", "-m", "banger.network.helper"]
    for words in (GOOD, ["detach", *GOOD[1:4]]):
        done = host.run(*argv, *words, check=False)
        assert (done.returncode, done.stdout) == (0, "banger-network-helper\n")
        assert not told.exists(), told.read_text()


def test_what_the_helper_runs_gets_nothing_of_the_caller(monkeypatch):
    monkeypatch.setattr(os, "environ", {"SUDO_UID": "4242", "LD_DEBUG": "all", "PATH": "/home/lab"})
    left = leave_environment()
    assert get_caller_uid(left) == 4242
    assert os.environ == {"PATH": "/usr/sbin:/usr/bin:/sbin:/bin"}


def test_root_by_sudo_owns_what_is_roots_and_no_more(host):
    assert call_helper(host, *GOOD, sudo_uid=4242).returncode == 0
    for sudo_uid in (0, None):
        assert call_helper(host, "detach", *GOOD[1:4], sudo_uid=sudo_uid).returncode == 0
        refused = call_helper(host, *GOOD, sudo_uid=sudo_uid)
        assert json.loads(refused.stdout.splitlines()[1])["reason"] == "no-permission"
    assert host.links()["bgrac100005"]["linkinfo"]["info_data"]["user"] == 4242


@pytest.mark.parametrize("kind", [["veth", "peer", "name", "other"], ["bridge"]])
def test_the_helper_leads_names_through_a_bridge_of_ours_only(host, kind):
    host.run("ip", "link", "add", "banger0", "type", *kind)
    refused = call_helper(host, *GOOD_ROUTE, sudo_uid=4242)
    assert json.loads(refused.stdout.splitlines()[1])["reason"] == "not-found"
    assert call_helper(host, "unroute-dns", *GOOD_ROUTE[1:3], sudo_uid=4242).returncode == 0


@pytest.mark.parametrize(
    "arguments",
    [
        [],
        GOOD[:-1],
        [*GOOD, "more"],
        ["detach", *GOOD[1:4], "4242"],
        ["detach"],
        GOOD_ROUTE[:-1],
        [*GOOD_ROUTE, "127.0.0.2:53"],
        ["unroute-dns", *GOOD_ROUTE[1:]],
        ["unroute-dns", "banger0"],
    ],
)
def test_the_helper_refuses_missing_and_extra_arguments(host, arguments):
    refused = call_helper(host, *arguments, sudo_uid=4242)
    assert refused.returncode == 1
    assert json.loads(refused.stdout.splitlines()[1])["reason"] == "bad-input"
