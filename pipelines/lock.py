"""A lock: what a suite's packages were when the archive was asked. {suite, epoch, packages: [{name, version, …}]}.

A lock may come from a remote cache, and its words become arguments of programs: it is read strictly.
"""

from __future__ import annotations

import json
import re
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from banger.errors import BangerError, Reason
from pipelines.job import Job

# Debian Policy, 5.6.1 and 5.6.12.
_NAME = re.compile(r"[a-z0-9][a-z0-9+.-]+")
_VERSION = re.compile(r"[0-9][A-Za-z0-9.+:~-]*")
_SUITE = re.compile(r"[a-z][a-z0-9-]{0,63}")
_LAST_EPOCH = 1 << 33


@dataclass(frozen=True)
class Lock:
    """`epoch` is the date of the suite's release in seconds; `pins` are `name=version`, as apt-get(8) takes them."""

    suite: str
    epoch: int
    pins: Sequence[str]


def read_lock(job: Job) -> Lock:
    """The job's input `lock`. Raises CORRUPT for anything else."""
    return parse_lock(job.input("lock").read_bytes())


def parse_lock(data: bytes) -> Lock:
    try:
        found: Any = json.loads(data)
        lock = Lock(
            suite=_match(_SUITE, found["suite"]),
            epoch=_parse_epoch(found["epoch"]),
            pins=tuple(
                f"{_match(_NAME, each['name'])}={_match(_VERSION, each['version'])}" for each in found["packages"]
            ),
        )
    except (ValueError, KeyError, TypeError, RecursionError) as error:
        raise BangerError("a lock of packages is damaged", reason=Reason.CORRUPT) from error
    return lock


def _match(pattern: re.Pattern[str], text: object) -> str:
    if not isinstance(text, str) or pattern.fullmatch(text) is None:
        raise ValueError
    return text


def _parse_epoch(number: object) -> int:
    if not isinstance(number, int) or isinstance(number, bool) or not 0 <= number < _LAST_EPOCH:
        raise ValueError
    return number
