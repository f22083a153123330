"""Results of steps in a registry: what the graph asks, and the form in which a result lies there.

The repository is the cache, the tag is the step's key (64 hexadecimal digits), and below it is an OCI artifact:

    manifest   artifactType application/vnd.banger.step.v1
    config     the step's record, as `cache.format_record` writes it; application/vnd.banger.step.record.v1+json
    layers     its outputs, each with its name, BLAKE3 and size as annotations: application/vnd.banger.object.v1+zstd,
               or without `+zstd` where compressing gains next to nothing. One that was not there to be sent is missing

The record is all that counts: the key has to follow from it, and an output has to have the BLAKE3 and size it tells.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Collection, Mapping
from dataclasses import dataclass
from typing import Protocol

from banger.errors import BangerError, Reason
from banger.run import printable
from cache import Digest, Object, Record, Store, format_record, key_of, parse_record
from pipelines.oci.artifact import OciArtifact, describe_blob, format_artifact, with_title
from pipelines.oci.source import Descriptor
from pipelines.reporter import Reporter

ARTIFACT_TYPE = "application/vnd.banger.step.v1"
RECORD_TYPE = "application/vnd.banger.step.record.v1+json"
OBJECT_TYPE = "application/vnd.banger.object.v1"
PACKED_TYPE = f"{OBJECT_TYPE}+zstd"
MAX_RECORD_BYTES = 4 << 20
# Output, bytes done, bytes in all.
Tell = Callable[[str, int, int], None]
_OUTPUT = "vnd.banger.output"
_BLAKE3 = "vnd.banger.blake3"
_SIZE = "vnd.banger.size"


class RemoteCache(Protocol):
    """What others made. It never fails: what it cannot give, it has not. May be asked by several threads at once."""

    def find_record(self, key: Digest) -> Record | None:
        """What the step gave elsewhere; asked once, and remembered."""

    def can_fetch(self, key: Digest, outputs: Collection[str]) -> bool:
        """Whether these outputs of a record that was found are there."""

    def fetch(self, key: Digest, record: Record, outputs: Collection[str], tell: Tell) -> bool:
        """Put these outputs into the store; False when they could not be had. `tell` is told of the bytes.

        What was put is what the record says, byte for byte.
        """


def find_missing(remote: RemoteCache | None, store: Store, key: Digest, record: Record) -> list[str]:
    """Which outputs are not here, but can be fetched; none when one of them can not, or gave something else there."""
    there = None if remote is None else remote.find_record(key)
    missing = [name for name, made in record.outputs.items() if not store.has(made)]
    if remote is None or there is None or there.outputs != record.outputs or not remote.can_fetch(key, missing):
        return []
    return missing


def fetch_missing(
    remote: RemoteCache | None, store: Store, reporter: Reporter, step: str, key: Digest, record: Record
) -> bool:
    """Put what is missing of a result into the store; False when it is not to be had, or not missing any more."""
    missing = find_missing(remote, store, key, record)
    if remote is None or not missing:
        return False
    reporter.fetching(step)
    begin = time.monotonic()

    def tell(output: str, done: int, total: int) -> None:
        reporter.progress(step, f"downloading {output}", done, total)

    if not remote.fetch(key, record, missing, tell):
        return False
    reporter.fetched(step, time.monotonic() - begin, sum(record.outputs[name].size_bytes for name in missing))
    return True


@dataclass(frozen=True)
class StepArtifact:
    """A result as it lies in the registry; `outputs` has the layer of each that is there."""

    record: Record
    outputs: Mapping[str, Descriptor]


def describe_output(name: str, made: Object, packed: Descriptor) -> Descriptor:
    """The layer of an output: `packed` is what travels."""
    titled = with_title(packed, name)
    annotations = {**titled.annotations, _OUTPUT: name, _BLAKE3: made.digest, _SIZE: str(made.size_bytes)}
    return Descriptor(packed.media_type, packed.digest, packed.size_bytes, annotations=annotations)


def format_step(record: Record, outputs: Mapping[str, Descriptor]) -> tuple[bytes, bytes]:
    """Manifest and config blob."""
    config = format_record(record)
    layers = [outputs[name] for name in sorted(outputs)]
    return format_artifact(ARTIFACT_TYPE, describe_blob(config, RECORD_TYPE), layers), config


def parse_step(key: Digest, artifact: OciArtifact, config: bytes) -> StepArtifact:
    """The inverse of `format_step`. Raises CORRUPT for what is not the result of the step with this key."""
    try:
        record = parse_record(config)
    except ValueError as error:
        raise _corrupt(key, "its record cannot be read") from error
    if key_of(record.step, record.version, record.parameters, record.inputs) != key:
        raise _corrupt(key, "its record is that of another step")
    return StepArtifact(record, match_outputs(record, artifact, key))


def match_outputs(record: Record, artifact: OciArtifact, key: Digest) -> dict[str, Descriptor]:
    """The layers by output; CORRUPT for one that the record does not tell of, or tells another thing of."""
    outputs: dict[str, Descriptor] = {}
    for layer in artifact.layers:
        name = layer.annotations.get(_OUTPUT, "")
        made = record.outputs.get(name)
        told = (layer.annotations.get(_BLAKE3), layer.annotations.get(_SIZE))
        if made is None or told != (made.digest, str(made.size_bytes)) or name in outputs:
            raise _corrupt(key, f"its layer {printable(name)[:50]!r} is not one of the record's outputs")
        is_whole = layer.media_type == OBJECT_TYPE and layer.size_bytes == made.size_bytes
        is_packed = layer.media_type == PACKED_TYPE and layer.size_bytes < made.size_bytes
        if not is_whole and not is_packed:
            raise _corrupt(key, f"its layer {printable(name)[:50]!r} is of another type or size than it can be")
        outputs[name] = layer
    return outputs


def _corrupt(key: Digest, what: str) -> BangerError:
    return BangerError(f"the result {key[:12]} is not what it should be: {what}", reason=Reason.CORRUPT)
