"""The remote cache as it is read: a repository of a registry, believed in nothing, and given up when it fails once.

A record is used only if the step's key follows from it and, with a public key, if its manifest is signed. An output is
downloaded only when somebody needs it, and becomes an object only with the digest and the size that the record tells.

The cache is there to save time: it is waited for a few seconds at most, and after its first failure, of whatever kind,
it is not asked again for the rest of the run. One line says so.
"""

from __future__ import annotations

import threading
from collections.abc import Collection, Mapping
from pathlib import Path

from banger.errors import BangerError, Reason
from cache import Digest, Object, Record, Store
from catalog.signatures import PublicKey
from pipelines.oci.artifact import parse_artifact
from pipelines.oci.blob import read_verified
from pipelines.oci.limits import Limits
from pipelines.oci.reference import parse_reference
from pipelines.oci.registry import RegistryOptions
from pipelines.oci.repository import Repository, Waits
from pipelines.oci.retry import Patience
from pipelines.oci.signatures import load_public_key, verify_signature
from pipelines.oci.source import Descriptor
from pipelines.packed import download_object
from pipelines.remote import ARTIFACT_TYPE, MAX_RECORD_BYTES, StepArtifact, Tell, parse_step
from pipelines.reporter import Reporter

_WAITS = Waits(connect_s=3.0, read_s=10.0)
_PATIENCE = Patience(attempts=2, first_s=0.3, longest_s=3.0)
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
        source = self._repository.at(key)
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
        with self._store.writer() as sink:
            download_object(
                self._repository,
                layer,
                made,
                sink,
                lambda done: tell(name, done, layer.size_bytes),
                what=f"the output {name!r} of the remote cache",
                limits=self._limits,
                patience=_PATIENCE,
            )
            sink.commit()

    def _give_up(self, error: BangerError) -> None:
        with self._losing:
            if self._is_lost:
                return
            self._is_lost = True
        self._reporter.note(f"the remote cache {self._repository.repository} is not asked any more: {error.message}")
