"""What a check comes to."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from enum import StrEnum

from banger.errors import BangerError
from banger.network import DEFAULT_SUBNET, Subnet
from banger.paths import Paths
from banger.settings import Configuration, Settings


class Status(StrEnum):
    """FAIL: something that banger is for does not work. WARN: it works, but slower, or not all of it."""

    PASS = "PASS"  # noqa: S105
    WARN = "WARN"
    FAIL = "FAIL"


@dataclass(frozen=True)
class Finding:
    """`detail` is one line; `fix` is what to do, a command where one does it."""

    status: Status
    detail: str
    fix: str = ""


@dataclass(frozen=True)
class Subject:
    """What is looked at. Of a configuration that is refused (`refusal`), the defaults count."""

    paths: Paths
    configuration: Configuration
    refusal: BangerError | None = None
    subnet: Subnet = DEFAULT_SUBNET

    @property
    def settings(self) -> Settings:
        return self.configuration.settings()


# Changes nothing. What it raises as a `BangerError` is a FAIL.
Check = Callable[[Subject], Finding]


def passed(detail: str) -> Finding:
    return Finding(Status.PASS, detail)


def warned(detail: str, fix: str = "") -> Finding:
    return Finding(Status.WARN, detail, fix)


def failed(detail: str, fix: str = "") -> Finding:
    return Finding(Status.FAIL, detail, fix)
