"""What counts, key by key, and where it comes from; passwords are not shown."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import Any

from banger.settings.entry import KeyPath, Setting, TableList, format_path
from banger.settings.load import Configuration, Effective, Origin
from banger.settings.table import SETTINGS, VARIABLES

_HIDDEN = "***"


@dataclass(frozen=True)
class Row:
    """`value` is what JSON holds, None for what is left to banger: `words` says what that is then.

    `line` is that of the file, `given_by` the variable or option.
    """

    key: str
    value: object
    words: str
    origin: Origin
    line: int | None = None
    given_by: str = ""


def explain(configuration: Configuration, environment: Mapping[str, str]) -> Iterator[Row]:
    """All keys in the order of the table, then the variables without a key that are set."""
    for setting in SETTINGS:
        effective = configuration.effective[setting.key]
        if isinstance(setting, Setting):
            yield _explain(configuration, setting, effective.value, effective, setting.path)
        else:
            yield from _explain_items(configuration, setting, effective)
    for variable in VARIABLES:
        if text := environment.get(variable.name):
            shown = _HIDDEN if variable.is_secret else text
            yield Row(variable.name, shown, shown, Origin.ENVIRONMENT, given_by=variable.name)


def _explain_items(configuration: Configuration, setting: TableList[Any], effective: Effective) -> Iterator[Row]:
    """Of each item the fields that the file gives."""
    items = configuration.items(setting)
    if not items:
        yield Row(setting.key, [], "none", effective.origin, _find_line(configuration, effective, setting.path))
    for number, item in enumerate(items):
        for field in setting.fields:
            if field.key in configuration.document.values[setting.key][number]:
                path = (setting.key, number, field.key)
                yield _explain(configuration, field, getattr(item, field.key), effective, path)


def _explain(
    configuration: Configuration, setting: Setting[Any], value: object, effective: Effective, path: KeyPath
) -> Row:
    shown = _HIDDEN if setting.is_secret else setting.format(value)
    words = setting.default_words if shown is None else _say(shown)
    line = _find_line(configuration, effective, path)
    return Row(format_path(path), shown, words, effective.origin, line, effective.given_by)


def _find_line(configuration: Configuration, effective: Effective, path: KeyPath) -> int | None:
    return configuration.document.find_line(path) if effective.origin is Origin.FILE else None


def _say(shown: object) -> str:
    """As it stands in the file, but for the quotes."""
    return str(shown).lower() if isinstance(shown, bool) else str(shown)
