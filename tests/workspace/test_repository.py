"""What a path is to git: a work tree from any folder inside, told from everything else, never changed by looking."""

from __future__ import annotations

import os
import subprocess
from collections.abc import Callable
from pathlib import Path

import pytest

from banger.errors import BangerError, Reason
from banger.workspace.git import format_alternate
from banger.workspace.repository import (
    Author,
    check_branch_name,
    find_author,
    find_origin,
    get_commit,
    open_repository,
    remove_credentials,
)
from tests.workspace.repositories import Tree, make_project, make_tree, read_all


def _refusal(path: Path) -> BangerError:
    with pytest.raises(BangerError) as caught:
        open_repository(path)
    return caught.value


def test_a_repository_is_found_from_its_top_and_from_any_folder_inside(project: Tree) -> None:
    commit = project.ask("rev-parse", "HEAD")
    for inside in (project.path, project.path / "dir", project.path / "dir/deep"):
        found = open_repository(inside)
        assert (found.root, found.head, found.branch) == (project.path, commit, "main")
        assert (found.git_dir, found.objects) == (project.path / ".git", project.path / ".git/objects")
        assert found.object_format == "sha1"


def test_a_repository_is_found_from_where_one_stands(project: Tree, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(project.path / "dir")
    assert open_repository(Path()).root == project.path


def test_a_repository_is_found_through_a_symlink(project: Tree, tmp_path: Path) -> None:
    (tmp_path / "way").symlink_to(project.path / "dir")
    assert open_repository(tmp_path / "way").root == project.path


@pytest.mark.parametrize("name", ["two words", "new\nline", "end\n", "-dash", "ünï ✓", "quo\"te's", "\udcff", "a:b%20"])
def test_a_repository_may_have_any_name(tmp_path: Path, name: str) -> None:
    tree = make_project(tmp_path / name)
    found = open_repository(tree.path / "dir")
    assert found.root == tree.path
    assert found.objects.is_dir()


def test_a_repository_before_its_first_commit_has_a_branch_and_no_head(tmp_path: Path) -> None:
    found = open_repository(make_tree(tmp_path / "new").path)
    assert (found.head, found.branch) == (None, "main")


def test_a_detached_head_has_no_branch(project: Tree) -> None:
    project.git("checkout", "-q", "--detach")
    found = open_repository(project.path)
    assert (found.head, found.branch) == (project.ask("rev-parse", "HEAD"), None)


def test_a_tag_of_the_branch_s_name_does_not_confuse(project: Tree) -> None:
    first = project.ask("rev-parse", "HEAD")
    project.git("tag", "main")
    second = project.commit("second")
    found = open_repository(project.path)
    assert (found.head, found.branch) == (second, "main")
    assert get_commit(found, "refs/tags/main") == first


def test_a_linked_work_tree_has_objects_with_its_main_one(project: Tree, tmp_path: Path) -> None:
    project.git("worktree", "add", "-qb", "side", str(tmp_path / "side"))
    found = open_repository(tmp_path / "side/dir")
    assert (found.root, found.branch) == (tmp_path / "side", "side")
    assert found.git_dir == project.path / ".git/worktrees/side"
    assert found.objects == project.path / ".git/objects"


def test_a_submodule_is_a_repository_of_its_own(project: Tree, tmp_path: Path) -> None:
    other = make_project(tmp_path / "other")
    project.git("submodule", "--quiet", "add", str(other.path), "sub")
    found = open_repository(project.path / "sub/dir")
    assert found.root == project.path / "sub"
    assert found.head == other.ask("rev-parse", "HEAD")


def test_a_work_tree_whose_git_folder_is_elsewhere_is_found(tmp_path: Path) -> None:
    tree = make_project(tmp_path / "tree", f"--separate-git-dir={tmp_path / 'apart'}")
    found = open_repository(tree.path)
    assert (found.root, found.git_dir) == (tree.path, tmp_path / "apart")


def test_a_repository_of_sha256_is_known_as_one(tmp_path: Path) -> None:
    found = open_repository(make_project(tmp_path / "new", "--object-format=sha256").path)
    assert found.object_format == "sha256"
    assert found.head is not None
    assert len(found.head) == 64


def _bare(path: Path) -> Path:
    subprocess.run(["git", "init", "-q", "--bare", path], check=True)
    return path


def _inside_git(path: Path) -> Path:
    return make_project(path).path / ".git/objects"


def _plain_folder(path: Path) -> Path:
    path.mkdir()
    return path


def _file(path: Path) -> Path:
    path.write_bytes(b"")
    return path


def _nothing(path: Path) -> Path:
    return path


def _broken_gitfile(path: Path) -> Path:
    path.mkdir()
    (path / ".git").write_text("gitdir: /nowhere/at/all\n")
    return path


@pytest.mark.parametrize(
    ("make", "reason", "word"),
    [
        (_bare, Reason.BAD_INPUT, "bare"),
        (_inside_git, Reason.BAD_INPUT, ".git folder"),
        (_plain_folder, Reason.BAD_INPUT, "not in a git repository"),
        (_file, Reason.BAD_INPUT, "no folder"),
        (_nothing, Reason.NOT_FOUND, "not there"),
        (_broken_gitfile, Reason.BAD_INPUT, "not in a git repository"),
    ],
)
def test_what_is_no_work_tree_is_refused_with_why(
    tmp_path: Path, make: Callable[[Path], Path], reason: Reason, word: str
) -> None:
    refusal = _refusal(make(tmp_path / "x\x1b[31m"))
    assert refusal.reason is reason
    assert word in refusal.message
    assert "\x1b" not in refusal.message
    assert refusal.hint


def test_a_name_that_is_too_long_for_any_file_is_refused(tmp_path: Path) -> None:
    refusal = _refusal(tmp_path / ("x" * 5000))
    assert refusal.reason is Reason.IO
    assert "too long" in refusal.message


@pytest.mark.skipif(os.getuid() != 0, reason="only root can give a repository away")
def test_a_repository_of_somebody_else_is_refused_with_how_to_trust_it(project: Tree) -> None:
    for place in (project.path, project.path / ".git"):
        os.chown(place, 12345, 12345)
    refusal = _refusal(project.path)
    assert refusal.reason is Reason.NO_PERMISSION
    assert f"safe.directory {project.path}" in refusal.hint


def test_a_repository_that_git_cannot_read_is_told_in_git_s_words(project: Tree) -> None:
    project.git("config", "core.repositoryFormatVersion", "99")
    refusal = _refusal(project.path)
    assert refusal.reason is Reason.COMMAND_FAILED
    assert "99" in refusal.message


def test_what_a_hook_has_in_its_environment_leads_nowhere_else(
    project: Tree, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    other = make_project(tmp_path / "other")
    monkeypatch.setenv("GIT_DIR", str(other.path / ".git"))
    monkeypatch.setenv("GIT_WORK_TREE", str(other.path))
    monkeypatch.setenv("GIT_INDEX_FILE", str(other.path / ".git/index.lock"))
    monkeypatch.setenv("GIT_PREFIX", "dir/")
    found = open_repository(project.path / "dir")
    assert (found.root, found.git_dir) == (project.path, project.path / ".git")


def test_looking_changes_nothing(project: Tree) -> None:
    os.utime(project.path / "a.txt", (1, 1))
    before = read_all(project.path)
    found = open_repository(project.path)
    get_commit(found, "HEAD")
    find_author(found)
    find_origin(found)
    assert read_all(project.path) == before


def test_a_commit_is_found_by_whatever_git_knows_it_by(project: Tree) -> None:
    first = project.ask("rev-parse", "HEAD")
    project.git("tag", "-am", "tag", "v1")
    project.commit("second")
    found = open_repository(project.path)
    for text in ("v1", "HEAD~1", first, first[:10], "main^"):
        assert get_commit(found, text) == first


@pytest.mark.parametrize("text", ["nope", "", "-x", "--all", "HEAD:a.txt", "HEAD^{tree}", "HEAD~9", "\x1b[31m", "a\nb"])
def test_what_is_no_commit_is_not_found(project: Tree, text: str) -> None:
    with pytest.raises(BangerError) as caught:
        get_commit(open_repository(project.path), text)
    assert caught.value.reason is Reason.NOT_FOUND
    assert "\x1b" not in caught.value.message
    assert "\n" not in caught.value.message


@pytest.mark.parametrize("name", ["fix", "feature/one", "ünï", "a.b", "a@b", "1"])
def test_a_name_that_git_takes_for_a_branch_is_one(project: Tree, name: str) -> None:
    assert check_branch_name(open_repository(project.path), name) == name


@pytest.mark.parametrize(
    "name",
    ["", "-x", "--all", "a b", "a..b", "a.lock", "/a", "a/", "a//b", ".a", "@{-1}", "a~1", "a\n", "a\x1b", "HEAD"],
)
def test_a_name_that_git_does_not_take_for_a_branch_is_refused(project: Tree, name: str) -> None:
    project.git("switch", "-qc", "before")
    project.git("switch", "-q", "main")
    with pytest.raises(BangerError) as caught:
        check_branch_name(open_repository(project.path), name)
    assert caught.value.reason is Reason.BAD_INPUT
    assert "\x1b" not in caught.value.message


def test_the_author_is_who_the_user_is_to_git_here(project: Tree) -> None:
    found = open_repository(project.path)
    assert find_author(found) == Author("Host User", "host@example.org")
    project.git("config", "user.email", "work@example.org")
    assert find_author(found) == Author("Host User", "work@example.org")


def test_without_a_configuration_there_is_no_author(project: Tree, host_home: Path) -> None:
    (host_home / ".gitconfig").unlink()
    assert find_author(open_repository(project.path)) == Author("", "")


def test_without_an_origin_there_is_no_url(project: Tree) -> None:
    project.git("remote", "add", "upstream", "https://example.org/x.git")
    assert find_origin(open_repository(project.path)) is None


def test_the_origin_s_url_is_as_it_is_written_and_not_as_it_is_rewritten(project: Tree) -> None:
    project.git("remote", "add", "origin", "gh:team/app")
    project.git("config", "url.https://tok@example.org/.insteadOf", "gh:")
    assert find_origin(open_repository(project.path)) == "gh:team/app"


@pytest.mark.parametrize(
    ("url", "clean"),
    [
        ("https://example.org/x.git", "https://example.org/x.git"),
        ("https://TOKEN@example.org/x.git", "https://example.org/x.git"),
        ("https://oauth2:SECRET@example.org/x.git", "https://example.org/x.git"),
        ("https://:SECRET@example.org/x.git", "https://example.org/x.git"),
        ("https://me:SE@CRET@example.org/x.git", "https://example.org/x.git"),
        ("https://me@corp.example:SECRET@example.org/x.git", "https://example.org/x.git"),
        ("HTTPS://TOKEN@example.org/x.git", "HTTPS://example.org/x.git"),
        ("http://me:SECRET@[::1]:8080/x.git", "http://[::1]:8080/x.git"),
        ("https://example.org/@scope/x.git", "https://example.org/@scope/x.git"),
        ("https::https://TOKEN@example.org/x.git", "https::https://example.org/x.git"),
        ("ssh://git@example.org:22/x.git", "ssh://git@example.org:22/x.git"),
        ("ssh://me:SECRET@example.org/x.git", "ssh://me@example.org/x.git"),
        ("ftp://me:SECRET@example.org/x.git", "ftp://me@example.org/x.git"),
        ("git@example.org:team/x.git", "git@example.org:team/x.git"),
        ("example.org:team/x.git", "example.org:team/x.git"),
        ("/srv/git/x.git", "/srv/git/x.git"),
        ("../x.git", "../x.git"),
        ("file:///srv/git/x@y.git", "file:///srv/git/x@y.git"),
        ("", ""),
    ],
)
def test_a_url_is_told_without_credentials(url: str, clean: str) -> None:
    assert remove_credentials(url) == clean


@pytest.mark.parametrize("name", ["plain", "a:b", "a b", 'quo"te', "back\\slash", "new\nline", "ünï", "\udcff"])
def test_an_alternate_is_written_so_that_git_finds_it(tmp_path: Path, name: str) -> None:
    tree = make_project(tmp_path / name)
    head = tree.ask("rev-parse", "HEAD")
    empty = make_tree(tmp_path / "empty")
    alternate = format_alternate(tree.path / ".git/objects")
    assert empty.git("cat-file", "-t", head, environment={"GIT_ALTERNATE_OBJECT_DIRECTORIES": alternate}) == b"commit\n"
