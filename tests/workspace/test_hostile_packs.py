"""Answers that are not what they say they are: refused, and nothing of them is kept."""

from __future__ import annotations

import random
from pathlib import Path

import pytest

from banger.errors import BangerError, Reason
from banger.workspace.collect import receive
from tests.workspace.copies import Pair, assert_clean, git, piped, unchanged
from tests.workspace.hostile import apply, branch, make_hosts, refuse
from tests.workspace.packs import FILE, FOLDER, Pack, answer, say


def make_sound(pair: Pair) -> bytes:
    pack = Pack()
    folder = pack.add_tree((FILE, b"in it", pack.add_blob(b"x" * 5000)))
    return answer([(FOLDER, b"new", folder)], pack, str(pair.workspace.commit))


def refuse_to_receive(pair: Pair, stream: bytes) -> BangerError:
    with unchanged(pair.host), pair.quarantine() as (_repository, place), piped(stream) as source:
        with pytest.raises(BangerError) as caught:
            receive(source, place)
        assert not list((place / "objects").rglob("*.idx"))
    assert_clean(caught.value)
    return caught.value


HEADERS = {
    "none": b"",
    "of another version": b"banger 2 <head> <last>\n",
    "with a word more": b"banger 1 <head> <last> x\n",
    "with a carriage return": b"banger 1 <head> <last>\r\n",
    "in capitals": b"BANGER 1 <HEAD> <LAST>\n",
    "of options": b"banger 1 --upload-pack=x <last>\n",
    "of refs": b"banger 1 HEAD <last>\n",
    "of short names": b"banger 1 abcdef0 <last>\n",
    "with escapes": b"\x1b]0;x\x07 <head> <last>\n",
    "that is no text": bytes(range(256)),
    "with a line before it": b"welcome\nbanger 1 <head> <last>\n",
}


def test_a_wrong_beginning_is_refused(tmp_path: Path) -> None:
    pair = make_hosts(tmp_path)
    line, _, rest = make_sound(pair).partition(b"\n")
    head, last = line.split(b" ")[2:]
    for case, header in HEADERS.items():
        stream = header.replace(b"<head>", head).replace(b"<last>", last) + rest
        assert refuse_to_receive(pair, stream).reason is Reason.CORRUPT, case


@pytest.mark.parametrize("block", [b"x", b"\0", b"banger 1 "], ids=["letters", "zeros", "words"])
def test_a_beginning_without_an_end_is_not_waited_for(tmp_path: Path, block: bytes) -> None:
    pair = make_hosts(tmp_path)
    assert refuse_to_receive(pair, block * 1_000_000).reason is Reason.CORRUPT


def test_an_answer_that_ends_anywhere_is_refused(tmp_path: Path) -> None:
    pair = make_hosts(tmp_path)
    stream = make_sound(pair)
    for length in [0, 1, 20, *range(60, len(stream), 37), len(stream) - 1]:
        assert refuse_to_receive(pair, stream[:length]).reason is Reason.GUEST, length


def test_a_changed_byte_is_noticed(tmp_path: Path) -> None:
    pair = make_hosts(tmp_path)
    stream = make_sound(pair)
    start = stream.index(b"PACK")
    chosen = random.Random(5)
    for _ in range(12):
        position = chosen.randrange(start, len(stream))
        changed = bytes([stream[position] ^ 1 << chosen.randrange(8)])
        broken = stream[:position] + changed + stream[position + 1 :]
        assert refuse_to_receive(pair, broken).reason in (Reason.CORRUPT, Reason.GUEST, Reason.TOO_LARGE)


def test_what_is_no_pack_is_refused(tmp_path: Path) -> None:
    pair = make_hosts(tmp_path)
    head = str(pair.workspace.commit)
    for garbage in (random.Random(5).randbytes(5000), b"\x1b[31m" * 1000, b"PACK\0\0\0\x09", b"DIRC" + bytes(100)):
        assert refuse_to_receive(pair, say(garbage, head, head)).reason in (Reason.CORRUPT, Reason.GUEST)


def test_a_wrong_count_of_objects_is_refused(tmp_path: Path) -> None:
    pair, pack = make_hosts(tmp_path), Pack()
    last = pack.add_commit(pack.add_tree((FILE, b"new", pack.add_blob())), str(pair.workspace.commit))
    for count in (0, 1, 4, 0xFFFFFFFF):
        refuse_to_receive(pair, say(pack.finish(count=count), last, pair.workspace.commit))


@pytest.mark.parametrize("missing", ["blob", "tree", "commit", "parent", "everything"])
def test_what_leads_to_nothing_is_refused(tmp_path: Path, missing: str) -> None:
    pair, pack = make_hosts(tmp_path), Pack()
    is_whole = missing != "everything"
    blob = pack.add_blob(is_sent=is_whole and missing != "blob")
    tree = pack.add_tree((FILE, b"new", blob), is_sent=is_whole and missing != "tree")
    parent = pack.add_commit(tree, str(pair.workspace.commit), is_sent=is_whole and missing != "parent")
    last = pack.add_commit(tree, parent, is_sent=is_whole and missing != "commit")
    assert refuse(pair, say(pack.finish(), last, parent)).reason is Reason.CORRUPT


