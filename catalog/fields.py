"""JSON documents that others publish, read strictly: what is named has its type, its size and its alphabet.

What a document says more than is asked for is passed over, so that later versions of a format can add to it; what
changes the meaning of the rest comes with a new number for `format`, which is refused. Every refusal is a
`BangerError` that names the field.
"""

from __future__ import annotations

import json
import re
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import NoReturn

from banger.errors import BangerError, Reason
from banger.run import printable
from catalog.names import parse_name

MAX_DOCUMENT_BYTES = 4 << 20
# What a float holds exactly (RFC 8259, section 6), since other readers may know no other numbers.
_MAX_NUMBER = (1 << 53) - 1
_MAX_TEXT_CHARS = 1000
# What stands in a table, a tag or a file name without being quoted.
WORD = re.compile(r"[A-Za-z0-9][A-Za-z0-9._+~:@/-]{0,255}")


@dataclass(frozen=True)
class Fields:
    """A JSON object, and what to call it in messages."""

    what: str
    values: Mapping[str, object]

    def text(self, name: str, default: str | None = None) -> str:
        """Any text that is short; never with a NUL. Without a `default` it has to be there."""
        value = self._value(name, default)
        if not isinstance(value, str) or len(value) > _MAX_TEXT_CHARS or "\0" in value:
            self.refuse(name, "no short text")
        return value

    def word(self, name: str, default: str | None = None) -> str:
        """Text without spaces, quotes and control characters: a version, a digest, a reference."""
        value = self.text(name, default)
        if value != default and WORD.fullmatch(value) is None:
            self.refuse(name, "no plain word")
        return value

    def name(self, name: str, what: str, default: str | None = None) -> str:
        """A name as users could have given it (`catalog.names.parse_name`)."""
        value = self.text(name, default)
        if value != default:
            try:
                parse_name(value, what)
            except BangerError:
                self.refuse(name, f"no name for {what}")
        return value

    def matching(self, name: str, pattern: re.Pattern[str], what: str) -> str:
        value = self.text(name)
        if pattern.fullmatch(value) is None:
            self.refuse(name, what)
        return value

    def number(self, name: str, least: int = 0, most: int = _MAX_NUMBER) -> int:
        value = self._value(name, None)
        if not isinstance(value, int) or isinstance(value, bool) or not least <= value <= most:
            self.refuse(name, f"no whole number from {least} to {most}")
        return value

    def fields(self, name: str) -> Fields:
        value = self._value(name, None)
        if not isinstance(value, dict):
            self.refuse(name, "no object")
        return Fields(f"{self.what}, {name}", value)

    def items(self, name: str, most: int) -> Iterator[Fields]:
        """The objects of a list."""
        value = self._value(name, None)
        if not isinstance(value, list) or len(value) > most:
            self.refuse(name, f"no list of at most {most}")
        for number, item in enumerate(value):
            if not isinstance(item, dict):
                self.refuse(name, "no list of objects")
            yield Fields(f"{self.what}, {name}[{number}]", item)

    def words(self, name: str, most: int) -> dict[str, str]:
        """An object whose keys and values are words."""
        found = self.fields(name)
        if len(found.values) > most:
            self.refuse(name, f"no object of at most {most}")
        for key in found.values:
            if WORD.fullmatch(key) is None:
                found.refuse(key, "no plain word")
        return {key: found.word(key) for key in found.values}

    def refuse(self, name: str, why: str) -> NoReturn:
        raise BangerError(f"{self.what}: {printable(name[:60])!r} is {why}", reason=Reason.CORRUPT)

    def _value(self, name: str, default: str | None) -> object:
        if name not in self.values:
            if default is None:
                self.refuse(name, "missing")
            return default
        return self.values[name]


def parse_fields(raw: bytes, what: str, known_format: int) -> Fields:
    """A document of the format with that number. Raises CORRUPT, TOO_LARGE, or WRONG_STATE for another format."""
    if len(raw) > MAX_DOCUMENT_BYTES:
        raise BangerError(f"{what} is larger than {MAX_DOCUMENT_BYTES >> 20} MiB", reason=Reason.TOO_LARGE)
    try:
        value = json.loads(raw.decode("utf-8"), parse_constant=_refuse_constant)
    except (ValueError, RecursionError) as error:
        raise BangerError(f"{what} is no valid JSON", reason=Reason.CORRUPT) from error
    if not isinstance(value, dict):
        raise BangerError(f"{what} is no JSON object", reason=Reason.CORRUPT)
    fields = Fields(what, value)
    found = fields.number("format", least=1)
    if found != known_format:
        raise BangerError(
            f"{what} is of format {found}; this banger reads format {known_format}",
            reason=Reason.WRONG_STATE,
            hint="update banger, or ask who publishes it to do so",
        )
    return fields


def format_document(value: Mapping[str, object]) -> bytes:
    """The one text of a document: equal documents are equal bytes, and can be read by people."""
    return (json.dumps(value, sort_keys=True, indent=1, ensure_ascii=True) + "\n").encode()


def _refuse_constant(name: str) -> NoReturn:
    raise ValueError(f"{name} is no number")
