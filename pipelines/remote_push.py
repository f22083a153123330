"""Results of steps on their way into the remote cache: those that made an image or a kernel, and what these came from.

What a name stands for carries the records of its last steps. The rest of the chain is what the store still knows to
have given their inputs. What is not there any more is left out; of an output that was collected the record goes alone,
which will do for whoever needs only what comes after it.

Incremental: a result that is there already sends nothing. One that gave what ours gave is the result, whoever made it:
its record stays until ours is half a day newer (an answer of the outside has to stay fresh, pipelines/graph.py), and
outputs that it lacks are added to those that are there. Only one that gave something else, or is damaged, is replaced.
So what is signed is a manifest with our key and our outputs, whoever put it there. Of a record that is not ours,
nothing but the time is another's: when it was made, and how long that took.

Not promised: of two that add to the same result at the same moment, one may be lost; it is added by pushing again.
"""

from __future__ import annotations

import io
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import IO

from banger.errors import BangerError, Reason
from cache import Digest, Object, Record, Store, key_of, parse_record
from cache.layout import iterate_records
from catalog.local import Named
from catalog.signatures import PrivateKey
from pipelines.oci.artifact import describe_blob, parse_artifact
from pipelines.oci.blob import read_verified
from pipelines.oci.manifest import OCI_MANIFEST
from pipelines.oci.push import Pusher
from pipelines.oci.signatures import push_signature
from pipelines.oci.source import Descriptor
from pipelines.oci.sources import is_local
from pipelines.packed import pack_object
from pipelines.remote import (
    ARTIFACT_TYPE,
    MAX_RECORD_BYTES,
    OBJECT_TYPE,
    PACKED_TYPE,
    RECORD_TYPE,
    describe_output,
    format_step,
    parse_step,
)
from pipelines.reporter import Reporter

# zstd's own default: what is large here is compressed already, or short-lived.
_LEVEL = 3
# What compressing has to gain for it to be worth unpacking everywhere.
_GAIN = 0.95
_RENEW_S = 12 * 3600


@dataclass(frozen=True)
class Pushed:
    """What was looked at (`steps`), and what was sent; `blobs` and `bytes` are those of results and signatures."""

    steps: int
    sent_steps: int
    signatures: int
    blobs: int
    bytes: int


@dataclass(frozen=True)
class _There:
    """A result that is there: `layers` are those whose blobs are there too, `is_whole` whether these are all."""

    digest: str
    record: Record
    layers: Mapping[str, Descriptor]
    is_whole: bool


def push_named(
    pusher: Pusher, store: Store, named: Sequence[Named], key: PrivateKey | None, reporter: Reporter
) -> Pushed:
    """Push what made these images and kernels, each step once; with a `key`, sign each of them."""
    for each in named:
        each.restore(store)
    return push_records(pusher, store, collect_records(store, named), key, reporter)


def push_records(
    pusher: Pusher, store: Store, records: Mapping[Digest, Record], key: PrivateKey | None, reporter: Reporter
) -> Pushed:
    """The same for these steps."""
    blobs, bytes_ = pusher.uploaded_blobs, pusher.uploaded_bytes
    sent = signatures = 0
    for step_key, record in records.items():
        digest, is_sent = _push_step(pusher, store, step_key, record, reporter)
        sent += is_sent
        if key is not None:
            signatures += push_signature(pusher, pusher.repository, digest, key)
    return Pushed(len(records), sent, signatures, pusher.uploaded_blobs - blobs, pusher.uploaded_bytes - bytes_)


def collect_records(store: Store, named: Sequence[Named]) -> dict[Digest, Record]:
    """The records of all steps that led to these names, as far as they are known; what comes first is first."""
    known = dict(read_records(store))
    by_output: dict[Digest, list[Digest]] = {}
    by_outputs: dict[frozenset[tuple[str, Digest]], list[Digest]] = {}
    for key, record in known.items():
        for made in record.outputs.values():
            by_output.setdefault(made.digest, []).append(key)
        by_outputs.setdefault(_outputs(record), []).append(key)
    todo: list[tuple[Digest, Record]] = []
    for each in named:
        for key, record in each.records.items():
            todo.append((key, record))
            # What was resolved is kept by its content too: the answer is the other step that gave the same.
            todo += [(twin, known[twin]) for twin in by_outputs.get(_outputs(record), ())]
    found: dict[Digest, Record] = {}
    while todo:
        key, record = todo.pop()
        if key not in found:
            found[key] = record
            todo += [(maker, known[maker]) for digest in record.inputs.values() for maker in by_output.get(digest, ())]
    return _sort(found)


