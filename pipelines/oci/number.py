"""Numbers in tar headers and pax records, strictly."""

from __future__ import annotations

from banger.errors import BangerError, Reason

_MAX_NUMBER = 1 << 62
_MAX_DIGITS = 18


def parse_number(field: bytes, *, signed: bool = False) -> int:
    """Octal digits, or base 256 where the first bit is set (GNU tar manual, "Extensions to the header")."""
    if field[0] & 0x80:
        bits = int.from_bytes(field, "big") & ((1 << (8 * len(field) - 1)) - 1)
        number = bits - (1 << (8 * len(field) - 1)) if field[0] & 0x40 else bits
    else:
        digits = field.strip(b" \0").split(b"\0", 1)[0].rstrip(b" ")
        if digits and not digits.isdigit():
            raise _bad(field)
        try:
            number = int(digits or b"0", 8)
        except ValueError:
            raise _bad(field) from None
    if not (-_MAX_NUMBER if signed else 0) <= number <= _MAX_NUMBER:
        raise _bad(field)
    return number


def parse_decimal(text: bytes) -> int:
    if not text.isdigit() or len(text) > _MAX_DIGITS:
        raise _bad(text)
    return int(text)


def _bad(text: bytes) -> BangerError:
    return BangerError(f"the layer has a number that is none: {text[:20]!r}", reason=Reason.CORRUPT)
