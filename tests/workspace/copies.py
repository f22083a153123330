"""A host's repository and a guest's copy of it without a machine: what is sent is unpacked by tar into a folder that
stands for /root/repo, and the very script that runs in a guest reads it there.
"""

from __future__ import annotations

import atexit
import contextlib
import functools
import os
import shutil
import stat
import subprocess
import tarfile
import tempfile
import threading
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import IO

from banger.errors import BangerError
from banger.machine.exchange import Copy
from banger.workspace.collect import GuestState, check_state, format_script, make_quarantine, receive
from banger.workspace.record import Workspace, find_workspace, write_workspace
from banger.workspace.repository import Repository, open_repository
from banger.workspace.shipment import Shipment

AUTHOR = ("Host Author", "host@example.org")
GUEST = ("Gäst Author", "guest@example.org")
ODD_NAMES = ("with space", "quo\"te's", "new\nline", "-dash", "ünï ✓", "\udcff\udcfe bytes", "back\\slash", "tab\tbed")
_ENVIRONMENT = {
    "GIT_CONFIG_NOSYSTEM": "1",
    "GIT_CONFIG_GLOBAL": "/dev/null",
    "GIT_AUTHOR_NAME": GUEST[0],
    "GIT_AUTHOR_EMAIL": GUEST[1],
    "GIT_COMMITTER_NAME": GUEST[0],
    "GIT_COMMITTER_EMAIL": GUEST[1],
}
# path: (mode, mtime in ns, content); folders have none, links have where they lead.
Tree = dict[str, tuple[int, int, bytes | None]]


def git(folder: Path, *words: str, stdin: bytes = b"", must_succeed: bool = True, **environment: str) -> str:
    """As somebody types it: no banger in between, and no configuration of whoever runs the tests."""
    done = subprocess.run(
        ["git", "-C", folder, *words],
        input=stdin,
        capture_output=True,
        env={**os.environ, **_ENVIRONMENT, **environment},
        check=False,
    )
    assert done.returncode == 0 or not must_succeed, os.fsdecode(done.stderr)
    return os.fsdecode(done.stdout).removesuffix("\n")


def commit(folder: Path, message: str, *options: str, **environment: str) -> str:
    git(folder, "add", "-A")
    git(folder, "commit", "-q", "-m", message, *options, **environment)
    return git(folder, "rev-parse", "HEAD")


def write(folder: Path, path: str, content: bytes | str = "new\n", mode: int = 0o644) -> Path:
    place = folder / path
    place.parent.mkdir(parents=True, exist_ok=True)
    place.write_bytes(content.encode() if isinstance(content, str) else content)
    place.chmod(mode)
    return place


def make_repository(folder: Path, *options: str) -> Path:
    """With all that a tree of git's can hold, and a few commits."""
    shutil.copytree(_make_template(options), folder, symlinks=True)
    git(folder, "update-index", "-q", "--refresh")
    return folder


@functools.cache
def _make_template(options: tuple[str, ...]) -> Path:
    folder = _make_temporary() / "repository"
    folder.mkdir()
    git(folder, "init", "-q", "-b", "main", *options)
    for key, value in zip(("user.name", "user.email"), AUTHOR, strict=True):
        git(folder, "config", key, value)
    write(folder, "README", "".join(f"line {number}\n" for number in range(40)))
    write(folder, "src/main.c", "".join(f"int f{number}(void);\n" for number in range(60)))
    write(folder, "src/util.c", "".join(f"long g{number}(int);\n" for number in range(60)))
    write(folder, "bin/run", "#!/bin/sh\necho run\n", 0o755)
    commit(folder, "first")
    write(folder, "data.bin", bytes(range(256)) * 20)
    write(folder, "deep/er/still/file", "deep\n")
    write(folder, "empty", b"")
    write(folder, "crlf", b"one\r\ntwo\r\n")
    write(folder, "no end", "no newline at the end")
    (folder / "link").symlink_to("README")
    (folder / "dangling").symlink_to("nowhere/at all")
    write(folder, ".gitignore", "ignored/\n*.log\n")
    commit(folder, "second")
    for name in ODD_NAMES:
        write(folder, f"odd/{name}", f"{name!r}\n")
    commit(folder, "third")
    return folder


