"""Maps of holes in tar entries, in the forms that GNU tar has had (its manual, "Storing Sparse Files").

Each gives (offset, length) of what a file holds. Whether they are in order is checked by who asked.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence

from banger.errors import BangerError, Reason
from pipelines.oci.number import parse_decimal, parse_number

Segments = list[tuple[int, int]]

_MAX_SEGMENTS = 1 << 17
_MAX_DIGITS = 18
_IN_HEADER, _IN_EXTENSION = 4, 21


def parse_gnu_map(header: bytes, next_block: Callable[[], bytes]) -> Segments:
    """The old form: four pairs in the header, 21 in each block that follows while one says that more come."""
    segments: Segments = []

    def collect(block: bytes, begin: int, count: int) -> bool:
        for at in range(begin, begin + 24 * count, 24):
            if block[at] == 0:
                # The rest is not used; the flag after them still counts.
                break
            segments.append((parse_number(block[at : at + 12]), parse_number(block[at + 12 : at + 24])))
        return block[begin + 24 * count] != 0

    goes_on = collect(header, 386, _IN_HEADER)
    while goes_on:
        _check_count(len(segments))
        goes_on = collect(next_block(), 0, _IN_EXTENSION)
    return segments


def parse_pax_map(numbers: Sequence[bytes]) -> Segments:
    """Forms 0.0 and 0.1: offsets and lengths in turn, from pax records."""
    if numbers == [b""]:
        return []
    if len(numbers) % 2:
        raise _bad()
    _check_count(len(numbers) // 2)
    return [(parse_decimal(numbers[at]), parse_decimal(numbers[at + 1])) for at in range(0, len(numbers), 2)]


def parse_text_map(next_block: Callable[[], bytes]) -> Segments:
    """Form 1.0: in front of the content, one decimal number a line: how many pairs, then the pairs; whole blocks."""
    text = bytearray()
    lines: list[bytes] = []

    def next_line() -> bytes:
        while not lines:
            text.extend(next_block())
            *whole, rest = bytes(text).split(b"\n")
            lines.extend(reversed(whole))
            text[:] = rest
            if len(rest) > _MAX_DIGITS and not whole:
                raise _bad()
        return lines.pop()

    count = parse_decimal(next_line())
    _check_count(count)
    return [(parse_decimal(next_line()), parse_decimal(next_line())) for _ in range(count)]


def _check_count(count: int) -> None:
    if count > _MAX_SEGMENTS:
        raise BangerError("the layer has a file with too many holes", reason=Reason.TOO_LARGE)


def _bad() -> BangerError:
    return BangerError("the layer has a map of holes that is none", reason=Reason.CORRUPT)
