"""git, run as a tool: no hooks, no optional writes, nothing of a caller's own git in the environment.

What a person's configuration says of content (line endings, filters) counts, since it says what a file is.
"""

from __future__ import annotations

import os
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import IO

from banger.run import Completed, run

# `git rev-parse --local-env-vars`, and what else leads git elsewhere: set where banger runs from a hook of git's.
_FOREIGN = (
    "GIT_ALTERNATE_OBJECT_DIRECTORIES",
    "GIT_ATTR_SOURCE",
    "GIT_CEILING_DIRECTORIES",
    "GIT_COMMON_DIR",
    "GIT_CONFIG",
    "GIT_CONFIG_COUNT",
    "GIT_CONFIG_PARAMETERS",
    "GIT_DEFAULT_REF_FORMAT",
    "GIT_DIR",
    "GIT_EXTERNAL_DIFF",
    "GIT_GLOB_PATHSPECS",
    "GIT_GRAFT_FILE",
    "GIT_ICASE_PATHSPECS",
    "GIT_IMPLICIT_WORK_TREE",
    "GIT_INDEX_FILE",
    "GIT_LITERAL_PATHSPECS",
    "GIT_NAMESPACE",
    "GIT_NOGLOB_PATHSPECS",
    "GIT_NO_REPLACE_OBJECTS",
    "GIT_OBJECT_DIRECTORY",
    "GIT_PREFIX",
    "GIT_QUARANTINE_PATH",
    "GIT_REPLACE_REF_BASE",
    "GIT_SHALLOW_FILE",
    "GIT_TEMPLATE_DIR",
    "GIT_WORK_TREE",
)
_ENVIRONMENT: Mapping[str, str | None] = {
    **dict.fromkeys(_FOREIGN),
    "GIT_OPTIONAL_LOCKS": "0",
    "GIT_NO_LAZY_FETCH": "1",
    "GIT_TERMINAL_PROMPT": "0",
    "LANGUAGE": None,
    "LC_ALL": "C.UTF-8",
}
_CONFIG = {
    "advice.addEmbeddedRepo": "false",
    "core.fsmonitor": "false",
    "core.hooksPath": "/dev/null",
    "core.safecrlf": "false",
    # Else any index that is written, also a copy elsewhere, leaves its larger part in the repository.
    "core.splitIndex": "false",
    "gc.auto": "0",
    "maintenance.auto": "false",
}


def plan_git(words: Sequence[str], at: Path) -> list[str]:
    options = [word for name, value in _CONFIG.items() for word in ("-c", f"{name}={value}")]
    return ["git", "-C", str(at), *options, *words]


def plan_environment(
    *, index: Path | None = None, objects: Path | None = None, alternates: Sequence[Path] = ()
) -> dict[str, str | None]:
    """For commands that use another index, or write objects elsewhere and still read those of `alternates`."""
    environment = dict(_ENVIRONMENT)
    if index is not None:
        environment["GIT_INDEX_FILE"] = str(index)
    if objects is not None:
        environment["GIT_OBJECT_DIRECTORY"] = str(objects)
    if alternates:
        environment["GIT_ALTERNATE_OBJECT_DIRECTORIES"] = os.pathsep.join(map(format_alternate, alternates))
    return environment


def run_git(
    words: Sequence[str],
    at: Path,
    *,
    environment: Mapping[str, str | None] | None = None,
    stdin: bytes | IO[bytes] | None = None,
    stdout: IO[bytes] | None = None,
    must_succeed: bool = True,
) -> Completed:
    """Run one git command in `at`. Raises COMMAND_FAILED with what it said."""
    return run(
        plan_git(words, at),
        env=_ENVIRONMENT if environment is None else environment,
        stdin=stdin,
        stdout=stdout,
        must_succeed=must_succeed,
    )


def ask_git(words: Sequence[str], at: Path, *, environment: Mapping[str, str | None] | None = None) -> str:
    """The one line that it answers."""
    return os.fsdecode(run_git(words, at, environment=environment).stdout).removesuffix("\n")


def find_git(words: Sequence[str], at: Path, *, environment: Mapping[str, str | None] | None = None) -> str | None:
    """As `ask_git`; None when the command says by its status that there is no answer."""
    done = run_git(words, at, environment=environment, must_succeed=False)
    return os.fsdecode(done.stdout).removesuffix("\n") if done.returncode == 0 else None


def split_names(output: bytes) -> list[str]:
    """NUL-terminated names."""
    return [os.fsdecode(name) for name in output.split(b"\0") if name]


def join_names(names: Sequence[str]) -> bytes:
    return b"".join(os.fsencode(name) + b"\0" for name in names)


def format_alternate(path: Path) -> str:
    """git(1), GIT_ALTERNATE_OBJECT_DIRECTORIES: odd characters are quoted as in C."""
    text = str(path)
    if text.isascii() and text.isprintable() and not set(text) & set(':;"\\'):
        return text
    return '"' + "".join(f"\\{byte:03o}" for byte in os.fsencode(text)) + '"'
