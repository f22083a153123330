"""Signatures in a registry, where cosign puts and finds them: beside the manifest, at the tag `sha256-HEX.sig`.

There lies an image whose layers are payloads, each with its signature as an annotation (cosign's
specs/SIGNATURE_SPEC.md, "Storage"). Several keys may have signed; one of them is added without touching the others.
No transparency log plays a part, and no certificate.

Not promised: of two that sign the same manifest at the same moment, one may be lost; it is added by signing again.
"""

from __future__ import annotations

import io
import json
import os
from collections.abc import Mapping, Sequence
from dataclasses import replace
from functools import partial
from pathlib import Path

from banger.errors import BangerError, Reason
from banger.run import printable
from catalog.signatures import (
    MAX_KEY_BYTES,
    MAX_PAYLOAD_BYTES,
    PrivateKey,
    PublicKey,
    check_payload,
    make_payload,
    read_private_key,
    read_public_key,
    sign,
    verify,
)
from pipelines.oci.artifact import describe_blob
from pipelines.oci.blob import read_verified
from pipelines.oci.config import parse_document
from pipelines.oci.manifest import OCI_CONFIG, OCI_MANIFEST, check_document, parse_descriptor
from pipelines.oci.push import Pusher
from pipelines.oci.reference import DEFAULT_REGISTRY, parse_reference
from pipelines.oci.registry import RegistrySource
from pipelines.oci.source import Descriptor

_PAYLOAD_TYPE = "application/vnd.dev.cosign.simplesigning.v1+json"
_ANNOTATION = "dev.cosignproject.cosign/signature"
_MAX_SIGNATURES = 100
# Go's zero time, as cosign writes it: equal signatures are equal images.
_NO_TIME = "0001-01-01T00:00:00Z"


def verify_signature(source: RegistrySource, reference: str, manifest_digest: str, key: PublicKey) -> None:
    """Return only if `key` signed the manifest. `source` is one of its repository; `reference` is for messages.

    Raises UNTRUSTED without a signature, without one of this key, and when the key signed another manifest; CORRUPT
    when what is there is no signature at all; and what asking the registry may raise.
    """
    what = printable(reference)
    layers = _read_signatures(source, manifest_digest)
    if not layers:
        raise BangerError(
            f"{what} is not signed ({manifest_digest[:19]})",
            reason=Reason.UNTRUSTED,
            hint="it has to be signed with the key that the configuration names",
        )
    is_good, failure = _look_through(source, layers, manifest_digest, key)
    if is_good:
        return
    if failure is not None:
        raise BangerError(f"{what}: {failure.message}", reason=failure.reason, hint=failure.hint)
    raise BangerError(
        f"{what} is signed, but not with the key {key.fingerprint[:12]}",
        reason=Reason.UNTRUSTED,
        hint="see whether the configuration names the right key",
    )


def push_signature(pusher: Pusher, repository_reference: str, manifest_digest: str, key: PrivateKey) -> bool:
    """Sign a manifest of the pusher's repository, beside the signatures of others; False if `key` has signed it.

    Raises CORRUPT when what is there is no signature, and what pushing may raise.
    """
    layers = _read_signatures(pusher, manifest_digest)
    if _look_through(pusher, layers, manifest_digest, key.public)[0]:
        return False
    if len(layers) >= _MAX_SIGNATURES:
        raise _too_many(manifest_digest)
    payload = make_payload(_format_identity(repository_reference), manifest_digest)
    annotations = {_ANNOTATION: sign(payload, key)}
    layers = (*layers, replace(describe_blob(payload, _PAYLOAD_TYPE), annotations=annotations))
    config = _format_config(layers)
    for content in (payload, config):
        pusher.push_blob(describe_blob(content, "").digest, len(content), partial(io.BytesIO, content))
    manifest = _format_manifest(describe_blob(config, OCI_CONFIG), layers)
    pusher.push_manifest(manifest, OCI_MANIFEST, format_signature_tag(manifest_digest))
    return True


def format_signature_tag(manifest_digest: str) -> str:
    """`sha256:…` → `sha256-….sig`."""
    return f"{manifest_digest.replace(':', '-')}.sig"


def load_signing_key(environment: Mapping[str, str] = os.environ, path: Path | None = None) -> PrivateKey | None:
    """The key in the file `path`, or else the one that BANGER_SIGNING_KEY is, as a path or as PEM; None without either.

    COSIGN_PASSWORD opens it. Raises NOT_FOUND, NO_PERMISSION, or BAD_INPUT for what is no key; none shows what it is.
    """
    told = environment.get("BANGER_SIGNING_KEY", "")
    if path is None and not told.strip():
        return None
    password = os.fsencode(environment.get("COSIGN_PASSWORD", ""))
    if path is None and "-----BEGIN" in told:
        return read_private_key(told.encode(), password)
    # Not shown: it may be a key after all.
    what = "the file that BANGER_SIGNING_KEY names" if path is None else f"the signing key {path}"
    return read_private_key(_read_key_file(path or Path(told.strip()), what), password)


