"""The small .git that goes along: a repository that git finds nothing wrong with, and that can be worked in."""

from __future__ import annotations

import subprocess
from pathlib import Path

import pytest

from banger.workspace.history import DEPTH, format_config, format_gitconfig
from banger.workspace.repository import Author
from tests.workspace.repositories import Guest, Tree, make_project, make_tree, read_all, send


def _commit_often(tree: Tree, count: int) -> None:
    """Quicker than one process each."""
    lines = []
    parent = tree.ask("rev-parse", "HEAD")
    for number in range(count):
        message = f"number {number}"
        lines += [
            "commit refs/heads/main",
            "committer C <c@example.org> 1700000000 +0000",
            f"data {len(message)}",
            message,
            *([f"from {parent}"] if number == 0 else []),
            "M 644 inline a.txt",
            f"data {len(str(number))}",
            str(number),
        ]
    tree.git("fast-import", "--quiet", stdin="\n".join(lines).encode() + b"\n")
    tree.git("reset", "-q", "--hard")


def _log(tree: Tree) -> list[str]:
    return tree.ask("log", "--format=%H %an %ae %ad %s %P").splitlines()


def _check(guest: Guest) -> None:
    """Sound, and a place to work in."""
    assert guest.git("fsck", "--strict", "--no-dangling") == b""
    guest.write("made there.txt")
    guest.git("add", "made there.txt")
    guest.git("commit", "-qm", "made there", "made there.txt")
    guest.git("gc", "-q", "--prune=now")
    guest.git("fsck", "--strict")


def test_the_history_is_the_host_s(project: Tree, tmp_path: Path) -> None:
    project.write("a.txt", b"second\n")
    project.commit("second")
    guest = send(project.path, tmp_path / "machine")
    assert _log(guest) == _log(project)
    assert guest.git("log", "-p") == project.git("log", "-p")
    assert guest.ask("rev-parse", "--is-shallow-repository") == "false"


def test_of_a_long_history_the_last_fifty_commits_go(project: Tree, tmp_path: Path) -> None:
    _commit_often(project, 70)
    guest = send(project.path, tmp_path / "machine")
    assert guest.ask("rev-list", "--count", "HEAD") == str(DEPTH) == "50"
    assert guest.ask("log", "--format=%H %s").splitlines() == project.ask("log", "-50", "--format=%H %s").splitlines()
    assert guest.ask("rev-parse", "--is-shallow-repository") == "true"
    _check(guest)


def test_of_a_shallow_host_all_that_it_has_goes(project: Tree, tmp_path: Path) -> None:
    _commit_often(project, 10)
    project.git("clone", "-q", "--depth=3", f"file://{project.path}", str(tmp_path / "shallow"))
    shallow = Tree(tmp_path / "shallow")
    before = read_all(shallow.path / ".git")
    guest = send(shallow.path, tmp_path / "machine")
    assert read_all(shallow.path / ".git") == before
    assert guest.ask("log", "--format=%H") == shallow.ask("log", "--format=%H")
    assert guest.ask("rev-list", "--count", "HEAD") == "3"
    assert guest.status() == b""
    _check(guest)


def test_a_merge_s_both_sides_go(project: Tree, tmp_path: Path) -> None:
    project.git("switch", "-qc", "other")
    project.write("theirs.txt")
    project.commit("theirs")
    project.git("switch", "-q", "main")
    project.write("ours.txt")
    project.commit("ours")
    project.git("merge", "-q", "--no-ff", "-m", "merge", "other")
    guest = send(project.path, tmp_path / "machine")
    assert set(_log(guest)) == set(_log(project))


def test_the_host_s_branch_is_the_only_one(project: Tree, tmp_path: Path) -> None:
    project.git("branch", "secret")
    project.git("switch", "-qc", "feature/ünï-1")
    guest = send(project.path, tmp_path / "machine")
    assert guest.ask("symbolic-ref", "HEAD") == "refs/heads/feature/ünï-1"
    assert guest.ask("for-each-ref", "--format=%(refname)") == "refs/heads/feature/ünï-1"
    assert guest.workspace.branch == "feature/ünï-1"
    assert guest.workspace.commit == project.ask("rev-parse", "HEAD")


