"""What makes a machine this one: exactly these files, on its own disks."""

from __future__ import annotations

import io
import tarfile
from dataclasses import replace
from ipaddress import IPv4Address
from pathlib import Path

import pytest

from banger.guest.ssh import HostKey
from banger.machine import identity as module
from banger.machine.home import Home, write_home
from banger.machine.identity import Identity, find_nameservers, write_overlay
from cache import Object, Store
from pipelines.apt import Mirrors

_ME = Identity(
    id="0123456789ab",
    name="box",
    address=IPv4Address("172.16.0.5"),
    host_key=HostKey("PRIVATE\n", "ssh-ed25519 AAAA"),
    nameservers=("192.0.2.1", "192.0.2.2"),
    mirrors=None,
)
_FILES = {
    "etc/.updated": 0o644,
    "var/.updated": 0o644,
    "etc/hostname": 0o644,
    "etc/hosts": 0o644,
    "etc/resolv.conf": 0o644,
    "etc/machine-id": 0o444,
    "etc/ssh/ssh_host_ed25519_key": 0o600,
    "etc/ssh/ssh_host_ed25519_key.pub": 0o644,
    "etc/ssh/sshd_config.d/00-banger.conf": 0o600,
    "usr/lib/systemd/system-shutdown/banger": 0o755,
}


def _overlay(identity: Identity) -> dict[str, tuple[tarfile.TarInfo, str]]:
    sink = io.BytesIO()
    with tarfile.open(fileobj=sink, mode="w") as tar:
        write_overlay(tar, identity)
    sink.seek(0)
    found = {}
    with tarfile.open(fileobj=sink) as tar:
        for member in tar:
            assert (member.uid, member.gid) == (0, 0)
            assert member.name not in found, "an entry comes twice"
            parent = member.name.rpartition("/")[0]
            assert not parent or found[parent][0].isdir(), "a parent folder comes first"
            source = tar.extractfile(member)
            found[member.name] = (member, source.read().decode() if source is not None else "")
    return found


def test_the_overlay_holds_exactly_the_files_of_the_identity() -> None:
    found = _overlay(_ME)
    files = {name.removeprefix("upper/"): member.mode for name, (member, _) in found.items() if member.isreg()}
    assert files == _FILES
    folders = {name for name, (member, _) in found.items() if member.isdir()}
    assert {"upper", "work", "docker", "containerd"} <= folders
    assert all(found[name][0].mode == 0o755 for name in folders if name.startswith("upper"))


def test_an_image_that_leaves_the_mirror_to_the_machine_gets_it_in_two_more_files() -> None:
    found = _overlay(replace(_ME, mirrors=Mirrors("http://m.invalid/debian", "http://m.invalid/security")))
    files = {name.removeprefix("upper/") for name, (member, _) in found.items() if member.isreg()}
    assert files - set(_FILES) == {"etc/apt/mirrors/debian.list", "etc/apt/mirrors/debian-security.list"}
    assert found["upper/etc/apt/mirrors/debian.list"][1] == "http://m.invalid/debian\n"


def test_the_files_say_who_the_machine_is() -> None:
    found = {name: text for name, (_, text) in _overlay(_ME).items()}
    assert found["upper/etc/hostname"] == "box\n"
    hosts = [line.split() for line in found["upper/etc/hosts"].splitlines()]
    assert ["172.16.0.5", "box.vm", "box"] in hosts
    assert ["127.0.0.1", "localhost"] in hosts
    assert found["upper/etc/resolv.conf"] == "nameserver 192.0.2.1\nnameserver 192.0.2.2\n"
    assert found["upper/etc/machine-id"] == "0" * 20 + "0123456789ab\n"
    assert found["upper/etc/ssh/ssh_host_ed25519_key"] == "PRIVATE\n"
    assert "PasswordAuthentication no" in found["upper/etc/ssh/sshd_config.d/00-banger.conf"]


def test_a_home_is_the_image_s_own_but_for_the_key_that_opens_it(artifacts: dict[str, Object], store: Store) -> None:
    sink = io.BytesIO()
    with tarfile.open(fileobj=sink, mode="w", format=tarfile.GNU_FORMAT) as tar:
        write_home(tar, Home("ssh-ed25519 BBBB me", store.path(artifacts["home"])))
    sink.seek(0)
    with tarfile.open(fileobj=sink) as tar:
        members = tar.getmembers()
        keys = tar.extractfile(".ssh/authorized_keys")
        assert keys is not None
        assert keys.read() == b"ssh-ed25519 BBBB me\n"
    modes = {member.name: member.mode for member in members}
    assert len(modes) == len(members)
    assert set(modes) == {".", ".ssh", ".ssh/authorized_keys", ".ssh/config", ".bashrc", "ünï ✓"}
    assert (modes["."], modes[".ssh"], modes[".ssh/authorized_keys"]) == (0o700, 0o700, 0o600)


@pytest.mark.parametrize(
    ("content", "found"),
    [
        (b"nameserver 192.0.2.1\n", ("192.0.2.1",)),
        (b"# x\nsearch a.b\n\tnameserver\t192.0.2.1 # first\nnameserver 192.0.2.2", ("192.0.2.1", "192.0.2.2")),
        (b"nameserver 127.0.0.53\nnameserver 192.0.2.1\n", ("192.0.2.1",)),
        (b"nameserver 0.0.0.0\nnameserver 127.9.9.9\n", ()),
        (b"nameserver ::1\nnameserver fe80::1%eth0\nnameserver 2001:db8::1\n", ()),
        (b"nameserver\nnameserver x\nnameserver 192.0.2\nnameserver 300.0.0.1\nnameservers 192.0.2.1\n", ()),
        (b"\xff\xfe\0\nnameserver 192.0.2.1\n", ("192.0.2.1",)),
        (b"", ()),
    ],
)
def test_name_servers_that_a_guest_can_reach_are_found(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, content: bytes, found: tuple[str, ...]
) -> None:
    monkeypatch.setattr(module, "_RESOLVED_CONF", tmp_path / "missing")
    (tmp_path / "resolv.conf").write_bytes(content)
    assert find_nameservers(tmp_path / "resolv.conf") == found


def test_behind_a_stub_resolver_the_real_servers_are_found(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "stub").write_text("nameserver 127.0.0.53\n")
    (tmp_path / "real").write_text("nameserver 192.0.2.7\n")
    monkeypatch.setattr(module, "_RESOLVED_CONF", tmp_path / "real")
    assert find_nameservers(tmp_path / "stub") == ("192.0.2.7",)
    assert find_nameservers(tmp_path / "missing") == ("192.0.2.7",)
