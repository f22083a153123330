"""Which files go: git's own answer, of what is there now. Nothing is followed, nothing is opened."""

from __future__ import annotations

import os
import socket
import subprocess
import tempfile
from pathlib import Path

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from banger.workspace.repository import open_repository
from banger.workspace.selection import File, Kind, Selection, select
from tests.workspace.repositories import Tree, make_project, make_tree, read_all

_ODD_NAMES = [
    "two words",
    "quo\"te's",
    "new\nline",
    "-dash",
    "--all",
    "ünï ✓",
    "\udcff\udc80",
    "back\\slash",
    "tab\tular",
    "*?[",
    ":(exclude)x",
    "!not",
    "#no",
    " first",
    "last ",
    "\x1b[31m",
    "...",
    "a" * 255,
]
_DEEP = "/".join(["d" * 100] * 5)


def _select(tree: Tree, *, include_untracked: bool = False) -> Selection:
    return select(open_repository(tree.path), include_untracked=include_untracked)


def _names(tree: Tree, *, include_untracked: bool = False) -> list[str]:
    return [file.path for file in _select(tree, include_untracked=include_untracked).files]


def _add_submodule(tree: Tree, name: str, *, inside: str = "sub") -> Tree:
    other = make_project(tree.path.parent / name)
    tree.git("submodule", "--quiet", "add", str(other.path), inside)
    tree.commit(f"with {name}")
    return other


def test_tracked_files_go_with_what_they_are(project: Tree) -> None:
    found = {file.path: file for file in _select(project).files}
    assert list(found) == sorted(found)
    assert found["a.txt"] == File("a.txt", Kind.FILE, (project.path / "a.txt").stat().st_size, found["a.txt"].mtime_ns)
    assert (found["link"].kind, found["link"].size_bytes) == (Kind.SYMLINK, 0)
    assert set(found) == {
        ".gitignore",
        "a.txt",
        "b.txt",
        "dir/c.txt",
        "dir/deep/d.txt",
        "link",
        "old.txt",
        "run.sh",
    }


def test_the_size_is_that_of_all_files_as_they_are_now(project: Tree) -> None:
    project.write("a.txt", b"x" * 1000)
    selection = _select(project)
    assert selection.size_bytes == sum(
        (project.path / name).stat().st_size for name in _names(project) if not (project.path / name).is_symlink()
    )


def test_a_folder_inside_stands_for_the_whole_repository(project: Tree) -> None:
    deep = select(open_repository(project.path / "dir/deep"), include_untracked=True)
    assert [file.path for file in deep.files] == _names(project)


def test_an_untracked_secret_goes_only_when_asked_for_and_never_when_ignored(project: Tree) -> None:
    project.write(".env", b"TOKEN=1\n")
    project.write(".env.ignored", b"TOKEN=1\n")
    project.write("build.log")
    assert not {".env", ".env.ignored", "build.log"} & set(_names(project))
    assert {".env", ".env.ignored", "build.log"} & set(_names(project, include_untracked=True)) == {".env"}


def test_what_the_user_ignores_everywhere_does_not_go(project: Tree, host_home: Path) -> None:
    for name in ("secret.own", "secret.local", "secret.xdg"):
        project.write(name)
    (host_home / ".config/git").mkdir(parents=True)
    (host_home / ".config/git/ignore").write_text("*.xdg\n")
    project.write(".git/info/exclude", b"*.local\n")
    assert {"secret.own"} == {name for name in _names(project, include_untracked=True) if name.startswith("secret")}
    (host_home / "ignores").write_text("*.own\n")
    project.git("config", "--global", "core.excludesFile", "~/ignores")
    assert {"secret.xdg"} == {name for name in _names(project, include_untracked=True) if name.startswith("secret")}


def test_a_tracked_file_goes_even_if_it_is_ignored(project: Tree) -> None:
    project.write("kept.log")
    project.git("add", "-f", "kept.log")
    assert "kept.log" in _names(project)


def test_an_intent_to_add_goes(project: Tree) -> None:
    project.write("later.txt")
    project.git("add", "-N", "later.txt")
    assert "later.txt" in _names(project)


def test_what_is_only_in_the_index_is_missing(project: Tree) -> None:
    (project.path / "a.txt").unlink()
    subprocess.run(["rm", "-r", project.path / "dir"], check=True)
    selection = _select(project)
    assert selection.missing == ["a.txt", "dir/c.txt", "dir/deep/d.txt"]
    assert not set(selection.missing) & {file.path for file in selection.files}


def test_what_is_only_in_the_work_tree_and_no_longer_in_the_index_is_untracked(project: Tree) -> None:
    project.git("rm", "-q", "--cached", "a.txt")
    assert "a.txt" not in _names(project)
    assert "a.txt" in _names(project, include_untracked=True)


