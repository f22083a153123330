"""`ssh NAME.vm`: what the real ssh makes of our file, and what becomes of the person's own."""

from __future__ import annotations

import os
import stat
import subprocess
from collections.abc import Callable
from dataclasses import replace
from ipaddress import IPv4Address
from pathlib import Path

import pytest

from banger.errors import BangerError, Reason
from banger.guest.ssh import Access
from banger.machine.machines import Machines
from banger.machine.record import Machine, Wish
from banger.machine.ssh_config import (
    Inclusion,
    find_inclusion,
    format_include,
    format_ssh_config,
    install,
    ssh_config_path,
    uninstall,
    write_ssh_config,
)
from banger.vmm.process import identify_self
from tests.ordinary_user import UID

_INCLUDE = "Include /home/me/.config/banger/ssh_config"


def _ask_ssh(config: Path, host: str) -> dict[str, str]:
    """What ssh would do, by the configuration alone."""
    argv = ["ssh", "-T", "-F", str(config), "-G", host]
    done = subprocess.run(argv, capture_output=True, text=True, stdin=subprocess.DEVNULL)
    assert (done.returncode, done.stderr) == (0, "")
    return dict(line.split(" ", 1) for line in done.stdout.splitlines() if " " in line)


@pytest.fixture
def config(tmp_path: Path) -> Path:
    """The person's ~/.ssh/config, in a folder that is there."""
    folder = tmp_path / ".ssh"
    folder.mkdir(mode=0o755)
    return folder / "config"


def _make(machines: Machines, wish: Wish, name: str) -> Machine:
    machine = machines.records.add(replace(wish, name=name), machines.subnet, identify_self())
    return machines.records.update(machine, creator=None)


def test_ssh_takes_a_machine_s_block_as_banger_means_it(tmp_path: Path) -> None:
    folder = tmp_path / 'a %h b"c\\d ünï'
    folder.mkdir()
    access = Access("box", IPv4Address("172.16.0.9"), folder / "id", folder / "known hosts")
    config = tmp_path / "config"
    config.write_text(format_ssh_config([replace(access, name="other"), access]))
    options = _ask_ssh(config, "box.vm")
    assert options["hostname"] == "172.16.0.9"
    assert options["user"] == "root"
    # Shown as it was written: this one is expanded when the key is looked for.
    assert options["identityfile"] == str(folder / "id").replace("%", "%%")
    assert options["userknownhostsfile"] == str(folder / "known hosts")
    assert options["hostkeyalias"] == "box"
    assert options["identitiesonly"] == "yes"
    assert options["globalknownhostsfile"] == "none"
    assert options["stricthostkeychecking"] in ("true", "yes")
    assert options["updatehostkeys"] in ("false", "no")
    assert options["loglevel"] == "ERROR"
    assert _ask_ssh(config, "box")["hostname"] == "box"
    assert _ask_ssh(config, "box.vm.example")["hostname"] == "box.vm.example"


def test_the_file_follows_the_records(machines: Machines, wish: Wish) -> None:
    _make(machines, wish, "one")
    two = _make(machines, wish, "two")
    path = write_ssh_config(machines)
    assert path == ssh_config_path(machines.paths)
    assert stat.S_IMODE(path.stat().st_mode) == 0o600
    assert _ask_ssh(path, "two.vm")["hostname"] == str(two.address)
    assert _ask_ssh(path, "two.vm")["identityfile"] == str(machines.paths.state / "ssh/id_ed25519")
    machines.records.remove(two)
    write_ssh_config(machines)
    assert _ask_ssh(path, "two.vm")["hostname"] == "two.vm"
    assert _ask_ssh(path, "one.vm")["hostkeyalias"] == "one"


def test_a_file_that_is_right_is_not_written_again(machines: Machines, wish: Wish) -> None:
    _make(machines, wish, "one")
    path = write_ssh_config(machines)
    before = path.stat().st_ino
    assert write_ssh_config(machines).stat().st_ino == before
    path.write_text("something else")
    write_ssh_config(machines)
    assert "Host one.vm" in path.read_text()
    assert {each.name for each in path.parent.iterdir()} == {"ssh_config"}


def test_a_machine_that_is_still_being_made_cannot_be_reached_yet(machines: Machines, wish: Wish) -> None:
    machines.records.add(replace(wish, name="soon"), machines.subnet, identify_self())
    assert "soon" not in write_ssh_config(machines).read_text()


def test_without_machines_the_file_is_there_and_empty_to_ssh(machines: Machines) -> None:
    path = write_ssh_config(machines)
    assert _ask_ssh(path, "box.vm")["hostname"] == "box.vm"
    assert not (machines.paths.state / "ssh").exists()


def test_a_configuration_folder_of_somebody_else_is_refused(machines: Machines, tmp_path: Path) -> None:
    machines.paths.config.parent.mkdir(parents=True)
    machines.paths.config.symlink_to(tmp_path)
    with pytest.raises(BangerError) as caught:
        write_ssh_config(machines)
    assert caught.value.reason is Reason.NO_PERMISSION


@pytest.mark.parametrize("name", ["plain", "a b", "100%", "a*[b]?", 'q"q', "back\\slash", "ünï", "#x", "${HOME}", "~x"])
def test_the_include_finds_the_file_whatever_its_folder_is_called(tmp_path: Path, config: Path, name: str) -> None:
    ours = tmp_path / name / "ssh_config"
    ours.parent.mkdir()
    ours.write_text(format_ssh_config([Access("box", IPv4Address("172.16.0.9"), Path("/id"), Path("/known"))]))
    install(config, format_include(ours))
    assert _ask_ssh(config, "box.vm")["hostname"] == "172.16.0.9"


