"""A little that stands for very much: refused before there is much of it, on the disk or in memory."""

from __future__ import annotations

import resource
import zlib
from pathlib import Path

import pytest

from banger.errors import Reason
from banger.workspace import changes, collect
from tests.workspace.hostile import apply, make_hosts, refuse
from tests.workspace.packs import FILE, FOLDER, Pack, answer, format_head, say
from tests.workspace.test_hostile_packs import refuse_to_receive

MIB = 1 << 20


def get_peak_mib() -> int:
    """The most that any child has had so far."""
    return resource.getrusage(resource.RUSAGE_CHILDREN).ru_maxrss // 1024


def test_a_large_file_is_refused_before_any_of_it_is_written(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    pair, pack = make_hosts(tmp_path), Pack()
    monkeypatch.setattr(changes, "_MAX_FILE_BYTES", 30 * MIB)
    stream = answer([(FILE, b"big", pack.add_blob(bytes(31 * MIB)))], pack, str(pair.workspace.commit))
    assert len(stream) < 100_000
    error = refuse(pair, stream, "apply", "export", "stat")
    assert error.reason is Reason.TOO_LARGE
    assert "'big' has 31.0 MiB" in error.message


def test_a_file_that_claims_to_be_larger_than_it_is_is_refused(tmp_path: Path) -> None:
    pair, pack = make_hosts(tmp_path), Pack()
    before_mib = get_peak_mib()
    for claimed in (2 << 30, 1 << 40, (1 << 62) + 1):
        pack.entries = [format_head(3, claimed) + zlib.compress(b"a few bytes")]
        head = str(pair.workspace.commit)
        refuse_to_receive(pair, say(pack.finish(), head, head))
    assert get_peak_mib() <= max(before_mib, 500)


def test_the_same_content_at_many_paths_is_counted_as_often(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    pair, pack = make_hosts(tmp_path), Pack()
    monkeypatch.setattr(changes, "_MAX_TOTAL_BYTES", 50 * MIB)
    blob = pack.add_blob(bytes(MIB))
    entries = [(FILE, b"%03d" % number, blob) for number in range(51)]
    error = refuse(pair, answer(entries, pack, str(pair.workspace.commit)), "apply", "export", "stat")
    assert error.reason is Reason.TOO_LARGE


def test_trees_in_trees_that_stand_for_endless_files_are_refused(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Ten times ten times … the same folder: 10^10 files in less than two KiB."""
    pair, pack = make_hosts(tmp_path), Pack()
    monkeypatch.setattr(changes, "_MAX_FILES", 10_000)
    tree = pack.add_tree(*((FILE, b"f%d" % number, pack.add_blob(is_sent=number == 0)) for number in range(10)))
    for _ in range(9):
        tree = pack.add_tree(*((FOLDER, b"d%d" % number, tree) for number in range(10)))
    last = pack.add_commit(tree, str(pair.workspace.commit))
    stream = say(pack.finish(), last, pair.workspace.commit)
    assert len(stream) < 2000
    assert refuse(pair, stream).reason is Reason.TOO_LARGE


def test_differences_that_double_each_other_are_refused(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Each step has to be made to get to the next: 2^30 bytes out of a few KiB, and there need be no end of it."""
    pair, pack = make_hosts(tmp_path), Pack()
    monkeypatch.setattr(collect, "_MAX_OBJECT_BYTES", 20 * MIB)
    pack.add_doubled(pack.add_blob(bytes(MIB)), MIB, 6)
    head = str(pair.workspace.commit)
    stream = say(pack.finish(), head, head)
    assert len(stream) < 10_000
    assert refuse_to_receive(pair, stream).reason is Reason.TOO_LARGE


def test_a_file_that_is_larger_than_what_git_may_hold_streams(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    pair, pack = make_hosts(tmp_path), Pack()
    monkeypatch.setattr(collect, "_MAX_OBJECT_BYTES", 20 * MIB)
    stream = answer([(FILE, b"big", pack.add_blob(bytes(40 * MIB)))], pack, str(pair.workspace.commit))
    with pair.take_stream(stream) as copy:
        apply(copy)
    assert (pair.host / "big").stat().st_size == 40 * MIB


def test_a_pack_larger_than_the_limit_is_refused_while_it_comes(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    pair, pack = make_hosts(tmp_path), Pack()
    monkeypatch.setattr(collect, "_MAX_PACK_BYTES", 4 * MIB)
    pack.entries.append(format_head(3, 64 * MIB) + zlib.compress(bytes(64 * MIB), 0))
    head = str(pair.workspace.commit)
    assert refuse_to_receive(pair, say(pack.finish(), head, head)).reason is Reason.TOO_LARGE


def test_a_name_longer_than_any_file_may_have_changes_nothing(tmp_path: Path) -> None:
    pair, pack = make_hosts(tmp_path), Pack()
    stream = answer([(FILE, b"x" * 300, pack.add_blob())], pack, str(pair.workspace.commit))
    refuse(pair, stream, "apply")


def test_a_path_deeper_than_any_may_be_changes_nothing(tmp_path: Path) -> None:
    pair, pack = make_hosts(tmp_path), Pack()
    tree = pack.add_tree((FILE, b"x", pack.add_blob()))
    for _ in range(1500):
        tree = pack.add_tree((FOLDER, b"deep", tree))
    refuse(pair, answer([(FOLDER, b"deep", tree)], pack, str(pair.workspace.commit)), "apply")
