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
# From one that begins again, and the descriptor of the lock that it holds meanwhile.
_AGAIN = "--again"


def main() -> None:
    """The console script. 0 also when there is a daemon already: what was wanted is so."""
    match sys.argv[1:]:
        case []:
            lock = None
        case [word, number] if word == _AGAIN and number.isdecimal():
            lock = int(number)
            os.set_inheritable(lock, False)
        case words:
            print("usage: bangerd\nRuns in the foreground; see also: banger daemon --help", file=sys.stderr)
            sys.exit(0 if words in (["-h"], ["--help"]) else 2)
    try:
        lock = _run(lock)
    except BangerError as error:
        Diary().note("\n".join(filter(None, (error.message, error.hint))))
        sys.exit(1)
    sys.stderr.flush()
    if lock is None:
        # Not by way of Python's own end, which waits for threads that a guest may keep waiting.
        os._exit(0)
    # With the lock: nobody shall find that there is no daemon, and start another.
    os.set_inheritable(lock, True)
    os.execv(sys.executable, [sys.executable, "-I", "-m", "banger.daemon.main", _AGAIN, str(lock)])  # noqa: S606


def _run(lock: int | None) -> int | None:
    """With the lock, or without one yet. Gives it back if the daemon is to begin again; else the process is to end."""
    paths = Paths.from_environment()
    place = Place.of(paths)
    place.prepare()
    if lock is None:
        lock = _lock(place)
    if lock is None:
        Diary().note("there is a bangerd of this user already")
        return None
    records = Records(paths.database)
    if records.is_exclusive:
        # It would keep every command from deleting what fills the disk.
        raise BangerError("the disk is full", reason=Reason.NO_SPACE, hint="banger vm delete NAME")
    return lock if run_daemon(Machines(records, paths, load_settings(paths)), place) else None


def _lock(place: Place) -> int | None:
    deadline = time.monotonic() + _LOCK_S
    while (lock := place.lock()) is None and time.monotonic() < deadline:
        time.sleep(_POLL_S)
    return lock


if __name__ == "__main__":
    main()
