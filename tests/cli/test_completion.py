"""What Tab offers, as the real shells show it."""

from __future__ import annotations

import json
import sqlite3
import subprocess
import sys
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING

import pytest

from banger.machine.record import Records, Wish
from banger.network import DEFAULT_SUBNET
from banger.vmm.process import identify_self
from tests.cli.shells import line_after_tab, offered_by_bash, offered_by_fish

if TYPE_CHECKING:
    from conftest import Cli

_WISH = Wish("", "image", "kernel", 1, 256, 64, nat=True)


@pytest.fixture
def filled(cli: Cli) -> Cli:
    """Two machines that run, two that do not; two images and a kernel."""
    records = Records(_database(cli))
    for name in ("box", "bridge", "old", "older"):
        machine = records.add(replace(_WISH, name=name), DEFAULT_SUBNET, identify_self())
        records.update(machine, creator=None, process=identify_self() if name.startswith("b") else None)
    records.close()
    for kind, name in (("images", "debian:12"), ("images", "mine"), ("kernels", "custom")):
        folder = cli.home / ".local/state/banger" / kind / name.replace(":", "%3A")
        folder.mkdir(parents=True)
        (folder / "manifest.json").write_text(json.dumps({"format": 1, "name": name}))
    return cli


def _database(cli: Cli) -> Path:
    return cli.home / ".local/state/banger/banger.db"


@pytest.mark.parametrize(
    ("command", "names"),
    [
        ("ssh", "box bridge"),
        ("exec", "box bridge"),
        ("stop", "box bridge"),
        ("kill", "box bridge"),
        ("ports", "box bridge"),
        ("start", "old older"),
        ("delete", "box bridge old older"),
        ("show", "box bridge old older"),
        ("logs", "box bridge old older"),
        ("set", "box bridge old older"),
        ("restart", "box bridge old older"),
    ],
)
def test_machines_are_offered_where_something_can_be_done_with_them(filled: Cli, command: str, names: str) -> None:
    assert offered_by_bash(filled, "banger", "vm", command, "") == names.split()


def test_a_machine_is_offered_once(filled: Cli) -> None:
    assert offered_by_bash(filled, "banger", "vm", "delete", "box", "older", "") == ["bridge", "old"]
    assert offered_by_bash(filled, "banger", "vm", "ssh", "box", "") == []


def test_all_shells_offer_the_same(filled: Cli) -> None:
    assert offered_by_bash(filled, "banger", "vm", "ssh", "b") == ["box", "bridge"]
    assert offered_by_fish(filled, "banger vm ssh b") == ["box", "bridge"]
    for shell in ("bash", "zsh"):
        assert line_after_tab(filled, shell, "banger vm ssh bo") == "banger vm ssh box"
        assert line_after_tab(filled, shell, "banger vm ssh b") == "banger vm ssh b"


@pytest.mark.parametrize("shell", ["bash", "zsh"])
@pytest.mark.parametrize(
    ("typed", "becomes"),
    [
        ("banger vm run --image deb", "banger vm run --image debian"),
        ("banger vm run --image debian:", "banger vm run --image debian:12"),
        ("banger vm run --image=debian:", "banger vm run --image=debian:12"),
        ("banger vm run --kernel=cu", "banger vm run --kernel=custom"),
        ("banger image show deb", "banger image show debian:12"),
        ("banger vm run ./rep", "banger vm run ./repo"),
        ("banger vm run rep", "banger vm run repo"),
        ("banger vm ssh not", "banger vm ssh not"),
        ("banger vm exec box -- not", "banger vm exec box -- not"),
        ("banger vm run -- not", "banger vm run -- not"),
        ("banger vm exec box not", "banger vm exec box not"),
        ("banger ssh", "banger ssh-config"),
    ],
)
def test_the_line_becomes_what_was_meant(filled: Cli, shell: str, typed: str, becomes: str) -> None:
    """There are files to fall back to, which nobody asked for."""
    (filled.home / "repo").mkdir()
    (filled.home / "report").write_text("")
    (filled.home / "not-a-machine").write_text("")
    assert line_after_tab(filled, shell, typed) == becomes


