"""The settings table as a page of the documentation, and as a commented file to begin with."""

from __future__ import annotations

import re
import textwrap
from collections.abc import Iterator
from typing import Any

from banger.settings.entry import Setting, TableList, format_value
from banger.settings.table import SCALARS, SETTINGS, VARIABLES

_WIDTH = 120
_LINK = re.compile(r"\[(.+?)\]\(.+?\)")

_HEAD = """\
# Configuration

<!-- Made from the settings table: `banger config docs > docs/config.md` -->

`~/.config/banger/config.toml` (or in `$XDG_CONFIG_HOME`) holds what banger is to do otherwise than by itself. The file,
and each key in it, may be left out.

```sh
banger config init       # write the file, every key in it explained and commented out; --stdout only prints it
banger config show       # what counts, and where each value comes from; --json for programs
```

A value comes from the first of these that has one: an option of the command line, the key's variable in the
environment, the file, the host, banger's own default. `config show` takes those options of a new machine that have a
key, and shows what counts with them.

A key that is not known, or a value that is not allowed, is refused before anything is done, with the file, the line,
the key and what is allowed. Paths begin with `/` or `~/`. A variable that is empty counts as none.
"""
_FILE_HEAD = """\
# The configuration of banger. Every key may be left out: this file changes nothing until a "#" before a key is removed.
# "banger config show" prints what counts, and where it comes from.
"""


def format_page() -> str:
    """docs/config.md"""
    return "".join(_page())


def format_file() -> str:
    """config.toml with every key explained and commented out: its default, or an example where that is no fixed one."""
    return "".join(_file())


def _page() -> Iterator[str]:
    yield _HEAD
    yield "\n| key | default | |\n|---|---|---|\n"
    for setting in SETTINGS:
        if isinstance(setting, TableList):
            title, default = f"[[{setting.key}]]", "none"
        else:
            title, default = setting.key, _default(setting)
        anchor = setting.key.replace(".", "")
        yield f"| [`{title}`](#{anchor}) | {default} | {_first_sentence(setting.about)} |\n"
    for setting in SETTINGS:
        yield from _tables(setting) if isinstance(setting, TableList) else _section(setting)
    yield "\n## Variables without a key\n\n| variable | |\n|---|---|\n"
    for variable in VARIABLES:
        yield f"| `{variable.name}` | {variable.about} |\n"


def _section(setting: Setting[Any]) -> Iterator[str]:
    table, _, name = setting.key.rpartition(".")
    yield f"\n## `{setting.key}`\n\n{_wrap(setting.about)}\n"
    yield f"* Allowed: {setting.allowed}\n* Default: {_default(setting)}\n* Variable: `{setting.variable}`\n"
    if setting.option:
        yield f"* Option: `{setting.option}`\n"
    head = f"[{table}]\n" if table else ""
    yield f"\n```toml\n{head}{name} = {setting.example}\n```\n"


def _tables(setting: TableList[Any]) -> Iterator[str]:
    yield f"\n## `[[{setting.key}]]`\n\n{_wrap(setting.about)}\n"
    yield "| key | allowed | default | |\n|---|---|---|---|\n"
    for field in setting.fields:
        default = "has to be given" if field.is_required else _default(field)
        yield f"| `{field.key}` | {field.allowed} | {default} | {field.about} |\n"
    yield f"\n```toml\n{setting.example}\n```\n"


def _file() -> Iterator[str]:
    yield _FILE_HEAD
    table = ""
    for setting in SCALARS:
        wanted, _, name = setting.key.rpartition(".")
        if wanted != table:
            table = wanted
            yield f"\n[{table}]\n"
        value = setting.example if setting.default_words else _default_value(setting)
        default = f" Default: {setting.default_words}." if setting.default_words else ""
        yield f"\n{_comment(setting.about)}{_comment(f'Allowed: {setting.allowed}.{default}')}#{name} = {value}\n"
    for each in SETTINGS:
        if isinstance(each, TableList):
            yield f"\n{_comment(each.about)}"
            for field in each.fields:
                yield _comment(f"{field.key}: {field.about} Allowed: {field.allowed}.")
            yield textwrap.indent(f"{each.example}\n", "#")


def _default(setting: Setting[Any]) -> str:
    return setting.default_words or f"`{_default_value(setting)}`"


def _default_value(setting: Setting[Any]) -> str:
    return format_value(setting.format(setting.default))


def _first_sentence(text: str) -> str:
    return text.partition("\n")[0].partition(". ")[0].rstrip(".")


def _wrap(text: str, width: int = _WIDTH) -> str:
    lines = [textwrap.fill(each, width, break_long_words=False, break_on_hyphens=False) for each in text.split("\n")]
    return "\n".join(lines) + "\n"


def _comment(text: str) -> str:
    """Prose with a space after the #, which keys do not have."""
    plain = _LINK.sub(r"\1", text).replace("`", "")
    return "".join(f"# {line}".rstrip() + "\n" for line in _wrap(plain, _WIDTH - 2).splitlines())
