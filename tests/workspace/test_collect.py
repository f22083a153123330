"""The state of a guest's copy is read whole, and reading it changes nothing there (`collect` sees to the latter)."""

from __future__ import annotations

import hashlib
import re
import shutil
import subprocess
from pathlib import Path

import pytest

from banger.errors import Reason
from banger.workspace import collect as module
from banger.workspace.collect import format_script
from tests.workspace.copies import Pair, commit, git, list_content, make_pair, make_repository, make_sent, write
from tests.workspace.edits import HISTORY, HOSTS, Edit, commit_twice, delete_everything, edit, edit_everything


def list_tree(place: Path, tree: str) -> dict[str, str]:
    """Path: mode and digest."""
    entries = git(place, "ls-tree", "-r", "-z", "--full-tree", tree).split("\0")
    return {path: head for head, _, path in (entry.partition("\t") for entry in entries if entry)}


def hash_files(repo: Path) -> dict[str, str]:
    """The same of what is in a folder, by no index of anybody's."""
    found = {}
    make = hashlib.sha256 if git(repo, "rev-parse", "--show-object-format") == "sha256" else hashlib.sha1
    for path, (mode, content) in list_content(repo).items():
        digest = make(b"blob %d\0%s" % (len(content or b""), content or b"")).hexdigest()
        kind = {0o120000: "120000"}.get(mode & 0o170000, "100755" if mode & 0o100 else "100644")
        found[path] = f"{kind} blob {digest}"
    return found


@pytest.mark.parametrize("edit", HISTORY)
def test_whatever_was_done_in_the_guest_is_in_the_tree(tmp_path: Path, edit: Edit) -> None:
    pair = make_sent(tmp_path)
    edit(pair.guest)
    head = git(pair.guest, "rev-parse", "-q", "--verify", "HEAD", must_succeed=False)
    with pair.collect() as state:
        assert list_tree(state.git, state.tree) == hash_files(pair.guest)
        assert state.head == (head or None)


@pytest.mark.parametrize("prepare", HOSTS.values(), ids=HOSTS)
def test_what_was_sent_and_not_touched_is_no_change(tmp_path: Path, prepare: Edit) -> None:
    pair = make_pair(tmp_path)
    prepare(pair.host)
    pair.send()
    assert list_content(pair.guest) == list_content(pair.host)
    with pair.collect() as state:
        assert state.tree == pair.workspace.tree
        assert state.head == pair.workspace.commit


@pytest.mark.parametrize("shell", [("sh",), ("busybox", "sh"), ("bash",), ("bash", "--posix")], ids=" ".join)
def test_every_shell_reads_the_same(tmp_path: Path, shell: tuple[str, ...]) -> None:
    pair = make_sent(tmp_path)
    edit_everything(pair.guest)
    with pair.collect(shell) as state:
        assert list_tree(state.git, state.tree) == hash_files(pair.guest)


