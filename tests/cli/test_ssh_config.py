"""`banger ssh-config`: the person's ~/.ssh/config is changed when they ask for it, and by nothing else."""

from __future__ import annotations

import json
import stat
import subprocess
from typing import TYPE_CHECKING

from banger.machine.record import Records, Wish
from banger.network import DEFAULT_SUBNET
from banger.vmm.process import identify_self

if TYPE_CHECKING:
    from conftest import Cli


def _make_machine(cli: Cli, name: str) -> str:
    """Gives its address."""
    records = Records(cli.home / ".local/state/banger/banger.db")
    wish = Wish(name, "image", "kernel", 1, 256, 64, nat=True)
    machine = records.update(records.add(wish, DEFAULT_SUBNET, identify_self()), creator=None)
    records.close()
    return str(machine.address)


def _find_host_name(cli: Cli, host: str) -> str:
    argv = ["ssh", "-T", "-F", str(cli.home / ".ssh/config"), "-G", host]
    shown = subprocess.run(argv, capture_output=True, text=True, check=True, stdin=subprocess.DEVNULL).stdout
    return next(line.split()[1] for line in shown.splitlines() if line.startswith("hostname "))


def test_the_line_to_paste_is_printed_and_nothing_of_the_person_s_is_touched(cli: Cli) -> None:
    address = _make_machine(cli, "box")
    done = cli.run("ssh-config")
    assert (done.returncode, done.stderr) == (0, "")
    assert done.stdout == f"Include {cli.home}/.config/banger/ssh_config\n"
    assert not (cli.home / ".ssh").exists()
    (cli.home / ".ssh").mkdir()
    (cli.home / ".ssh/config").write_text(done.stdout)
    assert _find_host_name(cli, "box.vm") == address


def test_it_comes_and_goes_as_often_as_one_likes(cli: Cli) -> None:
    address = _make_machine(cli, "box")
    config = cli.home / ".ssh/config"
    for _ in range(2):
        done = cli.run("ssh-config", "--install")
        assert (done.returncode, done.stdout) == (0, "")
        assert str(config) in done.stderr
        assert stat.S_IMODE(config.stat().st_mode) == 0o600
        assert _find_host_name(cli, "box.vm") == address
    for _ in range(2):
        assert cli.run("-q", "ssh-config", "--uninstall").stderr == ""
        assert not config.exists()


def test_the_machines_that_are_there_now_count(cli: Cli) -> None:
    cli.run("ssh-config", "--install")
    address = _make_machine(cli, "late")
    assert _find_host_name(cli, "late.vm") == "late.vm"
    cli.run("ssh-config")
    assert _find_host_name(cli, "late.vm") == address


def test_both_at_once_are_refused(cli: Cli) -> None:
    done = cli.run("ssh-config", "--install", "--uninstall")
    assert (done.returncode, done.stdout) == (1, "")
    assert "--uninstall" in done.stderr
    assert not (cli.home / ".ssh").exists()


def test_damaged_lines_are_refused_with_a_hint(cli: Cli) -> None:
    cli.run("ssh-config", "--install")
    config = cli.home / ".ssh/config"
    config.write_text(config.read_text().splitlines(keepends=True)[0])
    for word in ("--install", "--uninstall"):
        done = cli.run("ssh-config", word)
        assert done.returncode == 1
        assert str(config) in done.stderr
        assert "<<<" in done.stderr


def test_a_key_of_the_settings_that_is_missing_is_told(cli: Cli) -> None:
    cli.configure('ssh_key_path = "~/nothing"\n')
    _make_machine(cli, "box")
    done = cli.run("ssh-config", "--install")
    assert done.returncode == 1
    assert "ssh_key_path" in done.stderr
    assert not (cli.home / ".ssh").exists()


def test_no_other_command_touches_the_person_s_configuration(cli: Cli) -> None:
    _make_machine(cli, "box")
    folder = cli.home / ".ssh"
    folder.mkdir(mode=0o755)
    (folder / "config").write_text("Host a\n")
    before = [(path, path.stat().st_mtime_ns) for path in (folder, folder / "config")]
    for words in (["vm", "list", "-a"], ["vm", "delete", "box"], ["config", "show"], ["config", "init"], ["doctor"]):
        cli.run(*words)
    assert json.loads(cli.run("vm", "list", "-a", "--json").stdout) == []
    assert [(path, path.stat().st_mtime_ns) for path in (folder, folder / "config")] == before
