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
import stat
import tempfile
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from banger.errors import BangerError, Reason
from banger.run import printable
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
    with explained("look at the work tree", repository.root):
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
    _update_index(repository, environment, paths, there)
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
    """What git does not track in the place of a new file: a folder with other files, a socket, a symlinked folder,
    another repository."""
    if change.after is None:
        return False
    parts = change.path.split("/")
    for count in range(1, len(parts)):
        above = "/".join(parts[:count])
        place = repository.root / above
        kind = find_kind(place)
        if kind not in (Kind.FOLDER, Kind.MISSING):
            return kind is Kind.SPECIAL or above not in deleted
        if change.before is None and _is_repository(place):
            return True
    kind = find_kind(repository.root / change.path)
    if kind is Kind.FOLDER:
        return any(
            os.path.relpath(Path(folder) / name, repository.root) not in deleted
            for folder, folders, names in os.walk(repository.root / change.path)
            for name in [*names, *(each for each in folders if (Path(folder) / each).is_symlink())]
        )
    return kind is Kind.SPECIAL


def _is_repository(folder: Path) -> bool:
    """With files of its own, or bare (gitrepository-layout(5)), as the git folder of this one may be too."""
    return os.path.lexists(folder / ".git") or all((folder / name).exists() for name in ("HEAD", "objects", "refs"))


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
    new = [change.path for change in todo if change.after is not None]
    with (
        explained("write the changes", repository.root),
        _hold_index(repository) as lock,
        _make_aside(repository) as aside,
        contextlib.ExitStack() as undo,
    ):
        staged = _find_stageable(repository, todo)
        gone = [change.path for change in todo if change.before is not None]
        old = {aside / str(number): repository.root / path for number, path in enumerate(gone)}
        removed: dict[Path, int] = {}
        undo.callback(_unless_done, lock, _put_back, old, removed)
        for kept, place in old.items():
            if os.path.lexists(place):
                place.rename(kept)
        for path in new:
            _clear(repository.root / path, removed)
        # All that was there is aside: whatever is at these paths from now on was made here.
        missing = _find_missing(repository.root, new)
        undo.callback(_unless_done, lock, _take_away, repository.root, new, missing)
        run_git(
            ["checkout-index", "--force", "-z", "--stdin"],
            repository.root,
            environment={**environment, **_plan_no_filters(repository)},
            stdin=join_names(new),
        )
        for path in gone:
            # What was a folder may be a link now.
            if not is_behind_link(repository.root, path, {}):
                _remove_empty(repository.root, (repository.root / path).parent, removed)
        staged_gone = [path for path in gone if path in staged]
        staged_new = [path for path in new if path in staged]
        fresh = _make_index(repository, staged_gone, staged_new, scratch / "fresh-index")
        if fresh is not None:
            lock.write_bytes(fresh)
            lock.replace(_find_index(repository))
        undo.pop_all()
        shutil.rmtree(aside)


def _find_index(repository: Repository) -> Path:
    return find_place(repository.root, "index")


@contextlib.contextmanager
def _hold_index(repository: Repository) -> Iterator[Path]:
    """No other git changes the index meanwhile (gitrepository-layout(5): index.lock); ours becomes it by a rename."""
    index = _find_index(repository)
    lock = index.with_name("index.lock")
    try:
        mode = index.stat().st_mode & 0o777 if index.exists() else 0o666
        os.close(os.open(lock, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC, mode))
    except FileExistsError as error:
        raise BangerError(
            f"another git is at work in the repository; nothing was changed ({lock} is there)",
            reason=Reason.IN_USE,
            hint="when none runs there any more, remove that file",
        ) from error
    try:
        yield lock
    finally:
        lock.unlink(missing_ok=True)


def _make_index(repository: Repository, gone: Sequence[str], new: Sequence[str], path: Path) -> bytes | None:
    """The index without the ones and with the others as they are now; None when nothing of it is to change."""
    if not gone and not new:
        return None
    source = _find_index(repository)
    if source.exists():
        shutil.copy2(source, path)
    _update_index(repository, plan_environment(index=path), gone, new)
    return path.read_bytes()


