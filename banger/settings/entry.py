"""What one entry of the settings table says about a key, and how a refusal of its value reads."""

from __future__ import annotations

import datetime
import json
import re
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Generic, TypeVar

from banger.run import printable

T = TypeVar("T")
KeyPath = tuple[str | int, ...]

_BARE_KEY = re.compile(r"^[A-Za-z0-9_-]+$")
_PASSWORD = re.compile(r"(?<=://)([^/@:]*):[^/@]*(?=@)")
_LONGEST_QUOTE = 120
_LONGEST_NUMBER_BITS = 128


class Unfit(ValueError):
    """A value that its key does not take; what it takes, the table has in words."""


class Wrong(Exception):
    """Something in the configuration that is refused: where, and why in words that follow the key."""

    def __init__(self, path: KeyPath, why: str, hint: str = "") -> None:
        super().__init__(format_path(path), why)
        self.path = path
        self.why = why
        self.hint = hint


@dataclass(frozen=True)
class Setting(Generic[T]):
    """A key with one value. `allowed` follows "must be"; `default_words` says in words what `default` stands for,
    or how it is derived from the host.

    `derive` asks the host, and gives None where that has nothing of use: then `default` counts. `from_text` makes of
    a variable or an option what stands in the file; `format` makes of the value what is shown.
    """

    key: str
    parse: Callable[[object], T]
    allowed: str
    default: T
    about: str
    example: str
    default_words: str = ""
    derive: Callable[[], T | None] | None = None
    from_text: Callable[[str], object] = str
    format: Callable[[T], object] = lambda value: value
    option: str = ""
    is_required: bool = False
    is_secret: bool = False

    @property
    def path(self) -> KeyPath:
        return tuple(self.key.split("."))

    @property
    def variable(self) -> str:
        return "BANGER_" + self.key.upper().replace(".", "_")

    def read(self, value: object, path: KeyPath) -> T:
        """The value at `path` as it is used; raises `Wrong`."""
        try:
            return self.parse(value)
        except Unfit:
            raise Wrong(path, self.explain(value)) from None

    def explain(self, value: object) -> str:
        """Why a value is refused, in words that follow the key's name."""
        return f"must be {self.allowed}" + ("" if self.is_secret else f", not {format_value(value)}")


@dataclass(frozen=True)
class TableList(Generic[T]):
    """A key that comes any number of times, each with keys of its own: `[[key]]`.

    `build` makes an item of the values of its fields, by name; it raises `Wrong` for those that do not go together.
    `check` does so for all items.
    """

    key: str
    fields: tuple[Setting[Any], ...]
    build: Callable[[Mapping[str, Any], KeyPath], T]
    about: str
    example: str
    check: Callable[[Sequence[T]], object] = lambda items: items

    @property
    def path(self) -> KeyPath:
        return (self.key,)


def format_path(path: KeyPath) -> str:
    """`vm_defaults.vcpu`; `registry[2].host` for the host of the second."""
    text = ""
    for part in path:
        if isinstance(part, int):
            text += f"[{part + 1}]"
        else:
            name = part if _BARE_KEY.fullmatch(part) else format_value(part)
            text += f".{name}" if text else name
    return text


def format_value(value: object) -> str:
    """A value as it would stand in the file, on one line and not too long."""
    match value:
        case str():
            text = printable(json.dumps(hide_password(value), ensure_ascii=False))
        case bool():
            text = "true" if value else "false"
        case int():
            # Python writes no number of more than some thousand digits.
            text = str(value) if value.bit_length() <= _LONGEST_NUMBER_BITS else "a very long number"
        case float() | datetime.date() | datetime.time():
            text = str(value)
        case Mapping():
            text = "a table"
        case _:
            text = "a list"
    return text if len(text) <= _LONGEST_QUOTE else f"{text[:_LONGEST_QUOTE]}…"


def hide_password(address: str) -> str:
    """An address without the password that it may carry."""
    return _PASSWORD.sub(r"\1:***", address)
