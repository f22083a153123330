"""`banger config`: what counts and where it comes from, and a file to begin with."""

from __future__ import annotations

import json
import stat
import subprocess
import sys
from typing import TYPE_CHECKING, Any

import pytest

from banger.settings.pages import format_file, format_page

if TYPE_CHECKING:
    from conftest import Cli


def _show(cli: Cli, *words: str) -> dict[str, dict[str, Any]]:
    done = cli.run("config", "show", "--json", *words)
    assert (done.returncode, done.stderr) == (0, "")
    return {row["key"]: row for row in json.loads(done.stdout)}


def test_without_a_file_everything_is_a_default_or_the_host_s(cli: Cli) -> None:
    cli.environment = {"BANGER_DAEMON_AUTOSTART": ""}
    rows = _show(cli)
    assert rows["vmm"] == {"key": "vmm", "value": "auto", "origin": "default", "place": None}
    assert rows["ssh_key_path"]["value"] is None
    assert rows["file_sync"]["value"] == rows["registry"]["value"] == []
    assert {row["origin"] for row in rows.values()} <= {"default", "host-derived"}


def test_what_each_catalog_says_is_shown(cli: Cli) -> None:
    cli.configure('[[catalog]]\nref = "a.example.com/team/catalog:stable"\nkey = "~/team.pub"\n')
    rows = _show(cli)
    shown = {key: row["value"] for key, row in rows.items() if "catalog" in key}
    assert "a.example.com/team/catalog:stable" in shown.values()
    assert str(cli.home / "team.pub") in map(str, shown.values())


def test_each_value_has_its_origin(cli: Cli) -> None:
    cli.configure('vmm = "qemu"\nkvm = "off"\n\n[vm_defaults]\nvcpu = 3\nmemory_mib = 777\n')
    cli.environment = {"BANGER_KVM": "force", "BANGER_VM_DEFAULTS_MEMORY_MIB": "888", "BANGER_FIRECRACKER_BIN": ""}
    rows = _show(cli, "--memory", "1G", "--image", "debian:12")
    file = cli.home / ".config/banger/config.toml"
    assert rows["vmm"] == {"key": "vmm", "value": "qemu", "origin": "file", "place": f"{file}:1"}
    assert rows["kvm"] == {"key": "kvm", "value": "force", "origin": "environment", "place": "BANGER_KVM"}
    assert rows["firecracker_bin"]["origin"] == "default"
    assert (rows["vm_defaults.vcpu"]["value"], rows["vm_defaults.vcpu"]["place"]) == (3, f"{file}:5")
    memory = rows["vm_defaults.memory_mib"]
    assert (memory["value"], memory["origin"], memory["place"]) == (1024, "flag", "--memory")
    assert (rows["default_image_name"]["value"], rows["default_image_name"]["place"]) == ("debian:12", "--image")


def test_the_table_for_people_says_the_same(cli: Cli) -> None:
    cli.configure('\nvmm = "qemu"\n')
    cli.environment = {"BANGER_KVM": "off", "BANGER_DAEMON_AUTOSTART": "false"}
    done = cli.run("config", "show", "--vcpu", "7")
    assert (done.returncode, done.stderr) == (0, "")
    lines = [line.split(maxsplit=2) for line in done.stdout.splitlines()]
    assert lines[0] == ["KEY", "VALUE", "ORIGIN"]
    assert ["vmm", "qemu", "file, line 2"] in lines
    assert ["kvm", "off", "environment, BANGER_KVM"] in lines
    assert ["daemon.autostart", "false", "environment, BANGER_DAEMON_AUTOSTART"] in lines
    assert ["vm_defaults.vcpu", "7", "flag, --vcpu"] in lines
    assert ["vm_defaults.disk_size", "8G", "default"] in lines


def test_where_there_is_no_file_its_place_is_told(cli: Cli) -> None:
    assert str(cli.home / ".config/banger/config.toml") in cli.run("config", "show").stderr
    assert cli.run("-q", "config", "show").stderr == ""


def test_tables_are_shown_key_by_key(cli: Cli) -> None:
    cli.configure(
        '[[file_sync]]\nhost = "~/a"\nguest = "/root/b"\n\n[[file_sync]]\nhost = "/c"\nguest = "~/d"\nmode = "755"\n'
    )
    rows = _show(cli)
    shown = {key: (row["value"], row["place"].rpartition(":")[2]) for key, row in rows.items() if "file_sync" in key}
    assert shown == {
        "file_sync[1].host": (f"{cli.home}/a", "2"),
        "file_sync[1].guest": ("~/b", "3"),
        "file_sync[2].host": ("/c", "6"),
        "file_sync[2].guest": ("~/d", "7"),
        "file_sync[2].mode": ("0755", "8"),
    }


@pytest.mark.parametrize("words", [[], ["--json"]], ids=["table", "json"])
def test_no_password_is_shown(cli: Cli, words: list[str]) -> None:
    cli.configure(
        'debian_mirror = "http://me:hush@mirror.invalid/debian"\n'
        '[[registry]]\nhost = "a.invalid"\nusername = "me"\npassword = "hush"\n'
    )
    cli.environment = {
        "BANGER_REGISTRY_HOST": "b.invalid",
        "BANGER_REGISTRY_USERNAME": "you",
        "BANGER_REGISTRY_PASSWORD": "hush",
    }
    done = cli.run("config", "show", *words)
    assert done.returncode == 0
    assert "hush" not in done.stdout + done.stderr
    assert done.stdout.count("***") == 3
    assert "BANGER_REGISTRY_USERNAME" in done.stdout