def test_a_secret_of_the_hosts_cannot_be_asked_for_by_its_name(tmp_path: Path) -> None:
    """Objects that only the host has may be named: what comes of it stays on the host, which has them already."""
    pair, pack = make_hosts(tmp_path), Pack()
    blob = git(pair.host, "hash-object", "-w", "--stdin", stdin=b"secret")
    stream = answer([(FILE, b"new", blob)], pack, str(pair.workspace.commit))
    with pair.take_stream(stream) as copy:
        apply(copy)
    assert (pair.host / "new").read_bytes() == b"secret"


@pytest.mark.parametrize("kind", ["blob", "tree", "tag", "nothing"])
def test_a_last_commit_that_is_none_is_refused(tmp_path: Path, kind: str) -> None:
    pair, pack = make_hosts(tmp_path), Pack()
    head = str(pair.workspace.commit)
    tag = b"object %s\ntype commit\ntag x\ntagger M <m@x> 1 +0000\n\nx\n" % head.encode()
    name = {
        "blob": pack.add_blob(),
        "tree": pack.add_tree((FILE, b"new", pack.add_blob())),
        "tag": pack.add("tag", tag),
        "nothing": "0" * 40,
    }[kind]
    assert refuse(pair, say(pack.finish(), name, head)).reason is Reason.CORRUPT


@pytest.mark.parametrize("case", ["another", "none", "two", "claimed"])
def test_a_work_tree_that_does_not_follow_its_commit_is_refused(tmp_path: Path, case: str) -> None:
    pair, pack = make_hosts(tmp_path), Pack()
    head = str(pair.workspace.commit)
    tree = pack.add_tree((FILE, b"new", pack.add_blob()))
    parents = {"another": [git(pair.host, "rev-parse", "HEAD~1")], "none": [], "two": [head, head], "claimed": [head]}
    last = pack.add_commit(tree, *parents[case])
    assert refuse(pair, say(pack.finish(), last, None if case == "claimed" else head)).reason is Reason.CORRUPT


def test_a_head_that_has_nothing_to_do_with_what_was_sent_is_a_branch_of_its_own(tmp_path: Path) -> None:
    pair, pack = make_hosts(tmp_path), Pack()
    tree = pack.add_tree((FILE, b"new", pack.add_blob()))
    head = pack.add_commit(tree)
    last = pack.add_commit(tree, head)
    before = git(pair.host, "rev-parse", "main")
    with pair.take_stream(say(pack.finish(), last, head)) as copy:
        assert branch(copy) == head
        apply(copy)
    assert git(pair.host, "rev-list", "result") == head
    assert git(pair.host, "rev-parse", "HEAD", "main") == f"{before}\n{before}"


BAD_COMMITS = {
    "without an author": b"tree %s\ncommitter M <m@x> 1 +0000\n\nx\n",
    "of a broken author": b"tree %s\nauthor M m@x> 1 +0000\ncommitter M <m@x> 1 +0000\n\nx\n",
    "of two trees": b"tree %s\ntree %s\nauthor M <m@x> 1 +0000\ncommitter M <m@x> 1 +0000\n\nx\n",
    "of a date past all": b"tree %s\nauthor M <m@x> 99999999999999999999 +0000\ncommitter M <m@x> 1 +0000\n\nx\n",
    "of a header with a zero": b"tree %s\nauthor M\0 <m@x> 1 +0000\ncommitter M <m@x> 1 +0000\n\nx\n",
    "empty": b"",
}


@pytest.mark.parametrize("content", BAD_COMMITS.values(), ids=BAD_COMMITS)
def test_a_commit_that_git_would_not_make_is_refused(tmp_path: Path, content: bytes) -> None:
    pair, pack = make_hosts(tmp_path), Pack()
    tree = pack.add_tree((FILE, b"new", pack.add_blob()))
    head = pack.add("commit", content.replace(b"%s", tree.encode()))
    last = pack.add_commit(tree, head)
    assert refuse(pair, say(pack.finish(), last, head)).reason is Reason.CORRUPT


def test_what_comes_after_the_pack_is_not_read(tmp_path: Path) -> None:
    pair = make_hosts(tmp_path)
    with pair.take_stream(make_sound(pair) + b"\x1b[31mmore\n" * 100_000) as copy:
        apply(copy)
    assert [path.name for path in (pair.host / "new").iterdir()] == ["in it"]


def test_a_repository_of_another_kind_of_names_is_refused(tmp_path: Path) -> None:
    pair, pack = make_hosts(tmp_path), Pack()
    assert refuse(pair, say(pack.finish(), "a" * 64, "b" * 64)).reason is Reason.CORRUPT
