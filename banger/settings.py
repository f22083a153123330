"""The configuration file, `~/.config/banger/config.toml`: every key is optional, an unknown one is refused."""

from __future__ import annotations

import os
import tomllib
from collections.abc import Mapping
from dataclasses import dataclass
from enum import StrEnum
from pathlib import Path
from typing import Any, TypeVar

from banger.errors import BangerError, Reason
from banger.paths import Paths
from banger.sizes import format_mib, parse_mib
from catalog.names import nearest
from pipelines.oci.registry import RegistryOptions

_Choice = TypeVar("_Choice", bound=StrEnum)
_MIB = 1 << 20
MIN_MEMORY_MIB = 128
MIN_DISK_MIB = 64
MAX_VCPUS = 32
MAX_MEMORY_MIB = 1 << 20
# What ext4 holds with blocks of 4 KiB and 32-bit numbers: 16 TiB.
MAX_DISK_MIB = 1 << 24
DEFAULT_MAX_IMAGE_MIB = 64 << 10
_KEYS = (
    "default_image_name",
    "debian_mirror",
    "firecracker_bin",
    "kvm",
    "max_image_size",
    "registry",
    "ssh_key_path",
    "vm_defaults",
    "vmm",
)
_DEFAULTS_KEYS = ("disk_size", "memory_mib", "vcpu")
_REGISTRY_KEYS = ("ca", "host", "insecure", "password", "username")


class VmmChoice(StrEnum):
    AUTO = "auto"
    FIRECRACKER = "firecracker"
    QEMU = "qemu"


class KvmChoice(StrEnum):
    """`force` uses /dev/kvm whatever the processor says; `off` never does."""

    AUTO = "auto"
    FORCE = "force"
    OFF = "off"


@dataclass(frozen=True)
class Settings:
    """Effective values. `ssh_key_path` None means a key of banger's own; `registries` go by host."""

    default_image_name: str
    debian_mirror: str | None
    firecracker_bin: str
    kvm: KvmChoice
    max_image_mib: int
    registries: Mapping[str, RegistryOptions]
    ssh_key_path: Path | None
    vmm: VmmChoice
    vcpus: int
    memory_mib: int
    disk_mib: int


def load_settings(paths: Paths) -> Settings:
    """Read the file (a missing one is empty). Raises `BangerError` naming the key for anything that is not right."""
    path = paths.config / "config.toml"
    try:
        values = tomllib.loads(path.read_text("utf-8"))
    except FileNotFoundError:
        values = {}
    except OSError as error:
        raise BangerError(f"cannot read {path}: {error.strerror}", reason=Reason.IO) from error
    except (tomllib.TOMLDecodeError, UnicodeDecodeError) as error:
        raise BangerError(f"{path} is not valid TOML: {error}", reason=Reason.BAD_INPUT) from error
    try:
        return parse_settings(values)
    except BangerError as error:
        raise BangerError(f"{path}: {error.message}", reason=error.reason, hint=error.hint) from error