def test_nothing_in_the_file_reaches_a_terminal_raw(cli: Cli) -> None:
    cli.configure('vmm = "\\u001b[31mred\\n\\u0007"\n"\\u001b[2J" = 1\n')
    for text in ('vmm = "\\u001b[31mred\\n\\u0007"\n', '"\\u001b[2J\\n" = 1\n', 'default_image_name = "\\u202eabc"\n'):
        cli.configure(text)
        done = cli.run("config", "show")
        assert not {"\x1b", "\x07", "\u202e"} & set(done.stdout + done.stderr)
        assert len(done.stderr.splitlines()) <= 2


@pytest.mark.parametrize(
    ("text", "words", "told"),
    [
        ('\n\nvmm = "vmware"\n', [], 'config.toml, line 3: vmm must be "auto", "firecracker" or "qemu", not "vmware"'),
        ("[vm_defaults]\nvcpu = 0\n", [], "config.toml, line 2: vm_defaults.vcpu must be a whole number from 1 to 32"),
        ("", ["--vcpu", "0"], '--vcpu must be a whole number from 1 to 32, not "0"'),
        ("", ["--image", ""], "--image must be"),
    ],
)
def test_what_is_wrong_is_one_line_with_status_one(cli: Cli, text: str, words: list[str], told: str) -> None:
    cli.configure(text)
    done = cli.run("config", "show", *words)
    assert (done.returncode, done.stdout) == (1, "")
    assert len(done.stderr.splitlines()) == 1
    assert told in done.stderr
    refused = json.loads(cli.run("config", "show", "--json", *words).stderr)
    assert refused["error"]["reason"] == "bad-input"


def test_a_wrong_variable_is_refused_by_every_command_that_reads_the_configuration(cli: Cli) -> None:
    cli.environment = {"BANGER_VM_DEFAULTS_DISK_SIZE": "1K"}
    for words in (["config", "show"], ["vm", "create"]):
        done = cli.run(*words)
        assert done.returncode == 1
        assert "BANGER_VM_DEFAULTS_DISK_SIZE must be a size from 64M to 16T" in done.stderr


def test_init_writes_a_file_for_its_owner_alone_that_changes_nothing(cli: Cli) -> None:
    before = {key: row["value"] for key, row in _show(cli).items()}
    done = cli.run("config", "init")
    file = cli.home / ".config/banger/config.toml"
    assert (done.returncode, done.stdout, done.stderr) == (0, f"{file}\n", "")
    assert stat.S_IMODE(file.stat().st_mode) == 0o600
    assert stat.S_IMODE(file.parent.stat().st_mode) == 0o700
    assert file.read_text() == format_file()
    assert {path.name for path in file.parent.iterdir()} == {"config.toml"}
    assert {key: row["value"] for key, row in _show(cli).items()} == before


def test_init_never_overwrites_unasked(cli: Cli) -> None:
    cli.configure("vmm = 'qemu'\n")
    file = cli.home / ".config/banger/config.toml"
    done = cli.run("config", "init")
    assert (done.returncode, done.stdout) == (1, "")
    assert str(file) in done.stderr
    assert "--force" in done.stderr
    assert file.read_text() == "vmm = 'qemu'\n"
    file.chmod(0o644)
    assert cli.run("config", "init", "--force").returncode == 0
    assert file.read_text() == format_file()
    assert stat.S_IMODE(file.stat().st_mode) == 0o600


def test_init_keeps_a_link_and_writes_where_it_leads(cli: Cli) -> None:
    file = cli.home / ".config/banger/config.toml"
    file.parent.mkdir(parents=True)
    kept = cli.home / "dotfiles/banger.toml"
    file.symlink_to(kept)
    assert cli.run("config", "init").returncode == 0
    assert cli.run("config", "init").returncode == 1
    assert cli.run("config", "init", "--force").returncode == 0
    assert file.is_symlink()
    assert kept.read_text() == format_file()


def test_init_that_cannot_write_says_so_and_leaves_nothing(cli: Cli) -> None:
    (cli.home / ".config").write_text("")
    done = cli.run("config", "init")
    assert (done.returncode, done.stdout) == (1, "")
    assert done.stderr.startswith("banger: cannot write ")
    assert (cli.home / ".config").read_text() == ""


def test_init_can_only_print(cli: Cli) -> None:
    done = cli.run("config", "init", "--stdout")
    assert (done.returncode, done.stdout, done.stderr) == (0, format_file(), "")
    assert not (cli.home / ".config").exists()


def test_the_page_of_the_documentation_is_printed(cli: Cli) -> None:
    assert cli.run("config", "docs").stdout == format_page()
    assert "docs" not in cli.run("config", "-h").stdout


@pytest.mark.parametrize("command", [[], ["show"], ["init"]], ids=" ".join)
def test_each_command_explains_itself_without_reading_the_configuration(cli: Cli, command: list[str]) -> None:
    cli.configure("nonsense")
    done = cli.run("config", *command, "-h")
    assert (done.returncode, done.stderr) == (0, "")
    assert done.stdout.startswith("Usage: banger config")
    assert not (cli.home / ".local").exists()


def test_showing_the_configuration_is_quick(cli: Cli) -> None:
    program = """
import sys
from banger.cli import main
try:
    main()
except SystemExit:
    pass
print("\\n".join(sys.modules), file=sys.stderr)
"""
    done = subprocess.run(
        [sys.executable, "-I", "-c", program, "-q", "config", "show"],
        env=cli.variables(),
        capture_output=True,
        text=True,
        timeout=60,
    )
    assert done.returncode == 0
    assert "banger.settings.table" in done.stderr.split()
    assert not {"tomllib", "doit", "requests", "rich", "pyroute2", "pipelines.oci.registry"} & set(done.stderr.split())
