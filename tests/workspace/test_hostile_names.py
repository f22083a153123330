"""Names, authors and messages that would move a terminal's cursor: kept as they are in git, and never shown raw."""

from __future__ import annotations

import io
import os
import sys
from pathlib import Path

import pytest

from banger.cli.workspace import _print_patch
from banger.errors import BangerError, Reason
from banger.machine.exchange import apply_copy, export_patch, export_to_file, summarise
from tests.workspace.copies import assert_clean, commit, git, make_pair, make_repository, make_sent, unchanged, write
from tests.workspace.hostile import apply, branch, make_hosts
from tests.workspace.packs import FILE, Pack, answer, say

ESCAPES = (
    "\x1b[31mred",
    "\x1b]0;title\x07",
    "\x1b]52;c;bHM=\x07",
    "\x9b31m",
    "a\rb",
    "a\bb",
    "new\nbanger: line",
    "\u202eright to left",
    "\u2028line",
    "\udcff\udcfe",
    "\x7f",
    "a\tb",
    "%s%n{0}$(x)`x`",
)


def is_shown(text: str) -> bool:
    return all(line.isprintable() for line in text.split("\n"))


@pytest.mark.parametrize("quoted", ["true", "false"])
def test_a_summary_shows_names_without_what_is_in_them(tmp_path: Path, quoted: str) -> None:
    pair = make_pair(tmp_path)
    git(pair.host, "config", "core.quotePath", quoted)
    pair.send()
    for name in ESCAPES:
        write(pair.guest, name)
    git(pair.guest, "mv", "src/util.c", f"src/{ESCAPES[0]}")
    shown: list[str] = []
    with pair.take() as copy:
        assert is_shown(summarise(copy))
        apply_copy(copy, shown.append, lambda summary: bool(shown.append(summary)))
    assert is_shown("".join(shown))
    assert "31mred" in "".join(shown)


def test_files_in_conflict_are_named_without_what_is_in_their_names(tmp_path: Path) -> None:
    pair = make_sent(tmp_path)
    for name in ESCAPES:
        write(pair.guest, name)
        write(pair.host, name, "of the host\n")
    with pair.take() as copy, unchanged(pair.host), pytest.raises(BangerError) as caught:
        apply(copy)
    assert caught.value.reason is Reason.CHANGED
    assert_clean(caught.value)
    # A line each, and no more of them than fit.
    assert len(caught.value.message.splitlines()) == 12
    assert caught.value.message.endswith("and 3 more")


def test_what_is_left_out_is_named_without_what_is_in_its_name(tmp_path: Path) -> None:
    pair = make_sent(tmp_path)
    make_repository(pair.guest / ESCAPES[0])
    said: list[str] = []
    with pair.take() as copy:
        apply(copy, said.append)
    assert is_shown(said[0])
    assert "x1b[31mred" in said[0]


def test_the_names_come_back_as_they_are(tmp_path: Path) -> None:
    pair = make_sent(tmp_path)
    for name in ESCAPES:
        write(pair.guest, name)
    with pair.take() as copy:
        apply(copy)
    assert {name for name in ESCAPES if not (pair.host / name).is_file()} == set()


class Terminal(io.TextIOWrapper):
    def isatty(self) -> bool:
        return True


def test_a_terminal_gets_the_patch_without_what_would_move_its_cursor(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    pair = make_sent(tmp_path)
    write(pair.guest, "README", b"\x1b[2J\x1b]0;x\x07 raw \xff\n")
    write(pair.guest, ESCAPES[0])
    screen = Terminal(io.BytesIO(), encoding="utf-8", write_through=True)
    monkeypatch.setattr(sys, "stdout", screen)
    with pair.take() as copy:
        _print_patch(copy, None)
    shown = screen.buffer.getvalue().decode()  # type: ignore[attr-defined]
    assert "+\\x1b[2J" in shown
    assert is_shown(shown.replace("\t", ""))


def test_a_file_gets_it_as_it_is(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    pair = make_sent(tmp_path)
    write(pair.guest, "README", b"\x1b[2J\n")
    with pair.take() as copy, (tmp_path / "out").open("w") as out:
        export_to_file(copy, tmp_path / "patch")
        monkeypatch.setattr(sys, "stdout", out)
        _print_patch(copy, None)
    assert b"+\x1b[2J\n" in (tmp_path / "patch").read_bytes()
    assert (tmp_path / "out").read_bytes() == (tmp_path / "patch").read_bytes()


def test_authors_and_messages_are_kept_and_not_shown(tmp_path: Path, capfd: pytest.CaptureFixture[str]) -> None:
    pair, pack = make_hosts(tmp_path), Pack()
    who = b"\x1b[31mMallory\x07 <\x1b]0;x\x07@example.org> 1700000000 +0000"
    tree = pack.add_tree((FILE, b"new", pack.add_blob()))
    head = pack.add_commit(tree, str(pair.workspace.commit), author=who, message=b"\x1b[2J\xff\r\n\x07")
    last = pack.add_commit(tree, head)
    with pair.take_stream(say(pack.finish(), last, head)) as copy:
        assert branch(copy) == head
        apply(copy)
    assert capfd.readouterr() == ("", "")
    assert "\x1b[31mMallory" in git(pair.host, "cat-file", "commit", "result")


def test_words_of_a_refusal_are_shown_without_what_is_in_them(tmp_path: Path) -> None:
    pair, pack = make_hosts(tmp_path), Pack()
    pack.add("commit", b"tree \x1b[31m\n")
    stream = answer([(FILE, b"\x1b[31m", "1" * 40)], pack, str(pair.workspace.commit))
    with unchanged(pair.folder), pytest.raises(BangerError) as caught, pair.take_stream(stream):
        pass
    assert_clean(caught.value)


def test_a_file_too_large_is_named_without_what_is_in_its_name(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    pair = make_sent(tmp_path)
    monkeypatch.setattr("banger.workspace.changes._MAX_FILE_BYTES", 10)
    write(pair.guest, "\x1b[31m\u202ebig\udcff", "x" * 11)
    commit(pair.guest, "big")
    with pair.take() as copy, unchanged(pair.host), Path(os.devnull).open("wb") as sink:
        for way in (apply, lambda copy: export_patch(copy, sink)):
            with pytest.raises(BangerError) as caught:
                way(copy)
            assert caught.value.reason is Reason.TOO_LARGE
            assert_clean(caught.value)
