"""A guest's changes in the host's work tree: all of them, or none.

A path is touched only if the host has there what was sent, so nothing of the host's is ever lost; one that already has
the new content is left as it is. What is replaced is moved aside first, and back if anything fails. git writes the new
files: it follows no symlink, makes nothing outside of the work tree and nothing in .git; filters of the host's
configuration (smudge) are not run on what a guest wrote.

The index follows where it had what was sent; where the host had staged something else it stays.
"""

from __future__ import annotations

import contextlib
import os
import shutil
import tempfile
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from banger.errors import BangerError, Reason
from banger.sizes import format_bytes
from banger.workspace.changes import Change, Side, check_sizes, format_paths
from banger.workspace.git import join_names, plan_environment, run_git, split_names
from banger.workspace.repository import Repository, find_place
from banger.workspace.selection import Kind, find_kind, is_behind_link
from cache.failures import explained

_SPARE_BYTES = 16 << 20


@dataclass(frozen=True)
class Applied:
    """Paths that were written or taken away, and those that had the new content already."""

    written: list[str]
    same: list[str]


def apply_changes(repository: Repository, git: Path, tree: str, changes: Sequence[Change]) -> Applied:
    """Raises CHANGED naming the files that are not as they were sent, TOO_LARGE, NO_SPACE: nothing is changed then."""
    _check_room(repository, check_sizes(git, changes))
    scratch = git.parent
    now = look(repository, git, [change.path for change in changes], scratch / "now-index")
    deleted = {change.path for change in changes if change.after is None}
    conflicts = [
        change.path
        for change in changes
        if now.get(change.path) not in (change.before, change.after) or _is_in_the_way(repository, change, deleted)
    ]
    if conflicts:
        raise BangerError(
            f"these files are not as they were sent, or in the way; nothing was changed:\n{format_paths(conflicts)}",
            reason=Reason.CHANGED,
            hint="put them aside (git stash), or take the changes as a branch (--branch) or a patch (--output)",
        )
    todo = [change for change in changes if now.get(change.path) != change.after]
    same = [change.path for change in changes if now.get(change.path) == change.after]
    if todo:
        _write(repository, git, tree, todo, scratch)
    return Applied([change.path for change in todo], same)


def look(repository: Repository, git: Path, paths: Sequence[str], index: Path) -> dict[str, Side]:
    """What the work tree has at these paths, as git would add it; nothing for what is missing or behind a symlink.

    New objects go into `git`.
    """
    source = find_place(repository.root, "index")
    if source.exists():
        shutil.copy2(source, index)
    environment = plan_environment(index=index, objects=git / "objects", alternates=[repository.objects])
    links: dict[str, bool] = {}
    there = [path for path in paths if not is_behind_link(repository.root, path, links)]
    there = [path for path in there if find_kind(repository.root / path) in (Kind.FILE, Kind.SYMLINK)]
    for words, names in ((["--force-remove"], paths), (["--add", "--replace"], there)):
        run_git(
            ["update-index", *words, "-z", "--stdin"],
            repository.root,
            environment=environment,
            stdin=join_names(names),
        )
    return _list_index(repository, index, set(there))


def _list_index(repository: Repository, index: Path | None, wanted: set[str]) -> dict[str, Side]:
    found = {}
    environment = plan_environment(index=index)
    for entry in split_names(run_git(["ls-files", "-z", "--stage"], repository.root, environment=environment).stdout):
        head, _, path = entry.partition("\t")
        mode, digest, stage = head.split(" ")
        if path in wanted:
            found[path] = Side(mode, digest) if stage == "0" else Side("conflict", stage)
    return found


def _is_in_the_way(repository: Repository, change: Change, deleted: set[str]) -> bool:
    """What git does not track in the place of a new file: a folder with other files, a socket, a symlinked folder."""
    if change.after is None:
        return False
    parts = change.path.split("/")
    for count in range(1, len(parts)):
        above = "/".join(parts[:count])
        if find_kind(repository.root / above) not in (Kind.FOLDER, Kind.MISSING):
            return above not in deleted
    kind = find_kind(repository.root / change.path)
    if kind is Kind.FOLDER:
        return any(
            os.path.relpath(Path(folder) / name, repository.root) not in deleted
            for folder, folders, names in os.walk(repository.root / change.path)
            for name in [*names, *(each for each in folders if (Path(folder) / each).is_symlink())]
        )
    return kind is Kind.SPECIAL


