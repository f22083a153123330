"""From what a reference stands for to the one image for this machine: manifests and indexes (image-spec).

Sources: image-spec manifest.md, image-index.md, descriptor.md, media-types.md; distribution, "Image Manifest V 2,
Schema 2". Every document is checked against the digest and size that led to it before it is parsed, and the number and
depth of documents is bounded. Layers are named here, not read.
"""

from __future__ import annotations

import hashlib
import re
from dataclasses import dataclass

from banger.errors import BangerError, Reason
from banger.run import printable
from pipelines.oci.blob import read_verified
from pipelines.oci.config import Document, parse_document, parse_image_config, shown
from pipelines.oci.source import Descriptor, Source, parse_digest

MAX_DOCUMENT_BYTES = 4 << 20
MAX_CONFIG_BYTES = 16 << 20
MAX_LAYERS = 500
_MAX_DEPTH = 8
_MAX_DOCUMENTS = 64
_MAX_SEEN = 20

OCI_MANIFEST = "application/vnd.oci.image.manifest.v1+json"
OCI_CONFIG = "application/vnd.oci.image.config.v1+json"
OCI_LAYER = "application/vnd.oci.image.layer.v1.tar"
_CONFIGS = (OCI_CONFIG, "application/vnd.docker.container.image.v1+json")
_MANIFESTS = (OCI_MANIFEST, "application/vnd.docker.distribution.manifest.v2+json")
_INDEXES = (
    "application/vnd.oci.image.index.v1+json",
    "application/vnd.docker.distribution.manifest.list.v2+json",
)
_OLD_ARTIFACT = "application/vnd.oci.artifact.manifest.v1+json"
_SCHEMA_1 = "application/vnd.docker.distribution.manifest.v1+"
_LAYER = re.compile(
    r"application/vnd\.(oci\.image\.layer\.(nondistributable\.)?v1|docker\.image\.rootfs\.(foreign\.)?diff)"
    r"\.tar([+.](gzip|zstd))?"
)
# What BuildKit calls the provenance that it puts beside each image of an index.
_ATTESTATION = "vnd.docker.reference.type"

_LOOK_INSIDE = 1


@dataclass(frozen=True)
class Layer:
    """`descriptor` is the blob as it travels; `diff_id` the digest of the tar that it unpacks to."""

    descriptor: Descriptor
    diff_id: str


@dataclass(frozen=True)
class ResolvedImage:
    """What a reference stands for. `digest` is the root document's, which the tag names; the config is verified."""

    digest: str
    manifest_digest: str
    layers: tuple[Layer, ...]
    config: bytes


def resolve_image(source: Source) -> ResolvedImage:
    """Ask `source` what it stands for now, and find its image for linux/amd64.

    Raises NOT_FOUND when there is none for this platform, BAD_INPUT for what is no image or of a form that is not
    supported, CORRUPT for what contradicts itself or its digest, TOO_LARGE past a limit, and what the source raises.
    """
    root, raw = source.read_root()
    search = _Search(source, root)
    image = search.find(root, raw, depth=0)
    if image is None:
        seen = ", ".join(dict.fromkeys(search.seen[:_MAX_SEEN])) or "nothing that is an image"
        more = " and more" if len(search.seen) > _MAX_SEEN else ""
        raise BangerError(
            f"{printable(source.reference)} has no image for linux/amd64; it has {seen}{more}",
            reason=Reason.NOT_FOUND,
            hint="take a tag that was made for this platform",
        )
    return image


def parse_descriptor(value: object) -> Descriptor:
    """A descriptor as the spec has it (image-spec, descriptor.md, "Properties"); CORRUPT when a part is not."""
    if not isinstance(value, dict):
        raise BangerError("a descriptor is no JSON object", reason=Reason.CORRUPT)
    document = Document("a descriptor", value)
    media_type = document.text("mediaType")
    size = value.get("size")
    if not media_type:
        document.refuse("mediaType")
    if not isinstance(size, int) or isinstance(size, bool) or size < 0:
        document.refuse("size")
    return Descriptor(
        media_type=media_type,
        digest=parse_digest(value.get("digest")),
        size_bytes=size,
        platform=document.document("platform").fields,
        annotations=document.labels("annotations"),
    )


