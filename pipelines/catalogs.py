"""The configured catalogs: asked what they say now, verified, and compared with what they said before.

Each is asked at most once by one `Catalogs`. A catalog that cannot be reached is told by its `failure`, and what it
said last stands in for listing; one that is not to be trusted (a wrong or missing signature, a document that is not
what it should be, an older one than before) is an error, whoever asks for what.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from contextlib import AbstractContextManager
from dataclasses import dataclass

from banger.errors import BangerError, Reason
from banger.run import is_cancelled
from cache import Holder, Store, key_of
from catalog.bundle import Kind
from catalog.catalog import ARTIFACT_TYPE, MEDIA_TYPE, Catalog, CatalogSource, Entry, parse_catalog
from catalog.fields import MAX_DOCUMENT_BYTES
from catalog.remembered import Memory, Remembered
from catalog.signatures import PublicKey
from pipelines.oci.artifact import OciArtifact, get_layer, parse_artifact
from pipelines.oci.blob import read_verified
from pipelines.oci.reference import Reference, parse_reference
from pipelines.oci.registry import RegistryOptions, RegistrySource
from pipelines.oci.retry import Patience
from pipelines.oci.signatures import load_public_key, verify_signature

# For what something else may stand in: nobody shall wait for long.
PATIENCE = Patience(attempts=3, first_s=0.2)
# It may be there the next time, or for somebody else; nothing was found to be wrong with what it says.
_UNREACHABLE = (Reason.NETWORK, Reason.TIMEOUT, Reason.UNAVAILABLE, Reason.UNAUTHORIZED, Reason.NOT_FOUND)


def is_unreachable(error: BangerError) -> bool:
    """Whether something else may stand in for what could not be had. Never for what is not to be trusted."""
    return error.reason in _UNREACHABLE


@dataclass(frozen=True)
class Shelf:
    """What a catalog offers. With a `failure` it could not be asked now, and `catalog` is the last good one, if any."""

    source: CatalogSource
    catalog: Catalog | None
    failure: BangerError | None = None


class Catalogs:
    """All catalogs of one user, in the order in which they are asked."""

    def __init__(
        self,
        store: Store,
        memory: Memory,
        sources: Sequence[CatalogSource],
        registries: Mapping[str, RegistryOptions],
    ) -> None:
        self.sources = sources
        self.registries = registries
        self._store = store
        self._memory = memory
        self._asked: dict[str, Shelf] = {}

    def ask(self, source: CatalogSource) -> Shelf:
        """Raises what makes a catalog untrustworthy; what only keeps it out of reach is in the shelf."""
        if source.ref not in self._asked:
            self._asked[source.ref] = self._ask(source)
        return self._asked[source.ref]

    def _ask(self, source: CatalogSource) -> Shelf:
        key = find_key(source)
        try:
            found = read_catalog(source.ref, key, self.registries)
        except BangerError as error:
            if not is_unreachable(error):
                raise
            return Shelf(source, self._recall(source), error)
        self.accept(source.ref, found)
        return Shelf(source, found.catalog)

    def list_names(self, kind: Kind, *, may_ask: bool) -> set[str]:
        """What all of them offer, or did when they were last seen: of that alone, unless they may be asked."""
        if may_ask:
            found = [self.ask(source).catalog for source in self.sources]
        else:
            found = [self._recall(source) for source in self.sources]
        return {entry.name for catalog in found if catalog for entry in catalog.entries.get(kind, ())}

    def _recall(self, source: CatalogSource) -> Catalog | None:
        known = self._memory.find(source.ref)
        return None if known is None else parse_catalog(known.document, source.ref)

    def accept(self, reference: str, found: ReadCatalog) -> None:
        """Remember it. UNTRUSTED when what was there before is newer, or another with its number, and for the catalog
        of another tag: a signature does not say for which it is, so the document does.
        """
        if parse_reference(reference).tag != found.catalog.tag:
            raise BangerError(
                f"what is at {reference} is the catalog of another tag: {found.catalog.tag}",
                reason=Reason.UNTRUSTED,
                hint="a catalog is good at its own tag alone; ask who publishes it",
            )
        key = key_of("catalog", 1, {"reference": reference}, {})
        with self._store.lock(key, f"catalog:{reference}"):
            self._memory.check(reference, found.catalog, found.digest)
            known = self._memory.find(reference)
            entries = {**(known.entries if known else {}), **found.catalog.serials()}
            seen = Remembered(found.catalog.serial, found.digest, found.document, entries)
            if known != seen:
                self._memory.put(reference, seen)

    def writing(self, reference: str, on_wait: Callable[[Holder], None]) -> AbstractContextManager[None]:
        """Be the one in this home who reads, changes and puts a catalog. `on_wait` is told who is, if another is."""
        key = key_of("publish", 1, {"reference": reference}, {})
        return self._store.lock(key, f"publish:{reference}", on_wait, is_cancelled)

    def last_serial(self, reference: str) -> int:
        """0 for a catalog that was never here."""
        known = self._memory.find(reference)
        return 0 if known is None else known.serial


@dataclass(frozen=True)
class ReadCatalog:
    """A catalog with the digest of its manifest, and its document byte by byte."""

    catalog: Catalog
    digest: str
    document: bytes


def read_catalog(reference: str, key: PublicKey | None, registries: Mapping[str, RegistryOptions]) -> ReadCatalog:
    """What the registry has now, its signature verified first. What was there before plays no part."""
    registry = RegistrySource(parse_reference(reference), registries, patience=PATIENCE)
    artifact = read_signed(registry, ARTIFACT_TYPE, key, reference)
    layer = get_layer(artifact, MEDIA_TYPE, reference)
    document = read_verified(registry, layer, MAX_DOCUMENT_BYTES, PATIENCE)
    return ReadCatalog(parse_catalog(document, reference), artifact.digest, document)


def find_key(source: CatalogSource) -> PublicKey | None:
    """The key that all of a catalog has to be signed with; None when none is configured. BAD_INPUT for a bad one."""
    if source.key is None:
        return None
    try:
        return load_public_key(source.key)
    except BangerError as error:
        # Never NOT_FOUND, which would look like a catalog that is out of reach.
        raise BangerError(
            f"the key of the catalog {source.ref} will not do: {error.message}",
            reason=Reason.BAD_INPUT,
            hint=error.hint or "name cosign's public key in the catalog's entry of the configuration",
        ) from error


def read_signed(source: RegistrySource, artifact_type: str, key: PublicKey | None, what: str) -> OciArtifact:
    """An artifact's manifest; with a `key`, nothing of it is parsed before its signature is found to be right."""
    root, raw = source.read_root()
    if key is not None:
        verify_signature(source, source.reference, root.digest, key)
    return parse_artifact(root, raw, artifact_type, what)


def find_place(catalog_reference: str, entry: Entry) -> Reference:
    """Where an entry's bundle is: beside the catalog, or where it says. BAD_INPUT for what names no repository."""
    repository = entry.repository
    if repository.startswith("./"):
        catalog = parse_reference(catalog_reference)
        folder = catalog.repository.rpartition("/")[0]
        repository = "/".join(filter(None, (catalog.registry, folder, repository.removeprefix("./"))))
    found = parse_reference(f"{repository}@{entry.digest}")
    if found.canonical != f"{repository}@{entry.digest}":
        raise BangerError(
            f"the catalog {catalog_reference} names no place of a registry for {entry.name}: {repository!r}",
            reason=Reason.CORRUPT,
        )
    return found
