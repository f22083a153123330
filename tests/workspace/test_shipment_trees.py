"""Work trees that are more than one folder with one repository: linked, sparse, with submodules. And large ones."""

from __future__ import annotations

import os
import resource
import subprocess
import tempfile
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.workspace.repositories import Guest, Tree, make_project, make_tree, read_all, send


def _add_submodule(tree: Tree, other: Tree, inside: str = "sub") -> Tree:
    tree.git("submodule", "--quiet", "add", str(other.path), inside)
    tree.git("submodule", "--quiet", "update", "--init", "--recursive")
    tree.commit(f"with {inside}")
    return Tree(tree.path / inside)


def _remove(place: Path) -> None:
    subprocess.run(["rm", "-r", place], check=True)


def _is_as_sent(tree: Tree, guest: Guest) -> None:
    assert guest.status("--untracked-files=no") == tree.status("--untracked-files=no")
    assert guest.tree() == guest.workspace.tree
    guest.git("fsck", "--strict")


def test_a_linked_work_tree_goes_as_a_repository(project: Tree, tmp_path: Path) -> None:
    project.git("worktree", "add", "-qb", "side", str(tmp_path / "side"))
    side = Tree(tmp_path / "side")
    side.write("staged.txt")
    side.git("add", "staged.txt")
    side.write("a.txt", b"dirty\n")
    project.write(".git/info/exclude", b"*.local\n")
    before = read_all(project.path), read_all(side.path)
    guest = send(side.path / "dir", tmp_path / "machine")
    assert (read_all(project.path), read_all(side.path)) == before
    _is_as_sent(side, guest)
    assert (guest.path / ".git").is_dir()
    assert guest.ask("symbolic-ref", "--short", "HEAD") == "side"
    assert guest.workspace.root == str(side.path)
    guest.write("x.local")
    assert b"x.local" not in guest.status()


@pytest.mark.parametrize("options", [["--cone"], ["--no-cone"], ["--cone", "--sparse-index"]], ids=" ".join)
@pytest.mark.parametrize("is_linked", [False, True], ids=["main", "linked"])
def test_a_sparse_checkout_stays_one(project: Tree, tmp_path: Path, options: list[str], is_linked: bool) -> None:
    project.write("other/e.txt")
    project.write("more/f.txt")
    project.commit("more folders")
    tree = project
    if is_linked:
        project.git("worktree", "add", "-qb", "side", str(tmp_path / "side"))
        tree = Tree(tmp_path / "side")
    tree.git("sparse-checkout", "set", *options, "other")
    tree.write("other/e.txt", b"dirty\n")
    tree.write("other/new.txt")
    tree.git("add", "other/new.txt")
    guest = send(tree.path, tmp_path / "machine")
    _is_as_sent(tree, guest)
    assert not (guest.path / "more").exists()
    assert guest.git("sparse-checkout", "list") == tree.git("sparse-checkout", "list")
    guest.git("sparse-checkout", "disable")
    assert (guest.path / "more/f.txt").read_bytes() == b"content\n"


def test_a_submodule_comes_as_its_files(project: Tree, tmp_path: Path) -> None:
    other = make_project(tmp_path / "other")
    _add_submodule(other, make_project(tmp_path / "third"), "deep/third")
    sub = _add_submodule(project, other)
    sub.write("untracked.txt")
    guest = send(project.path, tmp_path / "machine")
    _is_as_sent(project, guest)
    assert {"sub/a.txt", "sub/dir/c.txt", "sub/deep/third/a.txt", "sub/deep/third/link"} <= guest.names()
    assert not (guest.path / "sub/untracked.txt").exists()
    assert not list(guest.path.rglob("*/.git"))
    assert guest.git("submodule", "status").startswith(b"-")