def check_document(descriptor: Descriptor, raw: bytes) -> None:
    """Whether the bytes of a manifest or index are those that `descriptor` speaks of."""
    if len(raw) > MAX_DOCUMENT_BYTES:
        raise _too_large(f"the manifest {descriptor.digest} is larger than 4 MiB")
    algorithm, _, told = descriptor.digest.partition(":")
    if descriptor.size_bytes not in (-1, len(raw)) or hashlib.new(algorithm, raw).hexdigest() != told:
        raise _corrupt(f"the manifest {descriptor.digest} is not what its digest and size say")


class _Search:
    """One way down from the root; `seen` is what was passed over, for the message when nothing fits."""

    def __init__(self, source: Source, root: Descriptor) -> None:
        self._source = source
        self._root = root
        self._documents = 0
        self.seen: list[str] = []

    def find(self, descriptor: Descriptor, raw: bytes, depth: int) -> ResolvedImage | None:
        """The image in this document or below it. None, and a word in `seen`, when it is for other machines."""
        check_document(descriptor, raw)
        document = parse_document(raw, f"the manifest {descriptor.digest}")
        if _is_index(descriptor, document):
            return self._find_in_index(document, depth)
        artifact = _find_artifact(document)
        if artifact is not None:
            if depth and not descriptor.platform:
                self.seen.append(artifact)
                return None
            raise BangerError(
                f"{printable(self._source.reference)} is no image, but {artifact}",
                reason=Reason.BAD_INPUT,
                hint="give the reference of an image",
            )
        return self._find_image(descriptor, document)

    def _find_in_index(self, index: Document, depth: int) -> ResolvedImage | None:
        if depth >= _MAX_DEPTH:
            raise _corrupt(f"indexes are nested more than {_MAX_DEPTH} deep")
        ranked: list[tuple[int, Descriptor]] = []
        for entry in map(parse_descriptor, index.items("manifests")):
            platform = _format_platform(entry)
            rank = _rank(entry, platform)
            if rank is not None:
                ranked.append((rank, entry))
            elif _ATTESTATION not in entry.annotations and platform != "unknown/unknown":
                self.seen.append(shown(platform))
        for _rank_of, entry in sorted(ranked, key=lambda pair: pair[0]):
            found = self.find(entry, self._read(entry), depth + 1)
            if found is not None:
                return found
        return None

    def _find_image(self, descriptor: Descriptor, manifest: Document) -> ResolvedImage | None:
        raw = read_verified(self._source, parse_descriptor(manifest.fields.get("config")), MAX_CONFIG_BYTES)
        config = parse_image_config(raw)
        # What an index says of a platform counts; a manifest that no index speaks of must say it itself.
        if not descriptor.platform and (config.os or "linux", _format_architecture(config.architecture or "amd64")) != (
            "linux",
            "amd64",
        ):
            self.seen.append(shown(f"{config.os}/{config.architecture}"))
            return None
        return ResolvedImage(
            digest=self._root.digest,
            manifest_digest=descriptor.digest,
            layers=_parse_layers(manifest, config.diff_ids),
            config=raw,
        )

    def _read(self, entry: Descriptor) -> bytes:
        self._documents += 1
        if self._documents > _MAX_DOCUMENTS:
            raise _too_large(f"more than {_MAX_DOCUMENTS} manifests had to be read to find one for linux/amd64")
        if entry.size_bytes > MAX_DOCUMENT_BYTES:
            raise _too_large(f"the manifest {entry.digest} is larger than 4 MiB")
        return self._source.read_manifest(entry)