def _check_room(repository: Repository, wanted_bytes: int) -> None:
    found = os.statvfs(repository.root)
    left = found.f_bavail * found.f_frsize
    if wanted_bytes + _SPARE_BYTES > left:
        raise BangerError(
            f"the changes take {format_bytes(wanted_bytes)}, and there are {format_bytes(left)} left",
            reason=Reason.NO_SPACE,
        )


def _write(repository: Repository, git: Path, tree: str, todo: Sequence[Change], scratch: Path) -> None:
    index = scratch / "after-index"
    environment = plan_environment(index=index, objects=git / "objects", alternates=[repository.objects])
    run_git(["read-tree", tree], repository.root, environment=environment)
    staged = _find_stageable(repository, todo)
    new = [change.path for change in todo if change.after is not None]
    with (
        explained("write the changes", repository.root),
        _make_aside(repository) as name,
        contextlib.ExitStack() as undo,
    ):
        aside = Path(name)
        old = {aside / str(number): repository.root / change.path for number, change in enumerate(todo)}
        undo.callback(_put_back, old)
        for kept, place in old.items():
            if os.path.lexists(place) and find_kind(place) is not Kind.FOLDER:
                place.rename(kept)
                _remove_empty(repository.root, place.parent)
        for path in new:
            _clear(repository.root / path)
        # All that was there is aside: whatever is at these paths from now on was made here.
        undo.callback(_take_away, repository.root, new)
        run_git(
            [*_plan_no_filters(repository), "checkout-index", "--force", "-z", "--stdin"],
            repository.root,
            environment=environment,
            stdin=join_names(new),
        )
        if staged:
            run_git(
                ["update-index", "--add", "--remove", "--replace", "-z", "--stdin"],
                repository.root,
                stdin=join_names(staged),
            )
        undo.pop_all()


def _put_back(old: dict[Path, Path]) -> None:
    for kept, place in old.items():
        if os.path.lexists(kept):
            place.parent.mkdir(parents=True, exist_ok=True)
            kept.rename(place)


def _take_away(root: Path, paths: Sequence[str]) -> None:
    for path in paths:
        if not is_behind_link(root, path, {}) and find_kind(root / path) in (Kind.FILE, Kind.SYMLINK):
            (root / path).unlink()
            _remove_empty(root, (root / path).parent)


def _find_stageable(repository: Repository, todo: Sequence[Change]) -> list[str]:
    found = _list_index(repository, None, {change.path for change in todo})
    return [change.path for change in todo if found.get(change.path) == change.before]


def _make_aside(repository: Repository) -> tempfile.TemporaryDirectory[str]:
    """On the filesystem of the work tree, so that moving is all that it takes."""
    same = repository.git_dir.stat().st_dev == repository.root.stat().st_dev
    return tempfile.TemporaryDirectory(
        prefix="banger-apply-" if same else ".banger-apply-", dir=repository.git_dir if same else repository.root
    )


def _clear(place: Path) -> None:
    """Folders in the place of a file, of which all files are gone."""
    if find_kind(place) is Kind.FOLDER:
        for folder, folders, _names in os.walk(place, topdown=False):
            for name in folders:
                (Path(folder) / name).rmdir()
        place.rmdir()


def _remove_empty(root: Path, folder: Path) -> None:
    """As git does with folders that have lost their last file."""
    while folder != root:
        try:
            folder.rmdir()
        except OSError:
            return
        folder = folder.parent


def _plan_no_filters(repository: Repository) -> list[str]:
    told = run_git(
        ["config", "--null", "--name-only", "--get-regexp", r"^filter\..*\.(smudge|process|required)$"],
        repository.root,
        must_succeed=False,
    ).stdout
    words = []
    for name in dict.fromkeys(split_names(told)):
        words += ["-c", f"{name}={'false' if name.endswith('required') else ''}"]
    return words
