"""What a path on the host is to git: a work tree with a repository, or something that is refused.

Looking changes nothing there, not even the index.
"""

from __future__ import annotations

import os
import re
import stat
from dataclasses import dataclass
from pathlib import Path

from banger.errors import BangerError, Reason
from banger.run import printable
from banger.workspace.git import ask_git, find_git, run_git

_BRANCHES = "refs/heads/"
# gitremote-helpers(7): a helper may be named before the URL, "https::https://…". A host begins after the last @.
_URL = re.compile(
    r"(?P<helper>(?:[A-Za-z0-9-]+::)*)(?P<scheme>[A-Za-z][A-Za-z0-9+.-]*)://"
    r"(?:(?P<user>[^/:]*)(?::[^/]*)?@)?(?P<rest>.*)",
    re.DOTALL,
)


@dataclass(frozen=True)
class Repository:
    """`root` is the top of the work tree; `head` the commit that is checked out (None before the first).

    `branch` is without refs/heads/, None when HEAD is detached; `objects` is where its objects are.
    """

    root: Path
    git_dir: Path
    objects: Path
    object_format: str
    head: str | None
    branch: str | None


@dataclass(frozen=True)
class Author:
    """git's user.name and user.email; empty where there is none."""

    name: str
    email: str


def open_repository(path: Path) -> Repository:
    """From any folder inside a work tree. Raises BAD_INPUT for what is none, with why."""
    _check_folder(path)
    told = run_git(["rev-parse", "--is-bare-repository", "--is-inside-work-tree"], path, must_succeed=False)
    if told.returncode != 0:
        raise _explain(path, told.stderr.decode("utf-8", "replace"))
    is_bare, is_inside = told.stdout.split()
    if is_inside != b"true":
        what = "a bare repository" if is_bare == b"true" else "inside a .git folder"
        raise BangerError(
            f"{_show(path)} is {what}: there are no files to work on",
            reason=Reason.BAD_INPUT,
            hint="name a folder with a work tree (git worktree add, git clone)",
        )
    root = Path(ask_git(["rev-parse", "--show-toplevel"], path))
    branch = find_git(["symbolic-ref", "-q", "HEAD"], root)
    return Repository(
        root=root,
        git_dir=Path(ask_git(["rev-parse", "--absolute-git-dir"], root)),
        objects=find_place(root, "objects"),
        object_format=ask_git(["rev-parse", "--show-object-format"], root),
        head=find_git(["rev-parse", "-q", "--verify", "HEAD^{commit}"], root),
        branch=branch.removeprefix(_BRANCHES) if branch is not None and branch.startswith(_BRANCHES) else None,
    )


def find_place(root: Path, name: str) -> Path:
    """Where something of the repository is, also in a linked work tree; whether it exists or not."""
    return root / ask_git(["rev-parse", "--git-path", name], root)


def get_commit(repository: Repository, text: str) -> str:
    """The commit that a revision stands for. Raises NOT_FOUND."""
    found = find_git(["rev-parse", "-q", "--verify", "--end-of-options", f"{text}^{{commit}}"], repository.root)
    if found is None:
        raise BangerError(
            f"{printable(text)!r} is no commit of {_show(repository.root)}",
            reason=Reason.NOT_FOUND,
            hint="see: git log --all --oneline",
        )
    return found


def check_branch_name(repository: Repository, name: str) -> str:
    """Raises BAD_INPUT for what git would not take as the name of a branch."""
    if name.startswith("-") or find_git(["check-ref-format", "--branch", name], repository.root) != name:
        raise BangerError(
            f"{printable(name)!r} is no name for a branch",
            reason=Reason.BAD_INPUT,
            hint="see: git help check-ref-format",
        )
    return name


def find_author(repository: Repository) -> Author:
    return Author(
        find_git(["config", "--get", "user.name"], repository.root) or "",
        find_git(["config", "--get", "user.email"], repository.root) or "",
    )


def find_origin(repository: Repository) -> str | None:
    """The URL of the remote that is called origin, without credentials."""
    url = find_git(["config", "--get", "remote.origin.url"], repository.root)
    return None if url is None else remove_credentials(url)


def remove_credentials(url: str) -> str:
    """Passwords go from every URL; names from those of http too, where a name may be a token."""
    found = _URL.fullmatch(url)
    if found is None:
        return url
    user = found["user"] if found["user"] and not found["scheme"].lower().startswith("http") else ""
    return f"{found['helper']}{found['scheme']}://{user}{'@' if user else ''}{found['rest']}"


def _check_folder(path: Path) -> None:
    hint = "name a folder of a git repository: banger vm run ./repo"
    try:
        is_folder = stat.S_ISDIR(path.stat().st_mode)
    except (FileNotFoundError, NotADirectoryError) as error:
        raise BangerError(f"{_show(path)} is not there", reason=Reason.NOT_FOUND, hint=hint) from error
    except OSError as error:
        raise BangerError(f"cannot read {_show(path)}: {error.strerror}", reason=Reason.IO, hint=hint) from error
    if not is_folder:
        raise BangerError(f"{_show(path)} is no folder", reason=Reason.BAD_INPUT, hint=hint)


def _explain(path: Path, said: str) -> BangerError:
    if "dubious ownership" in said:
        return BangerError(
            f"git does not trust {_show(path)}, which belongs to somebody else",
            reason=Reason.NO_PERMISSION,
            hint=f"if you do: git config --global --add safe.directory {_show(path.resolve())}",
        )
    if "not a git repository" in said:
        return BangerError(
            f"{_show(path)} is not in a git repository",
            reason=Reason.BAD_INPUT,
            hint="make it one (git init), or leave the path out for a machine without a workspace",
        )
    return BangerError(f"git cannot read {_show(path)}: {printable(said.strip())[:300]}", reason=Reason.COMMAND_FAILED)


def _show(path: Path) -> str:
    return printable(os.fsencode(path).decode("utf-8", "replace"))
