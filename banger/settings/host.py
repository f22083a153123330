"""What a machine may take of this host when nobody says how large it is to be."""

from __future__ import annotations

import os

LEAST_VCPUS = 1
LEAST_MEMORY_MIB = 1024  # what the default image needs to be of use
_MOST_VCPUS = 4
_MOST_MEMORY_MIB = 8192
_STEP_MIB = 256
_MIB = 1 << 20


def find_vcpus() -> int | None:
    """A quarter of the host's processors, at most 4; None when that is none at all."""
    return _at_least(LEAST_VCPUS, min(_MOST_VCPUS, (os.cpu_count() or 0) // 4))


def find_memory_mib() -> int | None:
    """An eighth of the host's memory, at most 8 GiB; None when that is too little."""
    try:
        total_mib = os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES") // _MIB
    except (OSError, ValueError):
        return None
    return _at_least(LEAST_MEMORY_MIB, min(_MOST_MEMORY_MIB, total_mib // 8 // _STEP_MIB * _STEP_MIB))


def _at_least(least: int, found: int) -> int | None:
    return found if found >= least else None