@dataclass(frozen=True)
class Pair:
    """`host` is a work tree, `machine` the folder of a machine's disks, `guest` what was sent there."""

    folder: Path
    host_name: str = "host"

    @property
    def host(self) -> Path:
        return self.folder / self.host_name

    @property
    def machine(self) -> Path:
        return self.folder / "machine"

    @property
    def guest(self) -> Path:
        return self.folder / "guest/repo"

    @property
    def workspace(self) -> Workspace:
        found = find_workspace(self.machine)
        assert found is not None
        return found

    def send(self, *, include_untracked: bool = False, branch: str | None = None) -> Pair:
        self.machine.mkdir()
        self.guest.parent.mkdir()
        path = self.folder / "sent.tar"
        with (
            Shipment(open_repository(self.host), include_untracked, branch).pack(self.machine) as cargo,
            tarfile.open(path, "w", format=tarfile.GNU_FORMAT, encoding="utf-8", errors="surrogateescape") as tar,
        ):
            cargo.write(tar)
        subprocess.run(["tar", "--warning=no-timestamp", "-xpf", path, "-C", self.guest.parent], check=True)
        return self

    @contextlib.contextmanager
    def take(self, shell: Sequence[str] = ("sh",)) -> Iterator[Copy]:
        """As `open_copy` of banger's does it, without ssh; the guest is the same afterwards, its .git to the byte."""
        before = forget_times(read_tree(self.guest))
        script = format_script(self.workspace.commit, str(self.guest), "/usr/bin/busybox")
        argv = [*shell, "-c", 'eval "$1"', "sh", script]
        with (
            self.quarantine() as (repository, place),
            subprocess.Popen(argv, stdout=subprocess.PIPE, stderr=subprocess.PIPE, cwd="/") as child,
        ):
            assert child.stdout is not None
            assert child.stderr is not None
            heads = receive(child.stdout, place)
            assert child.wait() == 0, child.stderr.read()
            assert forget_times(read_tree(self.guest)) == before, "looking at it has changed it"
            state = check_state(place, self.workspace, repository, *heads)
            yield Copy(self.workspace, repository, state)

    @contextlib.contextmanager
    def take_stream(self, stream: bytes) -> Iterator[Copy]:
        """What a guest that makes up its answer itself would send."""
        with self.quarantine() as (repository, place), piped(stream) as source:
            state = check_state(place, self.workspace, repository, *receive(source, place))
            yield Copy(self.workspace, repository, state)

    @contextlib.contextmanager
    def collect(self, shell: Sequence[str] = ("sh",)) -> Iterator[GuestState]:
        with self.take(shell) as copy:
            yield copy.state

    @contextlib.contextmanager
    def quarantine(self) -> Iterator[tuple[Repository, Path]]:
        folder = self.folder / "collected"
        folder.mkdir()
        try:
            repository = open_repository(self.host)
            make_quarantine(repository, self.machine, folder / "git")
            yield repository, folder / "git"
        finally:
            shutil.rmtree(folder)

    def run_script(self, shell: Sequence[str] = ("sh",)) -> tuple[int, bytes]:
        """How the script ends in a guest of which it can read nothing, and what it says."""
        script = format_script(self.workspace.commit, str(self.guest), "/usr/bin/busybox")
        done = subprocess.run([*shell, "-c", 'eval "$1"', "sh", script], capture_output=True, check=False, cwd="/")
        assert done.stdout == b""
        return done.returncode, done.stderr


def make_pair(folder: Path, *options: str) -> Pair:
    make_repository(folder / "host", *options)
    return Pair(folder)


def make_sent(folder: Path, *options: str) -> Pair:
    """As `make_pair(…).send()`, made once."""
    shutil.copytree(_make_sent_template(options), folder, symlinks=True, dirs_exist_ok=True)
    pair = Pair(folder)
    git(pair.host, "update-index", "-q", "--refresh")
    write_workspace(pair.machine, replace(pair.workspace, root=str(pair.host)))
    return pair


@functools.cache
def _make_sent_template(options: tuple[str, ...]) -> Path:
    return make_pair(_make_temporary(), *options).send().folder


def _make_temporary() -> Path:
    kept = tempfile.TemporaryDirectory(prefix="banger-tests-", dir="/tmp")
    atexit.register(kept.cleanup)
    return Path(kept.name)


@contextlib.contextmanager
def piped(content: bytes) -> Iterator[IO[bytes]]:
    """A pipe, as ssh gives one; who writes into it does not mind when nobody reads any more."""
    read_end, write_end = os.pipe()

    def feed() -> None:
        with contextlib.suppress(BrokenPipeError), os.fdopen(write_end, "wb") as sink:
            sink.write(content)

    writer = threading.Thread(target=feed)
    writer.start()
    with os.fdopen(read_end, "rb") as source:
        yield source
    writer.join()


def read_tree(folder: Path) -> Tree:
    """All that is below a folder, .git included."""
    found: Tree = {}
    for place in sorted(folder.rglob("*")):
        status = place.lstat()
        content: bytes | None = None
        if stat.S_ISLNK(status.st_mode):
            content = os.fsencode(place.readlink())
        elif stat.S_ISREG(status.st_mode):
            content = place.read_bytes()
        found[str(place.relative_to(folder))] = (status.st_mode, status.st_mtime_ns, content)
    return found


def forget_times(tree: Tree) -> dict[str, tuple[int, bytes | None]]:
    return {path: (mode, content) for path, (mode, _time, content) in tree.items()}


def list_content(folder: Path) -> dict[str, tuple[int, bytes | None]]:
    """The files of a work tree with their modes, as they compare between two places: no folders, no .git."""
    return {
        path: entry
        for path, entry in forget_times(read_tree(folder)).items()
        if not stat.S_ISDIR(entry[0]) and path.partition("/")[0] != ".git"
    }


@contextlib.contextmanager
def unchanged(*folders: Path, ignored: Sequence[str] = (), folder_times: bool = True) -> Iterator[None]:
    """Bytes, modes and times of everything; in .git the bytes and modes (git touches objects that it meets again).

    `ignored` are beginnings of paths.
    """

    def look(folder: Path) -> Tree:
        return {
            path: (mode, time if _have_time(path, mode, folder_times) else 0, content)
            for path, (mode, time, content) in read_tree(folder).items()
            if not path.startswith(tuple(ignored))
        }

    before = [look(folder) for folder in folders]
    yield
    for folder, tree in zip(folders, before, strict=True):
        now = look(folder)
        assert now.keys() == tree.keys(), sorted(now.keys() ^ tree.keys())
        assert {path: (tree[path], now[path]) for path in now if now[path] != tree[path]} == {}


def _have_time(path: str, mode: int, folder_times: bool) -> bool:
    return ".git" not in path.split("/") and (folder_times or not stat.S_ISDIR(mode))


def assert_clean(error: BangerError) -> None:
    """Nothing of what a guest says reaches the terminal as it is."""
    for text in (error.message, error.hint):
        assert text.replace("\n", "").isprintable(), repr(text)
        assert len(text) < 2000