def load_public_key(path: Path) -> PublicKey:
    """The key in a file. Raises NOT_FOUND, NO_PERMISSION, or BAD_INPUT for what is no key."""
    try:
        return read_public_key(_read_key_file(path, "it"))
    except BangerError as error:
        raise BangerError(f"{path}: {error.message}", reason=error.reason, hint=error.hint) from error


def _read_signatures(source: RegistrySource, manifest_digest: str) -> tuple[Descriptor, ...]:
    """The layers of the image that holds them; none when there is no such image."""
    try:
        root, raw = source.at(format_signature_tag(manifest_digest)).read_root()
        check_document(root, raw)
        layers = parse_document(raw, f"the signature of {manifest_digest[:19]}").items("layers")
    except BangerError as error:
        if error.reason is Reason.NOT_FOUND:
            return ()
        if error.reason is Reason.BAD_INPUT:
            raise BangerError(error.message, reason=Reason.CORRUPT) from error
        raise
    if len(layers) > _MAX_SIGNATURES:
        raise _too_many(manifest_digest)
    return tuple(map(parse_descriptor, layers))


def _look_through(
    source: RegistrySource, layers: tuple[Descriptor, ...], manifest_digest: str, key: PublicKey
) -> tuple[bool, BangerError | None]:
    """Whether one of the signatures is the key's; if not, the worst that was seen: what our key did sign, or damage."""
    failure: BangerError | None = None
    for layer in layers:
        try:
            payload = _read_payload(source, layer)
            if verify(payload, layer.annotations.get(_ANNOTATION, ""), key):
                check_payload(payload, manifest_digest)
                return True, None
        except BangerError as error:
            if error.reason not in (Reason.CORRUPT, Reason.UNTRUSTED, Reason.TOO_LARGE):
                raise
            if failure is None or error.reason is Reason.UNTRUSTED:
                failure = error
    return False, failure


def _read_payload(source: RegistrySource, layer: Descriptor) -> bytes:
    if layer.media_type != _PAYLOAD_TYPE or _ANNOTATION not in layer.annotations:
        raise BangerError("what lies at its signature's place is none", reason=Reason.CORRUPT)
    return read_verified(source, layer, MAX_PAYLOAD_BYTES, source.patience)


def _format_config(layers: Sequence[Descriptor]) -> bytes:
    """As cosign's own: a payload is a layer that is not compressed, so that its digest is its diff id too."""
    config = {
        "architecture": "",
        "config": {},
        "created": _NO_TIME,
        "history": [{"created": _NO_TIME} for _ in layers],
        "os": "",
        "rootfs": {"type": "layers", "diff_ids": [layer.digest for layer in layers]},
    }
    return json.dumps(config, separators=(",", ":")).encode()


def _format_manifest(config: Descriptor, layers: Sequence[Descriptor]) -> bytes:
    described = [
        {"mediaType": each.media_type, "size": each.size_bytes, "digest": each.digest, "annotations": each.annotations}
        for each in layers
    ]
    manifest = {
        "schemaVersion": 2,
        "mediaType": OCI_MANIFEST,
        "config": {"mediaType": config.media_type, "size": config.size_bytes, "digest": config.digest},
        "layers": described,
    }
    return json.dumps(manifest, separators=(",", ":")).encode()


def _format_identity(reference: str) -> str:
    """The repository as cosign names it in a payload: Docker's own registry goes by its old name."""
    parsed = parse_reference(reference)
    registry = "index.docker.io" if parsed.registry == DEFAULT_REGISTRY else parsed.registry
    return f"{registry}/{parsed.repository}"


def _read_key_file(path: Path, what: str) -> bytes:
    reasons = {FileNotFoundError: Reason.NOT_FOUND, PermissionError: Reason.NO_PERMISSION}
    try:
        with path.expanduser().open("rb") as file:
            return file.read(MAX_KEY_BYTES + 1)
    except OSError as error:
        reason = reasons.get(type(error), Reason.BAD_INPUT)
        # Without the cause, which has the path.
        raise BangerError(f"{what} cannot be read: {error.strerror}", reason=reason) from None


def _too_many(manifest_digest: str) -> BangerError:
    return BangerError(
        f"{manifest_digest[:19]} has as many signatures as are looked at ({_MAX_SIGNATURES}), or more",
        reason=Reason.TOO_LARGE,
    )
