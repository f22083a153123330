"""A guest's changes in the host's work tree: what the guest has, and nothing of the host's is lost."""

from __future__ import annotations

import os
import socket
from pathlib import Path

import pytest

from banger.errors import BangerError, Reason
from banger.machine.exchange import apply_copy
from banger.workspace.apply import Applied
from tests.workspace.copies import (
    Pair,
    assert_clean,
    commit,
    git,
    list_content,
    make_pair,
    make_repository,
    make_sent,
    unchanged,
    write,
)
from tests.workspace.edits import EDITS, HOSTS, Edit, commit_twice, edit, edit_everything, folder_to_link

# Other people's work beside what comes back; git says of it what it said before.
STATUS = ("status", "--porcelain=v2", "-z", "--untracked-files=all")


def apply(pair: Pair) -> Applied:
    with pair.take() as copy:
        applied = apply_copy(copy, lambda _text: None, lambda _summary: True)
    assert applied is not None
    assert not list(pair.host.glob(".banger-*"))
    assert not list((pair.host / ".git").glob("banger-*"))
    return applied


def refuse(pair: Pair, *names: str) -> BangerError:
    """Nothing is changed: bytes, modes and times of everything, .git included."""
    with unchanged(pair.host), pytest.raises(BangerError) as caught:
        apply(pair)
    assert caught.value.reason is Reason.CHANGED
    assert [line.strip() for line in caught.value.message.splitlines()[1:]] == list(names)
    assert_clean(caught.value)
    return caught.value


@pytest.mark.parametrize("edit", EDITS.values(), ids=EDITS)
def test_the_host_gets_what_the_guest_has(tmp_path: Path, edit: Edit) -> None:
    pair = make_sent(tmp_path)
    head = git(pair.host, "rev-parse", "HEAD")
    edit(pair.guest)
    written = apply(pair).written
    assert list_content(pair.host) == list_content(pair.guest)
    # The index has followed, and nothing was committed.
    assert git(pair.host, "diff", "--name-only") == ""
    assert git(pair.host, "ls-files", "-o", "--exclude-standard") == ""
    assert sorted(written) == sorted(
        git(pair.host, "diff", "--cached", "--no-renames", "--name-only", "-z").split("\0")[:-1]
    )
    assert git(pair.host, "rev-parse", "HEAD") == head


def test_a_second_time_it_is_there_already(tmp_path: Path) -> None:
    pair = make_sent(tmp_path)
    edit_everything(pair.guest)
    written = apply(pair).written
    with unchanged(pair.host):
        assert apply(pair) == Applied([], written)


@pytest.mark.parametrize("prepare", HOSTS.values(), ids=HOSTS)
def test_what_the_host_had_not_committed_stays_as_it_was(tmp_path: Path, prepare: Edit) -> None:
    pair = make_pair(tmp_path)
    prepare(pair.host)
    pair.send()
    before = {entry for entry in git(pair.host, *STATUS).split("\0") if entry}
    edit_files = {"README", "src/main.c", "fresh"}
    for name in sorted(edit_files):
        write(pair.guest, name, "of the guest\n")
    apply(pair)
    assert list_content(pair.host) == list_content(pair.guest)
    after = {entry for entry in git(pair.host, *STATUS).split("\0") if entry}
    assert before <= after
    assert {entry.rsplit(" ", 1)[-1] for entry in after - before} == edit_files


def test_what_was_staged_and_changed_since_is_not_staged_again(tmp_path: Path) -> None:
    """The index follows only where it had what was sent."""
    pair = make_pair(tmp_path)
    write(pair.host, "README", "staged\n")
    git(pair.host, "add", "README")
    write(pair.host, "README", "sent\n")
    pair.send()
    write(pair.guest, "README", "of the guest\n")
    apply(pair)
    assert git(pair.host, "show", ":README") == "staged"
    assert (pair.host / "README").read_text() == "of the guest\n"


