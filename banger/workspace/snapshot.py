"""What is sent, as a tree of git's: exactly the listed files, as they are now.

The tree is the base of all that comes back. What it is made of that the host's repository does not have (files that
were never committed) is put into a folder of objects beside the machine, never into the repository.
"""

from __future__ import annotations

import os
import shutil
import time
from dataclasses import dataclass, replace
from pathlib import Path

from banger.workspace.git import ask_git, join_names, plan_environment, run_git, split_names
from banger.workspace.repository import Repository, find_place
from banger.workspace.selection import File, Kind, Selection

# What git compares of a file in the guest: nobody wrote it there, its time and size are the host's and the rest is not.
COMPARED = {"core.trustctime": "false", "core.checkStat": "minimal"}

_GITLINK = "160000"
_KINDS = {"120000": Kind.SYMLINK, _GITLINK: Kind.FOLDER}


@dataclass(frozen=True)
class Snapshot:
    """`tree` is what was sent; `index` a copy of the host's index, fit for another host (None where there is none)."""

    tree: str
    index: Path | None


def take_snapshot(repository: Repository, selection: Selection, objects: Path, scratch: Path) -> Snapshot:
    """`objects` gets what only the snapshot has; `scratch` is a folder for the indexes."""
    index = copy_index(repository, scratch / "index")
    own = scratch / "snapshot-index"
    if index is not None:
        shutil.copy2(index, own)
    return Snapshot(write_tree(repository, selection, own, objects), index)


def copy_index(repository: Repository, copy: Path) -> Path | None:
    """A whole index without what is only meant for this host (split, untracked cache, monitor)."""
    source = find_place(repository.root, "index")
    if not source.exists():
        return None
    # With its time, which says of which entries git has to look at the content.
    shutil.copy2(source, copy)
    environment = plan_environment(index=copy)
    change = ["-c", "index.sparse=false", "update-index", "-q", "--force-write-index"]
    change += ["--no-split-index", "--no-untracked-cache", "--no-fsmonitor"]
    # What was only touched is found unchanged here, where the filters are that can tell.
    run_git([*change, "--unmerged", "--refresh"], repository.root, environment=environment)
    if unseen := _list_unseen(repository, copy):
        run_git([*change, "-z", "--index-info"], repository.root, environment=environment, stdin=join_names(unseen))
    return copy


def _list_unseen(repository: Repository, index: Path) -> list[str]:
    """The entries of files that the host knows to be changed by their inodes alone, which the guest cannot compare.

    As update-index takes them; it gives them neither time nor size, so git looks at the content.
    """
    # As young as the guest's will be.
    os.utime(index, (time.time() + 1, time.time() + 1))
    seen = set(_list_dirty(repository, index, [f"{key}={value}" for key, value in COMPARED.items()]))
    return [entry for entry in _list_dirty(repository, index, []) if entry not in seen]


def _list_dirty(repository: Repository, index: Path, settings: list[str]) -> list[str]:
    words = [word for setting in settings for word in ("-c", setting)]
    words += ["diff-files", "--raw", "-z", "--ignore-submodules=all"]
    listed = run_git(words, repository.root, environment=plan_environment(index=index)).stdout
    # git-diff-files(1), RAW OUTPUT FORMAT: ":mode mode object object status", then the path.
    fields = iter(split_names(listed))
    dirty: dict[str, str | None] = {}
    for head, path in zip(fields, fields, strict=True):
        mode, _, name, _, status = head.removeprefix(":").split(" ")
        # One in conflict comes twice, first as such, and stays as it is.
        dirty.setdefault(path, f"{mode} {name}\t{path}" if status in ("M", "T") else None)
    return [entry for entry in dirty.values() if entry is not None]


