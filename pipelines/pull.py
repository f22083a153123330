"""From a name in a catalog to an image or kernel that is here: found, verified, downloaded, ready to be named.

The catalogs are asked in their order. One that cannot be reached, or has something that cannot be got, is passed over
and remembered as a `failure`: whoever asked decides what may stand in for it. What is not to be trusted is an error.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field

from banger.errors import BangerError, Reason
from cache import Store
from catalog.bundle import ARCHITECTURE, Bundle, Kind, parse_bundle
from catalog.catalog import CatalogSource, Entry
from catalog.fields import MAX_DOCUMENT_BYTES
from pipelines.bundle import plan_downloads
from pipelines.catalogs import PATIENCE, Catalogs, find_key, find_place, is_unreachable, read_signed
from pipelines.graph import build
from pipelines.oci.artifact import OciArtifact
from pipelines.oci.blob import read_verified
from pipelines.oci.limits import Limits
from pipelines.oci.registry import RegistrySource
from pipelines.reporter import Reporter
from pipelines.step import Artifact


@dataclass(frozen=True)
class Pulled:
    """Files that are in the store, and what is to be said of them where they get their name."""

    artifacts: Mapping[str, Artifact]
    details: Mapping[str, str]


@dataclass(frozen=True)
class Answer:
    """What the catalogs gave. Without `pulled`, `failures` are those that might have had it, had they been reached."""

    pulled: Pulled | None
    failures: tuple[BangerError, ...] = field(default_factory=tuple)


def pull(store: Store, catalogs: Catalogs, kind: Kind, name: str, limits: Limits, reporter: Reporter) -> Answer:
    """The first catalog that has the name and gives it; its files are downloaded when this returns."""
    failures: list[BangerError] = []
    for source in catalogs.sources:
        shelf = catalogs.ask(source)
        if shelf.failure is not None:
            failures.append(shelf.failure)
            continue
        assert shelf.catalog is not None
        entry = shelf.catalog.find(kind, name)
        if entry is None:
            continue
        try:
            return Answer(_pull_entry(store, catalogs, source, kind, entry, limits, reporter), tuple(failures))
        except BangerError as error:
            if not is_unreachable(error):
                raise
            failures.append(error)
    return Answer(None, tuple(failures))


def _pull_entry(
    store: Store,
    catalogs: Catalogs,
    source: CatalogSource,
    kind: Kind,
    entry: Entry,
    limits: Limits,
    reporter: Reporter,
) -> Pulled:
    place = find_place(source.ref, entry)
    registry = RegistrySource(place, catalogs.registries)
    artifact = read_signed(registry, kind.artifact_type, find_key(source), place.canonical)
    bundle, raw = _read_bundle(registry, artifact, kind, entry)
    artifacts = plan_downloads(registry, artifact, bundle, raw, limits)
    build(store, [artifact.step for artifact in artifacts.values()], reporter)
    return Pulled(artifacts, _describe(source, entry, bundle))


def _read_bundle(source: RegistrySource, artifact: OciArtifact, kind: Kind, entry: Entry) -> tuple[Bundle, bytes]:
    if artifact.config.media_type != kind.config_type:
        raise BangerError(f"{source.reference} has no manifest of {kind.noun}", reason=Reason.CORRUPT)
    raw = read_verified(source, artifact.config, MAX_DOCUMENT_BYTES, PATIENCE)
    bundle = parse_bundle(raw, kind)
    if (bundle.name, bundle.architecture) != (entry.name, ARCHITECTURE):
        raise BangerError(
            f"{source.reference} holds {bundle.name} for {bundle.architecture}, not {entry.name} for {ARCHITECTURE}",
            reason=Reason.CORRUPT,
            hint="the catalog and the bundle do not belong together; ask who publishes them",
        )
    return bundle, raw


def _describe(source: CatalogSource, entry: Entry, bundle: Bundle) -> dict[str, str]:
    """`origin` is what the image was made from where it was made."""
    details = {
        "source": "catalog",
        "reference": source.ref,
        "entry": entry.name,
        "version": bundle.version,
        "digest": entry.digest,
        "origin": bundle.source.get("kind", "unknown"),
    }
    free = {"summary": bundle.summary, "distro": bundle.distro, "kernel": bundle.kernel, "runtime": bundle.runtime}
    return details | {name: text for name, text in free.items() if text}
