"""What a registry keeps that is no image: a manifest with an `artifactType`, a config blob, and titled layers.

Source: image-spec, manifest.md, "Guidelines for Artifact Usage". The plain `oras` command reads and shows them.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Iterable
from dataclasses import dataclass

from banger.errors import BangerError, Reason
from banger.run import printable
from pipelines.oci.config import parse_document, shown
from pipelines.oci.manifest import MAX_LAYERS, OCI_MANIFEST, check_document, parse_descriptor
from pipelines.oci.source import Descriptor

# "A well-known name for a layer": what `oras pull` calls the file (image-spec, annotations.md).
_TITLE = "org.opencontainers.image.title"
EMPTY_CONFIG = b"{}"


@dataclass(frozen=True)
class OciArtifact:
    """A manifest that was read: `digest` is its own."""

    digest: str
    config: Descriptor
    layers: tuple[Descriptor, ...]


def describe_blob(content: bytes, media_type: str, title: str = "") -> Descriptor:
    digest = f"sha256:{hashlib.sha256(content).hexdigest()}"
    return Descriptor(media_type, digest, len(content), annotations={_TITLE: title} if title else {})


def describe_empty() -> Descriptor:
    """The config of what has none (image-spec, manifest.md, "Guidance for an Empty Descriptor")."""
    return describe_blob(EMPTY_CONFIG, "application/vnd.oci.empty.v1+json")


def with_title(descriptor: Descriptor, title: str) -> Descriptor:
    return Descriptor(descriptor.media_type, descriptor.digest, descriptor.size_bytes, annotations={_TITLE: title})


def format_artifact(artifact_type: str, config: Descriptor, layers: Iterable[Descriptor]) -> bytes:
    """The manifest: equal parts are equal bytes."""
    manifest = {
        "schemaVersion": 2,
        "mediaType": OCI_MANIFEST,
        "artifactType": artifact_type,
        "config": _format_descriptor(config),
        "layers": [_format_descriptor(layer) for layer in layers],
    }
    return json.dumps(manifest, sort_keys=True, separators=(",", ":")).encode()


def parse_artifact(descriptor: Descriptor, raw: bytes, artifact_type: str, what: str) -> OciArtifact:
    """The manifest of an artifact of that type. CORRUPT when it is not `descriptor`'s, BAD_INPUT for other types."""
    check_document(descriptor, raw)
    document = parse_document(raw, f"the manifest {descriptor.digest}")
    found = document.text("artifactType") or document.text("mediaType") or "an unknown type"
    if found != artifact_type:
        raise BangerError(
            f"{printable(what)} is of type {shown(found)}, not {artifact_type}",
            reason=Reason.BAD_INPUT,
            hint="check the repository's name and the tag",
        )
    layers = document.items("layers")
    if len(layers) > MAX_LAYERS:
        raise BangerError(f"{printable(what)} has more than {MAX_LAYERS} layers", reason=Reason.TOO_LARGE)
    return OciArtifact(
        digest=descriptor.digest,
        config=parse_descriptor(document.fields.get("config")),
        layers=tuple(map(parse_descriptor, layers)),
    )


def get_layer(artifact: OciArtifact, media_type: str, what: str) -> Descriptor:
    """The one layer of a type; CORRUPT when there is none, or more than one."""
    found = [layer for layer in artifact.layers if layer.media_type == media_type]
    if len(found) != 1:
        raise BangerError(
            f"{printable(what)} has {len(found) or 'no'} layers of type {media_type}", reason=Reason.CORRUPT
        )
    return found[0]


def _format_descriptor(descriptor: Descriptor) -> dict[str, object]:
    found: dict[str, object] = {
        "mediaType": descriptor.media_type,
        "digest": descriptor.digest,
        "size": descriptor.size_bytes,
    }
    if descriptor.annotations:
        found["annotations"] = dict(descriptor.annotations)
    return found