def _sort(records: dict[Digest, Record]) -> dict[Digest, Record]:
    """Each after one that gave it its inputs, not after all: steps that gave the same may lead to each other."""
    made = {output.digest for record in records.values() for output in record.outputs.values()}
    missing = {key: made.intersection(record.inputs.values()) for key, record in records.items()}
    readers: dict[Digest, list[Digest]] = {}
    for key, digests in missing.items():
        for digest in digests:
            readers.setdefault(digest, []).append(key)
    ordered: dict[Digest, Record] = {}
    firsts = [key for key in records if not missing[key]]
    # Where what began a circle is not known any more, one of the circle does.
    for start in (*firsts, *reversed(records)):
        ready = [start]
        while ready:
            key = ready.pop()
            if key in ordered:
                continue
            ordered[key] = records[key]
            for output in records[key].outputs.values():
                for reader in readers.pop(output.digest, ()):
                    missing[reader].discard(output.digest)
                    if not missing[reader]:
                        ready.append(reader)
    return ordered


def read_records(store: Store) -> Iterator[tuple[Digest, Record]]:
    for entry in iterate_records(store.root):
        try:
            record = parse_record(Path(entry.path).read_bytes())
        except (OSError, ValueError):
            # A miss, as everywhere.
            continue
        key = key_of(record.step, record.version, record.parameters, record.inputs)
        # What a path stands for on this host means nothing elsewhere.
        if key == entry.name and not (record.step == "oci-resolve" and is_local(str(record.parameters["reference"]))):
            yield key, record


def _outputs(record: Record) -> frozenset[tuple[str, Digest]]:
    return frozenset((name, made.digest) for name, made in record.outputs.items())


def _push_step(pusher: Pusher, store: Store, key: Digest, record: Record, reporter: Reporter) -> tuple[str, bool]:
    """The manifest's digest, and whether it had to be sent."""
    name = f"push:{record.step}-{key[:12]}"
    present = {output: made for output, made in record.outputs.items() if store.has(made)}
    there = _find_there(pusher, key, record)
    told = record if there is None or _is_newer(record, there.record) else there.record
    if there is not None and there.is_whole and told is not record and present.keys() <= there.layers.keys():
        reporter.cached(name)
        return there.digest, False
    reporter.started(name)
    begin, before = time.monotonic(), pusher.uploaded_bytes
    layers = {} if there is None else dict(there.layers)
    for output, made in present.items():
        if output in layers:
            continue

        def tell(what: str, done: int, total: int, output: str = output) -> None:
            reporter.progress(name, f"{what} {output}", done, total)

        layers[output] = describe_output(output, made, _push_output(pusher, store, made, tell))
    manifest, config = format_step(told, layers)
    pusher.push_blob(describe_blob(config, RECORD_TYPE).digest, len(config), partial(io.BytesIO, config))
    digest = pusher.push_manifest(manifest, OCI_MANIFEST, key)
    reporter.finished(name, time.monotonic() - begin, pusher.uploaded_bytes - before)
    return digest, True


def _is_newer(ours: Record, theirs: Record) -> bool:
    """Also than one of the future, which nobody takes for fresh."""
    return ours.made_at - theirs.made_at > _RENEW_S or theirs.made_at > time.time() + _RENEW_S


def _find_there(pusher: Pusher, key: Digest, record: Record) -> _There | None:
    """The result with our outputs that is there, if one is."""
    try:
        source = pusher.at(key)
        root, raw = source.read_root()
        artifact = parse_artifact(root, raw, ARTIFACT_TYPE, source.reference)
        config = read_verified(source, artifact.config, MAX_RECORD_BYTES, pusher.patience)
        found = parse_step(key, artifact, config)
    except BangerError as error:
        if error.reason in (Reason.NOT_FOUND, Reason.CORRUPT, Reason.BAD_INPUT, Reason.TOO_LARGE):
            return None
        raise
    if found.record.outputs != record.outputs:
        return None
    layers = {name: layer for name, layer in found.outputs.items() if pusher.has_blob(layer.digest, layer.size_bytes)}
    return _There(root.digest, found.record, layers, is_whole=layers.keys() == found.outputs.keys())


def _push_output(pusher: Pusher, store: Store, made: Object, tell: Callable[[str, int, int], None]) -> Descriptor:
    """Send an output, compressed if that gains something; gives what was sent."""
    path = store.path(made)
    with store.temporary_dir() as folder:
        with (folder / "packed").open("xb") as sink:
            told = pack_object(path, made, _LEVEL, sink, lambda done: tell("compressing", done, made.size_bytes))
        whole = Descriptor(OBJECT_TYPE, told.whole_digest, made.size_bytes)
        packed = Descriptor(PACKED_TYPE, told.digest, told.size_bytes)
        is_packed = packed.size_bytes < made.size_bytes * _GAIN
        sent = packed if is_packed else whole

        def open_content() -> IO[bytes]:
            return (folder / "packed" if is_packed else path).open("rb")

        def tell_sent(done: int) -> None:
            tell("uploading", done, sent.size_bytes)

        pusher.push_blob(sent.digest, sent.size_bytes, open_content, tell_sent)
    return sent
