"""The configuration file as it was read, with the line of each of its keys.

`tomllib` keeps no positions. They are found by its own means, so that they are right for whatever TOML allows: the
text is cut into statements, and a key stands in the first statement with which it is there.
"""

from __future__ import annotations

import bisect
import re
from collections.abc import Container, Mapping
from dataclasses import dataclass, field
from functools import cached_property
from pathlib import Path
from typing import Any

from banger.errors import BangerError, Reason
from banger.settings.entry import KeyPath, Wrong, format_path

_AT_LINE = re.compile(r" \(at line (\d+), column \d+\)$")
_AT_END = " (at end of document)"


@dataclass(frozen=True)
class Document:
    """`path` is None for values that come from no file."""

    values: Mapping[str, Any] = field(default_factory=dict)
    path: Path | None = None
    text: str = ""

    def find_line(self, path: KeyPath) -> int:
        """The line, from 1 on, in which the statement begins that gives this key, or the table that should have it."""
        while path and not _holds(self.values, path):
            path = path[:-1]
        ends = self._ends
        at = bisect.bisect_left(ends, True, key=lambda end: _holds(_parse("\n".join(self._lines[:end])), path))
        # A file without any statement has no keys either.
        return ends[at - 1] + 1 if at else 1

    def refuse(self, wrong: Wrong) -> BangerError:
        where = "" if self.path is None else f"{self.path}, line {self.find_line(wrong.path)}: "
        return BangerError(f"{where}{format_path(wrong.path)} {wrong.why}", reason=Reason.BAD_INPUT, hint=wrong.hint)

    @cached_property
    def _lines(self) -> list[str]:
        return self.text.replace("\r\n", "\n").split("\n")

    @cached_property
    def _ends(self) -> list[int]:
        """After how many lines each statement ends. What a line begins and does not end is no TOML yet."""
        import tomllib

        ends = []
        begin = 0
        for end in range(1, len(self._lines) + 1):
            try:
                _parse("\n".join(self._lines[begin:end]))
            except tomllib.TOMLDecodeError:
                continue
            ends.append(end)
            begin = end
        return ends


def read_document(path: Path) -> Document:
    """A file that is missing is empty. Raises `BangerError`: BAD_INPUT with the line for what is not TOML, or IO."""
    try:
        content = path.read_bytes()
    except FileNotFoundError:
        return Document()
    except OSError as error:
        raise BangerError(f"cannot read {path}: {error.strerror}", reason=Reason.IO) from error
    try:
        text = content.decode("utf-8")
    except UnicodeDecodeError as error:
        raise _refuse(path, content.count(b"\n", 0, error.start) + 1, "TOML is written in UTF-8") from error
    try:
        return Document(_parse(text), path, text)
    # Numbers of thousands of digits, and what is nested that deep, Python refuses in its own words, without a line.
    except (ValueError, RecursionError) as error:
        words = _AT_LINE.sub("", str(error)).removesuffix(_AT_END)
        raise _refuse(path, _find_error(text, error), f"this is not valid TOML: {words}") from error


def _refuse(path: Path, line: int, why: str) -> BangerError:
    return BangerError(f"{path}, line {line}: {why}", reason=Reason.BAD_INPUT)


def _find_error(text: str, error: Exception) -> int:
    """The line that an error of the parser is about: as it says itself, or the first with which it comes."""
    if found := _AT_LINE.search(str(error)):
        return int(found[1])
    lines = text.split("\n")
    if str(error).endswith(_AT_END):
        return len(lines)

    def fails(end: int) -> bool:
        try:
            _parse("\n".join(lines[:end]))
        except (ValueError, RecursionError) as other:
            return type(other) is type(error)
        return False

    return bisect.bisect_left(range(len(lines) + 1), True, key=fails)


def _parse(text: str) -> dict[str, Any]:
    import tomllib

    return tomllib.loads(text)


def _holds(values: object, path: KeyPath) -> bool:
    for part in path:
        if part not in _keys(values):
            return False
        values = values[part]  # type: ignore[index]
    return True


def _keys(values: object) -> Container[object]:
    return values if isinstance(values, Mapping) else range(len(values)) if isinstance(values, list) else ()
