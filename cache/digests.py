"""What a thing in the store is called: the BLAKE3 of its bytes, and for objects also how many bytes they are.

A digest that went through `parse_digest` is 64 hexadecimal digits and nothing else, so it can be made into a path
without a second thought. `Object` and every path in `layout` see to it, wherever the text came from.
"""

from __future__ import annotations

import re
from dataclasses import dataclass
from typing import NewType

from banger.errors import BangerError, Reason

Digest = NewType("Digest", str)

_DIGEST = re.compile("[0-9a-f]{64}")


@dataclass(frozen=True)
class Object:
    """An immutable file in the store. The size is its check against truncation that costs no more than a stat."""

    digest: Digest
    size_bytes: int

    def __post_init__(self) -> None:
        parse_digest(self.digest)
        if self.size_bytes < 0:
            raise BangerError(f"an object cannot have {self.size_bytes} bytes", reason=Reason.BAD_INPUT)


def parse_digest(text: str) -> Digest:
    """Refuse anything but the one spelling of a digest: no upper case, no white space, no prefix."""
    if _DIGEST.fullmatch(text) is None:
        raise BangerError(
            f"not a digest: {text[:80]!r}", reason=Reason.BAD_INPUT, hint="a digest is 64 lower-case hexadecimal digits"
        )
    return Digest(text)


def is_digest(text: str) -> bool:
    return _DIGEST.fullmatch(text) is not None