def write_tree(repository: Repository, selection: Selection, index: Path, objects: Path) -> str:
    """The tree of the listed files, over what `index` holds of the rest: submodules, what is not checked out."""
    environment = plan_environment(index=index, objects=objects, alternates=[repository.objects])
    # Files of submodules are another repository's.
    inside = tuple(f"{name}/" for name in selection.submodules)
    names = [each.path for each in selection.files if each.kind is not Kind.FOLDER and not each.path.startswith(inside)]
    gone = _list_gone(repository, selection, index)
    if selection.submodules and index.exists():
        _settle_submodules(repository, index)
    for words, paths in ((["--force-remove"], gone), (["--add", "--replace"], names)):
        if paths:
            run_git(
                ["update-index", *words, "-z", "--stdin"],
                repository.root,
                environment=environment,
                stdin=join_names(paths),
            )
    return ask_git(["write-tree"], repository.root, environment=environment)


def _settle_submodules(repository: Repository, index: Path) -> None:
    """Of those in conflict, the commit of the branch that is checked out: a tree needs one."""
    environment = plan_environment(index=index)
    listed = run_git(["ls-files", "-z", "--unmerged"], repository.root, environment=environment).stdout
    # git-ls-files(1): "mode object stage", then the path; the sides come in the order of their stages, 2 is ours.
    sides: dict[str, dict[str, str]] = {}
    for entry in split_names(listed):
        head, _, path = entry.partition("\t")
        mode, name, stage = head.split(" ")
        if mode == _GITLINK:
            sides.setdefault(path, {})[stage] = name
    lines = [f"{_GITLINK} {found.get('2') or found.get('3') or found['1']}\t{path}" for path, found in sides.items()]
    if lines:
        words = ["update-index", "-z", "--index-info"]
        run_git(words, repository.root, environment=environment, stdin=join_names(lines))


def _list_gone(repository: Repository, selection: Selection, index: Path) -> list[str]:
    """What is missing and should not be: not those that a sparse checkout leaves out."""
    if not selection.missing or not index.exists():
        return []
    tagged = run_git(["ls-files", "-z", "-t"], repository.root, environment=plan_environment(index=index)).stdout
    kept = {os.fsdecode(entry[2:]) for entry in tagged.split(b"\0") if entry.startswith(b"S ")}
    return [name for name in selection.missing if name not in kept]


def take_commit(repository: Repository, commit: str, scratch: Path) -> tuple[Selection, Snapshot, Path]:
    """The files of a commit instead of those of the work tree; they are put into a folder, the way git checks out."""
    contents = scratch / "contents"
    contents.mkdir()
    index = scratch / "index"
    environment = plan_environment(index=index)
    run_git(["read-tree", commit], repository.root, environment=environment)
    # --index: the time and size of each file are what git will look at. It needs a work tree, no --prefix.
    places = {"GIT_DIR": str(repository.git_dir), "GIT_WORK_TREE": str(contents)}
    run_git(["checkout-index", "--all", "--index"], contents, environment={**environment, **places})
    files = [_measure(contents, file) for file in list_commit(repository, commit)]
    tree = ask_git(["rev-parse", f"{commit}^{{tree}}"], repository.root)
    return Selection(files, [], [], []), Snapshot(tree, index), contents


def list_commit(repository: Repository, commit: str) -> list[File]:
    """The files of a commit, with the sizes that they have in it."""
    entries = run_git(["ls-tree", "-r", "-z", "--long", "--full-tree", commit], repository.root).stdout
    files = []
    for entry in split_names(entries):
        head, _, path = entry.partition("\t")
        mode, _kind, _digest, size = head.split()
        kind = _KINDS.get(mode, Kind.FILE)
        files.append(File(path, kind, int(size) if kind is Kind.FILE else 0))
    return sorted(files, key=lambda file: file.path)


def _measure(contents: Path, file: File) -> File:
    """Line endings and filters may have changed it on the way out."""
    if file.kind is Kind.FOLDER:
        return file
    found = (contents / file.path).lstat()
    return replace(file, size_bytes=found.st_size if file.kind is Kind.FILE else 0, mtime_ns=found.st_mtime_ns)