def _is_index(descriptor: Descriptor, document: Document) -> bool:
    """By its shape, which must not contradict what it says it is: a document that could be both may mean two things."""
    told = (document.text("mediaType"), descriptor.media_type)
    version = document.fields.get("schemaVersion")
    if version == 1 or "fsLayers" in document.fields or any(each.startswith(_SCHEMA_1) for each in told):
        raise BangerError(
            "the image has a manifest of Docker's old schema 1, which is not supported",
            reason=Reason.BAD_INPUT,
            hint="push it again with a current docker, or convert it: skopeo copy --format oci",
        )
    is_index = document.fields.get("manifests") is not None
    is_manifest = document.fields.get("config") is not None or document.fields.get("layers") is not None
    contradicted = any(each in (_MANIFESTS if is_index else _INDEXES) for each in told)
    if (is_index and is_manifest) or contradicted:
        raise _corrupt(f"{document.what} could be an index as well as an image's manifest")
    return is_index


def _find_artifact(manifest: Document) -> str | None:
    """What a manifest is for, when it is not an image (image-spec, manifest.md, "Guidelines for Artifact Usage")."""
    artifact = manifest.text("artifactType")
    if artifact or manifest.text("mediaType") == _OLD_ARTIFACT:
        return f"an artifact of type {shown(artifact or _OLD_ARTIFACT)}"
    if manifest.fields.get("config") is None:
        raise _corrupt(f"{manifest.what} is neither that of an image nor an index")
    kind = parse_descriptor(manifest.fields["config"]).media_type
    return None if kind in _CONFIGS else f"an artifact of type {shown(kind)}"


def _parse_layers(manifest: Document, diff_ids: tuple[str, ...]) -> tuple[Layer, ...]:
    values = manifest.items("layers")
    if len(values) > MAX_LAYERS:
        raise _too_large(f"the image has {len(values)} layers, more than {MAX_LAYERS}")
    if len(values) != len(diff_ids):
        raise _corrupt(f"the image has {len(values)} layers, but its config speaks of {len(diff_ids)}")
    layers = []
    for value, diff_id in zip(values, diff_ids, strict=True):
        descriptor = parse_descriptor(value)
        if descriptor.media_type.endswith("+encrypted"):
            raise BangerError(
                f"the layer {descriptor.digest} is encrypted",
                reason=Reason.BAD_INPUT,
                hint="decrypt the image first: skopeo copy --decryption-key KEY",
            )
        if _LAYER.fullmatch(descriptor.media_type) is None:
            raise BangerError(
                f"the layer {descriptor.digest} is of a type that is not known: {shown(descriptor.media_type)}",
                reason=Reason.BAD_INPUT,
            )
        layers.append(Layer(descriptor, parse_digest(diff_id)))
    return tuple(layers)


def _rank(entry: Descriptor, platform: str) -> int | None:
    """The lower, the better; None is no choice. Variants v2 and up need a processor that may not be there."""
    if _ATTESTATION in entry.annotations:
        return None
    if not entry.platform:
        return _LOOK_INSIDE
    if platform in ("linux/amd64", "linux/amd64/v1"):
        return 0
    variant = re.fullmatch(r"linux/amd64/v([2-9])", platform)
    if variant is not None:
        return int(variant[1])
    return 10 if platform.startswith("linux/amd64/") else None


def _format_platform(entry: Descriptor) -> str:
    """`os/architecture[/variant]`, as image-index.md's "platform" has it."""
    platform = Document("a platform", entry.platform)
    parts = [platform.text("os"), _format_architecture(platform.text("architecture")), platform.text("variant")]
    return "/".join(parts if parts[2] else parts[:2])


def _format_architecture(text: str) -> str:
    # The spec wants Go's names; tools that never asked Go write the kernel's.
    return "amd64" if text in ("x86_64", "x86-64") else text


def _corrupt(message: str) -> BangerError:
    return BangerError(message, reason=Reason.CORRUPT)


def _too_large(message: str) -> BangerError:
    return BangerError(message, reason=Reason.TOO_LARGE)
