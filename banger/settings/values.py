"""The kinds of values: each function takes what stands in the file and gives what is used, or raises `Unfit`."""

from __future__ import annotations

import os
import re
from collections.abc import Callable
from enum import StrEnum
from ipaddress import IPv4Address
from pathlib import Path
from typing import TypeVar

from banger.errors import BangerError
from banger.settings.entry import Unfit, hide_password
from banger.settings.model import CacheSize
from banger.sizes import format_mib, parse_mib

Choice = TypeVar("Choice", bound=StrEnum)

_NUMBER = re.compile(r"^-?[0-9]{1,9}$")
_DURATION = re.compile(r"^([1-9][0-9]{0,6})([smhd])$")
_DURATION_S = {"s": 1, "m": 60, "h": 3600, "d": 86400}
_PERCENT = re.compile(r"^([1-9][0-9]?|100)%$")
_MODE = re.compile(r"^0?[0-7]{3}$")
_ADDRESS = re.compile(r"^https?://[^\s/]+(?:/\S*)?$")
# A host and a path (distribution's reference.go): no tag, no digest.
_REPOSITORY = re.compile(r"^[a-z0-9][A-Za-z0-9.-]*(?::[0-9]{1,5})?(?:/[a-z0-9]+(?:(?:[._]|__|-+)[a-z0-9]+)*)+$")
_TAG = re.compile(r"^[A-Za-z0-9_][A-Za-z0-9._-]{0,127}$")
_LAST_PORT = 65535
_HOMES = ("~/", "/root/")
_LONGEST_NAME_BYTES = 255  # of a name in ext4
_MOST_MIB = 999_999_999  # as many digits as `parse_mib` reads


def parse_text(value: object) -> str:
    """Not empty, and without what would move a terminal's cursor or end a C string."""
    if not isinstance(value, str) or not value or _has_control(value):
        raise Unfit
    return value


def parse_flag(value: object) -> bool:
    if not isinstance(value, bool):
        raise Unfit
    return value


def number_between(least: int, most: int) -> Callable[[object], int]:
    def parse(value: object) -> int:
        if not isinstance(value, int) or isinstance(value, bool) or not least <= value <= most:
            raise Unfit
        return value

    return parse


def size_between(least_mib: int, most_mib: int | None = None) -> Callable[[object], int]:
    """A size as text, or a bare number of MiB; gives MiB."""

    def parse(value: object) -> int:
        if isinstance(value, int) and not isinstance(value, bool) and 0 < value <= _MOST_MIB:
            size_mib = value
        elif isinstance(value, str):
            size_mib = _mib_of(value)
        else:
            raise Unfit
        if size_mib < least_mib or (most_mib is not None and size_mib > most_mib):
            raise Unfit
        return size_mib

    return parse


def parse_cache_size(value: object) -> CacheSize:
    part = _PERCENT.fullmatch(value) if isinstance(value, str) else None
    return CacheSize(percent=int(part[1])) if part else CacheSize(mib=size_between(1)(value))


def one_of(kind: type[Choice]) -> Callable[[object], Choice]:
    def parse(value: object) -> Choice:
        if not isinstance(value, str) or value not in list(kind):
            raise Unfit
        return kind(value)

    return parse


def parse_address(value: object) -> str:
    text = parse_text(value)
    if _ADDRESS.fullmatch(text) is None:
        raise Unfit
    return text


def parse_registry_host(value: object) -> str:
    text = parse_text(value)
    if "/" in text or any(sign.isspace() for sign in text):
        raise Unfit
    return text


def parse_repository(value: object) -> str:
    """A repository of a registry, without tag or digest."""
    text = parse_text(value)
    if not _REPOSITORY.fullmatch(text):
        raise Unfit
    return text


def parse_catalog_reference(value: object) -> str:
    """A repository of a registry with a tag."""
    text = parse_text(value)
    repository, colon, tag = text.rpartition(":")
    if not colon or not _TAG.fullmatch(tag) or not _REPOSITORY.fullmatch(repository):
        raise Unfit
    return text


def parse_listener(value: object) -> tuple[str, int]:
    """An IPv4 address and a port, `127.0.0.1:42069`."""
    host, _, port = parse_text(value).rpartition(":")
    try:
        address = IPv4Address(host)
    except ValueError as error:
        raise Unfit from error
    if not _NUMBER.fullmatch(port) or not 1 <= int(port) <= _LAST_PORT:
        raise Unfit
    return str(address), int(port)


def parse_duration(value: object) -> int:
    """A whole number with its unit, "90m"; gives seconds."""
    found = _DURATION.fullmatch(parse_text(value))
    if found is None:
        raise Unfit
    return int(found[1]) * _DURATION_S[found[2]]


def parse_path(value: object) -> Path:
    """From / or ~/ on: the folder that one happens to stand in plays no part."""
    text = parse_text(value)
    if not text.startswith(("/", "~/")):
        raise Unfit
    try:
        return Path(text).expanduser()
    except RuntimeError as error:
        # There is no HOME, and no such account.
        raise Unfit from error


def parse_program(value: object) -> str:
    """A name to look for, or a path."""
    text = parse_text(value)
    return str(parse_path(text)) if "/" in text or text.startswith("~") else text


def parse_guest_path(value: object) -> str:
    """Relative to /root: never /root itself, nothing that leads out of it or that banger writes itself."""
    text = parse_text(value)
    home = next((home for home in _HOMES if text.startswith(home)), None)
    if home is None:
        raise Unfit
    names = [name for name in text.removeprefix(home).split("/") if name not in ("", ".")]
    if not names or ".." in names or any(len(os.fsencode(name)) > _LONGEST_NAME_BYTES for name in names):
        raise Unfit
    if names[0] == "repo" or names[:2] == [".ssh", "authorized_keys"]:
        raise Unfit
    return "/".join(names)


def parse_mode(value: object) -> int:
    """Permission bits as chmod(1) takes them. A bare 755 would be decimal, so it has to be text."""
    if not isinstance(value, str) or _MODE.fullmatch(value) is None:
        raise Unfit
    return int(value, 8)


def number_of_text(text: str) -> object:
    return int(text) if _NUMBER.fullmatch(text) else text


def mib_of_text(text: str) -> object:
    """As `--memory` takes it: "4G" is 4096."""
    try:
        return parse_mib(text)
    except BangerError:
        return text


def format_mode(mode: int | None) -> str | None:
    return None if mode is None else f"{mode:04o}"


def format_optional(value: object) -> str | None:
    return None if value is None else str(value)


def format_duration(seconds: int | None) -> str | None:
    if seconds is None:
        return None
    unit = next(unit for unit in "dhms" if seconds % _DURATION_S[unit] == 0)
    return f"{seconds // _DURATION_S[unit]}{unit}"


def format_cache_size(size: CacheSize) -> str:
    return f"{size.percent}%" if size.percent else format_mib(size.mib)


def format_listener(listener: tuple[str, int]) -> str:
    return f"{listener[0]}:{listener[1]}"


def flag_of_text(text: str) -> object:
    return {"true": True, "false": False}.get(text.lower(), text)


def format_address(address: str | None) -> str | None:
    return None if address is None else hide_password(address)


def _mib_of(text: str) -> int:
    try:
        return parse_mib(text)
    except BangerError as error:
        raise Unfit from error


def _has_control(text: str) -> bool:
    return any(sign < " " or "\x7f" <= sign <= "\x9f" for sign in text)
