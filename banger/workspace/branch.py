"""The guest's work as commits on a new branch of the host's: nothing that is checked out changes."""

from __future__ import annotations

import os
from urllib.parse import quote

from banger.errors import BangerError, Reason
from banger.workspace.collect import GuestState
from banger.workspace.git import ask_git, find_git, plan_environment, run_git
from banger.workspace.repository import Repository, check_branch_name, find_author

_BRANCHES = "refs/heads/"


def check_new_branch(repository: Repository, name: str) -> None:
    """Raises BAD_INPUT or ALREADY_EXISTS."""
    check_branch_name(repository, name)
    if find_git(["rev-parse", "-q", "--verify", f"{_BRANCHES}{name}"], repository.root) is not None:
        raise BangerError(
            f"there is a branch {name!r} already", reason=Reason.ALREADY_EXISTS, hint="choose another name for it"
        )


def make_branch(repository: Repository, state: GuestState, name: str, message: str) -> str:
    """Commits of the guest's keep their authors and messages; what is not committed there becomes one more, of the
    host's user, with this message. Gives the last commit."""
    check_new_branch(repository, name)
    last = state.head
    if last is None or ask_git(["rev-parse", f"{last}^{{tree}}"], state.git) != state.tree:
        last = _commit(repository, state, message)
    settings = ["-c", "fetch.fsckObjects=true", "-c", "protocol.file.allow=always", "-c", "protocol.version=2"]
    options = ["-q", "--no-tags", "--no-write-fetch-head", "--no-auto-maintenance", "--no-recurse-submodules"]
    url = "file://" + quote(os.fsencode(state.git))
    run_git([*settings, "fetch", *options, url, f"{last}:{_BRANCHES}{name}"], repository.root)
    return last


def _commit(repository: Repository, state: GuestState, message: str) -> str:
    author = find_author(repository)
    environment = plan_environment()
    for role in ("AUTHOR", "COMMITTER"):
        environment[f"GIT_{role}_NAME"] = author.name or "banger"
        environment[f"GIT_{role}_EMAIL"] = author.email or "banger@localhost"
    parents = [] if state.head is None else ["-p", state.head]
    return ask_git(["commit-tree", *parents, "-m", message, state.tree], state.git, environment=environment)
