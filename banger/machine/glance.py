"""A glance at the records: which machines there are, without making, changing or waiting for anything.

For what must not get into anybody's way: completion at a prompt, and `doctor`.
"""

from __future__ import annotations

import contextlib
import json
import sqlite3
from dataclasses import dataclass
from pathlib import Path
from urllib.parse import quote

from banger.errors import BangerError, Reason
from banger.machine.database import explained, refuse_newer
from banger.machine.record import State
from banger.vmm.process import ProcessId, is_alive


@dataclass(frozen=True)
class Glimpse:
    name: str
    state: State


def glance(path: Path) -> list[Glimpse]:
    """All machines by name; none where there is no database yet.

    Raises `BangerError` as `Records` does, and UNAVAILABLE at once where that would wait.
    """
    if not path.exists():
        return []
    with explained(path), contextlib.closing(_open(path)) as connection:
        version = connection.execute("PRAGMA user_version").fetchone()[0]
        refuse_newer(path, version)
        rows = connection.execute("SELECT name, record FROM machine ORDER BY name").fetchall() if version else []
    try:
        return [Glimpse(name, _find_state(record)) for name, record in rows]
    except (ValueError, KeyError, TypeError) as error:
        raise BangerError(f"{path} holds a record that makes no sense", reason=Reason.CORRUPT) from error


def _open(path: Path) -> sqlite3.Connection:
    return sqlite3.connect(f"file:{quote(str(path))}?mode=ro", timeout=0, uri=True)


def _find_state(record: str) -> State:
    values = json.loads(record)
    if values["creator"] is not None:
        return State.CREATING
    process = values["process"]
    return State.RUNNING if process is not None and is_alive(ProcessId(**process)) else State.STOPPED
