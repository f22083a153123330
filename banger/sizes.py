"""Sizes as people write them: `4G`, `4GiB`, `512M`, or a bare number of MiB."""

from __future__ import annotations

import re

from banger.errors import BangerError, Reason

_SIZE = re.compile(r"^(?P<number>[0-9]{1,9})(?P<unit>[KMGT]?)(?:i?B)?$", re.IGNORECASE)
_MIB_OF = {"": 1, "M": 1, "G": 1024, "T": 1024 * 1024}


def parse_mib(text: str) -> int:
    """MiB of a size. Raises `BangerError` for zero, negative or unreadable ones."""
    match = _SIZE.fullmatch(text.strip())
    unit = match["unit"].upper() if match else "K"
    if match is None or unit not in _MIB_OF or int(match["number"]) == 0:
        raise BangerError(
            f"{text!r} is not a size", reason=Reason.BAD_INPUT, hint='write "4G", "4GiB", "512M", or a number of MiB'
        )
    return int(match["number"]) * _MIB_OF[unit]


def format_mib(size_mib: int) -> str:
    """The shortest exact form that `parse_mib` reads back."""
    for unit in ("T", "G"):
        if size_mib and size_mib % _MIB_OF[unit] == 0:
            return f"{size_mib // _MIB_OF[unit]}{unit}"
    return f"{size_mib}M"


def format_bytes(size_bytes: float) -> str:
    """For people: three figures and a binary unit."""
    for unit in ("B", "KiB", "MiB", "GiB"):
        if size_bytes < 1024:
            return f"{size_bytes:.0f} {unit}" if unit == "B" or size_bytes >= 100 else f"{size_bytes:.1f} {unit}"
        size_bytes /= 1024
    return f"{size_bytes:.1f} TiB"
