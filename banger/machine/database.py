"""The one SQLite file behind the records: opened, brought up to date, and its refusals told in our words.

Its schema is made by numbered migrations, each in a transaction of its own; the number of the last one is the
database's `user_version`. A database of a newer banger is refused and left alone.
"""

from __future__ import annotations

import contextlib
import sqlite3
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from banger.errors import BangerError, Reason
from banger.machine.machine_lock import locked
from banger.paths import ensure_private

_BUSY_TIMEOUT_S = 30.0
# Never changed, only added to. A record is a JSON object: `Machine` in record.py.
_MIGRATIONS = (
    """
    CREATE TABLE machine (
        id TEXT PRIMARY KEY,
        name TEXT NOT NULL UNIQUE,
        address TEXT NOT NULL UNIQUE,
        record TEXT NOT NULL
    ) STRICT
    """,
    # When a machine was last used.
    "UPDATE machine SET record = json_set(record, '$.used_at', json_extract(record, '$.created_at'))",
)

_REASONS = {
    sqlite3.SQLITE_FULL: Reason.NO_SPACE,
    sqlite3.SQLITE_IOERR: Reason.IO,
    sqlite3.SQLITE_READONLY: Reason.NO_PERMISSION,
    sqlite3.SQLITE_CANTOPEN: Reason.NO_PERMISSION,
    sqlite3.SQLITE_PERM: Reason.NO_PERMISSION,
    sqlite3.SQLITE_BUSY: Reason.UNAVAILABLE,
    sqlite3.SQLITE_LOCKED: Reason.UNAVAILABLE,
    sqlite3.SQLITE_PROTOCOL: Reason.UNAVAILABLE,
    sqlite3.SQLITE_NOTADB: Reason.CORRUPT,
    sqlite3.SQLITE_CORRUPT: Reason.CORRUPT,
    # A table that is not there, or is there before it was made: somebody else's database.
    sqlite3.SQLITE_ERROR: Reason.CORRUPT,
}
_HINTS = {
    Reason.NO_SPACE: "free some disk space: banger vm delete NAME",
    Reason.IO: "see whether the disk is healthy",
    Reason.NO_PERMISSION: "see who owns it and its folder, and whether they are mounted read-only",
    Reason.UNAVAILABLE: "another banger is using it; try again",
    Reason.CORRUPT: "move it away to begin anew; the machines in it are then forgotten",
}


class Database:
    """One connection, for one thread at a time; the file is made with mode 0600 when missing."""

    def __init__(self, path: Path) -> None:
        ensure_private(path.parent)
        path.touch(mode=0o600)
        self.path = path
        # No other process can use it meanwhile.
        self.is_exclusive = False
        # SQLite waits for no one when it turns a new database to WAL ("database is locked"): one at a time here.
        with explained(path), locked(path.parent):
            self._open()

    def _open(self) -> None:
        try:
            self._connect("PRAGMA journal_mode=WAL")
        except sqlite3.OperationalError as error:
            if error.sqlite_errorcode != sqlite3.SQLITE_IOERR_SHMSIZE:
                raise
            # A full disk has no room for the index that processes share (`-shm`, made by the first to come). Alone it
            # needs none: so machines can be seen, and deleted to make room.
            self._connection.close()
            self._connect("PRAGMA locking_mode=EXCLUSIVE")
            self.is_exclusive = True
        # What is current already is only read, which needs no room.
        version = self._connection.execute("PRAGMA user_version").fetchone()[0]
        refuse_newer(self.path, version)
        for number, migration in enumerate(_MIGRATIONS[version:], version + 1):
            with self.transaction():
                self._connection.execute(migration)
                self._connection.execute(f"PRAGMA user_version={number}")

    def _connect(self, pragma: str) -> None:
        self._connection = sqlite3.connect(
            # The last step of the graph uses it from a thread of doit's, while this one waits.
            self.path,
            timeout=_BUSY_TIMEOUT_S,
            isolation_level=None,
            check_same_thread=False,
        )
        self._connection.execute(pragma)

    def close(self) -> None:
        self._connection.close()

    def execute(self, statement: str, *values: object) -> None:
        with explained(self.path):
            self._connection.execute(statement, values)

    def fetch(self, statement: str, *values: object) -> list[tuple[Any, ...]]:
        with explained(self.path):
            return self._connection.execute(statement, values).fetchall()

    def version(self) -> int:
        """Another number whenever another connection has changed something (pragma.html, "data_version")."""
        number: int = self.fetch("PRAGMA data_version")[0][0]
        return number

    @contextlib.contextmanager
    def transaction(self) -> Iterator[None]:
        # IMMEDIATE: what is read in it (free names, free addresses) is still true when it is written.
        with explained(self.path):
            self._connection.execute("BEGIN IMMEDIATE")
            try:
                yield
                self._connection.execute("COMMIT")
            finally:
                # SQLite has ended it itself after some errors; after others a COMMIT that failed leaves it open.
                if self._connection.in_transaction:
                    self._connection.execute("ROLLBACK")


def refuse_newer(path: Path, version: int) -> None:
    """Raises WRONG_STATE for a `user_version` that no migration of ours leads to."""
    if version > len(_MIGRATIONS):
        raise BangerError(
            f"{path} was written by a newer banger",
            reason=Reason.WRONG_STATE,
            hint="use that version, or move the file away to begin anew",
        )


@contextlib.contextmanager
def explained(path: Path) -> Iterator[None]:
    """Turn what SQLite refuses into a BangerError; what it says of a bug of ours passes as it is."""
    try:
        yield
    except sqlite3.DatabaseError as error:
        # The low byte is the kind, the rest says more of it: https://sqlite.org/rescode.html
        code = getattr(error, "sqlite_errorcode", sqlite3.SQLITE_MISUSE)
        reason = Reason.NO_SPACE if code == sqlite3.SQLITE_IOERR_SHMSIZE else _REASONS.get(code & 0xFF)
        if reason is None:
            raise
        raise BangerError(f"{path} cannot be used: {error}", reason=reason, hint=_HINTS.get(reason, "")) from error
