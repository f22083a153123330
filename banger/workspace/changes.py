"""What lies between two trees of git's, as a list in which no path leads out of the repository."""

from __future__ import annotations

import os
import subprocess
import tempfile
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from banger.errors import BangerError, Reason
from banger.run import check, printable, start
from banger.sizes import format_bytes
from banger.workspace.git import plan_environment, plan_git, run_git, split_names

_ABSENT = "000000"
_GITLINK = "160000"
_MODES = ("100644", "100755", "120000")
_MAX_FILE_BYTES = 1 << 30
_MAX_TOTAL_BYTES = 4 << 30
_MAX_FILES = 1_000_000
_MAX_DEPTH = 500


@dataclass(frozen=True)
class Side:
    """What is at a path in one of the trees."""

    mode: str
    digest: str


@dataclass(frozen=True)
class Change:
    """None is nothing: a path that is new, or gone."""

    path: str
    before: Side | None
    after: Side | None


def list_changes(git: Path, before: str, after: str) -> tuple[list[Change], list[str]]:
    """Changed paths, sorted, and those that are left out since they are repositories of their own (submodules).

    Raises CORRUPT for a path or a kind of file that git would not make either, TOO_LARGE for too many to look at.
    """
    _check_count(git, after)
    raw = run_git(["diff-tree", "-r", "-z", "--raw", "--no-renames", "--no-abbrev", before, after], git).stdout
    fields = split_names(raw)
    changes, skipped = [], []
    for head, path in zip(fields[::2], fields[1::2], strict=True):
        # git-diff-tree(1), "Raw output format": ":mode mode object object status", then the path.
        mode_before, mode_after, digest_before, digest_after, _status = head[1:].split(" ")
        if _GITLINK in (mode_before, mode_after):
            skipped.append(path)
            continue
        check_path(path)
        for mode in (mode_before, mode_after):
            if mode not in (*_MODES, _ABSENT):
                raise BangerError(f"{printable(path)!r} is of a mode that git does not have", reason=Reason.CORRUPT)
        changes.append(Change(path, _side(mode_before, digest_before), _side(mode_after, digest_after)))
    return changes, skipped


def _check_count(git: Path, tree: str) -> None:
    """A few small trees that hold each other stand for more files than there is memory for. `ls-tree` counts them one
    by one; nothing that has to remember them may be asked before."""
    argv = plan_git(["ls-tree", "-r", "-z", "--name-only", tree], git)
    files = 0
    with (
        tempfile.TemporaryFile() as said,
        start(argv, stdout=subprocess.PIPE, stderr=said, env=plan_environment()) as child,
    ):
        assert child.stdout is not None
        while block := child.stdout.read(1 << 16):
            files += block.count(0)
            if files > _MAX_FILES:
                raise BangerError(
                    f"the changes are too large: there are more than {_MAX_FILES} files in the machine's work tree",
                    reason=Reason.TOO_LARGE,
                    hint="have git ignore in the machine what is made there",
                )
        status = child.wait()
        said.seek(0)
        check(argv, status, said.read())


def check_path(path: str) -> str:
    parts = path.split("/")
    is_bad = any(part in ("", ".", "..") or part.lower() == ".git" for part in parts) or "\0" in path
    if is_bad or len(parts) > _MAX_DEPTH:
        raise BangerError(f"{printable(path)[:200]!r} is no path for a repository", reason=Reason.CORRUPT)
    return path


def check_sizes(git: Path, changes: Sequence[Change]) -> int:
    """The bytes of all that is new; raises TOO_LARGE past the limits, before any of it is written."""
    wanted = {change.after.digest: change.path for change in changes if change.after is not None}
    told = run_git(
        ["cat-file", "--batch-check=%(objectname) %(objecttype) %(objectsize)"],
        git,
        stdin="".join(f"{digest}\n" for digest in wanted).encode(),
    ).stdout
    sizes = {}
    for line in told.decode("ascii").splitlines():
        digest, kind, *size = line.split(" ")
        if kind != "blob":
            raise BangerError(f"{printable(wanted[digest])!r} has no content", reason=Reason.CORRUPT)
        sizes[digest] = int(size[0])
    total = 0
    for change in changes:
        size_bytes = 0 if change.after is None else sizes[change.after.digest]
        # The same content at many paths is written as often.
        total += size_bytes
        if size_bytes > _MAX_FILE_BYTES or total > _MAX_TOTAL_BYTES:
            raise BangerError(
                f"the changes are too large: {printable(change.path)!r} has {format_bytes(size_bytes)}",
                reason=Reason.TOO_LARGE,
                hint="copy large files with scp, or have git ignore them in the machine",
            )
    return total


def format_paths(paths: Sequence[str], most: int = 10) -> str:
    """For a message: a line each, safe for a terminal."""
    lines = [f"  {printable(os.fsencode(path).decode('utf-8', 'backslashreplace'))}" for path in paths[:most]]
    return "\n".join([*lines, *([f"  and {len(paths) - most} more"] if len(paths) > most else [])])


def _side(mode: str, digest: str) -> Side | None:
    return None if mode == _ABSENT else Side(mode, digest)