def test_untracked_files_that_were_sent_come_back_untracked(tmp_path: Path) -> None:
    pair = make_pair(tmp_path)
    write(pair.host, "note", "sent\n")
    write(pair.host, "gone", "sent\n")
    pair.send(include_untracked=True)
    write(pair.guest, "note", "changed\n")
    (pair.guest / "gone").unlink()
    assert sorted(apply(pair).written) == ["gone", "note"]
    assert git(pair.host, "status", "--porcelain") == "?? note"
    assert not (pair.host / "gone").exists()


def test_files_that_have_nothing_to_do_with_it_are_not_touched(tmp_path: Path) -> None:
    pair = make_sent(tmp_path)
    edit(pair.guest)
    write(pair.host, "mine", "untracked\n")
    write(pair.host, "src/main.c", "changed meanwhile\n")
    others = {path.name: path.stat().st_mtime_ns for path in (pair.host / "src").iterdir()}
    assert apply(pair).written == ["README"]
    assert {path.name: path.stat().st_mtime_ns for path in (pair.host / "src").iterdir()} == others
    assert git(pair.host, "status", "--porcelain") == "M  README\n M src/main.c\n?? mine"


def test_a_commit_made_on_the_host_meanwhile_stays(tmp_path: Path) -> None:
    pair = make_sent(tmp_path)
    edit(pair.guest)
    write(pair.host, "src/main.c", "meanwhile\n")
    head = commit(pair.host, "meanwhile")
    apply(pair)
    assert git(pair.host, "status", "--porcelain") == "M  README"
    assert git(pair.host, "rev-parse", "HEAD") == head


def test_no_is_an_answer(tmp_path: Path) -> None:
    pair = make_sent(tmp_path)
    edit(pair.guest)
    asked = []
    with pair.take() as copy, unchanged(pair.host):
        assert apply_copy(copy, asked.append, lambda summary: bool(asked.append(summary))) is None
    assert len(asked) == 1
    assert "README | 1 +" in asked[0]


@pytest.mark.parametrize(
    "meanwhile",
    {
        "edited": lambda host: write(host, "README", "of the host\n"),
        "staged": lambda host: (write(host, "README", "of the host\n"), git(host, "add", "README")),
        "committed": lambda host: (write(host, "README", "of the host\n"), commit(host, "meanwhile")),
        "made executable": lambda host: (host / "README").chmod(0o755),
        "deleted": lambda host: (host / "README").unlink(),
        "a link": lambda host: ((host / "README").unlink(), (host / "README").symlink_to("empty")),
        "a folder": lambda host: ((host / "README").unlink(), write(host, "README/mine", "of the host\n")),
        "an empty folder": lambda host: ((host / "README").unlink(), (host / "README").mkdir()),
        "a pipe": lambda host: ((host / "README").unlink(), os.mkfifo(host / "README")),
    }.items(),
    ids=lambda each: each[0],
)
def test_a_file_that_is_not_as_it_was_sent_is_named(tmp_path: Path, meanwhile: tuple[str, Edit]) -> None:
    pair = make_sent(tmp_path)
    edit(pair.guest)
    write(pair.guest, "also", "new\n")
    meanwhile[1](pair.host)
    refuse(pair, "README")


@pytest.mark.parametrize("name", ["new", "build.log", "ignored/deep/new", ".git-not", "odd/new\nline\x1b[31m"])
def test_an_untracked_or_ignored_file_is_never_overwritten(tmp_path: Path, name: str) -> None:
    pair = make_sent(tmp_path)
    write(pair.guest, name, "of the guest\n")
    git(pair.guest, "add", "-f", name)
    write(pair.host, name, "of the host\n")
    refuse(pair, name.replace("\n", "\\n").replace("\x1b", "\\x1b"))
    # The same content is no loss; nothing is done.
    write(pair.host, name, "of the guest\n")
    with unchanged(pair.host):
        assert apply(pair) == Applied([], [name])


def put_folder(host: Path) -> None:
    write(host, "new/mine", "of the host\n")