def test_a_detached_head_stays_one(project: Tree, tmp_path: Path) -> None:
    project.git("checkout", "-q", "--detach")
    guest = send(project.path, tmp_path / "machine")
    assert (guest.path / ".git/HEAD").read_text() == f"{project.ask('rev-parse', 'HEAD')}\n"
    assert guest.git("for-each-ref") == b""
    assert guest.status("--branch") == project.status("--branch")
    assert guest.workspace.branch is None
    _check(guest)


def test_before_the_first_commit_there_is_only_what_is_staged(tmp_path: Path) -> None:
    tree = make_tree(tmp_path / "new", "--initial-branch=trunk")
    for name in ("staged.txt", "both.txt", "empty"):
        tree.write(name, b"" if name == "empty" else name.encode())
    tree.git("add", "-A")
    tree.write("both.txt", b"later")
    tree.write("untracked.txt")
    guest = send(tree.path, tmp_path / "machine")
    assert guest.status("--branch", "--untracked-files=no") == tree.status("--branch", "--untracked-files=no")
    assert guest.tree() == guest.workspace.tree
    assert (guest.workspace.commit, guest.workspace.branch) == (None, "trunk")
    guest.git("commit", "-qm", "first")
    guest.git("fsck", "--strict")


@pytest.mark.parametrize("include_untracked", [False, True])
def test_an_empty_repository_goes(tmp_path: Path, include_untracked: bool) -> None:
    tree = make_tree(tmp_path / "new")
    tree.write("untracked.txt")
    guest = send(tree.path, tmp_path / "machine", include_untracked=include_untracked)
    assert guest.names() == ({"untracked.txt"} if include_untracked else set())
    assert guest.tree() == guest.workspace.tree
    guest.git("commit", "-q", "--allow-empty", "-m", "first")


def test_a_branch_that_was_never_committed_to_in_a_repository_with_others(project: Tree, tmp_path: Path) -> None:
    project.git("switch", "-q", "--orphan", "fresh")
    project.write("new.txt")
    project.git("add", "new.txt")
    guest = send(project.path, tmp_path / "machine")
    assert guest.status("--branch", "--untracked-files=no") == project.status("--branch", "--untracked-files=no")
    guest.git("commit", "-qm", "first")
    guest.git("fsck", "--strict")


@pytest.mark.parametrize("option", ["--object-format=sha256", "--ref-format=reftable"])
def test_newer_kinds_of_repositories_go(tmp_path: Path, option: str) -> None:
    if option not in subprocess.run(["git", "init", "-h"], capture_output=True, text=True).stdout.replace("<", ""):
        name = option.partition("=")[0]
        if name not in subprocess.run(["git", "init", "-h"], capture_output=True, text=True).stdout:
            pytest.skip(f"this git knows no {name}")
    tree = make_project(tmp_path / "new", option)
    tree.git("tag", "-am", "tag", "v1")
    tree.write("a.txt", b"staged\n")
    tree.git("add", "a.txt")
    guest = send(tree.path, tmp_path / "machine")
    assert guest.status("--branch") == tree.status("--branch")
    assert guest.tree() == guest.workspace.tree
    assert _log(guest) == _log(tree)
    assert guest.ask("describe") == "v1"
    _check(guest)


def test_what_the_user_wants_of_new_repositories_is_not_asked(project: Tree, tmp_path: Path, host_home: Path) -> None:
    """A template, a format of refs or checks that the copy could not stand."""
    template = host_home / "template"
    (template / "hooks").mkdir(parents=True)
    (template / "hooks/pre-commit").write_text("#!/bin/sh\nexit 1\n")
    (template / "hooks/pre-commit").chmod(0o755)
    for key, value in {
        "init.templateDir": str(template),
        "init.defaultRefFormat": "reftable",
        "init.defaultObjectFormat": "sha256",
        "fetch.recurseSubmodules": "true",
        "submodule.recurse": "true",
        "protocol.version": "0",
        "protocol.file.allow": "never",
        "fetch.prune": "true",
        "fetch.writeCommitGraph": "true",
        "transfer.hideRefs": "refs/heads",
        "core.bare": "true",
    }.items():
        project.git("config", "--global", key, value)
    first = project.ask("rev-parse", "HEAD")
    project.write("a.txt", b"second\n")
    project.git("-c", "core.bare=false", "commit", "-qam", "second")
    guest = send(project.path, tmp_path / "machine", branch="fix", start=first)
    assert guest.status() == b""
    assert guest.ask("rev-parse", "HEAD") == first
    assert not (guest.path / ".git/hooks").exists()
    project.git("config", "--global", "--unset", "core.bare")
    _check(guest)


