"""`banger vm run PATH` before there is any machine: the list of a dry run, and everything that is refused."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest

from banger.workspace.git import split_names
from tests.cli.shells import read_rest

if TYPE_CHECKING:
    from conftest import Cli

_BANGER = Path(sys.executable).with_name("banger")


def _git(cli: Cli, at: Path, *words: str) -> bytes:
    options = ["-c", "user.name=U", "-c", "user.email=u@example.org", "-c", "init.defaultBranch=main"]
    done = subprocess.run(["git", "-C", at, *options, *words], env=cli.variables(), capture_output=True)
    assert done.returncode == 0, done.stderr
    return done.stdout


@pytest.fixture
def repo(cli: Cli) -> Path:
    """A repository at ./repo with a commit, a change that is not committed, and files that no commit has."""
    repo = cli.home / "repo"
    (repo / "dir").mkdir(parents=True)
    _git(cli, repo, "init", "-q")
    (repo / "a.txt").write_bytes(b"a" * 100)
    (repo / "dir/b.txt").write_bytes(b"b" * 50)
    (repo / "link").symlink_to("a.txt")
    (repo / ".gitignore").write_bytes(b"*.log\n")
    _git(cli, repo, "add", "-A")
    _git(cli, repo, "commit", "-qm", "first")
    (repo / "a.txt").write_bytes(b"a" * 2000)
    (repo / ".env").write_bytes(b"TOKEN=1\n")
    (repo / "x.log").write_bytes(b"log\n")
    return repo


def _list(cli: Cli, *words: str) -> list[str]:
    done = cli.run("vm", "run", "--dry-run", *words)
    assert done.returncode == 0, done.stderr
    assert cli.left() == set()
    return done.stdout.splitlines()


def _list_json(cli: Cli, *words: str) -> dict[str, Any]:
    done = cli.run("vm", "run", "--dry-run", "--json", *words)
    assert done.returncode == 0, done.stderr
    told: dict[str, Any] = json.loads(done.stdout)
    return told


def _refusal(cli: Cli, *words: str) -> dict[str, str]:
    told = cli.run("vm", "run", "--json", *words)
    assert told.returncode == 1, told.stderr
    assert told.stdout == ""
    error: dict[str, str] = json.loads(told.stderr.splitlines()[-1])["error"]
    assert cli.left() == set()
    return error


def test_a_dry_run_prints_what_would_go_and_how_much(cli: Cli, repo: Path) -> None:
    done = cli.run("vm", "run", "./repo", "--dry-run")
    assert done.returncode == 0
    assert done.stdout == ".gitignore\na.txt\ndir/b.txt\nlink\n"
    assert done.stderr.splitlines()[-1].startswith("4 files, 2.0 KiB")
    assert cli.left() == set()


def test_a_dry_run_makes_nothing_and_changes_nothing(cli: Cli, repo: Path) -> None:
    os.utime(repo / "dir/b.txt", (1, 1))
    before = {place: place.lstat().st_mtime_ns for place in repo.rglob("*")}
    _list(cli, "./repo")
    assert {place: place.lstat().st_mtime_ns for place in repo.rglob("*")} == before
    assert not (cli.home / ".local").exists()
    assert not (cli.home / ".cache").exists()


def test_a_dry_run_can_be_read_by_a_program(cli: Cli, repo: Path) -> None:
    assert _list_json(cli, "./repo") == {
        "files": [
            {"path": ".gitignore", "kind": "file", "size_bytes": 6},
            {"path": "a.txt", "kind": "file", "size_bytes": 2000},
            {"path": "dir/b.txt", "kind": "file", "size_bytes": 50},
            {"path": "link", "kind": "symlink", "size_bytes": 0},
        ],
        "count": 4,
        "size_bytes": 2056,
    }


def test_a_secret_is_listed_only_when_it_is_asked_for_and_not_ignored(cli: Cli, repo: Path) -> None:
    assert ".env" not in _list(cli, "./repo")
    found = _list(cli, "./repo", "--include-untracked")
    assert ".env" in found
    assert "x.log" not in found


@pytest.mark.parametrize("path", [".", "dir", "./dir/../dir", "link-to-here"])
def test_any_way_to_any_folder_inside_stands_for_the_repository(cli: Cli, repo: Path, path: str) -> None:
    (cli.home / "link-to-here").symlink_to(repo / "dir")
    words = [_BANGER, "vm", "run", "--dry-run", str(cli.home / path) if path.startswith("link") else path]
    done = subprocess.run(words, env=cli.variables(), cwd=repo, capture_output=True, text=True)
    assert done.stdout == ".gitignore\na.txt\ndir/b.txt\nlink\n", done.stderr


def test_with_a_place_to_begin_the_files_are_those_of_there(cli: Cli, repo: Path) -> None:
    _git(cli, repo, "tag", "v1")
    _git(cli, repo, "rm", "-qf", "a.txt")
    _git(cli, repo, "commit", "-qm", "second")
    assert "a.txt" not in _list(cli, "./repo")
    told = _list_json(cli, "./repo", "--branch", "fix", "--from", "v1")
    assert {"path": "a.txt", "kind": "file", "size_bytes": 100} in told["files"]
    assert _git(cli, repo, "branch", "--format=%(refname:short)") == b"main\n"


def test_a_new_branch_takes_the_work_tree_along(cli: Cli, repo: Path) -> None:
    assert _list(cli, "./repo", "--branch", "fix") == _list(cli, "./repo")


def test_names_are_told_so_that_each_has_its_line(cli: Cli, repo: Path) -> None:
    names = ["two words", "quo\"te's", "-dash", "ünï ✓", "new\nline", "esc\x1b[31m", "back\\slash"]
    raw = os.fsdecode(b"raw\xff\x80")
    for name in [*names, raw]:
        (repo / name).write_bytes(b"")
    _git(cli, repo, "add", "-A")
    words = [_BANGER, "vm", "run", "--dry-run", "./repo"]
    done = subprocess.run(words, env=cli.variables(), cwd=cli.home, capture_output=True)
    told = {os.fsdecode(line) for line in done.stdout.splitlines()}
    assert {*(name for name in names if "\n" not in name), raw, "new\\nline"} <= told
    assert len(told) == len(split_names(_git(cli, repo, "ls-files", "-z")))
    paths = {each["path"] for each in _list_json(cli, "./repo")["files"]}
    assert {*names, "raw\\xff\\x80"} <= paths


def test_no_terminal_gets_a_name_s_control_characters(cli: Cli, repo: Path) -> None:
    (repo / "esc\x1b[31m").write_bytes(b"")
    _git(cli, repo, "add", "-A")
    ours, theirs = os.openpty()
    words = [_BANGER, "vm", "run", "--dry-run", "./repo"]
    with subprocess.Popen(words, env=cli.variables(), cwd=cli.home, stdout=theirs, stderr=subprocess.PIPE) as child:
        assert child.wait() == 0
    os.close(theirs)
    shown = read_rest(ours)
    assert b"esc\\x1b[31m" in shown
    assert b"\x1b" not in shown


def test_a_reader_that_goes_away_is_no_crash(cli: Cli, repo: Path) -> None:
    for number in range(3000):
        (repo / f"{'x' * 100}{number}").write_bytes(b"")
    line = f'"{_BANGER}" vm run --dry-run --include-untracked ./repo | head -n 1'
    done = subprocess.run(["sh", "-c", line], env=cli.variables(), cwd=cli.home, capture_output=True, text=True)
    assert done.stdout == ".env\n"
    assert "Traceback" not in done.stderr


def test_an_empty_repository_has_nothing_to_list(cli: Cli) -> None:
    (cli.home / "new").mkdir()
    _git(cli, cli.home / "new", "init", "-q")
    done = cli.run("vm", "run", "--dry-run", "./new")
    assert (done.returncode, done.stdout) == (0, "")
    assert "0 files" in done.stderr


def test_a_hook_of_git_s_lists_what_a_person_would(cli: Cli, repo: Path) -> None:
    expected = _list(cli, "./repo")
    cli.environment |= {"GIT_DIR": "/nowhere", "GIT_INDEX_FILE": "/nowhere/index", "GIT_WORK_TREE": "/"}
    assert _list(cli, "./repo") == expected


def test_of_three_thousand_files_every_one_is_listed(cli: Cli, repo: Path) -> None:
    for number in range(3000):
        (repo / f"dir/{number}").write_bytes(b"%d" % number)
    _git(cli, repo, "add", "-A")
    assert len(_list(cli, "./repo")) == 3005


@pytest.mark.parametrize(
    ("path", "reason"),
    [
        ("./nope", "not-found"),
        ("./repo/a.txt", "bad-input"),
        ("./repo/a.txt/x", "not-found"),
        ("./plain", "bad-input"),
        ("./bare.git", "bad-input"),
        ("./repo/.git", "bad-input"),
        ("./" + "x" * 5000, "io"),
        ("./\x1b[31m", "not-found"),
    ],
)
def test_a_path_that_is_no_work_tree_is_refused(cli: Cli, repo: Path, path: str, reason: str) -> None:
    (cli.home / "plain").mkdir()
    _git(cli, cli.home, "init", "-q", "--bare", "bare.git")
    for words in (["--dry-run", path], ["--rm", path, "--", "true"]):
        error = _refusal(cli, *words)
        assert error["reason"] == reason
        assert "\x1b" not in error["message"]


def test_a_person_reads_why_in_a_line_and_what_to_do(cli: Cli, repo: Path) -> None:
    done = cli.run("vm", "run", "./repo", "--from", "main")
    assert (done.returncode, done.stdout) == (1, "")
    assert done.stderr.startswith("banger: --from goes only with --branch\n")


def test_an_empty_path_is_not_taken_for_where_one_stands(cli: Cli, repo: Path) -> None:
    """As it comes of a shell's variable that is not set."""
    words = [_BANGER, "vm", "run", "--dry-run", "--json", ""]
    done = subprocess.run(words, env=cli.variables(), cwd=repo, capture_output=True, text=True)
    assert (done.returncode, done.stdout) == (1, "")
    assert json.loads(done.stderr)["error"]["reason"] == "bad-input"


