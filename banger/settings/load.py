"""Where values come from, the later over the earlier: default, the host, the file, the environment, options.

All of them are read by the functions of the settings table. A value in the file is checked also when something else
counts in its place.
"""

from __future__ import annotations

import os
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from enum import StrEnum
from pathlib import Path
from typing import Any, TypeVar, cast

from banger.errors import BangerError, Reason
from banger.paths import Paths
from banger.settings import table
from banger.settings.document import Document, read_document
from banger.settings.entry import KeyPath, Setting, TableList, Wrong, format_path, format_value
from banger.settings.model import Settings
from catalog.names import nearest

T = TypeVar("T")


class Origin(StrEnum):
    DEFAULT = "default"
    HOST = "host-derived"
    FILE = "file"
    ENVIRONMENT = "environment"
    FLAG = "flag"


@dataclass(frozen=True)
class Effective:
    """The value that counts for a key. `given_by` is the variable or option that it comes from."""

    value: object
    origin: Origin
    given_by: str = ""


@dataclass(frozen=True)
class Configuration:
    """All effective values by key, and the file as it was read."""

    document: Document
    effective: Mapping[str, Effective]

    def get(self, setting: Setting[T]) -> T:
        return cast(T, self.effective[setting.key].value)

    def items(self, setting: TableList[T]) -> Sequence[T]:
        return cast(Sequence[T], self.effective[setting.key].value)

    def settings(self) -> Settings:
        return Settings(
            default_image_name=self.get(table.DEFAULT_IMAGE_NAME),
            debian_mirror=self.get(table.DEBIAN_MIRROR),
            firecracker_bin=self.get(table.FIRECRACKER_BIN),
            kvm=self.get(table.KVM),
            max_image_mib=self.get(table.MAX_IMAGE_SIZE),
            registries={each.host: each for each in self.items(table.REGISTRY)},
            ssh_key_path=self.get(table.SSH_KEY_PATH),
            vmm=self.get(table.VMM),
            vcpus=self.get(table.VCPU),
            memory_mib=self.get(table.MEMORY_MIB),
            disk_mib=self.get(table.DISK_SIZE),
            file_sync=tuple(self.items(table.FILE_SYNC)),
            catalogs=tuple(self.items(table.CATALOG)),
            cache_max_size=self.get(table.CACHE_MAX_SIZE),
            cache_remote=self.get(table.CACHE_REMOTE),
            cache_remote_key=self.get(table.CACHE_REMOTE_KEY),
            dns_listen=self.get(table.DNS_LISTEN),
            daemon_autostart=self.get(table.DAEMON_AUTOSTART),
            auto_stop_stale_after_s=self.get(table.AUTO_STOP_STALE_AFTER),
        )


def config_path(paths: Paths) -> Path:
    return paths.config / "config.toml"


def load_settings(paths: Paths, environment: Mapping[str, str] = os.environ) -> Settings:
    """The file (a missing one is empty) and the environment. Raises `BangerError` naming line and key, or variable."""
    return load_configuration(paths, environment).settings()


def parse_settings(values: Mapping[str, Any]) -> Settings:
    """Values as they stand in a file, without any environment."""
    return configure(Document(values), {}, {}).settings()


def load_configuration(
    paths: Paths, environment: Mapping[str, str] = os.environ, options: Mapping[str, str] | None = None
) -> Configuration:
    """Like `load_settings`, with the origin of each value; `options` are those of a command line: `--vcpu`."""
    return configure(read_document(config_path(paths)), environment, options or {})


def configure(document: Document, environment: Mapping[str, str], options: Mapping[str, str]) -> Configuration:
    try:
        _refuse_unknown(document.values)
        found = {setting.key: _from_file(document.values, setting) for setting in table.SETTINGS}
    except Wrong as wrong:
        raise document.refuse(wrong) from wrong
    for setting in table.SCALARS:
        # As with the variables of XDG, an empty one is none.
        if text := environment.get(setting.variable):
            found[setting.key] = _from_text(setting, text, setting.variable, Origin.ENVIRONMENT)
        if setting.option in options:
            found[setting.key] = _from_text(setting, options[setting.option], setting.option, Origin.FLAG)
    return Configuration(document, found)


def _from_text(setting: Setting[Any], text: str, name: str, origin: Origin) -> Effective:
    try:
        return Effective(setting.read(setting.from_text(text), setting.path), origin, name)
    except Wrong:
        raise BangerError(f"{name} {setting.explain(text)}", reason=Reason.BAD_INPUT) from None


def _from_file(values: Mapping[str, Any], setting: Setting[Any] | TableList[Any]) -> Effective:
    at: Any = values
    for part in setting.path:
        if part not in at:
            return _fall_back(setting)
        at = at[part]
    if isinstance(setting, TableList):
        return Effective(_read_items(at, setting), Origin.FILE)
    return Effective(setting.read(at, setting.path), Origin.FILE)


def _fall_back(setting: Setting[Any] | TableList[Any]) -> Effective:
    if isinstance(setting, TableList):
        return Effective((), Origin.DEFAULT)
    derived = None if setting.derive is None else setting.derive()
    if derived is None:
        return Effective(setting.default, Origin.DEFAULT)
    return Effective(derived, Origin.HOST)


def _read_items(values: object, setting: TableList[T]) -> Sequence[T]:
    if not isinstance(values, list) or not all(isinstance(entry, Mapping) for entry in values):
        raise Wrong(setting.path, f"must be tables, each with the head [[{setting.key}]]")
    items = tuple(_read_item(entry, setting, (setting.key, number)) for number, entry in enumerate(values))
    setting.check(items)
    return items


def _read_item(values: Mapping[str, Any], setting: TableList[T], path: KeyPath) -> T:
    known = [field.key for field in setting.fields]
    for key in values:
        if key not in known:
            raise Wrong((*path, key), "is not a known key", _hint((*path, key), known))
    found = {}
    for field in setting.fields:
        at = (*path, field.key)
        if field.key in values:
            found[field.key] = field.read(values[field.key], at)
        elif field.is_required:
            raise Wrong(at, f"is missing: it must be {field.allowed}")
        else:
            found[field.key] = field.default
    return setting.build(found, path)


def _refuse_unknown(values: Mapping[str, Any]) -> None:
    below: dict[str, list[str]] = {}
    for setting in table.SETTINGS:
        first, *rest = map(str, setting.path)
        below.setdefault(first, []).extend(rest)
    for key, value in values.items():
        if key not in below:
            raise Wrong((key,), "is not a known key", _hint((key,), below))
        if not below[key]:
            continue
        if not isinstance(value, Mapping):
            raise Wrong((key,), f"must be a table, with the head [{key}], not {format_value(value)}")
        for inner in value:
            if inner not in below[key]:
                raise Wrong((key, inner), "is not a known key", _hint((key, inner), below[key]))


def _hint(path: KeyPath, beside: Iterable[str]) -> str:
    """What may have been meant: a key that is written right but stands in the wrong table, or the nearest one here."""
    for other in (setting.path for setting in table.SETTINGS):
        if other != path and other[-1] == path[-1]:
            where = f"below [{other[0]}]" if other[1:] else "before the first [table] of the file"
            return f"did you mean {format_path(other)!r}? It stands {where}"
    return nearest(str(path[-1]), beside)
