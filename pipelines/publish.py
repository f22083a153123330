"""Publishing: a bundle is pushed and signed, and the catalog beside it is made to name it.

    HOST/PREFIX/images/NAME:VERSION-DIGEST, HOST/PREFIX/kernels/NAME:VERSION-DIGEST      the bundles
    HOST/PREFIX/catalog:TAG                                                              the catalog

No tag of a bundle ever moves to another one: what a registry has without a tag it may delete, and some catalog may name
it still.

What the registry has is not sent again, what this key has signed is not signed again, and a catalog that would say
nothing new is not touched: to publish the same twice uploads nothing.

In one home, one at a time reads, changes and puts a catalog. A registry has no lock, so between homes a catalog is only
put when nobody put another one meanwhile, and is read once more afterwards. Not promised: between the last look and the
putting is an instant in which somebody else's change can be overwritten after they looked for it. Publishing theirs
again puts it right.
"""

from __future__ import annotations

import io
import re
import time
from collections.abc import Callable
from contextlib import AbstractContextManager, ExitStack
from dataclasses import dataclass

from banger.errors import BangerError, Reason
from banger.sizes import format_bytes
from cache import Holder, Store
from catalog.bundle import Kind
from catalog.catalog import ARTIFACT_TYPE, MEDIA_TYPE, TITLE, Catalog, Entry, format_catalog
from catalog.names import parse_name
from catalog.signatures import PrivateKey
from pipelines.bundle import Packed, pack
from pipelines.catalogs import Catalogs, ReadCatalog, read_catalog
from pipelines.oci.artifact import EMPTY_CONFIG, describe_blob, describe_empty, format_artifact
from pipelines.oci.manifest import OCI_MANIFEST
from pipelines.oci.push import Pusher, open_pusher
from pipelines.oci.reference import parse_reference
from pipelines.oci.signatures import format_signature_tag, push_signature
from pipelines.reporter import Reporter
from pipelines.targets import Targets

_CATALOG = "catalog"
_TAG = "stable"
_ATTEMPTS = 5
# What a document takes as a word and a tag with few changes: "+" and "~" are common in kernels' releases.
_VERSION = re.compile(r"[A-Za-z0-9][A-Za-z0-9._+~-]{0,127}")
_MAX_TAG_CHARS = 128
_DIGEST_CHARS = 12


@dataclass(frozen=True)
class Place:
    """A folder of a registry (`registry.example.com/team`), and the tag of the catalog in it."""

    folder: str
    tag: str

    @property
    def catalog(self) -> str:
        """What users write into their configuration."""
        return f"{self.folder}/{_CATALOG}:{self.tag}"

    def repository(self, kind: Kind, name: str) -> str:
        return f"{self.folder}/{_beside(kind, name)}"


@dataclass(frozen=True)
class Published:
    """`serial` is the catalog's; `is_new` whether it is another than before."""

    name: str
    version: str
    reference: str
    catalog: str
    serial: int
    is_new: bool
    uploaded_blobs: int
    uploaded_bytes: int


def parse_place(text: str) -> Place:
    """`HOST/PREFIX[:TAG]`; the tag is `stable` when there is none. Raises BAD_INPUT."""
    folder, slash, last = text.rpartition("/")
    last, colon, tag = last.partition(":")
    place = Place(f"{folder}{slash}{last}", tag if colon else _TAG)
    try:
        is_place = bool(slash) and parse_reference(place.catalog).canonical == place.catalog
    except BangerError:
        is_place = False
    if not is_place:
        raise BangerError(
            f"{text[:200]!r} is no place to publish to",
            reason=Reason.BAD_INPUT,
            hint="name a registry and a folder of it: registry.example.com/team, or registry.example.com/team:testing",
        )
    return place


def parse_version(text: str) -> str:
    if _VERSION.fullmatch(text) is None:
        raise BangerError(
            f"{text[:200]!r} is no version", reason=Reason.BAD_INPUT, hint="use letters, digits, and . _ - + ~"
        )
    return text


def format_tag(version: str, digest: str) -> str:
    """A bundle's tag (distribution spec, "Pulling manifests"): what people call it, and which one of these it is."""
    end = f"-{digest.partition(':')[2][:_DIGEST_CHARS]}"
    return re.sub(r"[^A-Za-z0-9._-]", "_", version)[: _MAX_TAG_CHARS - len(end)] + end


