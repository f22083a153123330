"""Which files of a work tree go: those that git tracks, and on demand those that it would not ignore.

What is listed is what is there now: a file that is only in the index is not, and neither is one behind a symlink, which
git does not take for a part of the work tree. Nothing is ever followed or opened here.
"""

from __future__ import annotations

import os
import stat
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from enum import StrEnum
from pathlib import Path

from banger.workspace.git import find_git, run_git, split_names
from banger.workspace.repository import Repository

_GITLINK = b"160000"


class Kind(StrEnum):
    """What is at a path. Of a selection's files a folder is that of a submodule which is not checked out."""

    FILE = "file"
    SYMLINK = "symlink"
    FOLDER = "folder"
    SPECIAL = "special"
    MISSING = "missing"


@dataclass(frozen=True)
class File:
    """`path` relative to the top of the work tree, as git writes it (slashes, any bytes as surrogates).

    `mtime_ns` is when it was last written, so that a later change is noticed; None for what was not looked at on disk.
    """

    path: str
    kind: Kind
    size_bytes: int
    mtime_ns: int | None = None


@dataclass(frozen=True)
class Selection:
    """`missing` are paths of the index that are not there; `submodules` those that another repository fills.

    `files` are sorted by name and hold those of submodules too. `skipped` is what is left out though it was asked for.
    """

    files: list[File]
    missing: list[str]
    submodules: list[str]
    skipped: list[str]

    @property
    def size_bytes(self) -> int:
        return sum(file.size_bytes for file in self.files)


def select(repository: Repository, *, include_untracked: bool) -> Selection:
    tracked = list_names(repository.root, "--cached")
    submodules = find_submodules(repository.root)
    files: dict[str, File] = {}
    missing: list[str] = []
    skipped: list[str] = []
    links: dict[str, bool] = {}
    in_index = set(tracked)

    def add(names: Iterable[str], root: Path, prefix: str = "") -> None:
        for name in names:
            path = prefix + name
            kind, found = (Kind.MISSING, None) if is_behind_link(root, name, links) else _look(root / name)
            if found is not None and kind in (Kind.FILE, Kind.SYMLINK):
                files[path] = File(path, kind, found.st_size if kind is Kind.FILE else 0, found.st_mtime_ns)
                continue
            if kind is Kind.SPECIAL:
                skipped.append(path)
            # To git a folder or a socket in the place of a file means that the file is gone.
            if path in in_index:
                missing.append(path)

    add((name for name in tracked if name not in submodules), repository.root)
    # git knows which of them are checked out.
    for name, inside in _list_submodule_files(repository.root, submodules, links):
        if inside is not None:
            add(inside, repository.root / name, f"{name}/")
        elif _is_folder(repository.root, name, links):
            files[name] = File(name, Kind.FOLDER, 0)
        else:
            # It is gone, or a file has come in its place.
            add([name], repository.root)
    if include_untracked:
        untracked = list_names(repository.root, "--others", "--exclude-standard")
        # A repository within that is no submodule: git would not take its files either.
        skipped += [name for name in untracked if name.endswith("/")]
        add((name for name in untracked if not name.endswith("/")), repository.root)
    return Selection([files[path] for path in sorted(files)], missing, sorted(submodules), sorted(set(skipped)))


def list_names(root: Path, *options: str) -> list[str]:
    """Each name once: one in conflict has up to three entries in the index."""
    return list(dict.fromkeys(split_names(run_git(["ls-files", "-z", *options], root).stdout)))


def find_submodules(root: Path) -> set[str]:
    entries = run_git(["ls-files", "-z", "--stage"], root).stdout.split(b"\0")
    return {os.fsdecode(entry.partition(b"\t")[2]) for entry in entries if entry.startswith(_GITLINK)}


def find_kind(place: Path) -> Kind:
    return _look(place)[0]


def _look(place: Path) -> tuple[Kind, os.stat_result | None]:
    try:
        found = place.lstat()
    except (FileNotFoundError, NotADirectoryError):
        return Kind.MISSING, None
    return get_kind(found.st_mode), found


def get_kind(mode: int) -> Kind:
    """From st_mode of inode(7)."""
    for is_it, kind in ((stat.S_ISREG, Kind.FILE), (stat.S_ISLNK, Kind.SYMLINK), (stat.S_ISDIR, Kind.FOLDER)):
        if is_it(mode):
            return kind
    return Kind.SPECIAL


def _list_submodule_files(
    root: Path, submodules: Iterable[str], links: dict[str, bool]
) -> Iterator[tuple[str, list[str] | None]]:
    """For each submodule the names of its files, from its own top; None where it is not checked out."""
    for name in sorted(submodules):
        place = root / name
        # Without a repository of its own there, git would answer for the one around it, of which the prefix tells.
        is_there = _is_folder(root, name, links) and (place / ".git").exists()
        if not is_there or find_git(["rev-parse", "--show-prefix"], place) != "":
            yield name, None
            continue
        inner = find_submodules(place)
        yield name, [each for each in list_names(place, "--cached") if each not in inner]
        for deeper, names in _list_submodule_files(place, inner, links):
            yield f"{name}/{deeper}", names


def _is_folder(root: Path, name: str, links: dict[str, bool]) -> bool:
    return not is_behind_link(root, name, links) and find_kind(root / name) is Kind.FOLDER


def is_behind_link(root: Path, name: str, known: dict[str, bool]) -> bool:
    """Whether a folder on the way is a symlink; `known` remembers folders."""
    folder = name.rpartition("/")[0]
    if not folder:
        return False
    key = f"{root}/{folder}"
    if key not in known:
        known[key] = is_behind_link(root, folder, known) or (root / folder).is_symlink()
    return known[key]