def test_tags_on_the_way_go_and_describe_works(project: Tree, tmp_path: Path) -> None:
    project.git("tag", "-am", "tag", "v1.0")
    project.git("switch", "-qc", "elsewhere")
    project.commit("elsewhere")
    project.git("tag", "not-on-the-way")
    project.git("switch", "-q", "main")
    project.commit("second")
    project.git("tag", "light")
    project.commit("third")
    guest = send(project.path, tmp_path / "machine")
    assert guest.ask("describe") == project.ask("describe")
    assert guest.ask("describe", "--tags") == project.ask("describe", "--tags")
    assert guest.ask("tag") == "light\nv1.0"


def test_a_new_branch_is_made_in_the_copy_only(project: Tree, tmp_path: Path) -> None:
    project.write("a.txt", b"staged\n")
    project.git("add", "a.txt")
    guest = send(project.path, tmp_path / "machine", branch="fix")
    assert guest.ask("symbolic-ref", "--short", "HEAD") == "fix"
    assert guest.ask("for-each-ref", "--format=%(refname)") == "refs/heads/fix"
    assert guest.status() == project.status()
    assert project.ask("for-each-ref", "--format=%(refname)") == "refs/heads/main"
    assert guest.workspace.branch == "fix"


def test_a_new_branch_may_begin_elsewhere_with_the_files_of_there(project: Tree, tmp_path: Path) -> None:
    first = project.ask("rev-parse", "HEAD")
    project.git("mv", "a.txt", "moved.txt")
    project.write("staged.txt")
    project.commit("second")
    project.write("b.txt", b"not committed\n")
    project.write("untracked.txt")
    guest = send(project.path, tmp_path / "machine", branch="fix", start=first)
    assert guest.ask("rev-parse", "fix") == guest.workspace.commit == first
    assert guest.status() == b""
    assert guest.names() == set(project.ask("ls-tree", "-r", "--name-only", first).split("\n"))
    assert (guest.path / "run.sh").stat().st_mode & 0o111
    assert (guest.path / "link").is_symlink()
    assert guest.tree() == guest.workspace.tree == project.ask("rev-parse", f"{first}^{{tree}}")
    _check(guest)


def test_the_files_of_a_commit_are_as_git_checks_them_out(project: Tree, tmp_path: Path) -> None:
    project.git("config", "core.autocrlf", "true")
    project.write("dos.txt", b"one\r\ntwo\r\n")
    project.write(".gitattributes", b"*.keep -text\n*.up -text filter=up\n")
    project.write("x.keep", b"one\n")
    project.git("config", "filter.up.smudge", "tr a-z A-Z")
    project.git("config", "filter.up.clean", "tr A-Z a-z")
    project.write("x.up", b"LOUD\n")
    first = project.commit("content")
    project.git("rm", "-qr", ".")
    project.commit("empty")
    guest = send(project.path, tmp_path / "machine", branch="fix", start=first)
    assert (guest.path / "dos.txt").read_bytes() == b"one\r\ntwo\r\n"
    assert (guest.path / "x.keep").read_bytes() == b"one\n"
    assert (guest.path / "x.up").read_bytes() == b"LOUD\n"
    assert guest.status() == b""


def test_a_commit_with_a_submodule_can_be_where_a_branch_begins(project: Tree, tmp_path: Path) -> None:
    other = make_project(tmp_path / "other")
    project.git("submodule", "--quiet", "add", str(other.path), "sub")
    first = project.commit("with submodule")
    guest = send(project.path, tmp_path / "machine", branch="fix", start=first)
    assert (guest.path / "sub").is_dir()
    assert guest.status() == b""
    assert guest.tree() == guest.workspace.tree