def check_name(name: str, kind: Kind) -> str:
    """A name as catalogs have them: no reference, such as images of registries go by."""
    try:
        return parse_name(name, kind.noun)
    except BangerError as error:
        hint = f"give it one: banger image build {name} --name NAME" if kind is Kind.IMAGE else error.hint
        raise BangerError(f"{name!r} is no name for a catalog", reason=error.reason, hint=hint) from error


def publish_named(
    targets: Targets,
    kind: Kind,
    name: str,
    place: Place,
    catalogs: Catalogs,
    key: PrivateKey | None,
    version: str | None,
    reporter: Reporter,
) -> Published:
    """Pack and publish what is here under a name. NOT_FOUND when nothing is."""
    check_name(name, kind)
    names = targets.images if kind is Kind.IMAGE else targets.kernels
    named = names.get(name)
    target = targets.plan_image(name) if kind is Kind.IMAGE else targets.plan_kernel(name)
    packed = pack(targets.store, kind, target, named, version, reporter)
    return publish(targets.store, packed, place, catalogs, key, reporter)


def publish(
    store: Store,
    packed: Packed,
    place: Place,
    catalogs: Catalogs,
    key: PrivateKey | None,
    reporter: Reporter,
    now: Callable[[], float] = time.time,
) -> Published:
    """Push what is missing. Without a `key` nothing is signed, and a catalog that is signed is not touched.

    Raises UNTRUSTED when the catalog there is not one that this key signed, or is older than one that was there
    before; UNAVAILABLE when others go on changing it; and what pushing may raise.
    """
    kind, name = packed.bundle.kind, check_name(packed.bundle.name, packed.bundle.kind)
    entry = Entry(
        name=name,
        version=parse_version(packed.bundle.version),
        repository=f"./{_beside(kind, name)}",
        digest=packed.digest,
        size_bytes=packed.download_bytes,
        summary=packed.bundle.summary,
        kernel=packed.bundle.kernel,
        architecture=packed.bundle.architecture,
    )
    repository = place.repository(kind, name)
    with ExitStack() as opened:
        pushers = [
            opened.enter_context(open_pusher(reference, catalogs.registries))
            for reference in (f"{repository}:latest", place.catalog)
        ]
        writer = _CatalogWriter(place, catalogs, key, pushers[1], reporter, now)
        writer.check()
        _push_bundle(store, packed, pushers[0], key, reporter)
        catalog, is_new = writer.put(kind, entry)
    _tell(catalog, entry, kind, key, reporter)
    return Published(
        name=name,
        version=entry.version,
        reference=f"{repository}@{packed.digest}",
        catalog=place.catalog,
        serial=catalog.serial,
        is_new=is_new,
        uploaded_blobs=sum(pusher.uploaded_blobs for pusher in pushers),
        uploaded_bytes=sum(pusher.uploaded_bytes for pusher in pushers),
    )


def describe_published(published: Published) -> str:
    """The line that a user reads."""
    blobs = f"{published.uploaded_blobs} blob{'' if published.uploaded_blobs == 1 else 's'} uploaded"
    size = f" ({format_bytes(published.uploaded_bytes)})" if published.uploaded_blobs else ""
    what = f"is now at serial {published.serial}" if published.is_new else f"is unchanged, at serial {published.serial}"
    return f"{published.name} {published.version}: {blobs}{size}; {published.catalog} {what}"


def _beside(kind: Kind, name: str) -> str:
    return f"{kind}s/{name}"


def _push_bundle(store: Store, packed: Packed, pusher: Pusher, key: PrivateKey | None, reporter: Reporter) -> None:
    step = f"push:{packed.bundle.name}"
    reporter.started(step)
    begin = time.monotonic()
    try:
        for layer, made in packed.layers:
            path = store.path(made)
            pusher.push_blob(
                layer.digest,
                layer.size_bytes,
                lambda path=path: path.open("rb"),  # type: ignore[misc]
                lambda done, total=layer.size_bytes: reporter.progress(step, "uploading", done, total),  # type: ignore[misc]
            )
        _push_bytes(pusher, packed.config)
        # Signed before anybody can find it.
        if key is not None:
            push_signature(pusher, pusher.repository, packed.digest, key)
        tag = format_tag(packed.bundle.version, packed.digest)
        if not pusher.has_manifest(tag, packed.digest):
            pusher.push_manifest(packed.manifest, OCI_MANIFEST, tag)
    except BangerError as error:
        reporter.failed(step, error)
        raise
    else:
        reporter.finished(step, time.monotonic() - begin, pusher.uploaded_bytes)
    finally:
        reporter.close()