def parse_settings(values: Mapping[str, Any]) -> Settings:
    _refuse_unknown(values, _KEYS, "")
    defaults = values.get("vm_defaults", {})
    if not isinstance(defaults, dict):
        raise _bad("vm_defaults", "is a table")
    _refuse_unknown(defaults, _DEFAULTS_KEYS, "vm_defaults.")
    return Settings(
        default_image_name=_text(values, "default_image_name") or "debian-bookworm",
        debian_mirror=_mirror(values),
        firecracker_bin=_text(values, "firecracker_bin") or "firecracker",
        kvm=_one_of(values, "kvm", KvmChoice.AUTO),
        max_image_mib=_image_size(values) or DEFAULT_MAX_IMAGE_MIB,
        registries={entry.host: entry for entry in _registries(values)},
        ssh_key_path=_key_path(values),
        vmm=_one_of(values, "vmm", VmmChoice.AUTO),
        vcpus=_number(defaults, "vcpu", 1, MAX_VCPUS) or min(4, max(1, (os.cpu_count() or 1) // 4)),
        memory_mib=_number(defaults, "memory_mib", MIN_MEMORY_MIB, MAX_MEMORY_MIB) or _host_memory_share_mib(),
        disk_mib=_disk(defaults) or 8192,
    )


def _host_memory_share_mib() -> int:
    """An eighth of the host's memory, at most 8 GiB; at least what the default image needs to be of use."""
    total_mib = os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES") // _MIB
    return max(1024, min(8192, total_mib // 8 // 256 * 256))


def _refuse_unknown(values: Mapping[str, Any], known: tuple[str, ...], prefix: str) -> None:
    for key in values:
        if key not in known:
            raise BangerError(f"unknown key {prefix}{key}", reason=Reason.BAD_INPUT, hint=nearest(key, known))


def _bad(key: str, what: str) -> BangerError:
    return BangerError(f"{key} {what}", reason=Reason.BAD_INPUT)


def _text(values: Mapping[str, Any], key: str, prefix: str = "") -> str | None:
    value = values.get(key)
    if value is not None and (not isinstance(value, str) or not value):
        raise _bad(prefix + key, "must be a text that is not empty")
    return value


def _number(values: Mapping[str, Any], key: str, least: int, most: int) -> int | None:
    value = values.get(key)
    if value is None:
        return None
    if not isinstance(value, int) or isinstance(value, bool) or not least <= value <= most:
        raise _bad(f"vm_defaults.{key}", f"must be a whole number from {least} to {most}")
    return value


def _disk(values: Mapping[str, Any]) -> int | None:
    value = values.get("disk_size")
    if value is None:
        return None
    if not isinstance(value, str | int) or isinstance(value, bool):
        raise _bad("vm_defaults.disk_size", 'must be a size such as "16G"')
    size_mib = parse_mib(str(value))
    if not MIN_DISK_MIB <= size_mib <= MAX_DISK_MIB:
        raise _bad("vm_defaults.disk_size", f"must be from {format_mib(MIN_DISK_MIB)} to {format_mib(MAX_DISK_MIB)}")
    return size_mib


def _image_size(values: Mapping[str, Any]) -> int | None:
    value = values.get("max_image_size")
    if value is None:
        return None
    if not isinstance(value, str | int) or isinstance(value, bool):
        raise _bad("max_image_size", 'must be a size such as "64G"')
    try:
        return parse_mib(str(value))
    except BangerError as error:
        raise BangerError(f"max_image_size: {error.message}", reason=error.reason, hint=error.hint) from error


def _registries(values: Mapping[str, Any]) -> list[RegistryOptions]:
    """The tables [[registry]], one for each host. Whether a host or a CA is there shows when it is used."""
    entries = values.get("registry", [])
    if not isinstance(entries, list) or not all(isinstance(entry, dict) for entry in entries):
        raise _bad("registry", "is a list of tables: write [[registry]]")
    found: dict[str, RegistryOptions] = {}
    for number, entry in enumerate(entries, 1):
        prefix = f"registry[{number}]."
        _refuse_unknown(entry, _REGISTRY_KEYS, prefix)
        host = _text(entry, "host", prefix)
        if host is None or "/" in host or any(sign.isspace() for sign in host):
            raise _bad(f"{prefix}host", 'must be the host of a registry, such as "registry.example.com:5000"')
        if host in found:
            raise _bad(f"{prefix}host", f"{host!r} comes twice")
        username, password = _text(entry, "username", prefix), _text(entry, "password", prefix)
        if (username is None) != (password is None):
            raise _bad(f"{prefix}username", "and password go together")
        ca = _text(entry, "ca", prefix)
        if ca is not None and not ca.startswith(("/", "~/")):
            raise _bad(f"{prefix}ca", f"{ca!r} is relative")
        insecure = entry.get("insecure", False)
        if not isinstance(insecure, bool):
            raise _bad(f"{prefix}insecure", "must be true or false")
        found[host] = RegistryOptions(
            host, username or "", password or "", None if ca is None else Path(ca).expanduser(), insecure
        )
    return list(found.values())


def _one_of(values: Mapping[str, Any], key: str, default: _Choice) -> _Choice:
    value = values.get(key, default)
    try:
        return type(default)(value)
    except ValueError:
        raise _bad(key, f"must be one of: {', '.join(type(default))}") from None


def _mirror(values: Mapping[str, Any]) -> str | None:
    value = _text(values, "debian_mirror")
    if value is not None and (not value.startswith(("http://", "https://")) or any(c.isspace() for c in value)):
        raise _bad("debian_mirror", "must be an address that begins with http:// or https://")
    return value


def _key_path(values: Mapping[str, Any]) -> Path | None:
    value = _text(values, "ssh_key_path")
    if value is None:
        return None
    if not value.startswith(("/", "~/")):
        raise BangerError(
            f"ssh_key_path {value!r} is relative", reason=Reason.BAD_INPUT, hint="write it from / or ~/ on"
        )
    return Path(value).expanduser()
