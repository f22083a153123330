"""The code and the configuration that a process runs with, as one number: another means that there are newer ones."""

from __future__ import annotations

import contextlib
import os
from pathlib import Path

from banger.paths import Paths
from banger.settings.load import config_path

_ROOT = Path(__file__).parents[2]
_PACKAGES = ("banger", "cache", "catalog", "pipelines")


def fingerprint(paths: Paths) -> int | None:
    """Of sizes and times of all files; None when the code is not there (any more)."""
    found = []
    for package in _PACKAGES:
        for folder, _, names in os.walk(_ROOT / package):
            found += [os.path.join(folder, name) for name in names if name.endswith(".py")]  # noqa: PTH118 - often
    if not found:
        return None
    stamps: list[tuple[str, int, int]] = []
    for path in (*sorted(found), str(config_path(paths))):
        with contextlib.suppress(OSError):
            stat = os.stat(path)  # noqa: PTH116
            stamps.append((path, stat.st_size, stat.st_mtime_ns))
    return hash(tuple(stamps)) & 0xFFFF_FFFF_FFFF_FFFF
