"""Bad input: one clear line on stderr, status 1 (or 2 for a misuse), nothing on stdout, nothing left behind."""

from __future__ import annotations

import json
from typing import TYPE_CHECKING

import pytest

if TYPE_CHECKING:
    from conftest import Cli

_BAD_OPTIONS = [
    ["--image", "debian-bokworm"],
    ["--image", "../x"],
    ["--image", "Debian"],
    ["--kernel", "no-such-kernel"],
    ["--kernel", ".."],
    ["--name", "Box"],
    ["--name", "-box"],
    ["--name", "a.b"],
    ["--name", ""],
    ["--name", "x" * 64],
    ["--name", "a=b"],
    ["--vcpu", "0"],
    ["--vcpu", "-1"],
    ["--vcpu", "abc"],
    ["--vcpu", "33"],
    ["--vcpu", ""],
    ["--vcpu", "1.5"],
    ["--memory", "10"],
    ["--memory", "0"],
    ["--memory", "-5"],
    ["--memory", "abc"],
    ["--memory", "999999T"],
    ["--disk-size", "0"],
    ["--disk-size", "1K"],
    ["--disk-size", "63M"],
    ["--disk-size", "999999999T"],
]


def _is_refusal(cli: Cli, *words: str) -> str:
    done = cli.run(*words)
    assert done.returncode == 1, done.stderr
    assert done.stdout == ""
    lines = done.stderr.splitlines()
    refusal = next(line for line in lines if line.startswith("banger: "))
    assert "Traceback" not in done.stderr
    assert cli.left() == set()
    return refusal


@pytest.mark.parametrize("image", ["oci:missing", "oci-archive:missing", "docker-archive:missing:x", "oci:", "-"])
def test_an_image_on_this_host_that_is_none_is_refused(cli: Cli, image: str) -> None:
    for words in (["vm", "create", "--image", image], ["image", "build", image]):
        _is_refusal(cli, *words)


@pytest.mark.parametrize("options", _BAD_OPTIONS, ids=" ".join)
def test_a_bad_wish_is_refused(cli: Cli, options: list[str]) -> None:
    refusal = _is_refusal(cli, "vm", "create", *options)
    assert options[1] in refusal


@pytest.mark.parametrize("command", [["run"], ["run", "--rm"], ["run", "-d"], ["create", "--no-start"]], ids=" ".join)
def test_every_way_to_make_a_machine_refuses_the_same(cli: Cli, command: list[str]) -> None:
    assert "--vcpu" in _is_refusal(cli, "vm", *command, "--vcpu", "0")


@pytest.mark.parametrize(
    "words",
    [["--rm"], ["--", "true"], ["--rm", "--", "true"], ["--entrypoint"], ["--user", "image"]],
    ids=" ".join,
)
def test_a_detached_machine_goes_with_no_session_and_no_removal(cli: Cli, words: list[str]) -> None:
    assert "--detach" in _is_refusal(cli, "vm", "run", "-d", *words)


def test_an_option_after_the_machine_s_name_is_not_taken_for_a_command(cli: Cli) -> None:
    assert "--user" in _is_refusal(cli, "vm", "exec", "box", "--user", "image", "--", "true")


@pytest.mark.parametrize("seconds", ["0", "-1", "nan", "inf", "1e10", "86401"])
@pytest.mark.parametrize("words", [["run", "--ssh-timeout"], ["stop", "box", "--timeout"]], ids=" ".join)
def test_a_timeout_that_is_none_is_refused(cli: Cli, words: list[str], seconds: str) -> None:
    assert words[-1] in _is_refusal(cli, "vm", *words, seconds)


@pytest.mark.parametrize(
    "words",
    [
        ["show"],
        ["ssh"],
        ["logs"],
        ["start"],
        ["stop"],
        ["delete"],
        ["exec", "box", "true"],
        ["exec", "box", "--", "true"],
    ],
    ids=" ".join,
)
def test_a_machine_that_is_not_there_is_refused_by_every_command(cli: Cli, words: list[str]) -> None:
    command, *rest = words
    assert "'box'" in _is_refusal(cli, "vm", command, *(rest or ["box"]))


def test_every_name_of_several_is_told(cli: Cli) -> None:
    done = cli.run("vm", "delete", "one", "two", "one")
    assert done.returncode == 1
    assert [line for line in done.stderr.splitlines() if line.startswith("banger: ")] == [
        "banger: there is no machine 'one'",
        "banger: there is no machine 'two'",
    ]


@pytest.mark.parametrize(
    ("text", "meant"),
    [("vmmm = 'qemu'", "vmm"), ("[vm_defaults]\nvcpus = 2", "vcpu")],
)
def test_an_unknown_key_of_the_configuration_is_refused_with_the_nearest(cli: Cli, text: str, meant: str) -> None:
    cli.configure(text)
    assert "config.toml" in _is_refusal(cli, "vm", "run")
    assert repr(meant) in cli.run("vm", "run").stderr


def test_a_configuration_that_is_not_toml_is_refused(cli: Cli) -> None:
    cli.configure("= nonsense")
    assert "config.toml" in _is_refusal(cli, "vm", "run")


def test_an_image_that_is_not_known_is_not_built(cli: Cli) -> None:
    _is_refusal(cli, "image", "build", "debian-bokworm")
    assert "did you mean 'debian-bookworm'?" in cli.run("image", "build", "debian-bookwor").stderr


@pytest.mark.parametrize(
    "words",
    [
        ["debian-bokworm"],
        ["vm", "nope"],
        ["vm", "run", "--nope"],
        ["vm", "show"],
        ["vm", "run", "--"],
        ["vm", "exec", "box"],
    ],
    ids=" ".join,
)
def test_a_misuse_of_the_command_line_has_status_two(cli: Cli, words: list[str]) -> None:
    done = cli.run(*words)
    assert done.returncode == 2
    assert done.stdout == ""
    assert "Error: " in done.stderr
    assert not (cli.home / ".local").exists()


@pytest.mark.parametrize(
    ("words", "reason"),
    [
        (["vm", "show", "box", "--json"], "not-found"),
        (["vm", "create", "--json", "--vcpu", "0"], "bad-input"),
        (["vm", "create", "--json", "--image", "debian-bokworm"], "not-found"),
        (["image", "build", "debian-bokworm", "--json"], "not-found"),
    ],
)
def test_an_error_can_be_read_by_a_program(cli: Cli, words: list[str], reason: str) -> None:
    done = cli.run(*words)
    assert done.returncode == 1
    assert done.stdout == ""
    error = json.loads(done.stderr.splitlines()[-1])["error"]
    assert error["reason"] == reason
    assert error["message"]


def test_a_json_of_the_guest_s_command_is_not_ours(cli: Cli) -> None:
    done = cli.run("vm", "run", "--vcpu", "0", "--", "prog", "--json")
    assert done.stderr.startswith("banger: ")


def test_a_name_with_control_characters_reaches_no_terminal(cli: Cli) -> None:
    done = cli.run("vm", "show", "\x1b[31mred\x07")
    assert "\x1b" not in done.stderr
    assert "\x07" not in done.stderr


def test_a_newer_database_is_refused_by_every_command_that_reads_it(cli: Cli) -> None:
    import sqlite3

    cli.run("vm", "list")
    with sqlite3.connect(cli.home / ".local/state/banger/banger.db") as connection:
        connection.execute("PRAGMA user_version=99")
    assert "newer" in _is_refusal(cli, "vm", "list")
