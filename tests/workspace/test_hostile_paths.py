"""Trees that would lead out of the repository, or into .git: refused as a whole, before anything else is done."""

from __future__ import annotations

import itertools
from pathlib import Path

import pytest

from banger.errors import BangerError, Reason
from banger.workspace.changes import check_path, list_changes
from tests.workspace.copies import assert_clean, git, list_content, make_sent, unchanged, write
from tests.workspace.hostile import apply, branch, make_hosts, refuse
from tests.workspace.packs import FILE, FOLDER, LINK, PROGRAM, Entry, Pack, answer

NAMES = {
    "above": b"..",
    "here": b".",
    "nothing": b"",
    ".git": b".git",
    ".GIT": b".GIT",
    ".Git": b".Git",
    "of an old file system": b"git~1",
    "with a trailing dot": b".git.",
    "with a trailing space": b".git ",
    "with a stream": b".git::$INDEX_ALLOCATION",
    "with what is not seen": ".g\u200cit".encode(),
    "absolute": b"/etc/passwd",
    "with a slash": b"src/main.c",
    "upwards": b"../outside/secret",
    "into .git": b".git/hooks/post-checkout",
    "deep into .git": b"src/.git/config",
    "backwards": b"..\\.git\\config",
}


@pytest.mark.parametrize(
    ("name", "kind"), [*zip(NAMES, itertools.cycle(["file", "link", "folder"])), ("above", "folder"), (".git", "link")]
)
def test_a_name_that_no_file_may_have_is_refused(tmp_path: Path, name: str, kind: str) -> None:
    pair, pack = make_hosts(tmp_path), Pack()
    blob = pack.add_blob(b"../../outside")
    entry: Entry = {
        "file": (PROGRAM, NAMES[name], blob),
        "link": (LINK, NAMES[name], blob),
        "folder": (FOLDER, NAMES[name], pack.add_tree((PROGRAM, b"secret", blob))),
    }[kind]
    error = refuse(pair, answer([entry], pack, str(pair.workspace.commit)), "apply")
    assert error.reason is Reason.CORRUPT


@pytest.mark.parametrize("name", ["above", ".git", ".GIT", "absolute", "into .git", "with what is not seen"])
def test_nor_may_it_further_down(tmp_path: Path, name: str) -> None:
    pair, pack = make_hosts(tmp_path), Pack()
    inner = pack.add_tree((FILE, NAMES[name], pack.add_blob()))
    outer = pack.add_tree((FOLDER, b"inner", inner))
    error = refuse(pair, answer([(FOLDER, b"outer", outer)], pack, str(pair.workspace.commit)), "branch")
    assert error.reason is Reason.CORRUPT


@pytest.mark.parametrize("name", ["above", ".GIT", "into .git"])
def test_nor_may_it_in_a_commit_on_the_way(tmp_path: Path, name: str) -> None:
    """What a later commit takes back would still be checked out by whoever looks at the earlier one."""
    pair, pack = make_hosts(tmp_path), Pack()
    bad = pack.add_commit(pack.add_tree((FILE, NAMES[name], pack.add_blob())), str(pair.workspace.commit))
    good = answer([(FILE, b"README", pack.add_blob())], pack, bad)
    assert refuse(pair, good).reason is Reason.CORRUPT


def pairs(pack: Pack) -> dict[str, list[Entry]]:
    blob, link = pack.add_blob(), pack.add_blob(b"../outside")
    folder = pack.add_tree((FILE, b"secret", blob))
    return {
        "twice the same": [(FILE, b"a", blob), (FILE, b"a", blob)],
        "a link and a folder": [(LINK, b"a", link), (FOLDER, b"a", folder)],
        "a folder and a link": [(FOLDER, b"a", folder), (LINK, b"a", link)],
        "a link and a folder, apart": [(LINK, b"a", link), (FILE, b"a.b", blob), (FOLDER, b"a", folder)],
        "a file and a folder": [(FILE, b"a", blob), (FOLDER, b"a", folder)],
        "out of order": [(FILE, b"b", blob), (FILE, b"a", blob)],
        "a tree as a file": [(FILE, b"a", folder)],
        "a file as a tree": [(FOLDER, b"a", blob)],
        "a tree as a link": [(LINK, b"a", folder)],
        "no mode at all": [("0", b"a", blob)],
        "of a device": [("060000", b"a", blob)],
        "with zeros before it": [("0100644", b"a", blob)],
        "that is nothing": [(FILE, b"a", "0" * 40)],
    }


@pytest.mark.parametrize("case", pairs(Pack()))
def test_a_tree_that_contradicts_itself_is_refused(tmp_path: Path, case: str) -> None:
    pair, pack = make_hosts(tmp_path), Pack()
    entries = pairs(pack)[case]
    assert refuse(pair, answer(entries, pack, str(pair.workspace.commit))).reason is Reason.CORRUPT


def test_a_list_of_submodules_that_is_a_link_or_a_command_is_refused(tmp_path: Path) -> None:
    pair = make_hosts(tmp_path)
    for mode, content in (
        (LINK, b"../outside/secret"),
        (FILE, b'[submodule "a"]\n\tpath = a\n\turl = -oProxyCommand=touch${IFS}x\n'),
        (FILE, b'[submodule "../../x"]\n\tpath = a\n\turl = https://example.org\n'),
        (FILE, b'[submodule "a"]\n\tpath = -a\n\turl = https://example.org\n'),
        (FILE, b'[submodule "a"]\n\tpath = a\n\turl = https://example.org\n\tupdate = !touch x\n'),
    ):
        pack = Pack()
        entry = (mode, b".gitmodules", pack.add_blob(content))
        assert refuse(pair, answer([entry], pack, str(pair.workspace.commit)), "branch").reason is Reason.CORRUPT


