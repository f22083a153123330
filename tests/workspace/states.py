"""States that a work tree may be in, each made of a fresh `make_project` by the real git."""

from __future__ import annotations

import os
import subprocess
import time
from collections.abc import Callable

from tests.workspace.repositories import Tree

_Change = Callable[[Tree], None]
STATES: dict[str, _Change] = {}


def state(change: _Change) -> _Change:
    STATES[change.__name__] = change
    return change


@state
def clean(tree: Tree) -> None:
    """As it was committed."""


@state
def dirty(tree: Tree) -> None:
    tree.write("a.txt", b"other\n")


@state
def dirty_of_the_same_size(tree: Tree) -> None:
    """Within the second of the commit: git has to look at the content to see it."""
    content = (tree.path / "a.txt").read_bytes()
    tree.write("a.txt", content.swapcase())


@state
def dirty_of_the_same_size_and_time(tree: Tree) -> None:
    place = tree.path / "a.txt"
    found = place.stat()
    tree.write("a.txt", place.read_bytes().swapcase())
    os.utime(place, ns=(found.st_atime_ns, found.st_mtime_ns))


@state
def dirty_of_the_same_size_and_time_long_after(tree: Tree) -> None:
    """The index is younger than the file, so only the time of the inode's change tells git to look: in seconds."""
    place = tree.path / "a.txt"
    os.utime(place, (1_000_000_000, 1_000_000_000))
    tree.git("update-index", "--refresh")
    time.sleep(1 - time.time() % 1 + 0.01)
    tree.write("a.txt", place.read_bytes().swapcase())
    os.utime(place, (1_000_000_000, 1_000_000_000))


@state
def touched(tree: Tree) -> None:
    os.utime(tree.path / "a.txt", (1_000_000_000, 1_000_000_000))


@state
def older_than_unix(tree: Tree) -> None:
    os.utime(tree.path / "a.txt", (-100, -100))


@state
def staged(tree: Tree) -> None:
    tree.write("a.txt", b"staged\n")
    tree.write("new.txt", b"new\n")
    tree.git("add", "-A")


@state
def staged_and_taken_back(tree: Tree) -> None:
    before = (tree.path / "a.txt").read_bytes()
    tree.write("a.txt", b"staged\n")
    tree.git("add", "-A")
    tree.write("a.txt", before)


@state
def partly_staged(tree: Tree) -> None:
    tree.write("a.txt", b"staged\n")
    tree.git("add", "a.txt")
    tree.write("a.txt", b"staged\nand more\n")


@state
def intent_to_add(tree: Tree) -> None:
    tree.write("later.txt", b"later\n")
    tree.git("add", "-N", "later.txt")


@state
def staged_empty(tree: Tree) -> None:
    tree.write("empty.txt", b"")
    tree.git("add", "empty.txt")


@state
def deleted(tree: Tree) -> None:
    (tree.path / "a.txt").unlink()
    (tree.path / "dir/deep/d.txt").unlink()


@state
def deleted_in_the_index(tree: Tree) -> None:
    tree.git("rm", "-q", "a.txt")


@state
def deleted_only_in_the_index(tree: Tree) -> None:
    tree.git("rm", "-q", "--cached", "a.txt")


@state
def added_and_deleted(tree: Tree) -> None:
    tree.write("new.txt")
    tree.git("add", "new.txt")
    (tree.path / "new.txt").unlink()


@state
def renamed(tree: Tree) -> None:
    tree.git("mv", "old.txt", "dir/new name.txt")


@state
def renamed_and_changed(tree: Tree) -> None:
    renamed(tree)
    with (tree.path / "dir/new name.txt").open("ab") as file:
        file.write(b"end\n")


@state
def mode_changed(tree: Tree) -> None:
    (tree.path / "a.txt").chmod(0o755)
    (tree.path / "run.sh").chmod(0o644)


@state
def mode_staged(tree: Tree) -> None:
    (tree.path / "a.txt").chmod(0o755)
    tree.git("add", "-A")


@state
def mode_only_in_the_index(tree: Tree) -> None:
    tree.git("update-index", "--chmod=+x", "b.txt")


@state
def file_to_link(tree: Tree) -> None:
    (tree.path / "a.txt").unlink()
    tree.link("a.txt", "b.txt")


@state
def link_to_file(tree: Tree) -> None:
    (tree.path / "link").unlink()
    tree.write("link", b"file\n")


@state
def link_to_folder(tree: Tree) -> None:
    (tree.path / "link").unlink()
    tree.write("link/inside", b"file\n")
    tree.git("add", "-N", "link/inside")


@state
def type_change_staged(tree: Tree) -> None:
    file_to_link(tree)
    tree.git("add", "-A")


@state
def link_led_elsewhere(tree: Tree) -> None:
    (tree.path / "link").unlink()
    tree.link("link", "nowhere")


@state
def file_to_folder(tree: Tree) -> None:
    (tree.path / "a.txt").unlink()
    tree.write("a.txt/inside", b"file\n")


@state
def file_to_folder_staged(tree: Tree) -> None:
    file_to_folder(tree)
    tree.git("add", "-A")


@state
def folder_to_file(tree: Tree) -> None:
    subprocess.run(["rm", "-r", tree.path / "dir"], check=True)
    tree.write("dir", b"file\n")


@state
def folder_to_file_staged(tree: Tree) -> None:
    folder_to_file(tree)
    tree.git("add", "-A")


@state
def folder_to_link(tree: Tree) -> None:
    (tree.path / "dir").rename(tree.path.parent / "outside")
    tree.link("dir", "../outside")


