"""What goes along of the host's configuration: who one is, where it came from, what is ignored, how content is read."""

from __future__ import annotations

import re
from pathlib import Path

import pytest

from tests.workspace.repositories import Guest, Tree, send


def _all_text(guest: Guest) -> bytes:
    """Every byte that went outside of packs."""
    places = [place for place in guest.home.rglob("*") if place.is_file() and "objects" not in place.parts]
    return b"\n".join(place.read_bytes() for place in places)


def test_the_author_goes_with_the_repository_and_beside_it(project: Tree, tmp_path: Path) -> None:
    project.git("config", "user.email", "work@example.org")
    guest = send(project.path, tmp_path / "machine")
    assert guest.ask("config", "--global", "user.name") == "Host User"
    assert guest.ask("config", "--local", "user.email") == "work@example.org"
    guest.commit("made there")
    assert guest.ask("log", "-1", "--format=%an <%ae> %cn <%ce>") == (
        "Host User <work@example.org> Host User <work@example.org>"
    )


@pytest.mark.parametrize("name", ['Quo"te \\ Back', "Ünï ✓", "Half; # comment", "L\udce4tin"])
def test_an_author_of_any_name_goes(project: Tree, tmp_path: Path, name: str) -> None:
    project.git("config", "user.name", name)
    guest = send(project.path, tmp_path / "machine")
    assert guest.ask("config", "user.name") == name


def test_nobody_goes_as_nobody(project: Tree, tmp_path: Path, host_home: Path) -> None:
    (host_home / ".gitconfig").write_text("")
    guest = send(project.path, tmp_path / "machine")
    assert (guest.home / ".gitconfig").read_text() == ""
    assert b"user" not in (guest.path / ".git/config").read_bytes()


@pytest.mark.parametrize(
    ("url", "sent"),
    [
        ("https://me:SECRET@example.org/x.git", "https://example.org/x.git"),
        ("https://SECRET@example.org/x.git", "https://example.org/x.git"),
        ("ssh://git:SECRET@example.org/x.git", "ssh://git@example.org/x.git"),
        ("git@example.org:team/x.git", "git@example.org:team/x.git"),
    ],
)
def test_the_origin_goes_without_credentials(project: Tree, tmp_path: Path, url: str, sent: str) -> None:
    project.git("remote", "add", "origin", url)
    project.git("remote", "add", "other", "https://SECRET@example.net/y.git")
    guest = send(project.path, tmp_path / "machine")
    assert guest.ask("remote") == "origin"
    assert guest.ask("remote", "get-url", "origin") == sent
    assert b"SECRET" not in _all_text(guest)
    assert b"SECRET" not in (guest.machine / "workspace.json").read_bytes()


def test_other_configuration_stays_at_home(project: Tree, tmp_path: Path, host_home: Path) -> None:
    for key in (
        "http.extraHeader",
        "credential.helper",
        "alias.x",
        "core.sshCommand",
        "core.editor",
        "sendemail.smtppass",
    ):
        project.git("config", key, "SECRET")
        project.git("config", "--global", key, "SECRET")
    project.write(".git/hooks/pre-commit", b"#!/bin/sh\n# SECRET\nexit 1\n", 0o755)
    project.write(".git/description", b"SECRET")
    project.write(".git/COMMIT_EDITMSG", b"SECRET")
    project.git("-c", "user.name=SECRET", "stash", "list")
    guest = send(project.path, tmp_path / "machine")
    assert b"SECRET" not in _all_text(guest)
    assert not (guest.path / ".git/hooks").exists()
    assert not (guest.path / ".git/logs").exists()


def test_what_is_ignored_on_the_host_is_ignored_in_the_copy(project: Tree, tmp_path: Path, host_home: Path) -> None:
    (host_home / "ignores").write_text("*.own\n!kept.both")
    project.git("config", "--global", "core.excludesFile", "~/ignores")
    project.write(".git/info/exclude", b"*.local\n*.both\n")
    names = ["x.own", "x.local", "x.log", "kept.both", "seen.txt"]
    for name in names:
        project.write(name)
    guest = send(project.path, tmp_path / "machine")
    for name in names:
        guest.write(name)
    assert guest.status() == project.status() == b"? seen.txt\0"


def test_a_list_of_ignored_files_may_be_beside_the_work_tree(project: Tree, tmp_path: Path) -> None:
    """A relative path counts from the top of the work tree, wherever banger runs."""
    project.write("my-ignores", b"*.own\nmy-ignores\n")
    project.git("config", "core.excludesFile", "my-ignores")
    guest = send(project.path, tmp_path / "machine")
    guest.write("x.own")
    guest.write("my-ignores")
    assert guest.status() == b""


def test_an_empty_wish_for_ignored_files_is_one(project: Tree, tmp_path: Path, host_home: Path) -> None:
    (host_home / ".config/git").mkdir(parents=True)
    (host_home / ".config/git/ignore").write_text("*.xdg\n")
    with_default = send(project.path, tmp_path / "with")
    with_default.write("x.xdg")
    assert with_default.status() == b""
    project.git("config", "--global", "core.excludesFile", "")
    without = send(project.path, tmp_path / "without")
    without.write("x.xdg")
    assert without.status() == b"? x.xdg\0"


@pytest.mark.parametrize(
    ("key", "value"), [("core.autocrlf", "input"), ("core.autocrlf", "true"), ("core.eol", "crlf")]
)
def test_how_lines_end_is_decided_as_on_the_host(project: Tree, tmp_path: Path, key: str, value: str) -> None:
    project.git("config", "--global", key, value)
    project.write(".gitattributes", b"*.txt text\n")
    project.commit("attributes")
    guest = send(project.path, tmp_path / "machine")
    assert guest.ask("config", key) == value
    for tree in (project, guest):
        tree.write("fresh.txt", b"one\r\ntwo\r\n")
        tree.git("add", "fresh.txt")
    assert guest.ask("rev-parse", ":fresh.txt") == project.ask("rev-parse", ":fresh.txt")


def test_a_key_without_a_value_is_true(project: Tree, tmp_path: Path) -> None:
    with (project.path / ".git/config").open("a") as config:
        config.write("[core]\n\tautocrlf\n")
    guest = send(project.path, tmp_path / "machine")
    assert guest.ask("config", "--type=bool", "core.autocrlf") == "true"


def test_what_the_user_says_of_all_files_counts_less_than_the_project_s_word(
    project: Tree, tmp_path: Path, host_home: Path
) -> None:
    (host_home / ".config/git").mkdir(parents=True)
    (host_home / ".config/git/attributes").write_text("*.txt text eol=crlf\n*.mine text eol=crlf\n")
    project.write(".gitattributes", b"*.txt text eol=lf\n")
    project.write(".git/info/attributes", b"info.txt text eol=crlf\n")
    project.commit("attributes")
    guest = send(project.path, tmp_path / "machine")
    # Where the copy is in a machine, its paths are below /root.
    config = guest.path / ".git/config"
    config.write_text(re.sub("/root/repo", str(guest.path), config.read_text()))
    for name in ("a.txt", "info.txt", "x.mine"):
        words = ("check-attr", "eol", name)
        assert guest.git(*words) == project.git(*words), name