def _update_index(
    repository: Repository, environment: Mapping[str, str | None], gone: Sequence[str], new: Sequence[str]
) -> None:
    # First what goes, and without a look at it: it may be behind a link now.
    for words, names in ((["--force-remove"], gone), (["--add", "--replace"], new)):
        run_git(
            ["update-index", *words, "-z", "--stdin"],
            repository.root,
            environment=environment,
            stdin=join_names(names),
        )


def _unless_done(lock: Path, undo: Callable[..., None], *arguments: object) -> None:
    """With the index in its place all is done, also when Ctrl-C comes just then."""
    if lock.exists():
        undo(*arguments)


def _put_back(old: dict[Path, Path], removed: dict[Path, int]) -> None:
    """Everything that can be; what cannot stays aside, and is named."""
    left = []
    for folder, mode in sorted(removed.items()):
        with contextlib.suppress(OSError):
            folder.mkdir()
            folder.chmod(mode)
    for kept, place in old.items():
        try:
            if os.path.lexists(kept):
                kept.rename(place)
        except OSError:
            left.append((kept, place))
    if left:
        lines = "\n".join(f"  {printable(str(kept))}: {printable(str(place))}" for kept, place in left)
        raise BangerError(
            f"the changes could not be written, and these files could not be moved back to where they were:\n{lines}",
            reason=Reason.IO,
            hint="move them back by hand",
        )


def _find_missing(root: Path, paths: Sequence[str]) -> list[Path]:
    """Folders that have to be made for these paths."""
    above = {parent for path in paths for parent in (root / path).relative_to(root).parents}
    return [root / folder for folder in above if find_kind(root / folder) is not Kind.FOLDER]


def _take_away(root: Path, paths: Sequence[str], folders: Sequence[Path]) -> None:
    for path in paths:
        if not is_behind_link(root, path, {}) and find_kind(root / path) in (Kind.FILE, Kind.SYMLINK):
            (root / path).unlink()
    for folder in sorted(folders, reverse=True):
        with contextlib.suppress(OSError):
            folder.rmdir()


def _find_stageable(repository: Repository, todo: Sequence[Change]) -> set[str]:
    found = _list_index(repository, None, {change.path for change in todo})
    return {change.path for change in todo if found.get(change.path) == change.before}


@contextlib.contextmanager
def _make_aside(repository: Repository) -> Iterator[Path]:
    """On the filesystem of the work tree, so that moving is all that it takes. It goes only when it is empty."""
    same = repository.git_dir.stat().st_dev == repository.root.stat().st_dev
    name = tempfile.mkdtemp(
        prefix="banger-apply-" if same else ".banger-apply-", dir=repository.git_dir if same else repository.root
    )
    try:
        yield Path(name)
    finally:
        with contextlib.suppress(OSError):
            Path(name).rmdir()


def _clear(place: Path, removed: dict[Path, int]) -> None:
    """Folders in the place of a file, of which all files are gone."""
    if find_kind(place) is Kind.FOLDER:
        for folder, _folders, _names in os.walk(place, topdown=False):
            _remove_folder(Path(folder), removed)


def _remove_empty(root: Path, folder: Path, removed: dict[Path, int]) -> None:
    """As git does with folders that have lost their last file."""
    while folder != root and find_kind(folder) in (Kind.FOLDER, Kind.MISSING):
        try:
            if find_kind(folder) is Kind.FOLDER:
                _remove_folder(folder, removed)
        except OSError:
            return
        folder = folder.parent


def _remove_folder(folder: Path, removed: dict[Path, int]) -> None:
    removed[folder] = stat.S_IMODE(folder.stat().st_mode)
    folder.rmdir()


def _plan_no_filters(repository: Repository) -> dict[str, str]:
    """Variables by which git has no smudge filters (git-config(1), GIT_CONFIG_COUNT: a name may hold any character)."""
    told = run_git(
        ["config", "--null", "--name-only", "--get-regexp", r"^filter\..*\.(smudge|process|required)$"],
        repository.root,
        must_succeed=False,
    ).stdout
    names = list(dict.fromkeys(split_names(told)))
    variables = {"GIT_CONFIG_COUNT": str(len(names))}
    for number, name in enumerate(names):
        variables[f"GIT_CONFIG_KEY_{number}"] = name
        variables[f"GIT_CONFIG_VALUE_{number}"] = "false" if name.endswith("required") else ""
    return variables
