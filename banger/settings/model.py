"""What the configuration comes to: frozen values that the rest of banger reads, and the limits they keep to."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from enum import StrEnum
from pathlib import Path
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from catalog.catalog import CatalogSource
    from pipelines.oci.registry import RegistryOptions

MIN_MEMORY_MIB = 128
MIN_DISK_MIB = 64
MAX_VCPUS = 32
MAX_MEMORY_MIB = 1 << 20
# What ext4 holds with blocks of 4 KiB and 32-bit numbers: 16 TiB.
MAX_DISK_MIB = 1 << 24
DEFAULT_MAX_IMAGE_MIB = 64 << 10


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
class FileSync:
    """What of the host a new machine gets a copy of.

    `guest` is relative to /root, never /root itself, and has no `..`. `mode` is that of the files; None means 0600.
    """

    host: Path
    guest: str
    mode: int | None


@dataclass(frozen=True)
class CacheSize:
    """What the cache may have: MiB, or a part of its filesystem in percent. The other is 0."""

    mib: int = 0
    percent: int = 0


@dataclass(frozen=True)
class Settings:
    """Effective values. `ssh_key_path` None means a key of banger's own; `registries` go by host.

    `catalogs` are asked in their order. `cache_remote` is a repository of a registry. `dns_listen` is (address, port).

    `file_sync` is in the order of the file: where two entries give the same path, the later one counts.
    """

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
    file_sync: tuple[FileSync, ...]
    catalogs: tuple[CatalogSource, ...]
    cache_max_size: CacheSize
    cache_remote: str | None
    cache_remote_key: Path | None
    dns_listen: tuple[str, int]
    daemon_autostart: bool
    auto_stop_stale_after_s: int | None