def put_link_to_folder(host: Path) -> None:
    (host / "new").symlink_to("src")


def put_dangling_link(host: Path) -> None:
    (host / "new").symlink_to("nowhere")


def put_pipe(host: Path) -> None:
    os.mkfifo(host / "new")


def put_socket(host: Path) -> None:
    # The name of a socket may not be long.
    here = Path.cwd()
    os.chdir(host)
    socket.socket(socket.AF_UNIX).bind("new")
    os.chdir(here)


def put_repository(host: Path) -> None:
    make_repository(host / "new")


@pytest.mark.parametrize(
    "put", [put_folder, put_link_to_folder, put_dangling_link, put_pipe, put_socket, put_repository]
)
@pytest.mark.parametrize("name", ["new", "new/below"])
def test_what_is_in_the_way_is_never_overwritten(tmp_path: Path, put: Edit, name: str) -> None:
    pair = make_sent(tmp_path)
    write(pair.guest, name, "of the guest\n")
    put(pair.host)
    if put is put_folder and name != "new":
        assert apply(pair).written == [name]
        assert (pair.host / "new/mine").read_text() == "of the host\n"
    else:
        refuse(pair, name)


@pytest.mark.parametrize("name", ["folder", "pipe"])
def test_a_pipe_in_the_place_of_a_file_that_becomes_a_folder_stays(tmp_path: Path, name: str) -> None:
    pair = make_sent(tmp_path)
    (pair.guest / "README").unlink()
    write(pair.guest, "README/below", "new\n")
    (pair.host / "README").unlink()
    if name == "pipe":
        os.mkfifo(pair.host / "README")
        refuse(pair, "README/below")
    else:
        write(pair.host, "README/mine", "of the host\n")
        assert apply(pair).written == ["README/below"]
        assert (pair.host / "README/mine").read_text() == "of the host\n"


def test_an_untracked_file_in_a_folder_that_becomes_a_file_stays(tmp_path: Path) -> None:
    pair = make_sent(tmp_path)
    EDITS["folder_to_file"](pair.guest)
    write(pair.host, "deep/er/mine", "of the host\n")
    refuse(pair, "deep")


def test_an_untracked_file_in_a_folder_that_goes_stays_with_the_folder(tmp_path: Path) -> None:
    pair = make_sent(tmp_path)
    EDITS["delete a folder"](pair.guest)
    write(pair.host, "deep/mine", "of the host\n")
    apply(pair)
    assert [path.name for path in (pair.host / "deep").iterdir()] == ["mine"]


@pytest.mark.parametrize("inside", [True, False], ids=["inside", "outside"])
def test_a_folder_of_the_hosts_that_is_a_link_now_is_not_followed(tmp_path: Path, inside: bool) -> None:
    pair = make_sent(tmp_path)
    write(pair.guest, "src/main.c", "of the guest\n")
    write(pair.guest, "src/new", "of the guest\n")
    (pair.guest / "src/util.c").unlink()
    target = pair.host / "moved" if inside else tmp_path / "outside"
    (pair.host / "src").rename(target)
    (pair.host / "src").symlink_to(target)
    with unchanged(target):
        refuse(pair, "src/main.c", "src/new")


def test_a_folder_that_the_guest_made_a_link_takes_nothing_elsewhere_with_it(tmp_path: Path) -> None:
    outside = tmp_path / "outside"
    (outside / "er/still").mkdir(parents=True)
    pair = make_sent(tmp_path)
    EDITS["delete a folder"](pair.guest)
    (pair.guest / "deep").symlink_to(outside)
    with unchanged(outside):
        apply(pair)
    assert (pair.host / "deep").readlink() == outside


def test_a_private_folder_stays_private(tmp_path: Path) -> None:
    pair = make_pair(tmp_path)
    (pair.host / "deep/er/still").chmod(0o700)
    pair.send()
    write(pair.guest, "deep/er/still/file", "changed\n")
    apply(pair)
    assert (pair.host / "deep/er/still").stat().st_mode & 0o777 == 0o700


