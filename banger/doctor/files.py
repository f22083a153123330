"""The user's own files: the configuration, the folders, the database, and the room for them."""

from __future__ import annotations

import os
import stat
from collections.abc import Mapping
from pathlib import Path
from shlex import quote

from banger.doctor.finding import Check, Finding, Subject, failed, passed, warned
from banger.errors import BangerError, Reason
from banger.machine.glance import glance
from banger.machine.record import State
from banger.settings import config_path
from banger.sizes import format_bytes
from cache.layout import find_format

_LEAST_FREE_BYTES = 5 << 30


def check_configuration(subject: Subject) -> Finding:
    path = config_path(subject.paths)
    if subject.refusal is not None:
        return failed(subject.refusal.message, subject.refusal.hint or f"edit {path}")
    return passed(str(path) if path.exists() else f"there is no {path}: defaults count")


def check_state(subject: Subject) -> Finding:
    return _check_private(subject.paths.state, "remove it, or set XDG_STATE_HOME")


def check_runtime(subject: Subject) -> Finding:
    return _check_private(subject.paths.runtime, "remove it, or set XDG_RUNTIME_DIR to a folder of yours")


def check_store(subject: Subject) -> Finding:
    find_format(subject.paths.store)
    return _check_folder(subject.paths.store)


def check_space(subject: Subject) -> Finding:
    folders = {each.stat().st_dev: each for each in map(_find_parent, (subject.paths.store, subject.paths.state))}
    free_bytes, folder = min((_count_free(each), each) for each in folders.values())
    if free_bytes < _LEAST_FREE_BYTES:
        return warned(
            f"{format_bytes(free_bytes)} are free below {folder}: little for images",
            "free some; what banger takes: banger cache du",
        )
    return passed(f"{format_bytes(free_bytes)} free")


def check_links(subject: Subject) -> Finding:
    store, state = _find_parent(subject.paths.store), _find_parent(subject.paths.state)
    if store.stat().st_dev != state.stat().st_dev:
        return warned(
            f"{store} and {state} lie on different filesystems: images and machines are copies",
            "put both on one (XDG_CACHE_HOME, XDG_STATE_HOME)",
        )
    return passed("store and state share a filesystem: images and machines take no room of their own")


def check_database(subject: Subject) -> Finding:
    try:
        machines = glance(subject.paths.database)
    except BangerError as error:
        if error.reason is Reason.UNAVAILABLE:
            return warned(error.message, error.hint)
        raise
    running = sum(machine.state is State.RUNNING for machine in machines)
    return passed(f"{len(machines)} machines, {running} of them run")


def _check_private(folder: Path, fix: str) -> Finding:
    """Nobody else may have put it there (`ensure_private`)."""
    if os.path.lexists(folder):
        found = folder.lstat()
        if not stat.S_ISDIR(found.st_mode) or found.st_uid != os.geteuid():
            return failed(f"{folder} is not a folder of yours", fix)
    return _check_folder(folder)


def _check_folder(folder: Path) -> Finding:
    """It can be written to, or made where it is missing."""
    parent = _find_parent(folder)
    if not os.access(parent, os.W_OK | os.X_OK):
        return failed(f"{parent} may not be written to", f"see who owns it: ls -ld {quote(str(parent))}")
    return passed(str(folder) if parent == folder else f"{folder}, to be made")


def _find_parent(folder: Path) -> Path:
    """The folder, or the nearest above it that is there."""
    return next(each for each in (folder, *folder.parents) if each.exists())


def _count_free(folder: Path) -> int:
    """Bytes, for this user."""
    found = os.statvfs(folder)
    return found.f_bavail * found.f_frsize


CHECKS: Mapping[str, Check] = {
    "configuration": check_configuration,
    "state": check_state,
    "store": check_store,
    "runtime": check_runtime,
    "space": check_space,
    "hard links": check_links,
    "database": check_database,
}