def test_a_file_in_conflict_goes_once(project: Tree) -> None:
    project.git("switch", "-qc", "other")
    project.write("a.txt", b"theirs\n")
    project.commit("theirs")
    project.git("switch", "-q", "main")
    project.write("a.txt", b"ours\n")
    project.commit("ours")
    assert subprocess.run(["git", "-C", project.path, "merge", "-q", "other"], capture_output=True).returncode == 1
    assert _names(project).count("a.txt") == 1


def test_names_are_what_they_are(tmp_path: Path) -> None:
    tree = make_tree(tmp_path / "tree")
    for name in _ODD_NAMES:
        tree.write(name)
        tree.write(f"{_DEEP}/{name}")
        tree.write(f"{name[:200]}.folder/untracked")
    tree.git("--literal-pathspecs", "add", "--", *_ODD_NAMES, _DEEP)
    assert set(_names(tree)) == {*_ODD_NAMES, *(f"{_DEEP}/{name}" for name in _ODD_NAMES)}
    untracked = {f"{name[:200]}.folder/untracked" for name in _ODD_NAMES}
    assert set(_names(tree, include_untracked=True)) - set(_names(tree)) == untracked


_part = st.binary(min_size=1, max_size=20).map(lambda raw: os.fsdecode(raw.replace(b"\0", b"0").replace(b"/", b"1")))


@settings(max_examples=10, suppress_health_check=[HealthCheck.function_scoped_fixture, HealthCheck.too_slow])
@given(names=st.sets(_part.filter(lambda name: name not in (".", "..") and name.lower() != ".git"), min_size=1))
def test_any_names_are_listed_as_they_are(names: set[str]) -> None:
    with tempfile.TemporaryDirectory() as folder:
        tree = make_tree(Path(folder) / "tree")
        # git refuses what other systems would take for .git; whatever it has taken is what has to go.
        for name in names:
            tree.write(name, name.encode("utf-8", "surrogateescape"))
        taken = {os.fsdecode(name) for name in tree.git("ls-files", "-zo").split(b"\0") if name}
        assert set(_names(tree, include_untracked=True)) == taken == names
        assert _names(tree) == []


def test_a_folder_that_has_become_a_symlink_is_not_looked_behind(project: Tree, tmp_path: Path) -> None:
    outside = tmp_path / "outside"
    outside.mkdir()
    (outside / "c.txt").write_text("SECRET")
    subprocess.run(["rm", "-r", project.path / "dir"], check=True)
    project.link("dir", str(outside))
    selection = _select(project)
    assert selection.missing == ["dir/c.txt", "dir/deep/d.txt"]
    assert not any(file.path.startswith("dir") for file in selection.files)
    found = {file.path: file for file in _select(project, include_untracked=True).files}
    assert found["dir"].kind is Kind.SYMLINK
    assert not any(name.startswith("dir/") for name in found)


def test_what_is_neither_file_nor_link_is_left_out_and_told(project: Tree) -> None:
    (project.path / "a.txt").unlink()
    os.mkfifo(project.path / "a.txt")
    (project.path / "b.txt").unlink()
    # A socket's path is bounded (unix(7)).
    with socket.socket(socket.AF_UNIX) as it:
        before = Path.cwd()
        os.chdir(project.path)
        try:
            it.bind("b.txt")
        finally:
            os.chdir(before)
    selection = _select(project)
    assert selection.skipped == ["a.txt", "b.txt"]
    assert selection.missing == ["a.txt", "b.txt"]


def test_a_repository_within_that_is_no_submodule_is_left_out_and_told(project: Tree) -> None:
    make_project(project.path / "vendored")
    assert _select(project).skipped == []
    selection = _select(project, include_untracked=True)
    assert selection.skipped == ["vendored/"]
    assert not any(file.path.startswith("vendored") for file in selection.files)


def test_a_submodule_goes_as_its_checked_out_files(project: Tree) -> None:
    _add_submodule(project, "other")
    project.write("sub/untracked")
    selection = _select(project)
    assert selection.submodules == ["sub"]
    names = {file.path for file in selection.files}
    assert {"sub/a.txt", "sub/dir/deep/d.txt", "sub/link", ".gitmodules"} <= names
    assert not {"sub", "sub/.git", "sub/untracked"} & names
    assert "sub/untracked" not in _names(project, include_untracked=True)


def test_submodules_of_submodules_go_too(project: Tree, tmp_path: Path) -> None:
    other = make_project(tmp_path / "other")
    _add_submodule(other, "third", inside="deep/third")
    project.git("submodule", "--quiet", "add", str(other.path), "sub")
    project.git("submodule", "--quiet", "update", "--init", "--recursive")
    assert {"sub/a.txt", "sub/deep/third/a.txt", "sub/deep/third/dir/c.txt"} <= set(_names(project))
    subprocess.run(["git", "-C", project.path / "sub", "submodule", "--quiet", "deinit", "--all"], check=True)
    found = {file.path: file.kind for file in _select(project).files}
    assert found["sub/deep/third"] is Kind.FOLDER


