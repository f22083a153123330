"""Changes as a patch that git takes anywhere, and as a summary for people."""

from __future__ import annotations

from pathlib import Path
from typing import IO

from banger.run import printable
from banger.workspace.git import run_git

# Nothing of a person's configuration, of colours or of helper programs has a part in it.
_PLAIN = ("-M", "--no-color", "--no-ext-diff", "--no-textconv", "--ignore-submodules=all")


def write_patch(git: Path, before: str, after: str, sink: IO[bytes]) -> None:
    """git-diff(1), "Generating patch text": binary-safe, with modes and renames, whole object names."""
    options = ["-p", "--binary", "--full-index", "--src-prefix=a/", "--dst-prefix=b/", *_PLAIN]
    run_git(["diff-tree", "-r", *options, before, after], git, stdout=sink)


def format_summary(git: Path, before: str, after: str) -> str:
    """As `git diff --stat --summary` has it; names are quoted. Empty for no change."""
    told = run_git(["diff-tree", "-r", "--stat=100", "--summary", *_PLAIN, before, after], git).stdout
    lines = told.decode("utf-8", "backslashreplace").splitlines()
    return "".join(f"{printable(line)}\n" for line in lines)
