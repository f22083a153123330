"""Files of the host in a new machine: what is taken, how it arrives, and what is left out with a word about it."""

from __future__ import annotations

import contextlib
import errno
import io
import os
import socket
import stat
import subprocess
import tarfile
import tempfile
from collections.abc import Callable, Iterator
from dataclasses import replace
from pathlib import Path

import pytest

from banger.machine.file_sync import Kind, SyncedFile, plan_file_sync, write_synced
from banger.settings import FileSync, parse_settings
from pipelines.ext4 import make_ext4

_ODD_NAMES = ["two words", "new\nline", "quo\"te's", "\\back", "-dash", "ünï ✓", os.fsdecode(b"raw\xff\x80"), "n" * 255]


def _entry(host: Path, guest: str, mode: str | None = None) -> FileSync:
    """As the configuration gives it."""
    values = {"host": str(host), "guest": guest, **({} if mode is None else {"mode": mode})}
    return parse_settings({"file_sync": [values]}).file_sync[0]


def _plan(*entries: FileSync, warnings: int = 0) -> dict[str, SyncedFile]:
    said: list[str] = []
    files = plan_file_sync(entries, said.append)
    assert len(said) == warnings, said
    seen: set[str] = set()
    for file in files:
        parent = file.guest_path.rpartition("/")[0]
        assert not parent or parent in seen, "a parent comes first"
        assert file.guest_path not in seen, "a path comes twice"
        seen.add(file.guest_path)
    return {file.guest_path: file for file in files}


def _shape(files: dict[str, SyncedFile]) -> dict[str, tuple[Kind, int]]:
    return {path: (file.kind, file.mode) for path, file in files.items()}


def _file(path: Path, content: bytes = b"content", mode: int = 0o644) -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_bytes(content)
    path.chmod(mode)
    return path


def _read_back(files: dict[str, SyncedFile]) -> dict[str, tuple[tarfile.TarInfo, bytes]]:
    sink = io.BytesIO()
    with tarfile.open(
        fileobj=sink, mode="w|", format=tarfile.GNU_FORMAT, encoding="utf-8", errors="surrogateescape"
    ) as tar:
        write_synced(tar, list(files.values()))
    sink.seek(0)
    found = {}
    with tarfile.open(fileobj=sink, encoding="utf-8", errors="surrogateescape") as tar:
        for member in tar:
            source = tar.extractfile(member) if member.isreg() else None
            found[member.name] = (member, b"" if source is None else source.read())
    return found


def test_a_file_arrives_with_its_content_its_time_and_mode_0600(tmp_path: Path) -> None:
    host = _file(tmp_path / "hosts.yml", b"secret", 0o644)
    os.utime(host, (1, 1_700_000_000))
    files = _plan(_entry(host, "~/.config/gh/hosts.yml"))
    assert _shape(files) == {
        ".config": (Kind.FOLDER, 0o700),
        ".config/gh": (Kind.FOLDER, 0o700),
        ".config/gh/hosts.yml": (Kind.FILE, 0o600),
    }
    assert [file.is_implied for file in files.values()] == [True, True, False]
    member, content = _read_back(files)[".config/gh/hosts.yml"]
    assert (member.mode, member.mtime, content) == (0o600, 1_700_000_000, b"secret")
    assert (member.uid, member.gid, member.uname, member.gname) == (0, 0, "", "")


def test_a_mode_is_for_the_file_that_its_entry_names(tmp_path: Path) -> None:
    host = _file(tmp_path / "deploy", mode=0o600)
    assert _plan(_entry(host, "~/bin/deploy", "0755"))["bin/deploy"].mode == 0o755


def _make_tree(root: Path) -> Path:
    _file(root / "plain", mode=0o664)
    _file(root / "program", b"#!/bin/sh\n", 0o755)
    _file(root / "closed/inner/key", mode=0o400)
    _file(root / "empty", b"", 0o640)
    (root / "closed/inner").chmod(0o500)
    (root / "closed").chmod(0o711)
    (root / "shared").mkdir()
    (root / "shared").chmod(0o1777)
    (root / "link").symlink_to("closed/inner")
    (root / "away").symlink_to("/etc/passwd")
    (root / "dangling").symlink_to("no where")
    root.chmod(0o750)
    return root