def test_a_link_that_leads_out_is_only_a_link(tmp_path: Path) -> None:
    pair, pack = make_hosts(tmp_path), Pack()
    outside = pair.folder / "outside"
    entries = [
        (LINK, b"absolute", pack.add_blob(str(outside).encode())),
        (LINK, b"hooks", pack.add_blob(b".git/hooks")),
        (LINK, b"upwards", pack.add_blob(b"../outside/secret")),
    ]
    with (
        pair.take_stream(answer(entries, pack, str(pair.workspace.commit))) as copy,
        unchanged(outside, pair.host / ".git/hooks" if (pair.host / ".git/hooks").exists() else outside),
    ):
        apply(copy)
    assert (pair.host / "absolute").readlink() == outside
    assert set(list_content(pair.host)) == {"absolute", "hooks", "upwards"}


def test_a_link_first_and_a_file_behind_it_later_stays_inside(tmp_path: Path) -> None:
    """Applied one after the other: the second finds a link where a folder was to be."""
    pair, pack = make_hosts(tmp_path), Pack()
    head = str(pair.workspace.commit)
    first = answer([(LINK, b"a", pack.add_blob(b"../outside"))], pack, head)
    with pair.take_stream(first) as copy:
        apply(copy)
    pack = Pack()
    below = pack.add_tree((FILE, b"secret", pack.add_blob()))
    error = refuse(pair, answer([(FOLDER, b"a", below)], pack, head), "apply")
    assert error.reason is Reason.CHANGED


@pytest.mark.parametrize("folder", ["nested", "bare.git"])
def test_a_repository_of_the_hosts_inside_is_not_written_into(tmp_path: Path, folder: str) -> None:
    """Untracked there, and no submodule; its .git cannot be named, and its work tree is another repository's."""
    pair, pack = make_hosts(tmp_path), Pack()
    git(pair.host, "init", "-q", folder, *(["--bare"] if folder.startswith("bare") else []))
    hooks = pack.add_tree((PROGRAM, b"post-update", pack.add_blob(b"#!/bin/sh\n")))
    entries = [(FOLDER, folder.encode(), pack.add_tree((FOLDER, b"hooks", hooks)))]
    error = refuse(pair, answer(entries, pack, str(pair.workspace.commit)), "apply")
    assert error.reason is Reason.CHANGED
    assert f"{folder}/hooks/post-update" in error.message


def test_a_git_folder_of_another_name_is_not_written_into(tmp_path: Path) -> None:
    pair, pack = make_hosts(tmp_path), Pack()
    (pair.host / ".git").rename(pair.host / "store")
    write(pair.host, ".git", "gitdir: store\n")
    hooks = pack.add_tree((PROGRAM, b"post-checkout", pack.add_blob(b"#!/bin/sh\n")))
    entries = [(FOLDER, b"store", pack.add_tree((FOLDER, b"hooks", hooks)))]
    stream = answer(entries, pack, str(pair.workspace.commit))
    # git touches the objects that it meets again.
    with (
        unchanged(pair.host, ignored=["store/objects/"]),
        pytest.raises(BangerError) as caught,
        pair.take_stream(stream) as copy,
    ):
        apply(copy)
    assert caught.value.reason is Reason.CHANGED


@pytest.mark.parametrize(
    "path", ["..", "a/../b", "/a", "a//b", "a/", "", ".", "./a", ".git", ".GIT/x", "a/.gIt/b", "a\0b"]
)
def test_a_path_is_looked_at_once_more(path: str) -> None:
    with pytest.raises(BangerError) as caught:
        check_path(path)
    assert caught.value.reason is Reason.CORRUPT
    assert_clean(caught.value)


@pytest.mark.parametrize("path", ["a", ".gitignore", "..a", "a..", "a/.github/b", "-x", "a\nb", "git"])
def test_a_path_that_is_odd_is_one_all_the_same(path: str) -> None:
    assert check_path(path) == path


def test_the_list_of_changes_is_a_wall_of_its_own(tmp_path: Path) -> None:
    """Trees that somehow came past git's own check."""
    pair = make_sent(tmp_path)
    blob = git(pair.host, "hash-object", "-w", "--stdin", stdin=b"x")
    for name in (b"..", b".git", b".GIT"):
        content = b"100644 %s\0%s" % (name, bytes.fromhex(blob))
        tree = git(pair.host, "hash-object", "-t", "tree", "--literally", "-w", "--stdin", stdin=content)
        with pytest.raises(BangerError) as caught:
            list_changes(pair.host, pair.workspace.tree, tree)
        assert caught.value.reason is Reason.CORRUPT


def test_an_ordinary_answer_of_this_making_is_taken(tmp_path: Path) -> None:
    """So that the others are refused for what they are."""
    pair, pack = make_hosts(tmp_path), Pack()
    entries = [(FILE, b"..\\config", pack.add_blob()), (FILE, b"README", pack.add_blob(b"changed\n"))]
    with pair.take_stream(answer(entries, pack, str(pair.workspace.commit))) as copy:
        assert branch(copy)
        apply(copy)
    assert sorted(list_content(pair.host)) == ["..\\config", "README"]