def test_a_submodule_that_is_not_checked_out_is_an_empty_folder(project: Tree, tmp_path: Path) -> None:
    _add_submodule(project, make_project(tmp_path / "other"))
    project.git("clone", "-q", str(project.path), str(tmp_path / "clone"))
    clone = Tree(tmp_path / "clone")
    guest = send(clone.path, tmp_path / "machine")
    _is_as_sent(clone, guest)
    assert not list((guest.path / "sub").iterdir())


def test_a_dirty_submodule_comes_as_it_is_now(project: Tree, tmp_path: Path) -> None:
    sub = _add_submodule(project, make_project(tmp_path / "other"))
    sub.write("a.txt", b"dirty\n")
    sub.write("staged.txt", b"staged\n")
    sub.git("add", "staged.txt")
    (sub.path / "b.txt").unlink()
    guest = send(project.path, tmp_path / "machine")
    assert (guest.path / "sub/a.txt").read_bytes() == b"dirty\n"
    assert (guest.path / "sub/staged.txt").read_bytes() == b"staged\n"
    assert not (guest.path / "sub/b.txt").exists()
    assert guest.tree() == guest.workspace.tree


def test_another_commit_of_a_submodule_that_is_staged_is_staged_in_the_copy(project: Tree, tmp_path: Path) -> None:
    sub = _add_submodule(project, make_project(tmp_path / "other"))
    sub.commit("further")
    project.git("add", "sub")
    guest = send(project.path, tmp_path / "machine")
    _is_as_sent(project, guest)


@pytest.mark.parametrize("what", ["gone", "file", "unstaged", "removed"])
def test_something_else_in_the_place_of_a_submodule_is_said_as_on_the_host(
    project: Tree, tmp_path: Path, what: str
) -> None:
    _add_submodule(project, make_project(tmp_path / "other"))
    if what == "unstaged":
        project.git("rm", "-q", "--cached", "sub")
    elif what == "removed":
        project.git("rm", "-q", "sub")
    else:
        _remove(project.path / "sub")
    if what == "file":
        project.write("sub", b"file\n")
    guest = send(project.path, tmp_path / "machine")
    _is_as_sent(project, guest)


def test_a_symlink_in_the_place_of_a_submodule_goes_as_one(project: Tree, tmp_path: Path) -> None:
    """git itself has nothing to say of such a work tree: `git status` fails."""
    other = make_project(tmp_path / "other")
    _add_submodule(project, other)
    _remove(project.path / "sub")
    project.link("sub", str(other.path))
    guest = send(project.path, tmp_path / "machine")
    assert (guest.path / "sub").readlink() == other.path
    assert not any(name.startswith("sub/") for name in guest.names())


def test_a_conflict_over_a_submodule_is_one_in_the_copy(project: Tree, tmp_path: Path) -> None:
    sub = _add_submodule(project, make_project(tmp_path / "other"))
    first = sub.ask("rev-parse", "HEAD")
    project.git("switch", "-qc", "other")
    sub.commit("theirs")
    project.commit("theirs")
    project.git("switch", "-q", "main")
    sub.git("checkout", "-q", "-B", "ours", first)
    sub.commit("ours")
    project.commit("ours")
    assert subprocess.run(["git", "-C", project.path, "merge", "-q", "other"], capture_output=True).returncode == 1
    assert b"160000" in project.git("ls-files", "--unmerged")
    guest = send(project.path, tmp_path / "machine")
    assert guest.status("--untracked-files=no", "--ignore-submodules=dirty").startswith(b"u ")
    assert (guest.path / "sub/a.txt").exists()


def test_a_repository_within_that_is_no_submodule_stays_at_home(project: Tree, tmp_path: Path) -> None:
    make_project(project.path / "vendored")
    guest = send(project.path, tmp_path / "machine", include_untracked=True)
    assert not (guest.path / "vendored").exists()
    assert guest.tree() == guest.workspace.tree


