"""The remote cache as it is read: a repository of a registry, believed in nothing, and given up when it fails once.

A record is used only if the step's key follows from it and, with a public key, if its manifest is signed. An output is
downloaded only when somebody needs it, and becomes an object only with the digest and the size that the record tells.

The cache is there to save time: it is waited for a few seconds at most, and after its first failure, of whatever kind,
it is not asked again for the rest of the run. One line says so.
"""

from __future__ import annotations

import threading
from collections.abc import Collection, Iterator, Mapping
from pathlib import Path

from blake3 import blake3

from banger.errors import BangerError, Reason
from banger.run import is_cancelled
from cache import Digest, Object, Record, Store
from catalog.signatures import PublicKey
from pipelines.oci.artifact import parse_artifact
from pipelines.oci.blob import VerifiedBlob, open_verified, read_verified
from pipelines.oci.limits import Limits
from pipelines.oci.reference import parse_reference
from pipelines.oci.registry import RegistryOptions
from pipelines.oci.retry import Patience
from pipelines.oci.signatures import load_public_key, verify_signature
from pipelines.oci.source import Descriptor
from pipelines.remote import ARTIFACT_TYPE, MAX_RECORD_BYTES, PACKED_TYPE, StepArtifact, Tell, parse_step
from pipelines.remote_repository import Repository, Waits, point_to
from pipelines.reporter import Reporter

_WAITS = Waits(connect_s=3.0, read_s=10.0)
_PATIENCE = Patience(attempts=2, first_s=0.3, longest_s=3.0)
_CHUNK_BYTES = 1 << 20
# What `zstd --ultra` makes; ours need 2 MiB.
_MAX_WINDOW_BYTES = 1 << 27
# What the store says when it cannot take any more: no fault of the cache's.
_OWN_DISK = (Reason.NO_SPACE, Reason.NO_PERMISSION, Reason.IO)


class RegistryCache:
    """`key` is the file of the public key that results have to be signed with; None trusts whoever may push."""

    def __init__(
        self,
        reference: str,
        registries: Mapping[str, RegistryOptions],
        store: Store,
        reporter: Reporter,
        *,
        key: Path | None = None,
        limits: Limits | None = None,
    ) -> None:
        self._repository = Repository(parse_reference(reference), registries, patience=_PATIENCE, waits=_WAITS)
        self._store = store
        self._reporter = reporter
        self._key_path = key
        self._limits = limits or Limits()
        self._known: dict[Digest, StepArtifact | None] = {}
        self._key: PublicKey | None = None
        self._is_lost = False
        self._guard = threading.Lock()
        self._losing = threading.Lock()

    def find_record(self, key: Digest) -> Record | None:
        with self._guard:
            if key not in self._known:
                if self._is_lost:
                    return None
                self._known[key] = self._try_to_find(key)
            found = self._known[key]
        return None if found is None else found.record

    def can_fetch(self, key: Digest, outputs: Collection[str]) -> bool:
        found = self._known.get(key)
        return found is not None and not self._is_lost and all(name in found.outputs for name in outputs)

    def fetch(self, key: Digest, record: Record, outputs: Collection[str], tell: Tell) -> bool:
        found = self._known.get(key)
        if found is None or not self.can_fetch(key, outputs):
            return False
        try:
            for name in outputs:
                self._download(name, found.outputs[name], record.outputs[name], tell)
        except BangerError as error:
            if error.reason in _OWN_DISK:
                raise
            self._give_up(error)
            return False
        return True

    def _try_to_find(self, key: Digest) -> StepArtifact | None:
        try:
            return self._find(key)
        except BangerError as error:
            self._give_up(error)
            return None

    def _find(self, key: Digest) -> StepArtifact | None:
        source = point_to(self._repository, key)
        try:
            root, raw = source.read_root()
        except BangerError as error:
            if error.reason is Reason.NOT_FOUND:
                return None
            raise
        if self._key_path is not None:
            # Nothing of it is parsed before.
            self._key = self._key or load_public_key(self._key_path)
            verify_signature(source, source.reference, root.digest, self._key)
        artifact = parse_artifact(root, raw, ARTIFACT_TYPE, source.reference)
        return parse_step(key, artifact, read_verified(source, artifact.config, MAX_RECORD_BYTES, _PATIENCE))

    def _download(self, name: str, layer: Descriptor, made: Object, tell: Tell) -> None:
        what = f"the output {name!r} of the remote cache"
        self._limits.check_size(made.size_bytes, what)
        with open_verified(self._repository, layer, _PATIENCE) as blob, self._store.writer() as sink:
            found, size_bytes = blake3(), 0
            for chunk in _read_chunks(blob, what):
                if is_cancelled():
                    raise KeyboardInterrupt
                size_bytes += len(chunk)
                if size_bytes > made.size_bytes:
                    raise _corrupt(what, "it is longer than its record tells")
                found.update(chunk)
                sink.write(chunk)
                tell(name, blob.position, layer.size_bytes)
            blob.finish()
            if (found.hexdigest(), size_bytes) != (made.digest, made.size_bytes):
                raise _corrupt(what, "it is not what its record tells")
            sink.commit()

    def _give_up(self, error: BangerError) -> None:
        with self._losing:
            if self._is_lost:
                return
            self._is_lost = True
        self._reporter.note(f"the remote cache {self._repository.repository} is not asked any more: {error.message}")


def _read_chunks(blob: VerifiedBlob, what: str) -> Iterator[bytes]:
    """What travels, or what it unpacks to: one frame (RFC 8878, 3.1)."""
    if blob.descriptor.media_type != PACKED_TYPE:
        while chunk := blob.read(_CHUNK_BYTES):
            yield chunk
        return
    import zstandard

    unpacked = zstandard.ZstdDecompressor(max_window_size=_MAX_WINDOW_BYTES).stream_reader(blob)  # type: ignore[arg-type]
    try:
        while chunk := unpacked.read(_CHUNK_BYTES):
            yield chunk
    except zstandard.ZstdError as error:
        raise _corrupt(what, str(error)) from error


def _corrupt(what: str, why: str) -> BangerError:
    return BangerError(f"{what} is damaged: {why}", reason=Reason.CORRUPT)
