"""A catalog: one document that says which images and kernels there are, and by which digests (docs/image-catalog.md).

It is signed as a whole, and so vouches for the bundles that it names. Its `serial` only ever rises, so that an older
one, however well signed, can be told from the one that was here before. Pure: nothing is read or asked here.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from pathlib import Path

from catalog.bundle import ARCHITECTURE, Kind
from catalog.fields import Fields, format_document, parse_fields

ARTIFACT_TYPE = "application/vnd.banger.catalog.v1"
MEDIA_TYPE = "application/vnd.banger.catalog.v1+json"
TITLE = "catalog.json"
_FORMAT = 1
_MAX_ENTRIES = 10_000
_DIGEST = re.compile(r"sha256:[0-9a-f]{64}")
_TIME = re.compile(r"[0-9]{4}-[0-9]{2}-[0-9]{2}T[0-9]{2}:[0-9]{2}:[0-9]{2}Z")
# Of a repository: distribution spec, "Pulling manifests". Before it stands a host, or "." for the catalog's folder.
_PART = r"[a-z0-9]+(?:(?:[._]|__|-+)[a-z0-9]+)*"
_REPOSITORY = re.compile(rf"(?:\.|[A-Za-z0-9\[][A-Za-z0-9.:\[\]-]*)(?:/{_PART})+")


@dataclass(frozen=True)
class CatalogSource:
    """A catalog that somebody publishes, at `HOST/REPOSITORY:TAG`.

    `key` is cosign's public key (PEM); None takes what the registry gives.
    """

    ref: str
    key: Path | None


@dataclass(frozen=True)
class Entry:
    """One bundle. `repository` is `./PATH`, beside the catalog's own repository, or `HOST/PATH` anywhere.

    `digest` is that of the bundle's OCI manifest; `size_bytes` is what a download takes.
    """

    name: str
    version: str
    repository: str
    digest: str
    size_bytes: int
    summary: str = ""
    kernel: str = ""
    architecture: str = ARCHITECTURE


@dataclass(frozen=True)
class Catalog:
    """`updated_at` is for people, in UTC: 2025-11-25T12:00:00Z. Nothing is decided by it."""

    serial: int
    updated_at: str
    entries: Mapping[Kind, tuple[Entry, ...]] = field(default_factory=dict)

    def find(self, kind: Kind, name: str) -> Entry | None:
        """The entry for this architecture."""
        found = (each for each in self.entries.get(kind, ()) if each.name == name)
        return next((each for each in found if each.architecture == ARCHITECTURE), None)

    def replace(self, kind: Kind, entry: Entry, updated_at: str) -> Catalog:
        """The next catalog, in which `entry` stands for its name."""
        others = [
            each
            for each in self.entries.get(kind, ())
            if (each.name, each.architecture) != (entry.name, entry.architecture)
        ]
        changed = tuple(sorted([*others, entry], key=lambda each: (each.name, each.architecture)))
        entries = {**self.entries, kind: changed}
        return replace(self, serial=self.serial + 1, updated_at=updated_at, entries=entries)


def format_catalog(catalog: Catalog) -> bytes:
    document: dict[str, object] = {"format": _FORMAT, "serial": catalog.serial, "updated_at": catalog.updated_at}
    for kind in Kind:
        document[f"{kind}s"] = [_format_entry(entry) for entry in catalog.entries.get(kind, ())]
    return format_document(document)


def parse_catalog(raw: bytes, what: str) -> Catalog:
    """The inverse of `format_catalog`; `what` is its reference, for messages. Raises as `parse_fields` does."""
    fields = parse_fields(raw, f"the catalog {what}", _FORMAT)
    return Catalog(
        serial=fields.number("serial", least=1),
        updated_at=fields.matching("updated_at", _TIME, "no time"),
        entries={kind: _parse_entries(fields, kind) for kind in Kind},
    )


def _format_entry(entry: Entry) -> dict[str, object]:
    optional = {"kernel": entry.kernel} if entry.kernel else {}
    return {
        "name": entry.name,
        "version": entry.version,
        "summary": entry.summary,
        "architecture": entry.architecture,
        **optional,
        "repository": entry.repository,
        "digest": entry.digest,
        "size_bytes": entry.size_bytes,
    }


def _parse_entries(fields: Fields, kind: Kind) -> tuple[Entry, ...]:
    entries = tuple(_parse_entry(each, kind) for each in fields.items(f"{kind}s", _MAX_ENTRIES))
    if len({(each.name, each.architecture) for each in entries}) != len(entries):
        fields.refuse(f"{kind}s", "a list in which a name comes twice")
    return entries


def _parse_entry(fields: Fields, kind: Kind) -> Entry:
    return Entry(
        name=fields.name("name", kind.noun),
        version=fields.word("version"),
        repository=fields.matching("repository", _REPOSITORY, "no repository"),
        digest=fields.matching("digest", _DIGEST, "no sha256 digest"),
        size_bytes=fields.number("size_bytes"),
        summary=fields.text("summary", ""),
        kernel=fields.name("kernel", "a kernel", ""),
        architecture=fields.word("architecture"),
    )