@state
def folder_to_link_staged(tree: Tree) -> None:
    folder_to_link(tree)
    tree.git("add", "-A")


def _branch_off(tree: Tree, *, then: Callable[[], object], other: Callable[[], object]) -> None:
    tree.git("switch", "-qc", "other")
    other()
    tree.commit("other")
    tree.git("switch", "-q", "main")
    then()
    tree.commit("ours")


def _merge(tree: Tree) -> None:
    done = subprocess.run(["git", "-C", tree.path, "merge", "-q", "other"], capture_output=True)
    assert done.returncode == 1, done.stderr


@state
def in_conflict(tree: Tree) -> None:
    _branch_off(tree, then=lambda: tree.write("a.txt", b"ours\n"), other=lambda: tree.write("a.txt", b"theirs\n"))
    _merge(tree)


@state
def in_conflict_over_a_deletion(tree: Tree) -> None:
    _branch_off(tree, then=lambda: (tree.path / "a.txt").unlink(), other=lambda: tree.write("a.txt", b"theirs\n"))
    _merge(tree)


@state
def in_conflict_and_removed(tree: Tree) -> None:
    in_conflict(tree)
    (tree.path / "a.txt").unlink()


@state
def both_added(tree: Tree) -> None:
    _branch_off(tree, then=lambda: tree.write("n", b"ours\n"), other=lambda: tree.write("n", b"theirs\n"))
    _merge(tree)


@state
def assume_unchanged(tree: Tree) -> None:
    tree.git("update-index", "--assume-unchanged", "a.txt")
    tree.write("a.txt", b"as I like it\n")


@state
def skip_worktree(tree: Tree) -> None:
    tree.git("update-index", "--skip-worktree", "a.txt", "b.txt")
    tree.write("a.txt", b"as I like it\n")
    (tree.path / "b.txt").unlink()


@state
def ignored_but_tracked(tree: Tree) -> None:
    tree.write("kept.log", b"log\n")
    tree.git("add", "-f", "kept.log")
    tree.git("commit", "-qm", "log")
    tree.write("kept.log", b"more log\n")


@state
def without_modes(tree: Tree) -> None:
    tree.git("config", "core.fileMode", "false")
    mode_changed(tree)


@state
def without_symlinks(tree: Tree) -> None:
    tree.git("config", "core.symlinks", "false")
    (tree.path / "link").unlink()
    tree.write("link", b"dir/c.txt")


@state
def split_index(tree: Tree) -> None:
    tree.git("config", "core.splitIndex", "true")
    tree.git("config", "splitIndex.maxPercentChange", "100")
    tree.git("update-index", "--split-index")
    partly_staged(tree)


@state
def many_files(tree: Tree) -> None:
    tree.git("config", "feature.manyFiles", "true")
    tree.git("update-index", "--index-version=4", "--untracked-cache", "--force-write-index")
    partly_staged(tree)


@state
def watched(tree: Tree) -> None:
    hook = tree.write(".git/watch", b'#!/bin/sh\necho never >>"$0.ran"\nexit 1\n', 0o755)
    tree.git("config", "core.fsmonitor", str(hook))
    tree.git("update-index", "--fsmonitor")
    dirty(tree)


@state
def with_line_ends(tree: Tree) -> None:
    tree.git("config", "core.autocrlf", "true")
    tree.write("dos.txt", b"one\r\ntwo\r\n")
    tree.commit("dos")
    tree.write("dos.txt", b"one\r\ntwo\r\nthree\r\n")
    tree.write("a.txt", (tree.path / "a.txt").read_bytes().replace(b"\n", b"\r\n"))


@state
def with_attributes(tree: Tree) -> None:
    tree.write(".gitattributes", b"*.win text eol=crlf\n*.bin binary\n")
    tree.write("x.win", b"one\r\ntwo\r\n")
    tree.write("x.bin", b"\0\r\n")
    tree.commit("attributes")
    (tree.path / "x.win").write_bytes(b"one\ntwo\n")


@state
def with_own_attributes(tree: Tree) -> None:
    tree.write(".git/info/attributes", b"*.win text eol=crlf\n")
    tree.write("x.win", b"one\r\ntwo\r\n")
    tree.commit("attributes")
    tree.write("x.win", b"two\r\n")


@state
def in_utf_16(tree: Tree) -> None:
    tree.write(".gitattributes", b"*.utf16 text working-tree-encoding=UTF-16\n")
    tree.write("x.utf16", "one\n".encode("utf-16"))
    tree.commit("encoding")
    os.utime(tree.path / "x.utf16", (1_000_000_000, 1_000_000_000))


@state
def filtered_and_touched(tree: Tree) -> None:
    """As files of git-lfs are: the guest has no such filter."""
    tree.git("config", "filter.up.smudge", "tr a-z A-Z")
    tree.git("config", "filter.up.clean", "tr A-Z a-z")
    tree.write(".gitattributes", b"*.up filter=up\n")
    tree.write("x.up", b"LOUD\n")
    tree.write("y.up", b"LOUD\n")
    tree.commit("filtered")
    os.utime(tree.path / "x.up", (1_000_000_000, 1_000_000_000))


@state
def commit_refused(tree: Tree) -> None:
    """By a hook: the index remembers a tree that no commit has."""
    staged(tree)
    tree.write("dir/deep/d.txt", b"staged\n")
    tree.git("add", "-A")
    hook = tree.write(".git/hooks/pre-commit", b"#!/bin/sh\nexit 1\n", 0o755)
    assert subprocess.run(["git", "-C", tree.path, "commit", "-qm", "x"], capture_output=True).returncode == 1
    hook.unlink()
