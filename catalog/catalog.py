"""A catalog: one document that says which images and kernels there are, and by which digests (docs/image-catalog.md).

It is signed as a whole, and so vouches for the bundles that it names. It says for which tag it is, so that one of
another tag cannot stand in for it. Its `serial` only ever rises, so that an older one, however well signed, can be told
from the one that was here before. Each entry has the serial with which it came: an older entry stays old in a newer
catalog, that of a publisher who was shown an older catalog, say. Pure: nothing is read or asked here.
"""

from __future__ import annotations

import re
import time
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
# Distribution spec, "Pulling manifests".
_TAG = re.compile(r"[A-Za-z0-9_][A-Za-z0-9._-]{0,127}")
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

    `digest` is that of the bundle's OCI manifest; `size_bytes` is what a download takes. `serial` is that of the
    catalog which it came with, 0 before that.
    """

    name: str
    version: str
    repository: str
    digest: str
    size_bytes: int
    summary: str = ""
    kernel: str = ""
    architecture: str = ARCHITECTURE
    serial: int = 0


@dataclass(frozen=True)
class Catalog:
    """`tag` is the one that it is published at, in whatever registry.

    `updated_at` is for people, in UTC: 2025-11-25T12:00:00Z. Nothing is decided by it.
    """

    tag: str
    serial: int
    updated_at: str
    entries: Mapping[Kind, tuple[Entry, ...]] = field(default_factory=dict)

    def find(self, kind: Kind, name: str) -> Entry | None:
        """The entry for this architecture."""
        found = (each for each in self.entries.get(kind, ()) if each.name == name)
        return next((each for each in found if each.architecture == ARCHITECTURE), None)

    def has(self, kind: Kind, entry: Entry) -> bool:
        """Whether it says all that the entry does, since whenever."""
        return any(replace(each, serial=entry.serial) == entry for each in self.entries.get(kind, ()))

    def serials(self) -> dict[str, int]:
        """Those of the entries, by kind, name and architecture."""
        return {
            f"{kind}/{each.name}/{each.architecture}": each.serial
            for kind, entries in self.entries.items()
            for each in entries
        }

    def replace(self, kind: Kind, entry: Entry, now_s: int) -> Catalog:
        """The next catalog, in which `entry` stands for its name.

        `now_s`, in seconds since the epoch, is its serial when that is higher: so is that of one who knows nothing of
        those before, since they were lost.
        """
        serial = max(self.serial + 1, now_s)
        others = [
            each
            for each in self.entries.get(kind, ())
            if (each.name, each.architecture) != (entry.name, entry.architecture)
        ]
        added = replace(entry, serial=serial)
        changed = tuple(sorted([*others, added], key=lambda each: (each.name, each.architecture)))
        updated_at = time.strftime("%Y-%m-%dT%H:%M:%SZ", time.gmtime(now_s))
        return replace(self, serial=serial, updated_at=updated_at, entries={**self.entries, kind: changed})


def format_catalog(catalog: Catalog) -> bytes:
    document: dict[str, object] = {
        "format": _FORMAT,
        "tag": catalog.tag,
        "serial": catalog.serial,
        "updated_at": catalog.updated_at,
    }
    for kind in Kind:
        document[f"{kind}s"] = [_format_entry(entry) for entry in catalog.entries.get(kind, ())]
    return format_document(document)


def parse_catalog(raw: bytes, what: str) -> Catalog:
    """The inverse of `format_catalog`; `what` is its reference, for messages. Raises as `parse_fields` does."""
    fields = parse_fields(raw, f"the catalog {what}", _FORMAT)
    serial = fields.number("serial", least=1)
    return Catalog(
        tag=fields.matching("tag", _TAG, "no tag"),
        serial=serial,
        updated_at=fields.matching("updated_at", _TIME, "no time"),
        entries={kind: _parse_entries(fields, kind, serial) for kind in Kind},
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
        "serial": entry.serial,
    }


def _parse_entries(fields: Fields, kind: Kind, serial: int) -> tuple[Entry, ...]:
    entries = tuple(_parse_entry(each, kind, serial) for each in fields.items(f"{kind}s", _MAX_ENTRIES))
    if len({(each.name, each.architecture) for each in entries}) != len(entries):
        fields.refuse(f"{kind}s", "a list in which a name comes twice")
    return entries


def _parse_entry(fields: Fields, kind: Kind, serial: int) -> Entry:
    return Entry(
        name=fields.name("name", kind.noun),
        version=fields.word("version"),
        repository=fields.matching("repository", _REPOSITORY, "no repository"),
        digest=fields.matching("digest", _DIGEST, "no sha256 digest"),
        size_bytes=fields.number("size_bytes"),
        summary=fields.text("summary", ""),
        kernel=fields.name("kernel", "a kernel", ""),
        architecture=fields.word("architecture"),
        # None is newer than the catalog that it is in.
        serial=fields.number("serial", least=1, most=serial),
    )