def test_a_submodule_that_is_not_checked_out_is_an_empty_folder(project: Tree, tmp_path: Path) -> None:
    _add_submodule(project, "other")
    project.git("clone", "-q", str(project.path), str(tmp_path / "clone"))
    selection = _select(Tree(tmp_path / "clone"))
    assert {file.path: file.kind for file in selection.files}["sub"] is Kind.FOLDER
    assert selection.submodules == ["sub"]


def test_a_submodule_that_is_gone_is_missing(project: Tree) -> None:
    _add_submodule(project, "other")
    subprocess.run(["rm", "-r", project.path / "sub"], check=True)
    assert _select(project).missing == ["sub"]
    assert not any(name.startswith("sub") for name in _names(project))


def test_a_file_in_the_place_of_a_submodule_goes(project: Tree) -> None:
    _add_submodule(project, "other")
    subprocess.run(["rm", "-r", project.path / "sub"], check=True)
    project.write("sub", b"file\n")
    assert {file.path: file.kind for file in _select(project).files}["sub"] is Kind.FILE


@pytest.mark.parametrize("inside", ["sub", "libs/sub"])
def test_a_submodule_is_not_looked_for_behind_a_symlink(project: Tree, tmp_path: Path, inside: str) -> None:
    _add_submodule(project, "other", inside=inside)
    make_project(tmp_path / "outside/sub").write("SECRET")
    Tree(tmp_path / "outside/sub").commit("secret")
    place = project.path / inside.split("/")[0]
    subprocess.run(["rm", "-r", place], check=True)
    place.symlink_to(tmp_path / "outside" / ("sub" if inside == "sub" else ""))
    selection = _select(project, include_untracked=True)
    found = {file.path: file.kind for file in selection.files}
    assert not any(name.startswith(f"{inside}/") for name in found)
    assert found[inside.split("/")[0]] is Kind.SYMLINK


def test_a_submodule_whose_git_folder_is_empty_is_not_taken_for_the_repository_around_it(project: Tree) -> None:
    _add_submodule(project, "other")
    (project.path / "sub/.git").unlink()
    (project.path / "sub/.git").mkdir()
    found = {file.path: file.kind for file in _select(project).files}
    assert found["sub"] is Kind.FOLDER
    assert not any(name.startswith("sub/") for name in found)


@pytest.mark.parametrize("options", [["--cone"], ["--no-cone"], ["--cone", "--sparse-index"]], ids=" ".join)
def test_of_a_sparse_checkout_what_is_checked_out_goes(project: Tree, options: list[str]) -> None:
    project.write("other/e.txt")
    project.write("more/f.txt")
    project.commit("more folders")
    project.git("sparse-checkout", "set", *options, "other")
    names = _names(project)
    assert "other/e.txt" in names
    assert not {"dir/c.txt", "more/f.txt"} & set(names)
    assert {"dir/c.txt", "more/f.txt"} <= set(_select(project).missing)


def test_a_linked_work_tree_has_files_of_its_own(project: Tree, tmp_path: Path) -> None:
    project.git("worktree", "add", "-qb", "side", str(tmp_path / "side"))
    side = Tree(tmp_path / "side")
    side.write("only-here.txt")
    side.git("add", "only-here.txt")
    (side.path / "a.txt").unlink()
    assert "only-here.txt" in _names(side)
    assert "a.txt" not in _names(side)
    assert "only-here.txt" not in _names(project)


def test_an_empty_repository_has_no_files(tmp_path: Path) -> None:
    assert _select(make_tree(tmp_path / "new"), include_untracked=True) == Selection([], [], [], [])


def test_selecting_changes_nothing(project: Tree) -> None:
    project.write("untracked")
    os.utime(project.path / "a.txt", (1, 1))
    before = read_all(project.path)
    _select(project, include_untracked=True)
    assert read_all(project.path) == before


def test_a_monitor_that_the_repository_names_is_not_run(project: Tree) -> None:
    hook = project.write(".git/watch", b'#!/bin/sh\necho run >>"$0.ran"\n', 0o755)
    project.git("config", "core.fsmonitor", str(hook))
    _select(project, include_untracked=True)
    assert not (project.path / ".git/watch.ran").exists()


def test_of_three_thousand_files_every_one_is_listed(tmp_path: Path) -> None:
    tree = make_tree(tmp_path / "tree")
    for number in range(3000):
        tree.write(f"{number % 100}/{number}", b"%d\n" % number)
    tree.git("add", "-A")
    assert len(_names(tree)) == 3000
