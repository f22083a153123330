"""Who holds what is in one user's cache, how large it may be, and when it is tidied by itself."""

from __future__ import annotations

import os
import time
from contextlib import suppress
from pathlib import Path
from urllib.parse import unquote

from banger.errors import BangerError
from banger.machine.record import Records
from banger.paths import Paths
from banger.settings import CacheSize
from cache import Collection, Policy, Store

_MIB = 1 << 20
_DAY_S = 24 * 3600
# Below the limit by so much, so that not every build has to tidy up after itself.
_ENOUGH = 0.9


def find_owners(paths: Paths) -> dict[str, Path]:
    """The folders that may hold links to objects, under what people call their owners.

    Folders whose owner nobody knows any more are there, too, by their own names. So are all machines' while their
    records cannot be read: what holds an object is the link, whatever it is called.
    """
    owners: dict[str, Path] = {}
    for names in (paths.images, paths.kernels):
        owners.update({f"{names.what} {unquote(folder.name)}": folder for folder in _list_folders(names.folder)})
    machines: dict[str, str] = {}
    with suppress(BangerError):
        if paths.database.exists():
            machines = {each.id: each.name for each in Records(paths.database).list()}
    for folder in _list_folders(paths.machines):
        owners[f"vm {machines.get(folder.name, folder.name)}"] = folder
    return owners


def get_limit_bytes(store: Path, size: CacheSize) -> int:
    if not size.percent:
        return size.mib * _MIB
    found = os.statvfs(store)
    return found.f_blocks * found.f_frsize * size.percent // 100


def collect_if_large(store: Store, paths: Paths, size: CacheSize) -> Collection | None:
    """Tidy up when the cache has grown beyond its limit. Costs next to nothing when it has not.

    None when nothing had to be done, or it cannot be done now, or another does it: that is no failure of what the user
    asked for.
    """
    try:
        limit_bytes = get_limit_bytes(store.root, size)
        growth = store.growth()
        if growth is not None and not growth.since_bytes:
            return None
        # What images give up by being deleted is nothing that comes, so somebody has to count now and then.
        is_counted = growth is not None and 0 <= time.time() - growth.counted_at < _DAY_S
        if growth is not None and is_counted and growth.estimate_bytes <= limit_bytes:
            return None
        policy = Policy(max_bytes=limit_bytes, enough_bytes=int(limit_bytes * _ENOUGH))
        return store.collect(policy, find_owners(paths), cancelled=lambda: True)
    except (BangerError, OSError):
        return None


def _list_folders(folder: Path) -> list[Path]:
    try:
        # One with a leading dot is being made.
        return sorted(each for each in folder.iterdir() if each.is_dir() and not each.name.startswith("."))
    except (FileNotFoundError, NotADirectoryError):
        return []
