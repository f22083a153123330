"""Whatever fails, and whenever: the host's work tree, index and history are what they were."""

from __future__ import annotations

import contextlib
import os
import shutil
import subprocess
import tempfile
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from banger.errors import BangerError, Reason
from banger.machine.exchange import Copy, apply_copy
from banger.workspace import apply as module
from tests.ordinary_user import UID
from tests.workspace.copies import Pair, assert_clean, git, list_content, make_pair, make_sent, unchanged, write
from tests.workspace.edits import EDITS, edit_everything

needs_root = pytest.mark.skipif(os.geteuid() != 0, reason="mounts, or becomes another user")


def apply(copy: Copy) -> object:
    return apply_copy(copy, lambda _text: None, lambda _summary: True)


@contextlib.contextmanager
def as_it_was(pair: Pair) -> Iterator[None]:
    """Times of folders tell that something was there; objects that nothing leads to may stay in the repository."""
    status = git(pair.host, "status", "--porcelain=v2")
    with unchanged(pair.host, ignored=[".git/objects/"], folder_times=False):
        yield
    assert git(pair.host, "status", "--porcelain=v2") == status


def make_change(tmp_path: Path) -> Pair:
    """Something of every kind, and folders that are nobody else's business."""
    pair = make_pair(tmp_path)
    (pair.host / "deep/er").chmod(0o700)
    (pair.host / "hollow").mkdir()
    write(pair.host, "src/mine", "not sent\n")
    pair.send()
    edit_everything(pair.guest)
    EDITS["folder_to_file"](pair.guest)
    EDITS["link_to_folder"](pair.guest)
    EDITS["edit_odd_names"](pair.guest)
    write(pair.guest, "hollow/new", "new\n")
    write(pair.guest, "made/for/it", "new\n")
    return pair


STEPS: list[tuple[object, str]] = [
    (module, "run_git"),
    (Path, "rename"),
    (Path, "rmdir"),
    (Path, "write_bytes"),
    (Path, "replace"),
    (shutil, "copy2"),
    (tempfile, "mkdtemp"),
]


# After the index was replaced it is done.
MOMENTS = [(*step, when) for step in STEPS for when in ("before", "after") if (step[1], when) != ("replace", "after")]


@pytest.mark.parametrize(("owner", "name", "when"), MOMENTS, ids=[f"{name}-{when}" for _owner, name, when in MOMENTS])
def test_a_stop_at_any_step_leaves_everything_as_it_was(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, owner: object, name: str, when: str
) -> None:
    """Each step in turn, until there is none left to stop at; by Ctrl-C and by a failure."""
    pair = make_change(tmp_path)
    real: Callable[..., Any] = getattr(owner, name)
    with pair.take() as copy:
        for number in range(100):
            calls = 0
            stop = BangerError("it failed", reason=Reason.IO) if number % 2 else KeyboardInterrupt()

            def step(*words: Any, _number: int = number, stop: BaseException = stop, **more: Any) -> Any:
                nonlocal calls
                calls += 1
                if calls == _number + 1 and when == "before":
                    raise stop
                result = real(*words, **more)
                if calls == _number + 1:
                    if name == "mkdtemp":
                        Path(result).rmdir()
                    raise stop
                return result

            with monkeypatch.context() as patch:
                patch.setattr(owner, name, step)
                try:
                    with as_it_was(pair), contextlib.suppress(KeyboardInterrupt, BangerError):
                        apply(copy)
                except AssertionError:
                    # Done, or half done: which of them is seen below.
                    break
        assert number > 0
    assert_is_done(pair)


def assert_is_done(pair: Pair) -> None:
    mine = {path: entry for path, entry in list_content(pair.host).items() if path != "src/mine"}
    assert mine == list_content(pair.guest)
    assert git(pair.host, "diff", "--name-only") == ""


