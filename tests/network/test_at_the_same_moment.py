"""Two who want the same address, each stopped at the moment when the other can do the most harm."""

import contextlib
import fcntl
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest

from banger.errors import BangerError, Reason
from banger.network import network_lock

TAP5 = "bgrac100005"
ATTACH = """
import subprocess, sys
from ipaddress import IPv4Address
from banger.network import DEFAULT_SUBNET, attachment, tap
make, ensure = tap._make, attachment.ensure_tap
def make_late(name, owner_uid):
    subprocess.run(["ip", "tuntap", "add", name, "mode", "tap", "user", sys.argv[1], "vnet_hdr"], check=True)
    make(name, owner_uid)
def ensure_late(*arguments):
    print("ready", flush=True)
    sys.stdin.readline()
    ensure(*arguments)
if sys.argv[1]:
    tap._make = make_late
else:
    attachment.ensure_tap = ensure_late
attachment.attach(DEFAULT_SUBNET, IPv4Address("172.16.0.5"), nat=True, owner_uid=4242)
"""
DETACH = """
from ipaddress import IPv4Address
from banger.network import DEFAULT_SUBNET, attachment
attachment.detach(DEFAULT_SUBNET, IPv4Address("172.16.0.5"), owner_uid=4343)
"""


def waits_for_a_lock(pid):
    return any(" -> FLOCK " in line and f" {pid} " in line for line in Path("/proc/locks").read_text().splitlines())


def python(host, code, *arguments):
    argv = host.argv(sys.executable, "-I", "-c", code, *arguments)
    return subprocess.Popen(argv, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True)


def test_a_tap_that_another_user_made_meanwhile_stays_theirs(host):
    ended = host.python(ATTACH, "4343", check=False)
    assert "172.16.0.5 is in use" in ended.stderr
    assert host.links()[TAP5]["linkinfo"]["info_data"]["user"] == 4343
    assert "master" not in host.links()[TAP5]


def test_a_tap_that_the_same_user_made_meanwhile_is_his(host):
    host.python(ATTACH, "4242")
    tap = host.links()[TAP5]
    assert tap["linkinfo"]["info_data"]["user"] == 4242
    assert tap["master"] == "banger0"


def test_a_leftover_that_goes_takes_nothing_from_a_machine_that_comes(host):
    with contextlib.ExitStack() as stack:
        coming = stack.enter_context(python(host, ATTACH, ""))
        stack.callback(coming.kill)
        assert coming.stdout.readline() == "ready\n"
        assert host.elements("nat") == ["172.16.0.5"]
        going = stack.enter_context(python(host, DETACH))
        stack.callback(going.kill)
        while going.poll() is None and not waits_for_a_lock(going.pid):
            time.sleep(0.05)
        coming.communicate("go\n", timeout=60)
        going.communicate(timeout=60)
        assert (coming.returncode, going.returncode) == (0, 0)
    assert host.links()[TAP5]["linkinfo"]["info_data"]["user"] == 4242
    assert host.elements("nat") == ["172.16.0.5"]
    assert [e["concat"][0] for e in host.elements("guests", "bridge")] == [TAP5]


def test_no_key_on_the_terminal_stops_a_helper_that_may_hold_the_lock(host):
    words = ["attach", "banger0", "172.16.0.0/24", "172.16.0.5", "no-nat", "4242"]
    argv = host.argv("env", "SUDO_UID=4242", sys.executable, "-I", "-m", "banger.network.helper", *words)
    with contextlib.ExitStack() as stack:
        with network_lock.network_locked():
            helper = stack.enter_context(subprocess.Popen(argv, stdout=subprocess.DEVNULL))
            stack.callback(helper.kill)
            while not waits_for_a_lock(helper.pid):
                assert helper.poll() is None
                time.sleep(0.05)
            status = Path(f"/proc/{helper.pid}/status").read_text()
            ignored = int(status.partition("SigIgn:")[2].split()[0], 16)
            assert all(ignored >> (number - 1) & 1 for number in (signal.SIGINT, signal.SIGTSTP))
        assert helper.wait(timeout=60) == 0


def test_the_lock_is_its_owners_alone_and_is_given_back(monkeypatch, tmp_path):
    lock = tmp_path / "lock"
    monkeypatch.setattr(network_lock, "_LOCK", lock)
    with network_lock.network_locked():
        assert lock.stat().st_mode & 0o777 == 0o600
        with lock.open() as other, pytest.raises(BlockingIOError):
            fcntl.flock(other, fcntl.LOCK_EX | fcntl.LOCK_NB)
    with lock.open() as other:
        fcntl.flock(other, fcntl.LOCK_EX | fcntl.LOCK_NB)


def test_a_lock_that_leads_elsewhere_is_refused(monkeypatch, tmp_path):
    (tmp_path / "lock").symlink_to(tmp_path / "elsewhere")
    monkeypatch.setattr(network_lock, "_LOCK", tmp_path / "lock")
    with pytest.raises(BangerError) as caught, network_lock.network_locked():
        pass
    assert caught.value.reason is Reason.IO
    assert [path.name for path in tmp_path.iterdir()] == ["lock"]


def test_who_may_change_the_network_without_being_root_goes_on_without_the_lock(host, tmp_path):
    # Reading only, for an interpreter that is root's own.
    rights = "-all,+net_admin,+dac_read_search"
    tun = 'mount -t tmpfs lab "$0"; mknod -m 666 "$0/tun" c 10 200; mount --bind "$0/tun" /dev/net/tun; exec "$@"'
    user = ["setpriv", "--reuid", "4242", "--regid", "4242", "--clear-groups", "--inh-caps", rights]
    code = (
        "from ipaddress import IPv4Address\nfrom banger.network import *\n"
        "for change in (lambda *a: connect(*a, nat=False), disconnect, lambda *a: connect(*a, nat=False)):\n"
        "    change(DEFAULT_SUBNET, IPv4Address('172.16.0.5'))\n"
    )
    host.run("sh", "-ec", tun, tmp_path, *user, "--ambient-caps", rights, sys.executable, "-I", "-c", code)
    assert host.links()[TAP5]["linkinfo"]["info_data"]["user"] == 4242
