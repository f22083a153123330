"""What tells one machine from another, or what was done in it, is left out of an image; all else stays."""

from __future__ import annotations

from ipaddress import IPv4Address

import pytest

from banger.guest.ssh import HostKey
from banger.machine.identity import Identity, plan_identity_files
from pipelines.apt import Mirrors
from pipelines.oci.changeset import merge
from pipelines.oci.limits import Limits
from pipelines.oci.stream import Cursor
from pipelines.oci.tar import Kind, read_entries
from pipelines.strip import find_aliases, is_identity, rename
from tests.oci.layers import file, folder, layer, symlink

_ME = Identity(
    id="0123456789ab",
    name="me",
    address=IPv4Address("172.16.0.9"),
    host_key=HostKey("private", "public"),
    nameservers=("192.0.2.1",),
    mirrors=Mirrors("http://debian.invalid/debian", "http://debian.invalid/security"),
)


@pytest.mark.parametrize("path", [path for path, _content, _mode in plan_identity_files(_ME)])
def test_nothing_that_banger_writes_into_a_machine_gets_into_an_image(path: str) -> None:
    assert is_identity(path, Kind.FILE)


@pytest.mark.parametrize(
    "path",
    [
        "etc/ssh/ssh_host_rsa_key",
        "etc/ssh/ssh_host_ed25519_key.pub",
        "var/lib/dbus/machine-id",
        "var/lib/systemd/random-seed",
        "var/lib/systemd/credential.secret",
        "var/log/syslog",
        "var/log/wtmp",
        "var/log/apt/history.log",
        "var/log/journal/0123456789abcdef0123456789abcdef/system.journal",
        "var/lib/dhcp/dhclient.eth0.leases",
        "var/lib/cloud/instance/user-data.txt",
        "tmp/x",
        "var/tmp/a/b",
        "run/user/1000/bus",
        "root/.ssh/authorized_keys",
        "root/notes",
        "home/ada/.bash_history",
        "home/ada/.python_history",
        "home/ada/.local/share/fish/fish_history",
        "home/ada/.ssh/authorized_keys",
        "home/ada/.ssh/id_ed25519",
        "var/lib/postgresql/.psql_history",
        "home/ada/.lesshst",
    ],
)
def test_identity_logs_and_histories_are_left_out(path: str) -> None:
    assert is_identity(path, Kind.FILE)


@pytest.mark.parametrize(
    "path",
    [
        "etc/hosts.allow",
        "etc/ssh/sshd_config",
        "etc/ssh/sshd_config.d/50-team.conf",
        "etc/passwd",
        "etc/shadow",
        "usr/bin/jq",
        "var/lib/dpkg/status",
        "opt/tmp/x",
        "srv/root/x",
        "home/ada/history",
        "home/ada/.bashrc",
        "home/ada/ssh/notes",
        "var/logs/x",
        "usr/share/doc/etc/hosts",
        "etc/apt/sources.list",
        "etc/apt/mirrors/team.list",
    ],
)
def test_what_only_looks_like_it_stays(path: str) -> None:
    assert not is_identity(path, Kind.FILE)


@pytest.mark.parametrize(
    "path", ["var/log", "var/log/nginx", "tmp", "root", "home/ada/.ssh", "etc/ssh", "var/lib/cloud"]
)
def test_folders_that_others_look_for_stay(path: str) -> None:
    assert not is_identity(path, Kind.FOLDER)


@pytest.mark.parametrize(
    "path", ["var/log/journal/0123456789abcdef0123456789abcdef", "tmp/x", "var/lib/cloud/instances"]
)
def test_folders_that_are_named_after_a_machine_or_go_with_it_do_not(path: str) -> None:
    assert is_identity(path, Kind.FOLDER)


@pytest.mark.parametrize("name", ["etc/hostname", "etc/resolv.conf", "home/ada/.bash_history"])
def test_a_link_in_the_place_of_a_file_is_no_other_case(name: str) -> None:
    assert is_identity(name, Kind.SYMLINK)
    assert is_identity(name, Kind.LINK)


def test_what_an_image_has_elsewhere_is_known_by_its_usual_name() -> None:
    image = layer(
        *(folder(name) for name in ("private", "private/etc", "private/etc/ssh", "data", "var", "usr")),
        symlink("etc", "/private/etc"),
        symlink("var/log", "../data"),
        symlink("var/run", "/run"),
        symlink("tmp", "../../.."),
        symlink("root", "/"),
        symlink("var/tmp", "/nowhere"),
        file("private/etc/ssh/sshd_config"),
    )
    aliases = find_aliases(merge([read_entries(Cursor(iter([image]), "the test"))], Limits()))

    def is_left_out(path: str) -> bool:
        return is_identity(rename(path, aliases), Kind.FILE)

    for path in ("private/etc/ssh/ssh_host_ed25519_key", "private/etc/machine-id", "data/syslog", "etc/hostname"):
        assert is_left_out(path), path
    for path in ("private/etc/ssh/sshd_config", "private/x", "x", "usr/bin/x", "data", "nowhere"):
        assert not is_left_out(path), path
