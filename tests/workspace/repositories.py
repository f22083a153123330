"""Repositories made by the real git, and a guest's copy: unpacked by the real tar, looked at with a home of its own.

What the tests' own git is told by its configuration is in the home that `conftest.py` gives to every test.
"""

from __future__ import annotations

import hashlib
import os
import subprocess
import tarfile
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import IO

from banger.workspace.record import OBJECTS, Workspace, find_workspace
from banger.workspace.repository import open_repository
from banger.workspace.shipment import Cargo, Shipment

# No hunting for renames, no refreshed index: two looks at one state say the same, and leave no trace.
STATUS = ("--no-optional-locks", "status", "--porcelain=v2", "-z")
CONFIG = """\
[user]
	name = Host User
	email = host@example.org
[init]
	defaultBranch = main
[protocol "file"]
	allow = always
[advice]
	detachedHead = false
	addEmbeddedRepo = false
"""


@dataclass(frozen=True)
class Tree:
    """A work tree on the host."""

    path: Path

    def git(self, *words: str, stdin: bytes | None = None, environment: dict[str, str] | None = None) -> bytes:
        return run_git(self.path, *words, stdin=stdin, environment=environment)

    def ask(self, *words: str) -> str:
        return os.fsdecode(self.git(*words)).removesuffix("\n")

    def write(self, name: str, content: bytes = b"content\n", mode: int | None = None) -> Path:
        place = self.path / name
        place.parent.mkdir(parents=True, exist_ok=True)
        place.write_bytes(content)
        if mode is not None:
            place.chmod(mode)
        return place

    def link(self, name: str, target: str) -> Path:
        place = self.path / name
        place.parent.mkdir(parents=True, exist_ok=True)
        place.symlink_to(target)
        return place

    def commit(self, message: str = "a commit") -> str:
        self.git("add", "-A")
        self.git("commit", "-q", "--allow-empty", "-m", message)
        return self.ask("rev-parse", "HEAD")

    def status(self, *options: str) -> bytes:
        return self.git(*STATUS, *options)


@dataclass(frozen=True)
class Guest(Tree):
    """The copy, as git sees it that has only what was sent."""

    home: Path
    machine: Path

    def git(self, *words: str, stdin: bytes | None = None, environment: dict[str, str] | None = None) -> bytes:
        own = {"HOME": str(self.home), "XDG_CONFIG_HOME": str(self.home / ".config")}
        return run_git(self.path, *words, stdin=stdin, environment={**own, **(environment or {})})

    @property
    def workspace(self) -> Workspace:
        found = find_workspace(self.machine)
        assert found is not None
        return found

    def names(self) -> set[str]:
        """Every file and link, outside of .git."""
        return set(walk(self.path))

    def tree(self) -> str:
        """What `collect` would take for the copy's state (see the script there), by an index and objects apart."""
        scratch = self.machine / "collected"
        (scratch / "objects").mkdir(parents=True)
        index = self.path / ".git/index"
        if index.exists():
            subprocess.run(["cp", "-p", index, scratch / "index"], check=True)
        environment = {
            "GIT_INDEX_FILE": str(scratch / "index"),
            "GIT_OBJECT_DIRECTORY": str(scratch / "objects"),
            "GIT_ALTERNATE_OBJECT_DIRECTORIES": str(self.path / ".git/objects"),
        }
        self.git("add", "-A", ".", environment=environment)
        return os.fsdecode(self.git("write-tree", environment=environment)).strip()


def run_git(at: Path, *words: str, stdin: bytes | None = None, environment: dict[str, str] | None = None) -> bytes:
    done = subprocess.run(
        ["git", "-C", at, *words],
        input=stdin,
        stdin=subprocess.DEVNULL if stdin is None else None,
        env={**os.environ, **(environment or {})},
        capture_output=True,
    )
    assert done.returncode == 0, (words, done.stderr.decode("utf-8", "replace"))
    return done.stdout


def make_tree(path: Path, *options: str) -> Tree:
    """A repository before its first commit."""
    path.mkdir(parents=True)
    tree = Tree(path)
    tree.git("init", "-q", *options)
    return tree


def make_project(path: Path, *options: str) -> Tree:
    """A small project of one commit: files in folders, a program, a link."""
    tree = make_tree(path, *options)
    for name in ("a.txt", "b.txt", "dir/c.txt", "dir/deep/d.txt", "old.txt"):
        tree.write(name, f"{name}\n".encode() + b"more\n" * 9)
    tree.write("run.sh", b"#!/bin/sh\n", 0o755)
    tree.link("link", "dir/c.txt")
    tree.write(".gitignore", b"*.log\n/.env.ignored\n")
    tree.commit("first")
    return tree


def make_shipment(
    path: Path, *, include_untracked: bool = False, branch: str | None = None, start: str | None = None
) -> Shipment:
    return Shipment(open_repository(path), include_untracked, branch, start)


def send(
    path: Path, to: Path, *, include_untracked: bool = False, branch: str | None = None, start: str | None = None
) -> Guest:
    """`to` becomes a machine's folder, with the home in it."""
    shipment = make_shipment(path, include_untracked=include_untracked, branch=branch, start=start)
    machine, home = to / "machine", to / "root"
    machine.mkdir(parents=True)
    home.mkdir()
    archive = to / "home.tar"
    with shipment.pack(machine) as cargo:
        with archive.open("wb") as sink:
            write_cargo(cargo, sink)
        (home / ".gitconfig").write_text(cargo.gitconfig, "utf-8", "surrogateescape")
    unpack(archive, home)
    return Guest(home / "repo", home, machine)


def write_cargo(cargo: Cargo, sink: IO[bytes]) -> None:
    """As `pipelines/ext4.py` does for mke2fs."""
    with tarfile.open(
        fileobj=sink, mode="w|", format=tarfile.GNU_FORMAT, encoding="utf-8", errors="surrogateescape"
    ) as tar:
        cargo.write(tar)


def unpack(archive: Path, folder: Path) -> None:
    words = ["--no-same-owner", "--same-permissions", "--file", str(archive), "--directory", str(folder)]
    subprocess.run(["tar", "--extract", *words], check=True)


def walk(root: Path) -> Iterator[str]:
    for folder, folders, names in os.walk(root):
        if ".git" in folders:
            folders.remove(".git")
        links = [name for name in folders if (Path(folder) / name).is_symlink()]
        for name in [*names, *links]:
            yield str((Path(folder) / name).relative_to(root))


def read_all(root: Path) -> dict[str, tuple[int, int, str]]:
    """Every path below with its mode, its time and a digest of its content: what may not have changed.

    But for the times of objects and of a shared index: git renews those of what it finds in use, against its own `gc`.
    """
    found = {}
    for folder, folders, names in os.walk(root):
        for name in [".", *folders, *names]:
            place = Path(folder) / name
            about = place.lstat()
            content = b""
            if place.is_symlink():
                content = os.fsencode(place.readlink())
            elif place.is_file():
                content = place.read_bytes()
            digest = hashlib.sha256(content).hexdigest()
            is_renewed = place.is_file() and ("objects" in place.parts or name.startswith("sharedindex."))
            found[str(place.relative_to(root))] = (about.st_mode, 0 if is_renewed else about.st_mtime_ns, digest)
    return found


def list_objects(machine: Path) -> list[str]:
    """What a machine's folder keeps of what is in no commit."""
    return [str(path.relative_to(machine / OBJECTS)) for path in (machine / OBJECTS).rglob("*") if path.is_file()]