_FOLDERS = {
    "d": (Kind.FOLDER, 0o750),
    "d/closed": (Kind.FOLDER, 0o711),
    "d/closed/inner": (Kind.FOLDER, 0o500),
    "d/shared": (Kind.FOLDER, 0o1777),
    "d/link": (Kind.SYMLINK, 0o777),
    "d/away": (Kind.SYMLINK, 0o777),
    "d/dangling": (Kind.SYMLINK, 0o777),
}
_FILES = ("d/plain", "d/program", "d/closed/inner/key", "d/empty")


@pytest.mark.parametrize(("mode", "meant"), [(None, 0o600), ("0755", 0o755), ("0400", 0o400)])
def test_a_folder_comes_whole_with_the_modes_of_its_folders_and_one_for_all_files(
    tmp_path: Path, mode: str | None, meant: int
) -> None:
    files = _plan(_entry(_make_tree(tmp_path / "host"), "~/d", mode))
    assert _shape(files) == {**_FOLDERS, **dict.fromkeys(_FILES, (Kind.FILE, meant))}
    assert {file.target for file in files.values()} == {"", "closed/inner", "/etc/passwd", "no where"}
    written = _read_back(files)
    assert {path: member.linkname for path, (member, _) in written.items() if member.issym()} == {
        "d/link": "closed/inner",
        "d/away": "/etc/passwd",
        "d/dangling": "no where",
    }
    assert written["d/program"][1] == b"#!/bin/sh\n"


def test_a_link_that_an_entry_names_is_followed_and_those_below_are_not(tmp_path: Path) -> None:
    real = _make_tree(tmp_path / "real")
    (tmp_path / "one").symlink_to("two")
    (tmp_path / "two").symlink_to(real)
    files = _plan(_entry(tmp_path / "one", "~/d"), _entry(tmp_path / "one/link/key", "~/key"))
    assert files["d"].kind is Kind.FOLDER
    assert files["d/link"].kind is Kind.SYMLINK
    assert _read_back(files)["key"][1] == b"content"


def test_odd_names_arrive_as_they_are(tmp_path: Path) -> None:
    for name in _ODD_NAMES:
        _file(tmp_path / "host" / name / name, os.fsencode(name))
    (tmp_path / "host/link").symlink_to(_ODD_NAMES[6])
    written = _read_back(_plan(_entry(tmp_path / "host", "~/odd names")))
    assert {path: content for path, (member, content) in written.items() if member.isreg()} == {
        f"odd names/{name}/{name}": os.fsencode(name) for name in _ODD_NAMES
    }
    assert written["odd names/link"][0].linkname == _ODD_NAMES[6]


@pytest.fixture
def deep() -> Iterator[Path]:
    """A folder for what only rm(1) can remove: the library's way calls itself for every level."""
    with tempfile.TemporaryDirectory() as folder:
        yield Path(folder) / "d"
        subprocess.run(["rm", "-rf", f"{folder}/d"], check=True)


def test_a_tree_deeper_than_the_stack_is_walked(deep: Path) -> None:
    depth = 1500
    deep.mkdir()
    here = os.open(deep, os.O_RDONLY)
    for _ in range(1, depth):
        os.mkdir("d", dir_fd=here)
        below = os.open("d", os.O_RDONLY, dir_fd=here)
        os.close(here)
        here = below
    os.close(here)
    assert len(_plan(_entry(deep, "~/d"))) == depth


def test_what_is_not_there_is_told_and_the_rest_goes_on(tmp_path: Path) -> None:
    host = _file(tmp_path / "there")
    said: list[str] = []
    (tmp_path / "loop").symlink_to("loop")
    (tmp_path / "dangling").symlink_to("nowhere")
    missing = [tmp_path / "missing", tmp_path / "dangling", host / "below a file", tmp_path / "loop"]
    entries = [*(_entry(path, "~/a") for path in missing), _entry(host, "~/b")]
    files = plan_file_sync(entries, said.append)
    assert [file.guest_path for file in files] == ["b"]
    assert [line.partition(" ")[0] for line in said] == [f"file_sync[{number}]:" for number in range(1, 5)]
    assert all(str(path) in line for path, line in zip(missing, said, strict=True))
    assert said[0] == f"file_sync[1]: {tmp_path / 'missing'} is not there; it is left out"