@pytest.mark.parametrize(
    "words",
    [
        ["--branch", "fix"],
        ["--branch", "fix", "--from", "main"],
        ["--from", "main"],
        ["--include-untracked"],
        ["--dry-run"],
        ["--no-bootstrap"],
        ["--export", "x.patch"],
        ["--apply"],
        ["--yes"],
    ],
    ids=" ".join,
)
def test_without_a_repository_its_options_mean_nothing(cli: Cli, words: list[str]) -> None:
    error = _refusal(cli, *words)
    assert error["reason"] == "bad-input"
    assert words[0] in error["message"]


@pytest.mark.parametrize(
    "words",
    [
        ["--from", "main"],
        ["--branch", "fix", "--from", "main", "--include-untracked"],
        ["--yes"],
        ["-d", "--apply"],
        ["-d", "--apply", "--yes"],
        ["-d", "--export", "x.patch"],
        ["-d", "--rm"],
    ],
    ids=" ".join,
)
def test_what_does_not_go_together_is_refused(cli: Cli, repo: Path, words: list[str]) -> None:
    assert _refusal(cli, "./repo", *words)["reason"] == "bad-input"


@pytest.mark.parametrize("name", ["", "-x", "a b", "a..b", "HEAD", "@{-1}", "a\x1b"])
def test_a_branch_of_a_name_that_git_does_not_take_is_refused(cli: Cli, repo: Path, name: str) -> None:
    error = _refusal(cli, "./repo", "--dry-run", f"--branch={name}")
    assert error["reason"] == "bad-input"
    assert "\x1b" not in error["message"]


@pytest.mark.parametrize("start", ["nope", "HEAD:a.txt", "-x", "HEAD~5", ""])
def test_a_branch_that_begins_nowhere_is_refused(cli: Cli, repo: Path, start: str) -> None:
    error = _refusal(cli, "./repo", "--dry-run", "--branch", "fix", f"--from={start}")
    assert error["reason"] == "not-found"


def test_a_branch_before_the_first_commit_is_refused(cli: Cli) -> None:
    (cli.home / "new").mkdir()
    _git(cli, cli.home / "new", "init", "-q")
    assert _refusal(cli, "./new", "--dry-run", "--branch", "fix")["reason"] == "bad-input"


def test_to_apply_without_anybody_to_ask_is_refused_at_once(cli: Cli, repo: Path) -> None:
    error = _refusal(cli, "./repo", "--apply", "--", "true")
    assert error["reason"] == "bad-input"
    assert "--yes" in error["hint"]


def test_a_repository_is_looked_at_before_anything_is_built(cli: Cli, repo: Path) -> None:
    done = cli.run("vm", "run", "./nope", "--image", "debian-bookworm", "--", "true")
    assert done.returncode == 1
    assert not (cli.home / ".cache").exists()