def test_ctrl_c_just_after_the_last_step_leaves_it_done(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    pair = make_change(tmp_path)
    real = Path.replace

    def replace(path: Path, target: Path) -> Path:
        real(path, target)
        raise KeyboardInterrupt

    monkeypatch.setattr(Path, "replace", replace)
    with pair.take() as copy, pytest.raises(KeyboardInterrupt):
        apply(copy)
    assert_is_done(pair)


def test_a_repository_that_another_git_is_at_work_in_is_left_alone(tmp_path: Path) -> None:
    pair = make_change(tmp_path)
    write(pair.host, ".git/index.lock", b"of another git")
    with pair.take() as copy, unchanged(pair.host), pytest.raises(BangerError, match="another git") as caught:
        apply(copy)
    assert caught.value.reason is Reason.IN_USE
    assert str(pair.host / ".git/index.lock") in caught.value.message


def test_a_file_that_cannot_be_moved_back_is_kept_and_named(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    pair = make_sent(tmp_path)
    write(pair.guest, "README", "of the guest\n")
    before = (pair.host / "README").read_bytes()
    real = Path.rename

    def rename(path: Path, target: Path) -> Path:
        if path.parent.name.startswith("banger-apply-"):
            raise OSError(5, "Input/output error")
        return real(path, target)

    def fail(*_: object) -> bytes:
        raise KeyboardInterrupt

    monkeypatch.setattr(Path, "rename", rename)
    monkeypatch.setattr(module, "_make_index", fail)
    with pair.take() as copy, pytest.raises(BangerError, match="could not be moved back") as caught:
        apply(copy)
    [kept] = (pair.host / ".git").glob("banger-apply-*/*")
    assert str(kept) in caught.value.message
    assert kept.read_bytes() == before


@contextlib.contextmanager
def ordinary_user(folder: Path) -> Iterator[None]:
    """Everything in the folder is theirs, and they have no right beyond."""
    for place in [folder, *folder.rglob("*")]:
        os.chown(place, UID, UID, follow_symlinks=False)
    groups = os.getgroups()
    os.setgroups([])
    os.setegid(UID)
    os.seteuid(UID)
    try:
        yield
    finally:
        os.seteuid(0)
        os.setegid(0)
        os.setgroups(groups)


@pytest.fixture
def open_folder(monkeypatch: pytest.MonkeyPatch) -> Iterator[Path]:
    """One that every user can reach, unlike those of pytest."""
    with tempfile.TemporaryDirectory(prefix="banger-tests-") as name:
        folder = Path(name)
        folder.chmod(0o755)
        monkeypatch.setenv("HOME", name)
        monkeypatch.setattr(tempfile, "tempdir", name)
        yield folder


@needs_root
@pytest.mark.parametrize("closed", ["src", ".", ".git", ".git/objects", "deep/er/still", "odd"])
def test_a_folder_that_cannot_be_written_stops_it_all(open_folder: Path, closed: str) -> None:
    pair = make_change(open_folder)
    place = pair.host / closed
    folders = [place, *(each for each in place.iterdir() if each.is_dir())] if closed == ".git/objects" else [place]
    for folder in folders:
        folder.chmod(0o555)
    with pair.take() as copy, ordinary_user(open_folder), as_it_was(pair), pytest.raises(BangerError) as caught:
        apply(copy)
    assert caught.value.reason in (Reason.NO_PERMISSION, Reason.COMMAND_FAILED)
    assert_clean(caught.value)


@pytest.fixture
def small_disk(tmp_path: Path) -> Iterator[Path]:
    place = tmp_path / "host"
    place.mkdir()
    subprocess.run(["mount", "-t", "tmpfs", "-o", "size=3m", "test", place], check=True)
    yield place
    subprocess.run(["umount", "-l", place], check=True)


@needs_root
@pytest.mark.parametrize("is_seen", [True, False], ids=["seen before", "in the middle"])
def test_a_full_disk_stops_it_all(
    tmp_path: Path, small_disk: Path, monkeypatch: pytest.MonkeyPatch, is_seen: bool
) -> None:
    make_pair(tmp_path / "elsewhere")
    shutil.copytree(tmp_path / "elsewhere/host", small_disk, symlinks=True, dirs_exist_ok=True)
    pair = Pair(tmp_path).send()
    edit_everything(pair.guest)
    write(pair.guest, "big", os.urandom(5 << 20))
    monkeypatch.setattr(module, "_SPARE_BYTES", 0)
    if not is_seen:
        monkeypatch.setattr(module, "_check_room", lambda *_: None)
    with as_it_was(pair), pair.take() as copy, pytest.raises(BangerError) as caught:
        apply(copy)
    # git does not say why it was unable to write a file.
    assert caught.value.reason is Reason.NO_SPACE if is_seen else Reason.COMMAND_FAILED


def test_no_filter_of_the_hosts_runs_on_what_a_guest_wrote(tmp_path: Path) -> None:
    pair = make_pair(tmp_path)
    for name in ("trap", "a=b"):
        git(pair.host, "config", f"filter.{name}.smudge", f"touch {tmp_path}/sprung; cat")
    git(pair.host, "config", "filter.strict.smudge", "false")
    git(pair.host, "config", "filter.strict.clean", "cat")
    git(pair.host, "config", "filter.strict.required", "true")
    pair.send()
    write(pair.guest, ".gitattributes", "README filter=trap\nempty filter=strict\nnew filter=a=b\n")
    for name in ("README", "new", "empty"):
        write(pair.guest, name, f"{name} of the guest\n")
    with pair.take() as copy:
        apply(copy)
        assert not (tmp_path / "sprung").exists()
    assert list_content(pair.host) == list_content(pair.guest)


def test_no_hook_of_the_hosts_runs(tmp_path: Path) -> None:
    pair = make_sent(tmp_path)
    edit_everything(pair.guest)
    for name in ("post-checkout", "post-index-change", "reference-transaction", "pre-commit", "post-merge"):
        write(pair.host, f".git/hooks/{name}", f"#!/bin/sh\ntouch {tmp_path}/sprung\n", 0o755)
    git(pair.host, "config", "core.fsmonitor", f"touch {tmp_path}/sprung")
    with pair.take() as copy:
        apply(copy)
    assert not (tmp_path / "sprung").exists()