def test_fish_completes_options_and_folders_too(filled: Cli) -> None:
    (filled.home / "repo").mkdir()
    (filled.home / "report").write_text("")
    assert offered_by_fish(filled, "banger vm run --image debian:") == ["debian:12"]
    assert offered_by_fish(filled, "banger vm run --image=mi") == ["--image=mine"]
    assert offered_by_fish(filled, "banger vm run rep") == ["repo/"]
    assert offered_by_fish(filled, "banger vm ssh re") == []
    assert offered_by_fish(filled, "banger vm exec box -- re") == []


@pytest.mark.parametrize(
    ("words", "offered"),
    [
        (["image", "show"], ["debian:12", "mine"]),
        (["image", "delete", "mine"], ["debian:12"]),
        (["image", "build"], ["debian-bookworm", "debian:12", "mine"]),
        (["kernel", "build"], ["custom", "debian-6.12"]),
        (["vm", "run", "--image"], ["debian-bookworm", "debian:12", "mine"]),
        (["vm", "create", "--kernel"], ["custom", "debian-6.12"]),
        (["vm", "run", "--user"], ["image", "root"]),
        (["vm", "workspace", "prepare", "--mode"], ["full_copy", "update"]),
        (["completion"], ["bash", "fish", "zsh"]),
        (["vm", "run"], ["-o dirnames"]),
        (["vm", "workspace", "prepare", "box"], ["-o dirnames"]),
        (["vm", "run", "--name"], []),
        (["vm", "exec", "box", "ls"], []),
        (["vm", "run", "--rm", "--"], []),
        (["vm", "exec", "box", "--"], []),
    ],
    ids=lambda words: " ".join(words),
)
def test_arguments_and_values_of_options_are_completed(filled: Cli, words: list[str], offered: list[str]) -> None:
    assert sorted(offered_by_bash(filled, "banger", *words, "")) == offered


def test_what_is_run_in_a_machine_has_no_options_of_ours(filled: Cli) -> None:
    assert "--user" in offered_by_bash(filled, "banger", "vm", "exec", "--")
    assert offered_by_bash(filled, "banger", "vm", "exec", "box", "ls", "-") == []


def test_every_noun_and_option_of_the_top_is_offered(cli: Cli) -> None:
    nouns = offered_by_bash(cli, "banger", "")
    assert {"vm", "image", "kernel", "doctor", "ssh-config", "version"} <= set(nouns)
    assert "--quiet" in offered_by_bash(cli, "banger", "--")
    assert offered_by_bash(cli, "banger", "-q", "ver") == ["version"]


def test_words_are_taken_as_the_shell_quotes_them(filled: Cli) -> None:
    assert offered_by_bash(filled, "banger", "vm", "ssh", '"bo') == ["box"]
    assert offered_by_bash(filled, "banger", "vm", "run", "--name", "'a b'", "--image", "mi") == ["mine"]
    line = "banger vm run --image debian:1"
    assert offered_by_bash(filled, *line.replace(":", " : ").split(), line=line) == ["12"]


def _ask(cli: Cli, line: str = "banger vm ssh ") -> subprocess.CompletedProcess[str]:
    cli.environment = {"_BANGER_COMPLETE": "bash_complete", "COMP_WORDS": line, "COMP_CWORD": ""}
    return cli.run()


def _make_newer(path: Path) -> None:
    with sqlite3.connect(path) as connection:
        connection.execute("PRAGMA user_version=99")


def _make_senseless(path: Path) -> None:
    with sqlite3.connect(path) as connection:
        connection.execute("""UPDATE machine SET record = '{"process": 5, "creator": null}'""")


def _make_another_s(path: Path) -> None:
    with sqlite3.connect(path) as connection:
        connection.execute("DROP TABLE machine")


@pytest.mark.parametrize(
    "damage",
    [
        _make_newer,
        _make_senseless,
        _make_another_s,
        lambda path: path.write_bytes(b"no database, but long enough to be looked at" * 20),
        lambda path: path.write_bytes(b""),
        lambda path: (path.unlink(), path.mkdir()),
        lambda path: (path.unlink(), path.symlink_to("nowhere")),
    ],
    ids=["newer", "senseless", "another's", "garbage", "empty", "folder", "loose link"],
)
def test_a_database_that_is_of_no_use_is_silence(filled: Cli, damage) -> None:
    database = _database(filled)
    for each in database.parent.glob("banger.db-*"):
        each.unlink()
    damage(database)
    done = _ask(filled)
    assert (done.stdout.strip(), done.stderr) == ("", "")
    assert _ask(filled, "banger image show m").stdout == "plain,mine\n"


