"""The targets of the graph for one user: their folders and settings, handed to the plans."""

from __future__ import annotations

from typing import IO

from banger.paths import Paths
from banger.settings import Settings
from cache import Store
from pipelines.oci.limits import Limits
from pipelines.reporter import Reporter
from pipelines.targets import Targets

_MIB = 1 << 20


def make_targets(
    paths: Paths, settings: Settings, store: Store, reporter: Reporter, stdin: IO[bytes] | None = None
) -> Targets:
    return Targets(
        store,
        paths.images,
        paths.kernels,
        settings.debian_mirror,
        settings.registries,
        Limits(max_image_bytes=settings.max_image_mib * _MIB),
        reporter,
        stdin,
    )
