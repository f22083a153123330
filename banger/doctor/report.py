"""All checks, and the report that they make."""

from __future__ import annotations

import os
from collections.abc import Mapping
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass

from banger.doctor import files, guests, host, names, network, rights, tools
from banger.doctor.finding import Check, Finding, Subject, failed
from banger.errors import BangerError
from banger.paths import Paths
from banger.settings import load_configuration
from banger.settings.document import Document
from banger.settings.load import configure

_WORKERS = 8


@dataclass(frozen=True)
class Row:
    check: str
    finding: Finding


_CHECKS: Mapping[str, Check] = {
    **host.CHECKS,
    **tools.CHECKS,
    **rights.CHECKS,
    **network.CHECKS,
    **names.CHECKS,
    **files.CHECKS,
    **guests.CHECKS,
}


def examine(paths: Paths, environment: Mapping[str, str] = os.environ) -> list[Row]:
    """All rows, always the same ones in the same order."""
    try:
        subject = Subject(paths, load_configuration(paths, environment))
    except BangerError as error:
        subject = Subject(paths, configure(Document(), {}, {}), error)
    with ThreadPoolExecutor(_WORKERS) as pool:
        findings = pool.map(lambda check: _look(check, subject), _CHECKS.values())
        return [Row(name, finding) for name, finding in zip(_CHECKS, findings, strict=True)]


def _look(check: Check, subject: Subject) -> Finding:
    try:
        return check(subject)
    except BangerError as error:
        return failed(error.message, error.hint)
    except OSError as error:
        return failed(f"cannot be looked at: {error}")
