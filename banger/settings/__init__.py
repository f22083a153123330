"""The configuration: `~/.config/banger/config.toml`, and what takes its place or fills it up.

Every key is optional and an unknown one is refused. `table.py` says all that there is to a key; the rest reads it.
"""

from banger.settings.load import (
    Configuration,
    Effective,
    Origin,
    config_path,
    load_configuration,
    load_settings,
    parse_settings,
)
from banger.settings.model import (
    DEFAULT_MAX_IMAGE_MIB,
    MAX_DISK_MIB,
    MAX_MEMORY_MIB,
    MAX_VCPUS,
    MIN_DISK_MIB,
    MIN_MEMORY_MIB,
    CacheSize,
    FileSync,
    KvmChoice,
    Settings,
    VmmChoice,
)

__all__ = [
    "DEFAULT_MAX_IMAGE_MIB",
    "MAX_DISK_MIB",
    "MAX_MEMORY_MIB",
    "MAX_VCPUS",
    "MIN_DISK_MIB",
    "MIN_MEMORY_MIB",
    "CacheSize",
    "Configuration",
    "Effective",
    "FileSync",
    "KvmChoice",
    "Origin",
    "Settings",
    "VmmChoice",
    "config_path",
    "load_configuration",
    "load_settings",
    "parse_settings",
]
