"""The program `bangerd`: the daemon in the foreground, as `banger daemon start` and systemd run it."""

from __future__ import annotations

import os
import sys
import time

from banger.daemon.daemon import run_daemon
from banger.daemon.diary import Diary
from banger.daemon.place import Place
from banger.errors import BangerError, Reason
from banger.machine.machines import Machines
from banger.machine.record import Records
from banger.paths import Paths
from banger.settings import load_settings

# A command that looks whether there is a daemon holds the lock for an instant.
_LOCK_S = 0.5
_POLL_S = 0.02


def main() -> None:
    """The console script. 0 also when there is a daemon already: what was wanted is so."""
    if sys.argv[1:]:
        print("usage: bangerd\nRuns in the foreground; see also: banger daemon --help", file=sys.stderr)
        sys.exit(0 if sys.argv[1:] in (["-h"], ["--help"]) else 2)
    try:
        again = _run()
    except BangerError as error:
        Diary().note("\n".join(filter(None, (error.message, error.hint))))
        sys.exit(1)
    sys.stderr.flush()
    if not again:
        # Not by way of Python's own end, which waits for threads that a guest may keep waiting.
        os._exit(0)
    os.execv(sys.executable, [sys.executable, "-I", "-m", "banger.daemon.main"])  # noqa: S606


def _run() -> bool:
    paths = Paths.from_environment()
    place = Place.of(paths)
    place.prepare()
    lock = _lock(place)
    if lock is None:
        Diary().note("there is a bangerd of this user already")
        return False
    try:
        records = Records(paths.database)
        if records.is_exclusive:
            # It would keep every command from deleting what fills the disk.
            raise BangerError("the disk is full", reason=Reason.NO_SPACE, hint="banger vm delete NAME")
        return run_daemon(Machines(records, paths, load_settings(paths)), place)
    finally:
        os.close(lock)


def _lock(place: Place) -> int | None:
    deadline = time.monotonic() + _LOCK_S
    while (lock := place.lock()) is None and time.monotonic() < deadline:
        time.sleep(_POLL_S)
    return lock


if __name__ == "__main__":
    main()