def test_in_a_linked_work_tree(tmp_path: Path) -> None:
    main = make_repository(tmp_path / "main")
    git(main, "worktree", "add", "-q", "-b", "linked", str(tmp_path / "host"))
    pair = Pair(tmp_path).send()
    edit_everything(pair.guest)
    apply(pair)
    assert list_content(pair.host) == list_content(pair.guest)
    assert git(pair.host, "diff", "--name-only") == ""
    assert git(main, "status", "--porcelain") == ""


def test_before_the_first_commit(tmp_path: Path) -> None:
    git(tmp_path, "init", "-q", "host")
    pair = Pair(tmp_path).send()
    write(pair.guest, "new", "new\n")
    apply(pair)
    assert git(pair.host, "status", "--porcelain") == "A  new"


def test_in_a_repository_of_sha256(tmp_path: Path) -> None:
    pair = make_sent(tmp_path, "--object-format=sha256")
    edit_everything(pair.guest)
    apply(pair)
    assert list_content(pair.host) == list_content(pair.guest)


def test_in_a_sparse_work_tree(tmp_path: Path) -> None:
    pair = make_pair(tmp_path)
    git(pair.host, "sparse-checkout", "set", "src")
    pair.send()
    write(pair.guest, "src/new", "new\n")
    edit(pair.guest)
    apply(pair)
    assert list_content(pair.host) == list_content(pair.guest)
    assert not (pair.host / "deep").exists()
    assert git(pair.host, "status", "--porcelain").splitlines() == ["M  README", "A  src/new"]


def test_an_index_in_two_parts(tmp_path: Path) -> None:
    pair = make_pair(tmp_path)
    git(pair.host, "config", "core.splitIndex", "true")
    git(pair.host, "update-index", "--split-index")
    pair.send()
    edit_everything(pair.guest)
    write(pair.host, "README", "in the way\n")
    refuse(pair, "README")
    git(pair.host, "checkout", "README")
    apply(pair)
    assert list_content(pair.host) == list_content(pair.guest)
    assert git(pair.host, "diff", "--name-only") == ""


def test_line_ends_are_what_the_host_has_them_be(tmp_path: Path) -> None:
    pair = make_pair(tmp_path)
    write(pair.host, ".gitattributes", "*.txt text eol=crlf\n")
    write(pair.host, "a.txt", b"one\r\ntwo\r\n")
    commit(pair.host, "line ends")
    pair.send()
    write(pair.guest, "a.txt", b"one\r\ntwo\r\nthree\r\n")
    apply(pair)
    assert (pair.host / "a.txt").read_bytes() == b"one\r\ntwo\r\nthree\r\n"
    assert git(pair.host, "diff", "--name-only") == ""


def test_a_submodule_is_left_out_and_said_to_be(tmp_path: Path) -> None:
    make_repository(tmp_path / "library")
    pair = make_pair(tmp_path)
    git(pair.host, "-c", "protocol.file.allow=always", "submodule", "add", "-q", str(tmp_path / "library"), "lib")
    commit(pair.host, "with a library")
    pair.send()
    make_repository(pair.guest / "inner")
    git(pair.guest, "rm", "-q", "--cached", "lib")
    said: list[str] = []
    with pair.take() as copy, unchanged(pair.host / "lib"):
        with pytest.raises(BangerError) as caught:
            apply_copy(copy, said.append, lambda _summary: True)
        assert caught.value.reason is Reason.CHANGED
    assert said[0].splitlines()[1:] == ["  inner", "  lib"]


def test_folders_to_links_and_commits_in_one(tmp_path: Path) -> None:
    pair = make_sent(tmp_path)
    commit_twice(pair.guest)
    folder_to_link(pair.guest)
    apply(pair)
    assert (pair.host / "src").is_symlink()
    assert list_content(pair.host) == list_content(pair.guest)