def test_what_is_neither_file_folder_nor_link_is_left_out(tmp_path: Path) -> None:
    host = tmp_path / "host"
    _file(host / "file")
    os.mkfifo(host / "fifo")
    with socket.socket(socket.AF_UNIX) as listener:
        listener.bind(str(host / "socket"))
        files = _plan(_entry(host, "~/d"), _entry(Path("/dev/null"), "~/null"), warnings=3)
    assert set(files) == {"d", "d/file"}


def test_a_warning_is_one_line_whatever_the_name(tmp_path: Path) -> None:
    os.mkfifo(tmp_path / "new\nline\x1b[31m")
    said: list[str] = []
    plan_file_sync([_entry(tmp_path, "~/d")], said.append)
    assert len(said) == 1
    assert said[0].isprintable()


@pytest.mark.parametrize("what", ["file", "folder", "parent"])
def test_what_may_not_be_read_is_told_and_left_out(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, what: str) -> None:
    """Root may read everything, so the system's refusal is put in its mouth."""
    host = tmp_path / "host"
    _file(host / "closed/file")
    _file(host / "open")
    refused = {"file": host / "closed/file", "folder": host / "closed", "parent": host}[what]

    def refusing(call: Callable[..., object]) -> Callable[..., object]:
        def attempt(path: object, *args: object) -> object:
            if path == refused:
                raise PermissionError(errno.EACCES, os.strerror(errno.EACCES), str(path))
            return call(path, *args)

        return attempt

    monkeypatch.setattr(os, "open", refusing(os.open))
    monkeypatch.setattr(os, "listdir", refusing(os.listdir))
    files = _plan(_entry(host, "~/d"), warnings=1)
    left = {"file": {"d", "d/closed", "d/open"}, "folder": {"d", "d/open"}, "parent": set[str]()}
    assert set(files) == left[what]


@pytest.mark.skipif(os.geteuid() != 0, reason="only root can become another user")
def test_an_ordinary_user_gets_what_that_user_may_read() -> None:
    with tempfile.TemporaryDirectory() as folder:
        host = Path(folder)
        host.chmod(0o755)
        _file(host / "theirs", mode=0o600)
        _file(host / "closed/inner")
        _file(host / "everybody's", mode=0o644)
        (host / "closed").chmod(0o700)
        child = os.fork()
        if child == 0:
            status = 1
            with contextlib.suppress(BaseException):
                os.setresuid(4242, 4242, 4242)
                said: list[str] = []
                files = plan_file_sync([FileSync(host, "d", None)], said.append)
                status = int([file.guest_path for file in files] != ["d", "d/everybody's"] or len(said) != 2)
            os._exit(status)
        assert os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]) == 0


def test_of_two_entries_for_a_path_the_later_counts(tmp_path: Path) -> None:
    for name in ("one", "two"):
        _file(tmp_path / name / "both", name.encode())
        _file(tmp_path / name / name)
    (tmp_path / "two").chmod(0o711)
    files = _plan(_entry(tmp_path / "one", "~/d"), _entry(tmp_path / "two", "~/d", "0644"))
    assert _shape(files) == {
        "d": (Kind.FOLDER, 0o711),
        "d/both": (Kind.FILE, 0o644),
        "d/one": (Kind.FILE, 0o600),
        "d/two": (Kind.FILE, 0o644),
    }
    assert _read_back(files)["d/both"][1] == b"two"


