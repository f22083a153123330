"""What is remembered of a workspace, in a file beside the machine's disks."""

from __future__ import annotations

import json
from dataclasses import asdict, dataclass
from pathlib import Path

from banger.errors import BangerError, Reason

_FILE = "workspace.json"
# What was sent and is in no commit, as objects of git's.
OBJECTS = "workspace.git"


@dataclass(frozen=True)
class Workspace:
    """`root` is the work tree on the host; `commit` what was checked out, `tree` what was sent (with what was not
    committed); `branch` is None for a detached HEAD."""

    root: str
    commit: str | None
    tree: str
    branch: str | None
    include_untracked: bool = False


def write_workspace(machine: Path, workspace: Workspace) -> None:
    path = machine / _FILE
    fresh = path.with_suffix(".new")
    fresh.write_text(json.dumps(asdict(workspace), indent=1) + "\n")
    fresh.replace(path)


def find_workspace(machine: Path) -> Workspace | None:
    """None for a machine without one."""
    try:
        return Workspace(**json.loads((machine / _FILE).read_text()))
    except FileNotFoundError:
        return None
    except (ValueError, TypeError) as error:
        raise BangerError(f"{machine / _FILE} is damaged", reason=Reason.CORRUPT) from error
