"""The targets of the graph for one user: their folders and settings, handed to the plans."""

from __future__ import annotations

from typing import IO

from banger.paths import Paths
from banger.settings import Settings
from cache import Store
from catalog.remembered import Memory
from pipelines.catalogs import Catalogs
from pipelines.oci.limits import Limits
from pipelines.remote import RemoteCache
from pipelines.reporter import Reporter
from pipelines.targets import Targets

_MIB = 1 << 20


def make_targets(
    paths: Paths,
    settings: Settings,
    store: Store,
    reporter: Reporter,
    stdin: IO[bytes] | None = None,
    *,
    may_pull: bool = True,
    may_build: bool = True,
) -> Targets:
    """`Targets` tells what `may_pull` and `may_build` are about."""
    return Targets(
        store,
        paths.images,
        paths.kernels,
        settings.debian_mirror,
        settings.registries,
        Limits(max_image_bytes=settings.max_image_mib * _MIB),
        reporter,
        stdin,
        make_catalogs(paths, settings, store),
        may_pull,
        may_build,
        make_remote(settings, store, reporter) if may_pull else None,
    )


def make_remote(settings: Settings, store: Store, reporter: Reporter) -> RemoteCache | None:
    """The remote cache of the configuration. It is not asked before something is missing."""
    if settings.cache_remote is None:
        return None
    from pipelines.remote_registry import RegistryCache

    limits = Limits(max_image_bytes=settings.max_image_mib * _MIB)
    return RegistryCache(
        settings.cache_remote, settings.registries, store, reporter, key=settings.cache_remote_key, limits=limits
    )


def make_catalogs(paths: Paths, settings: Settings, store: Store) -> Catalogs:
    return Catalogs(store, Memory(paths.catalogs), settings.catalogs, settings.registries)