def test_a_later_entry_s_folder_takes_the_place_of_a_file_or_link(tmp_path: Path) -> None:
    """Otherwise it would be written where the link leads."""
    (tmp_path / "link").symlink_to("/etc")
    (tmp_path / "tree").mkdir()
    (tmp_path / "tree/link").symlink_to("/etc")
    host = _file(tmp_path / "file")
    files = _plan(
        _entry(tmp_path / "tree", "~/d"),
        _entry(host, "~/f"),
        _entry(host, "~/d/link/passwd"),
        _entry(host, "~/f/inner/file"),
    )
    assert _shape(files) == {
        "d": (Kind.FOLDER, stat.S_IMODE((tmp_path / "tree").stat().st_mode)),
        "d/link": (Kind.FOLDER, 0o700),
        "d/link/passwd": (Kind.FILE, 0o600),
        "f": (Kind.FOLDER, 0o700),
        "f/inner": (Kind.FOLDER, 0o700),
        "f/inner/file": (Kind.FILE, 0o600),
    }


def test_a_later_entry_s_file_takes_the_place_of_a_folder(tmp_path: Path) -> None:
    host = _file(tmp_path / "file")
    tree = _make_tree(tmp_path / "tree")
    files = _plan(_entry(tree, "~/a/d"), _entry(host, "~/a/d2"), _entry(host, "~/a/d"))
    assert set(files) == {"a", "a/d", "a/d2"}
    assert files["a/d"].kind is Kind.FILE


def test_a_folder_that_an_entry_gives_is_not_implied(tmp_path: Path) -> None:
    host = _file(tmp_path / "tree/file")
    host.parent.chmod(0o755)
    files = _plan(_entry(host, "~/d/inner/file"), _entry(host.parent, "~/d"))
    assert (files["d"].mode, files["d"].is_implied) == (0o755, False)
    assert files["d/inner"].is_implied


def test_the_folder_of_ssh_stays_closed_and_its_keys_stay_banger_s(tmp_path: Path) -> None:
    host = tmp_path / "host"
    _file(host / "config")
    _file(host / "authorized_keys", b"somebody else's")
    host.chmod(0o775)
    files = _plan(_entry(host, "~/.ssh"), warnings=1)
    assert _shape(files) == {".ssh": (Kind.FOLDER, 0o700), ".ssh/config": (Kind.FILE, 0o600)}
    assert _plan(_entry(host / "config", "~/.ssh"), warnings=1) == {}


@pytest.mark.skipif(os.geteuid() != 0, reason="only root can take owners out of a disk")
def test_the_disk_holds_what_the_host_had(tmp_path: Path) -> None:
    host = _make_tree(tmp_path / "host")
    for name in _ODD_NAMES:
        _file(host / name, os.fsencode(name))
    files = plan_file_sync([_entry(host, "~/d")], pytest.fail)
    image = tmp_path / "work.ext4"
    make_ext4(image, 64, lambda tar: write_synced(tar, files))
    assert subprocess.run(["/usr/sbin/e2fsck", "-fn", image], capture_output=True).returncode == 0
    (tmp_path / "out").mkdir()
    subprocess.run(["/usr/sbin/debugfs", "-R", f"rdump /d {tmp_path}/out", image], capture_output=True, check=True)
    found = {}
    for path in (tmp_path / "out").rglob("*"):
        seen = path.lstat()
        assert (seen.st_uid, seen.st_gid) == (0, 0)
        name = str(path.relative_to(tmp_path / "out"))
        found[name] = str(path.readlink()) if path.is_symlink() else path.read_bytes() if path.is_file() else None
        if not path.is_symlink():
            planned = next(file for file in files if file.guest_path == name)
            # Special bits do not come through debugfs.
            assert stat.S_IMODE(seen.st_mode) == planned.mode & 0o777, name
    assert set(found) == {file.guest_path for file in files}
    for name in _ODD_NAMES:
        assert found[f"d/{name}"] == os.fsencode(name)
    assert found["d/away"] == "/etc/passwd"


def test_planning_is_quick_enough_for_many_files(tmp_path: Path) -> None:
    for folder in range(20):
        (tmp_path / str(folder)).mkdir()
        for name in range(100):
            (tmp_path / str(folder) / str(name)).touch()
    entry = _entry(tmp_path, "~/d")
    files = _plan(entry, replace(entry, guest="e"))
    assert len(files) == 2 * 2021
