"""The guest's work as commits on a new branch of the host's: nothing that is checked out changes."""

from __future__ import annotations

from pathlib import Path

import pytest

from banger.errors import BangerError, Reason
from banger.machine.exchange import Copy, branch_copy
from banger.machine.record import Machine
from tests.workspace.copies import (
    AUTHOR,
    GUEST,
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
from tests.workspace.edits import HISTORY, HOSTS, Edit, commit_nothing, commit_twice, edit, edit_everything, untrack

LOG = ("log", "--topo-order", "--format=%H %T %P%n%an <%ae> %aD%n%cn <%ce> %cD%n%B")


def branch(copy: Copy, name: str = "result") -> str | None:
    machine = Machine.__new__(Machine)
    object.__setattr__(machine, "name", "box")
    return branch_copy(copy, machine, name)


def make_branch(pair: Pair, name: str = "result") -> str | None:
    """Neither work tree nor index changes, nor any other ref: only objects, and what is the branch's."""
    own = [f".git/{place}/{name}" for place in ("refs/heads", "logs/refs/heads")]
    before = git(pair.host, "for-each-ref"), git(pair.host, "status", "--porcelain=v2", "--branch")
    with pair.take() as copy, unchanged(pair.host, ignored=[".git/objects/", *own]):
        made = branch(copy, name)
    refs = [line for line in git(pair.host, "for-each-ref").splitlines() if not line.endswith(f"refs/heads/{name}")]
    assert ("\n".join(refs), git(pair.host, "status", "--porcelain=v2", "--branch")) == before
    assert git(pair.host, "fsck", "--no-dangling", "--connectivity-only") == ""
    return made


@pytest.mark.parametrize("edit", [each for each in HISTORY if each not in (commit_nothing, untrack)])
def test_the_branch_holds_what_the_guest_has(tmp_path: Path, edit: Edit) -> None:
    pair = make_sent(tmp_path)
    edit(pair.guest)
    head = git(pair.guest, "rev-parse", "-q", "--verify", "HEAD", must_succeed=False)
    made = make_branch(pair)
    assert made == git(pair.host, "rev-parse", "result")
    if head:
        # Authors, dates and messages are in the name of a commit; it is the guest's own.
        assert git(pair.host, *LOG, head) == git(pair.guest, *LOG, head)
        assert git(pair.host, "merge-base", "--is-ancestor", head, "result") == ""
    git(pair.host, "worktree", "add", "-q", str(tmp_path / "seen"), "result")
    assert list_content(tmp_path / "seen") == list_content(pair.guest)


@pytest.mark.parametrize("prepare", HOSTS.values(), ids=HOSTS)
def test_what_the_host_had_not_committed_is_on_it_too(tmp_path: Path, prepare: Edit) -> None:
    pair = make_pair(tmp_path)
    prepare(pair.host)
    pair.send()
    commit_twice(pair.guest)
    make_branch(pair)
    git(pair.host, "worktree", "add", "-q", str(tmp_path / "seen"), "result")
    assert list_content(tmp_path / "seen") == list_content(pair.guest)


def test_what_was_committed_there_keeps_its_author_and_the_rest_is_the_hosts(tmp_path: Path) -> None:
    pair = make_sent(tmp_path)
    date = "2001-02-03T04:05:06+0700"
    edit(pair.guest)
    message = "Überschrift\n\nText  with spaces\n\n\ttab, trailer\n\nSigned-off-by: x <y>"
    commit(pair.guest, message, GIT_AUTHOR_DATE=date, GIT_COMMITTER_DATE=date, GIT_AUTHOR_NAME="Ångström")
    write(pair.guest, "rest", "not committed\n")
    make_branch(pair)
    theirs, ours = "result~1", "result"
    assert git(pair.host, "log", "-1", "--format=%an|%ae|%cn|%ad|%B", "--date=iso-strict", theirs).rstrip() == (
        f"Ångström|{GUEST[1]}|{GUEST[0]}|2001-02-03T04:05:06+07:00|{message}"
    )
    assert git(pair.host, "log", "-1", "--format=%an|%ae|%cn|%B", ours).rstrip() == (
        f"{AUTHOR[0]}|{AUTHOR[1]}|{AUTHOR[0]}|Work tree of box"
    )


def test_all_committed_is_no_commit_more(tmp_path: Path) -> None:
    pair = make_sent(tmp_path)
    commit_twice(pair.guest)
    assert make_branch(pair) == git(pair.guest, "rev-parse", "HEAD")


def test_an_empty_commit_is_a_change(tmp_path: Path) -> None:
    pair = make_sent(tmp_path)
    commit_nothing(pair.guest)
    assert make_branch(pair) == git(pair.guest, "rev-parse", "HEAD")


@pytest.mark.parametrize("prepare", HOSTS.values(), ids=HOSTS)
def test_nothing_changed_is_no_branch(tmp_path: Path, prepare: Edit) -> None:
    pair = make_pair(tmp_path)
    prepare(pair.host)
    pair.send()
    assert make_branch(pair) is None
    assert git(pair.host, "branch", "--list", "result") == ""


def test_before_the_first_commit(tmp_path: Path) -> None:
    git(tmp_path, "init", "-q", "-b", "main", "host")
    pair = Pair(tmp_path).send()
    write(pair.guest, "new", "new\n")
    with pair.take() as copy:
        made = branch(copy)
    assert git(pair.host, "rev-list", "--parents", "result") == made
    assert git(pair.host, "status", "--porcelain") == ""


def test_in_a_repository_of_sha256(tmp_path: Path) -> None:
    pair = make_sent(tmp_path, "--object-format=sha256")
    edit_everything(pair.guest)
    assert len(make_branch(pair) or "") == 64


def test_in_a_shallow_clone(tmp_path: Path) -> None:
    make_repository(tmp_path / "origin")
    git(tmp_path, "clone", "-q", "--depth=1", f"file://{tmp_path}/origin", "host")
    pair = Pair(tmp_path).send()
    commit_twice(pair.guest)
    make_branch(pair)
    assert git(pair.host, "rev-list", "--count", "result") == "3"


def test_when_the_host_has_gone_on_meanwhile(tmp_path: Path) -> None:
    pair = make_sent(tmp_path)
    commit_twice(pair.guest)
    write(pair.host, "README", "in conflict\n")
    commit(pair.host, "meanwhile")
    make_branch(pair)
    assert git(pair.host, "merge-base", "main", "result") == pair.workspace.commit


def test_the_users_configuration_is_not_in_the_way(tmp_path: Path) -> None:
    pair = make_sent(tmp_path)
    edit_everything(pair.guest)
    for key, value in {
        "protocol.version": "0",
        "protocol.file.allow": "never",
        "fetch.prune": "true",
        "fetch.pruneTags": "true",
        "fetch.writeCommitGraph": "false",
        "submodule.recurse": "true",
        "commit.gpgSign": "true",
        "gpg.program": "/bin/false",
        "i18n.commitEncoding": "latin1",
        "core.logAllRefUpdates": "always",
    }.items():
        git(pair.host, "config", key, value)
    git(pair.host, "tag", "kept")
    for name in ("reference-transaction", "post-checkout", "pre-auto-gc"):
        write(pair.host, f".git/hooks/{name}", f"#!/bin/sh\ntouch {tmp_path}/sprung\n", 0o755)
    with pair.take() as copy:
        branch(copy)
    assert not (tmp_path / "sprung").exists()
    assert git(pair.host, "tag") == "kept"
    assert git(pair.host, "rev-list", "--count", "result") == "6"


def test_tags_and_other_branches_of_the_guest_stay_there(tmp_path: Path) -> None:
    pair = make_sent(tmp_path)
    commit_twice(pair.guest)
    git(pair.guest, "tag", "-a", "-m", "x", "of-the-guest")
    git(pair.guest, "checkout", "-q", "-b", "theirs", "HEAD~1")
    make_branch(pair)
    assert git(pair.host, "tag") == ""
    assert git(pair.host, "branch", "--format=%(refname:short)").split() == ["main", "result"]


def test_a_branch_that_is_there_is_left_alone(tmp_path: Path) -> None:
    pair = make_sent(tmp_path)
    git(pair.host, "branch", "other", "HEAD~1")
    commit_twice(pair.guest)
    with pair.take() as copy, unchanged(pair.host):
        for name in ("main", "other"):
            with pytest.raises(BangerError) as caught:
                branch(copy, name)
            assert caught.value.reason is Reason.ALREADY_EXISTS


def test_what_is_no_name_for_a_branch_is_refused(tmp_path: Path) -> None:
    pair = make_sent(tmp_path)
    commit_twice(pair.guest)
    names = "", "-d", "--all", "a b", "a..b", "/a", "a/", "a.lock", "@{-1}", "HEAD", "\x1b[31m", "a:b", "../x", "a\nb"
    with pair.take() as copy, unchanged(pair.host):
        for name in names:
            with pytest.raises(BangerError) as caught:
                branch(copy, name)
            assert caught.value.reason is Reason.BAD_INPUT, name
            assert_clean(caught.value)


def test_a_branch_in_the_place_of_a_folder_of_branches_is_an_error(tmp_path: Path) -> None:
    pair = make_sent(tmp_path)
    git(pair.host, "branch", "topic/one")
    commit_twice(pair.guest)
    with pair.take() as copy, unchanged(pair.host, ignored=[".git/objects/"]), pytest.raises(BangerError) as caught:
        branch(copy, "topic")
    assert_clean(caught.value)