def test_nothing_is_left_in_the_tmp_of_the_guest(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    pair = make_sent(tmp_path)
    place = "mktemp -d /tmp/banger-XXXXXX"
    assert module._SCRIPT.count("/tmp") == module._SCRIPT.count(place) == 1
    # In one that no other test uses at the same time.
    (tmp_path / "tmp").mkdir()
    monkeypatch.setattr(module, "_SCRIPT", module._SCRIPT.replace("/tmp", f"{tmp_path}/tmp"))
    with pair.collect():
        assert list((tmp_path / "tmp").iterdir()) == []


def test_what_the_guest_ignores_is_left_out(tmp_path: Path) -> None:
    pair = make_sent(tmp_path)
    write(pair.guest, "ignored/secret", "x")
    write(pair.guest, "build.log", "x")
    write(pair.guest, ".git/info/exclude", "excluded\n")
    write(pair.guest, "excluded", "x")
    with pair.collect() as state:
        assert state.tree == pair.workspace.tree


def test_a_tracked_file_that_is_ignored_now_stays(tmp_path: Path) -> None:
    pair = make_sent(tmp_path)
    write(pair.guest, ".gitignore", "*\n")
    write(pair.guest, "README", "changed\n")
    with pair.collect() as state:
        tree = list_tree(state.git, state.tree)
    assert tree == hash_files(pair.guest)


def test_a_repository_without_a_commit(tmp_path: Path) -> None:
    pair = Pair(tmp_path)
    git(tmp_path, "init", "-q", "-b", "main", "host")
    write(pair.host, "sent", "sent\n")
    git(pair.host, "add", "sent")
    pair.send()
    with pair.collect() as state:
        assert (state.head, state.tree) == (None, pair.workspace.tree)
    write(pair.guest, "sent", "changed\n")
    with pair.collect() as state:
        assert list_tree(state.git, state.tree) == hash_files(pair.guest)
    first = commit(pair.guest, "first")
    with pair.collect() as state:
        assert state.head == first


def test_a_repository_without_a_commit_and_without_an_index(tmp_path: Path) -> None:
    pair = Pair(tmp_path)
    git(tmp_path, "init", "-q", "-b", "main", "host")
    pair.send()
    write(pair.guest, "new", "new\n")
    with pair.collect() as state:
        assert list(list_tree(state.git, state.tree)) == ["new"]


def test_a_repository_of_sha256(tmp_path: Path) -> None:
    pair = make_sent(tmp_path, "--object-format=sha256")
    edit_everything(pair.guest)
    with pair.collect() as state:
        assert len(state.tree) == 64
        assert list_tree(state.git, state.tree) == hash_files(pair.guest)


def test_a_shallow_host(tmp_path: Path) -> None:
    make_repository(tmp_path / "origin")
    git(tmp_path, "clone", "-q", "--depth=1", f"file://{tmp_path}/origin", "host")
    pair = Pair(tmp_path).send()
    commit_twice(pair.guest)
    with pair.collect() as state:
        assert git(state.git, "rev-list", "--count", str(state.head)) == "3"


def test_a_linked_work_tree(tmp_path: Path) -> None:
    make_repository(tmp_path / "main")
    git(tmp_path / "main", "worktree", "add", "-q", "-b", "linked", str(tmp_path / "host"))
    pair = Pair(tmp_path).send()
    commit_twice(pair.guest)
    with pair.collect() as state:
        assert list_tree(state.git, state.tree) == hash_files(pair.guest)


def test_a_host_in_a_folder_with_an_odd_name(tmp_path: Path) -> None:
    name = 'a:b "c"; ü\n'
    make_repository(tmp_path / name)
    pair = Pair(tmp_path, name).send()
    commit_twice(pair.guest)
    with pair.collect() as state:
        assert list_tree(state.git, state.tree) == hash_files(pair.guest)


def test_a_submodule_is_the_commit_that_it_was(tmp_path: Path) -> None:
    """Its files are another repository's: what is done to them does not come back, and hides nothing that does."""
    make_repository(tmp_path / "library")
    pair = make_pair(tmp_path)
    git(pair.host, "-c", "protocol.file.allow=always", "submodule", "add", "-q", str(tmp_path / "library"), "lib")
    commit(pair.host, "with a library")
    pair.send()
    assert (pair.guest / "lib/README").is_file()
    write(pair.guest, "lib/README", "changed in the library\n")
    write(pair.guest, "README", "changed\n")
    with pair.collect() as state:
        changed = git(state.git, "diff-tree", "-r", "--name-only", pair.workspace.tree, state.tree)
    assert changed.split() == ["README"]


def test_a_repository_made_inside_is_one_entry(tmp_path: Path) -> None:
    pair = make_sent(tmp_path)
    make_repository(pair.guest / "inner")
    with pair.collect() as state:
        assert list_tree(state.git, state.tree)["inner"].startswith("160000 commit ")


def test_an_empty_repository_made_inside_is_named(tmp_path: Path) -> None:
    """git takes no part of the tree then; better no result than one that lacks something without a word."""
    pair = make_sent(tmp_path)
    git(pair.guest, "init", "-q", "inner")
    status, said = pair.run_script()
    assert status == 94
    assert "'inner/' does not have a commit checked out" in module._refuse(status, said).message


@pytest.mark.parametrize("edit", [edit, edit_everything, delete_everything])
def test_an_index_in_two_parts_stays_as_it_is(tmp_path: Path, edit: Edit) -> None:
    pair = make_sent(tmp_path)
    git(pair.guest, "config", "core.splitIndex", "true")
    git(pair.guest, "config", "core.untrackedCache", "true")
    git(pair.guest, "update-index", "--split-index")
    edit(pair.guest)
    with pair.collect() as state:
        assert list_tree(state.git, state.tree) == hash_files(pair.guest)


def test_a_sparse_guest_keeps_what_it_left_out(tmp_path: Path) -> None:
    pair = make_sent(tmp_path)
    git(pair.guest, "sparse-checkout", "set", "src")
    write(pair.guest, "src/main.c", "changed\n")
    with pair.collect() as state:
        changed = git(state.git, "diff-tree", "-r", "--name-only", pair.workspace.tree, state.tree)
    assert changed.split() == ["src/main.c"]


def test_programs_of_the_guests_configuration_that_are_not_asked_for_do_not_run(tmp_path: Path) -> None:
    pair = make_sent(tmp_path)
    trap = write(tmp_path, "trap", f"#!/bin/sh\ntouch {tmp_path}/sprung\n", 0o755)
    for name in ("pre-commit", "post-index-change", "reference-transaction", "post-checkout"):
        write(pair.guest, f".git/hooks/{name}", trap.read_bytes(), 0o755)
    for key in ("core.fsmonitor", "gpg.program", "core.editor", "core.pager"):
        git(pair.guest, "config", key, str(trap))
    git(pair.guest, "config", "commit.gpgSign", "true")
    write(pair.guest, "README", "changed\n")
    with pair.collect() as state:
        assert state.tree != pair.workspace.tree
    assert not (tmp_path / "sprung").exists()


def test_variables_of_the_guests_login_lead_git_nowhere_else(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    pair = make_sent(tmp_path)
    git(tmp_path, "init", "-q", "trap")
    edit(pair.guest)
    script = format_script(pair.workspace.commit, str(pair.guest), "/usr/bin/busybox")
    for name, value in (("GIT_DIR", "trap/.git"), ("GIT_WORK_TREE", "trap"), ("GIT_INDEX_FILE", "trap/index")):
        monkeypatch.setenv(name, str(tmp_path / value))
    done = subprocess.run(["sh", "-c", script], capture_output=True, check=True)
    assert done.stdout.startswith(f"banger 1 {pair.workspace.commit} ".encode())
    assert not (tmp_path / "trap/index").exists()


@pytest.mark.parametrize("shell", [("sh",), ("busybox", "sh")], ids=" ".join)
def test_a_copy_that_cannot_be_read_is_said_to_be_so(tmp_path: Path, shell: tuple[str, ...]) -> None:
    pair = make_sent(tmp_path)
    write(pair.guest, ".git/index", b"garbage")
    assert pair.run_script(shell)[0] == 94
    shutil.rmtree(pair.guest / ".git")
    assert pair.run_script(shell)[0] == 93
    shutil.rmtree(pair.guest)
    assert pair.run_script(shell)[0] == 90


def test_a_guest_without_git_is_said_to_be_one(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    pair = make_sent(tmp_path)
    script = format_script(pair.workspace.commit, str(pair.guest), "/usr/bin/busybox")
    line = "PATH=$PATH:/usr/local/bin:/usr/bin:/bin"
    assert line in script
    done = subprocess.run(["/bin/sh", "-c", script.replace(line, "PATH=/nowhere")], capture_output=True, check=False)
    assert done.returncode == 91


def test_every_refusal_of_the_script_has_words() -> None:
    refusals = module._REFUSALS
    # 1 is for a connection that has gone.
    assert {int(status) for status in re.findall(r"exit (\d+)", module._SCRIPT)} == {1, *refusals}
    for status, words in refusals.items():
        error = module._refuse(status, b"\x1b[31m what a guest says")
        assert error.reason is Reason.GUEST
        assert words in error.message


def test_what_a_guest_says_when_it_fails_is_made_safe() -> None:
    error = module._refuse(1, b"first\nfatal: \x1b[2J\x07" + b"x" * 9999 + b"\n")
    assert error.message.isprintable()
    assert len(error.message) < 400