def test_what_follows_the_include_still_counts_for_all_hosts(tmp_path: Path, config: Path) -> None:
    ours = tmp_path / "ssh_config"
    ours.write_text(format_ssh_config([Access("box", IPv4Address("172.16.0.9"), Path("/id"), Path("/known"))]))
    config.write_text("User me\nHost example\n  Port 2200\n")
    install(config, format_include(ours))
    assert _ask_ssh(config, "elsewhere")["user"] == "me"
    assert _ask_ssh(config, "example")["port"] == "2200"
    assert _ask_ssh(config, "box.vm")["user"] == "root"


_CONTENTS = [
    b"",
    b"\n",
    b"Host a\n  User b\n",
    b"Host a\n  User b",
    b"Host a\r\n  User b\r\n",
    b"Host a\r\n  User b",
    b"# \xff\xfe not UTF-8\n\x0c\n",
]


@pytest.mark.parametrize("content", _CONTENTS)
def test_what_was_there_survives_byte_for_byte(config: Path, content: bytes) -> None:
    config.write_bytes(content)
    assert install(config, _INCLUDE)
    installed = config.read_bytes()
    assert installed.endswith(content)
    assert installed.splitlines()[1] == _INCLUDE.encode()
    assert find_inclusion(config) is Inclusion.YES
    assert not install(config, _INCLUDE)
    assert config.read_bytes() == installed
    assert uninstall(config)
    assert (config.read_bytes() if content else b"") == content
    assert config.exists() == bool(content)
    assert not uninstall(config)
    assert find_inclusion(config) is Inclusion.NO


def test_lines_that_were_moved_or_changed_come_back_to_the_top(config: Path) -> None:
    install(config, _INCLUDE)
    block = config.read_bytes()
    moved = block.replace(b"\n", b"\r\n").replace(b"/home/me", b"/elsewhere")
    config.write_bytes(b"Host a\n  User b\n" + moved + b"Host c\n")
    assert install(config, _INCLUDE)
    assert config.read_bytes() == block + b"Host a\n  User b\nHost c\n"


def test_a_file_that_is_missing_is_made_for_its_owner_alone(tmp_path: Path) -> None:
    config = tmp_path / ".ssh" / "config"
    assert not uninstall(config)
    assert not config.parent.exists()
    assert install(config, _INCLUDE)
    assert stat.S_IMODE(config.stat().st_mode) == 0o600
    assert stat.S_IMODE(config.parent.stat().st_mode) == 0o700
    assert uninstall(config)
    assert list(config.parent.iterdir()) == []


def test_mode_and_folder_stay_as_they_are(config: Path) -> None:
    config.write_text("Host a\n")
    config.chmod(0o640)
    for change in (lambda: install(config, _INCLUDE), lambda: uninstall(config)):
        assert change()
        assert stat.S_IMODE(config.stat().st_mode) == 0o640
        assert stat.S_IMODE(config.parent.stat().st_mode) == 0o755
        assert {each.name for each in config.parent.iterdir()} == {"config"}


@pytest.mark.skipif(os.geteuid() != 0, reason="giving a file away needs root")
def test_the_owner_stays(config: Path) -> None:
    config.write_text("Host a\n")
    os.chown(config, UID, UID)
    install(config, _INCLUDE)
    assert (config.stat().st_uid, config.stat().st_gid) == (UID, UID)


def test_a_link_stays_a_link_and_what_it_leads_to_is_written(config: Path, tmp_path: Path) -> None:
    kept = tmp_path / "dotfiles" / "ssh"
    kept.parent.mkdir()
    config.symlink_to("../dotfiles/ssh")
    for content in (None, "Host a\n", ""):
        if content is not None:
            kept.write_text(content)
        assert install(config, _INCLUDE)
        assert config.is_symlink()
        assert kept.read_text().splitlines()[1] == _INCLUDE
        assert uninstall(config)
        assert config.is_symlink()
        assert kept.read_text() == (content or "")


@pytest.mark.parametrize(
    "damage",
    [
        lambda lines: lines[:-1],
        lambda lines: lines[1:],
        lambda lines: [lines[0], *lines],
        lambda lines: [*lines, lines[-1]],
    ],
    ids=["no end", "no begin", "begun twice", "ended twice"],
)
def test_damaged_markers_are_refused_and_nothing_is_changed(
    config: Path, damage: Callable[[list[str]], list[str]]
) -> None:
    install(config, _INCLUDE)
    config.write_text("".join(damage(config.read_text().splitlines(keepends=True))) + "Host a\n")
    before = config.read_bytes()
    assert find_inclusion(config) is Inclusion.DAMAGED
    for change in (lambda: install(config, _INCLUDE), lambda: uninstall(config)):
        with pytest.raises(BangerError) as caught:
            change()
        assert caught.value.reason is Reason.CORRUPT
        assert str(config) in caught.value.message
    assert config.read_bytes() == before


def test_what_cannot_be_written_is_told_and_leaves_nothing(tmp_path: Path) -> None:
    (tmp_path / "folder").mkdir()
    (tmp_path / "loose").symlink_to("nowhere/config")
    (tmp_path / ".ssh").write_text("")
    for config in (tmp_path / "folder", tmp_path / "loose", tmp_path / ".ssh" / "config"):
        before = sorted(tmp_path.rglob("*"))
        with pytest.raises(BangerError) as caught:
            install(config, _INCLUDE)
        assert str(config) in caught.value.message
        assert sorted(tmp_path.rglob("*")) == before
