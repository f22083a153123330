"""The patch, taken by the real `git apply --index` in a fresh clone, gives what the guest has: bytes and modes."""

from __future__ import annotations

import os
import threading
from pathlib import Path

import pytest

from banger.errors import BangerError, Reason
from banger.machine.exchange import export_patch, export_to_file, summarise
from banger.workspace import changes
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
from tests.workspace.edits import EDITS, HOSTS, Edit, commit_twice, edit, edit_everything

HOSTILE_CONFIG = {
    "diff.noprefix": "true",
    "diff.mnemonicPrefix": "true",
    "diff.external": "/bin/false",
    "diff.renames": "copies",
    "diff.context": "0",
    "diff.suppressBlankEmpty": "true",
    "diff.algorithm": "patience",
    "diff.submodule": "log",
    "color.ui": "always",
    "color.diff": "always",
    "core.quotePath": "false",
    "core.pager": "/bin/false",
    "core.abbrev": "4",
    "diff.c.textconv": "/bin/false",
    "diff.c.command": "/bin/false",
}


def take_patch(pair: Pair, base: str | None = None) -> bytes:
    path = pair.folder / "patch"
    with pair.take() as copy, path.open("wb") as sink, unchanged(pair.host):
        export_patch(copy, sink, base)
    return path.read_bytes()


def apply_anew(pair: Pair, patch: bytes, start: str | None) -> Path:
    """Into a fresh clone, where git checks every line of it."""
    fresh = pair.folder / "fresh"
    git(pair.folder, "clone", "-q", "--no-checkout", str(pair.host), str(fresh))
    if start is not None:
        git(fresh, "checkout", "-q", "--detach", start)
    git(fresh, "apply", "--index", "--allow-empty", "--whitespace=nowarn", stdin=patch)
    return fresh


@pytest.mark.parametrize("edit", EDITS.values(), ids=EDITS)
def test_the_patch_makes_of_the_commit_what_the_guest_has(tmp_path: Path, edit: Edit) -> None:
    pair = make_sent(tmp_path)
    edit(pair.guest)
    fresh = apply_anew(pair, take_patch(pair), pair.workspace.commit)
    assert list_content(fresh) == list_content(pair.guest)
    assert git(fresh, "diff", "--name-only") == ""


@pytest.mark.parametrize("prepare", HOSTS.values(), ids=HOSTS)
def test_it_holds_what_was_changed_on_the_host_too(tmp_path: Path, prepare: Edit) -> None:
    pair = make_pair(tmp_path)
    prepare(pair.host)
    pair.send()
    edit_everything(pair.guest)
    fresh = apply_anew(pair, take_patch(pair), pair.workspace.commit)
    assert list_content(fresh) == list_content(pair.guest)


def test_before_the_first_commit_it_holds_everything(tmp_path: Path) -> None:
    git(tmp_path, "init", "-q", "host")
    pair = Pair(tmp_path)
    write(pair.host, "sent", "sent\n")
    git(pair.host, "add", "sent")
    pair.send()
    write(pair.guest, "new", "new\n")
    assert list_content(apply_anew(pair, take_patch(pair), None)) == list_content(pair.guest)


def test_in_a_repository_of_sha256(tmp_path: Path) -> None:
    pair = make_sent(tmp_path, "--object-format=sha256")
    edit_everything(pair.guest)
    assert list_content(apply_anew(pair, take_patch(pair), "HEAD")) == list_content(pair.guest)


def test_another_base_commit(tmp_path: Path) -> None:
    pair = make_sent(tmp_path)
    edit_everything(pair.guest)
    fresh = apply_anew(pair, take_patch(pair, "HEAD~2"), "HEAD~2")
    assert list_content(fresh) == list_content(pair.guest)


@pytest.mark.parametrize("base", ["nothing", "-h", "--output=x", "HEAD:README", "\x1b[31m"])
def test_a_base_that_is_no_commit_is_refused(tmp_path: Path, base: str) -> None:
    pair = make_sent(tmp_path)
    edit(pair.guest)
    with pytest.raises(BangerError) as caught:
        take_patch(pair, base)
    assert caught.value.reason is Reason.NOT_FOUND
    assert_clean(caught.value)