def test_a_hook_of_git_s_can_call_it(project: Tree, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Its environment is full of what leads git to the repository that the hook is of."""
    other = make_project(tmp_path / "other")
    other.write("only-there.txt")
    other.commit("other")
    project.write("a.txt", b"staged\n")
    project.git("add", "a.txt")
    expected = project.status()
    for name, value in {
        "GIT_DIR": str(other.path / ".git"),
        "GIT_WORK_TREE": str(other.path),
        "GIT_INDEX_FILE": str(other.path / ".git/index"),
        "GIT_OBJECT_DIRECTORY": str(other.path / ".git/objects"),
        "GIT_PREFIX": "dir/",
        "GIT_CONFIG_PARAMETERS": "'core.bare'='true'",
        "GIT_CONFIG_COUNT": "1",
        "GIT_CONFIG_KEY_0": "core.worktree",
        "GIT_CONFIG_VALUE_0": str(other.path),
        "GIT_LITERAL_PATHSPECS": "1",
        "GIT_DEFAULT_HASH": "sha256",
        "GIT_DEFAULT_REF_FORMAT": "reftable",
    }.items():
        monkeypatch.setenv(name, value)
    guest = send(project.path / "dir", tmp_path / "machine")
    for name in [name for name in os.environ if name.startswith("GIT_") and name != "GIT_CONFIG_NOSYSTEM"]:
        monkeypatch.delenv(name)
    assert guest.status() == expected
    assert "only-there.txt" not in guest.names()
    assert guest.tree() == guest.workspace.tree


def test_no_hook_or_monitor_of_the_repository_runs(project: Tree, tmp_path: Path) -> None:
    ran = tmp_path / "ran"
    script = f"#!/bin/sh\necho \"$0\" >>'{ran}'\n".encode()
    hooks = ["post-checkout", "post-index-change", "reference-transaction", "pre-auto-gc", "fsmonitor-watchman"]
    for name in hooks:
        project.write(f".git/hooks/{name}", script, 0o755)
    project.git("config", "core.fsmonitor", str(project.path / ".git/hooks/fsmonitor-watchman"))
    project.git("config", "uploadpack.packObjectsHook", str(project.path / ".git/hooks/pre-auto-gc"))
    first = project.ask("rev-parse", "HEAD")
    send(project.path, tmp_path / "one", include_untracked=True)
    send(project.path, tmp_path / "two", branch="fix", start=first)
    assert not ran.exists()


@pytest.fixture
def other_filesystem(tmp_path: Path) -> Iterator[Path]:
    place = Path("/dev/shm")
    if not place.is_dir() or place.stat().st_dev == tmp_path.stat().st_dev:
        pytest.skip("there is only one filesystem to write to")
    with tempfile.TemporaryDirectory(dir=place) as folder:
        yield Path(folder)


def test_the_machine_may_be_on_another_filesystem_than_the_repository(
    project: Tree, tmp_path: Path, other_filesystem: Path
) -> None:
    project.write("a.txt", b"staged\n")
    project.git("add", "a.txt")
    _is_as_sent(project, send(project.path, other_filesystem / "machine"))
    _is_as_sent(project, send(project.path, other_filesystem / "again", branch="fix"))


def _measure_work_s() -> float:
    """What this process and its children have computed: a busy machine is no reason to fail."""
    used = [resource.getrusage(who) for who in (resource.RUSAGE_SELF, resource.RUSAGE_CHILDREN)]
    return sum(each.ru_utime + each.ru_stime for each in used)


def test_three_thousand_files_with_changes_are_packed_in_a_few_seconds(tmp_path: Path) -> None:
    tree = make_tree(tmp_path / "tree")
    for number in range(3000):
        tree.write(f"{number % 50}/{number % 7}/{number}.c", b"int x%d;\n" % number * 50)
    tree.commit("many")
    for number in range(100):
        tree.write(f"{number % 50}/{number % 7}/{number}.c", b"changed\n")
        tree.write(f"untracked/{number}", b"%d\n" % number)
    began = _measure_work_s()
    guest = send(tree.path, tmp_path / "machine", include_untracked=True)
    assert _measure_work_s() - began < 8
    assert len(guest.names()) == 3100
    assert guest.status() == tree.status()
