"""Programs of the host, asked for their versions."""

from __future__ import annotations

import re

from banger.errors import BangerError
from banger.run import run

_VERSION = re.compile(rb"\d+(?:\.\d+)+(?:p\d+)?")
PATIENCE_S = 5.0


def find_version(program: str, question: str) -> str:
    """What a program answers to `--version` or the like; "of unknown version" when it gives no answer that has one."""
    try:
        said = run([program, question], must_succeed=False, timeout_s=PATIENCE_S)
    except (BangerError, OSError):
        return "of unknown version"
    found = _VERSION.search(said.stdout + said.stderr)
    return "of unknown version" if found is None else found[0].decode()


def parse_version(text: str) -> tuple[int, ...]:
    """`1.47.2` as numbers to compare; nothing for what is no version."""
    return tuple(int(part) for part in re.findall(r"\d+", text))