def test_a_database_that_another_has_for_itself_is_not_waited_for(filled: Cli) -> None:
    other = sqlite3.connect(_database(filled), isolation_level=None)
    other.execute("PRAGMA locking_mode=EXCLUSIVE")
    other.execute("BEGIN EXCLUSIVE")
    done = _ask(filled)
    assert (done.stdout.strip(), done.stderr) == ("", "")
    other.close()
    assert _ask(filled).stdout.split() == ["plain,box", "plain,bridge"]


def test_where_there_is_nothing_nothing_is_made(cli: Cli) -> None:
    done = _ask(cli)
    assert (done.stdout.strip(), done.stderr) == ("", "")
    assert list(cli.home.iterdir()) == []


def test_images_whose_manifest_cannot_be_read_are_left_out(filled: Cli) -> None:
    images = filled.home / ".local/state/banger/images"
    for name, content in (("a", "{"), ("b", "[]"), ("c", '{"name": 5}'), (".unfinished", '{"name": "x"}')):
        (images / name).mkdir()
        (images / name / "manifest.json").write_text(content)
    (images / "empty").mkdir()
    done = _ask(filled, "banger image show ")
    assert (done.stdout.split(), done.stderr) == (["plain,debian:12", "plain,mine"], "")


@pytest.mark.parametrize("question", ["bash_source", "tcsh_complete", "bash", "", "_"])
def test_a_question_that_is_none_is_silence_with_status_one(cli: Cli, question: str) -> None:
    cli.environment = {"_BANGER_COMPLETE": question}
    done = cli.run()
    assert (done.returncode, done.stdout, done.stderr) == (1, "", "")


def test_a_question_without_its_variables_says_nothing(cli: Cli) -> None:
    cli.environment = {"_BANGER_COMPLETE": "bash_complete"}
    done = cli.run()
    assert (done.stdout, done.stderr) == ("", "")


def test_an_unknown_shell_is_a_misuse(cli: Cli) -> None:
    assert cli.run("completion", "tcsh").returncode == 2
    for shell in ("bash", "zsh", "fish"):
        assert shell in cli.run("completion", "-h").stdout


def test_a_tab_does_not_pay_for_what_builds_images(filled: Cli) -> None:
    program = """
import sys
from banger.cli import main
err = sys.stderr
try:
    main()
except SystemExit:
    pass
print("\\n".join(sys.modules), file=err)
"""
    for line in ("banger vm ssh ", "banger vm run --image ", "banger kernel build ", "banger "):
        variables = {"_BANGER_COMPLETE": "bash_complete", "COMP_WORDS": line, "COMP_CWORD": ""}
        done = subprocess.run(
            [sys.executable, "-I", "-c", program],
            env={**filled.variables(), **variables},
            capture_output=True,
            text=True,
            timeout=60,
        )
        assert done.stdout.startswith("plain,")
        loaded = set(done.stderr.split())
        assert "banger.cli.completion" in loaded
        heavy = {"rich", "pyroute2", "doit", "requests", "oras", "paramiko", "cryptography", "dnslib"}
        assert not heavy & loaded
        assert line != "banger " or "banger.cli.vm" not in loaded


def test_somebody_without_account_and_home_gets_silence(cli: Cli) -> None:
    nobody = ["unshare", "--user", "--map-user=54321", "env", "-u", "HOME"]
    banger = ["_BANGER_COMPLETE=bash_complete", "COMP_WORDS=banger vm ssh ", "COMP_CWORD="]
    argv = [*nobody, *banger, str(Path(sys.executable).with_name("banger"))]
    done = subprocess.run(argv, env=cli.variables(), capture_output=True, text=True, timeout=60)
    assert (done.returncode, done.stdout, done.stderr) == (0, "\n", "")