def _push_bytes(pusher: Pusher, content: bytes) -> None:
    blob = describe_blob(content, "")
    pusher.push_blob(blob.digest, blob.size_bytes, lambda: io.BytesIO(content))


@dataclass(frozen=True)
class _CatalogWriter:
    """Reads, changes and puts the catalog of a place."""

    place: Place
    catalogs: Catalogs
    key: PrivateKey | None
    pusher: Pusher
    reporter: Reporter
    now: Callable[[], float]

    def check(self) -> None:
        """Whether it is ours is known before anything is sent."""
        with self._turn():
            self._read()

    def _turn(self) -> AbstractContextManager[None]:
        """Also for looking: what was read before another put the next one would be taken for a rollback after it."""

        def tell(holder: Holder) -> None:
            self.reporter.waiting(f"publish:{self.place.catalog}", f"process {holder.pid} is changing the catalog")

        return self.catalogs.writing(self.place.catalog, tell)

    def _read(self) -> ReadCatalog | None:
        """What is there now, if it is ours; None when there is none."""
        if not self.pusher.has_manifest(self.place.tag):
            return None
        public = None if self.key is None else self.key.public
        try:
            found = read_catalog(self.place.catalog, public, self.catalogs.registries)
        except BangerError as error:
            if error.reason is Reason.UNTRUSTED:
                hint = "publish to another tag, or, if what is there is yours, sign it: "
                hint += "cosign sign --key KEY --tlog-upload=false"
                raise BangerError(error.message, reason=error.reason, hint=hint) from error
            raise
        if self.key is None and self.pusher.has_manifest(format_signature_tag(found.digest)):
            raise BangerError(
                f"the catalog {self.place.catalog} is signed, and there is no key to sign its next version with",
                reason=Reason.UNTRUSTED,
                hint="set BANGER_SIGNING_KEY to the private key, or the path of its file",
            )
        self.catalogs.accept(self.place.catalog, found)
        return found

    def put(self, kind: Kind, entry: Entry) -> tuple[Catalog, bool]:
        """The catalog that has the entry, and whether it had to be changed for that."""
        with self._turn():
            return self._put_entry(kind, entry)

    def _put_entry(self, kind: Kind, entry: Entry) -> tuple[Catalog, bool]:
        is_new = False
        for _attempt in range(_ATTEMPTS):
            found = self._read()
            if found is None:
                # Where it was lost, its readers still remember the last one.
                before = Catalog(self.place.tag, self.catalogs.last_serial(self.place.catalog), "")
            else:
                before = found.catalog
            if before.has(kind, entry):
                return before, is_new
            self._put(before.replace(kind, entry, int(self.now())), None if found is None else found.digest)
            # The next turn looks whether it is there.
            is_new = True
        raise BangerError(
            f"somebody else keeps changing the catalog {self.place.catalog}",
            reason=Reason.UNAVAILABLE,
            hint="publish again when they have finished",
        )

    def _put(self, catalog: Catalog, before: str | None) -> None:
        document = format_catalog(catalog)
        layer = describe_blob(document, MEDIA_TYPE, TITLE)
        manifest = format_artifact(ARTIFACT_TYPE, describe_empty(), [layer])
        _push_bytes(self.pusher, EMPTY_CONFIG)
        _push_bytes(self.pusher, document)
        if self.key is not None:
            digest = describe_blob(manifest, "").digest
            push_signature(self.pusher, self.pusher.repository, digest, self.key)
        # Without `before`, nothing must have come there meanwhile.
        if self.pusher.has_manifest(self.place.tag, before) == (before is not None):
            self.pusher.push_manifest(manifest, OCI_MANIFEST, self.place.tag)


def _tell(catalog: Catalog, entry: Entry, kind: Kind, key: PrivateKey | None, reporter: Reporter) -> None:
    if key is None:
        reporter.note(
            "nothing was signed: whoever can write to the registry is trusted (BANGER_SIGNING_KEY is not set)"
        )
    if kind is Kind.IMAGE and entry.kernel and catalog.find(Kind.KERNEL, entry.kernel) is None:
        reporter.note(f"the catalog has no kernel {entry.kernel}, which {entry.name} boots: publish it too")