def test_nothing_of_the_hosts_configuration_has_a_part_in_it(tmp_path: Path) -> None:
    pair = make_pair(tmp_path)
    write(pair.host, ".gitattributes", "*.c diff=c\n")
    commit(pair.host, "attributes")
    pair.send()
    edit_everything(pair.guest)
    plain = take_patch(pair)
    for key, value in HOSTILE_CONFIG.items():
        git(pair.host, "config", "--global", key, value, GIT_CONFIG_GLOBAL=str(Path.home() / ".gitconfig"))
        git(pair.host, "config", key, value)
    assert b"rename from" in plain
    assert list_content(apply_anew(pair, take_patch(pair), pair.workspace.commit)) == list_content(pair.guest)


def test_a_submodules_commit_is_not_in_it(tmp_path: Path) -> None:
    make_repository(tmp_path / "library")
    pair = make_pair(tmp_path)
    git(pair.host, "-c", "protocol.file.allow=always", "submodule", "add", "-q", str(tmp_path / "library"), "lib")
    commit(pair.host, "with a library")
    pair.send()
    make_repository(pair.guest / "inner")
    write(pair.guest, "README", "changed\n")
    patch = take_patch(pair)
    assert b"Subproject" not in patch
    assert patch.count(b"diff --git") == 1


def test_the_summary_tells_counts_modes_and_renames(tmp_path: Path) -> None:
    pair = make_sent(tmp_path)
    edit(pair.guest)
    git(pair.guest, "mv", "src/util.c", "src/moved.c")
    (pair.guest / "no end").chmod(0o755)
    with pair.take() as copy:
        told = summarise(copy)
    assert "README" in told
    assert "rename src/{util.c => moved.c} (100%)" in told
    assert "mode change 100644 => 100755 no end" in told
    assert "3 files changed, 1 insertion(+)" in told


def test_the_summary_of_nothing_is_empty(tmp_path: Path) -> None:
    with make_sent(tmp_path).take() as copy:
        assert summarise(copy) == ""


def test_a_file_is_written_whole_in_the_place_of_another(tmp_path: Path) -> None:
    pair = make_sent(tmp_path)
    edit_everything(pair.guest)
    target = write(tmp_path / "out", "name" + "x" * 240, "old")
    with pair.take() as copy:
        export_to_file(copy, target)
    assert target.read_bytes() == take_patch(pair)
    assert list(target.parent.iterdir()) == [target]


@pytest.mark.parametrize("stop", [BangerError("no", reason=Reason.IO), KeyboardInterrupt(), OSError(28, "full")])
def test_a_file_that_cannot_be_written_whole_is_not_written(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, stop: BaseException
) -> None:
    pair = make_sent(tmp_path)
    edit(pair.guest)
    target = write(tmp_path / "out", "patch", "old")

    def fail(*_: object) -> None:
        raise stop

    monkeypatch.setattr("banger.machine.exchange.write_patch", fail)
    with pair.take() as copy, pytest.raises((BangerError, KeyboardInterrupt)):
        export_to_file(copy, target)
    assert [each.read_bytes() for each in target.parent.iterdir()] == [b"old"]


def test_a_folder_that_is_not_there_is_an_error_that_names_it(tmp_path: Path) -> None:
    pair = make_sent(tmp_path)
    with pair.take() as copy, pytest.raises(BangerError, match="No such file"):
        export_to_file(copy, tmp_path / "missing/patch")


def test_a_pipe_or_a_device_is_written_into_and_stays_what_it_is(tmp_path: Path) -> None:
    pair = make_sent(tmp_path)
    commit_twice(pair.guest)
    pipe = tmp_path / "pipe"
    os.mkfifo(pipe)
    read: list[bytes] = []
    reader = threading.Thread(target=lambda: read.append(pipe.read_bytes()))
    reader.start()
    with pair.take() as copy:
        export_to_file(copy, pipe)
    reader.join()
    assert pipe.is_fifo()
    assert read == [take_patch(pair)]


def test_more_than_there_is_room_for_is_not_begun(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    pair = make_sent(tmp_path)
    write(pair.guest, "big", b"x" * 5000)
    monkeypatch.setattr(changes, "_MAX_FILE_BYTES", 4999)
    with pytest.raises(BangerError, match="'big' has") as caught:
        take_patch(pair)
    assert caught.value.reason is Reason.TOO_LARGE