def test_a_branch_may_begin_elsewhere_in_any_kind_of_work_tree(project: Tree, tmp_path: Path) -> None:
    first = project.ask("rev-parse", "HEAD")
    files = set(project.ask("ls-files").split("\n"))
    project.commit("second")
    project.git("worktree", "add", "-qb", "side", str(tmp_path / "side"))
    outer = make_project(tmp_path / "outer")
    outer.git("submodule", "--quiet", "add", str(project.path), "sub")
    side = Tree(tmp_path / "side")
    side.git("sparse-checkout", "set", "nothing")
    for number, path in enumerate((side.path / "dir", outer.path / "sub/dir")):
        path.mkdir(exist_ok=True)
        before = read_all(path.parent)
        guest = send(path, tmp_path / f"machine-{number}", branch="fix", start=first)
        assert read_all(path.parent) == before
        assert guest.names() == files
        assert guest.status() == b""
        assert guest.tree() == guest.workspace.tree


def test_objects_that_the_host_borrows_go_too(project: Tree, tmp_path: Path) -> None:
    project.git("clone", "-q", "--shared", str(project.path), str(tmp_path / "borrower"))
    borrower = Tree(tmp_path / "borrower")
    borrower.write("a.txt", b"staged\n")
    borrower.git("add", "a.txt")
    guest = send(borrower.path, tmp_path / "machine")
    assert guest.status() == borrower.status()
    assert guest.tree() == guest.workspace.tree
    _check(guest)


def test_a_host_that_has_not_fetched_all_old_content_sends_what_it_has(project: Tree, tmp_path: Path) -> None:
    """`git clone --filter=blob:none`: nothing is fetched from elsewhere to send it."""
    project.write("a.txt", b"second\n")
    project.commit("second")
    project.git("config", "uploadpack.allowFilter", "true")
    project.git("clone", "-q", "--filter=blob:none", f"file://{project.path}", str(tmp_path / "partial"))
    project.path.rename(tmp_path / "away")
    partial = Tree(tmp_path / "partial")
    partial.write("b.txt", b"staged\n")
    partial.git("add", "b.txt")
    guest = send(partial.path, tmp_path / "machine")
    assert guest.status() == partial.status()
    assert guest.tree() == guest.workspace.tree
    _check(guest)


@pytest.mark.parametrize(
    "name", ["two words", "new\nline", "-dash", "ünï ✓", "quo\"te's", "\udcff", "a:b%20?#", "back\\s"]
)
def test_a_repository_of_any_name_goes(tmp_path: Path, name: str) -> None:
    tree = make_project(tmp_path / name)
    tree.write("a.txt", b"dirty\n")
    tree.write("b.txt", b"staged\n")
    tree.git("add", "b.txt")
    guest = send(tree.path, tmp_path / "machine")
    assert guest.status() == tree.status()
    assert guest.tree() == guest.workspace.tree
    assert guest.workspace.root == str(tree.path)


@pytest.mark.parametrize(
    "value",
    [
        "plain",
        'quo"te',
        "back\\slash",
        "a # b ; c",
        " spaces ",
        "new\nline",
        "tab\t",
        "ünï ✓",
        "[x]",
        "\udcff",
        "=",
        "",
    ],
)
def test_a_configuration_reads_as_it_was_written(tmp_path: Path, value: str) -> None:
    path = tmp_path / "config"
    key = f"branch.{value.strip() or 'x'}.x" if value not in ("new\nline", "tab\t") else "user.name"
    path.write_text(format_config({"core.bare": "false", key: value}), "utf-8", "surrogateescape")
    tree = make_tree(tmp_path / "any")
    assert tree.ask("config", "--file", str(path), "--get", key) == value
    assert tree.ask("config", "--file", str(path), "core.bare") == "false"


def test_somebody_without_a_name_leaves_no_configuration() -> None:
    assert format_gitconfig(Author("", "")) == ""
    assert format_gitconfig(Author("", "a@b")) == '[user]\n\temail = "a@b"\n'
