"""Bundles: an image or a kernel on its way into a registry and out of it. The format is `catalog/bundle.py`'s.

    rootfs, home … ─ bundle:NAME (compressed)          download ─ rootfs    what a manifest names, verified twice
                                                        download ─ home     keep ─ bundle, the manifest itself

Packing gives equal bytes for equal files, so that what a registry has is not sent again. Nothing that is downloaded is
an artifact before it has the sha256 and size of its descriptor, and unpacked the BLAKE3 and size of the bundle.
"""

from __future__ import annotations

import hashlib
import json
import mmap
import re
from collections.abc import Mapping
from dataclasses import dataclass, replace

from blake3 import blake3

from cache import Object, Store
from catalog.bundle import DOCUMENT, ROLES, Bundle, Kind, format_bundle, parse_bundle, without_times
from catalog.fields import WORD
from catalog.kernels import CHOSEN_KERNEL, DEFAULT_KERNEL
from catalog.local import Named
from pipelines.graph import build
from pipelines.job import Job
from pipelines.naming import Target
from pipelines.oci.artifact import OciArtifact, describe_blob, format_artifact, get_layer, with_title
from pipelines.oci.limits import Limits
from pipelines.oci.source import Descriptor, Source
from pipelines.oci.sources import is_local
from pipelines.packed import check_download, download_object, pack_object
from pipelines.reporter import Reporter
from pipelines.step import Artifact, Step

# Past it a root filesystem gets smaller by a hundredth and takes more than twice as long (550 MB: 13 s, 372 MB).
_LEVEL = 9
FILE_STEP = "bundle-file"
# What `oras pull` calls the document.
_TITLE = "bundle.json"
# What an image or kernel that is here says of where it comes from, and a bundle says on.
_SOURCES = ("recipe", "reference", "digest", "manifest_digest", "base")
_RELEASE = re.compile(rb"Linux version ([0-9][0-9A-Za-z.+~_-]{0,63}) \(")


@dataclass(frozen=True)
class Packed:
    """A bundle that can be pushed: the manifest, the config blob, and the layers in their order with their bytes."""

    bundle: Bundle
    manifest: bytes
    config: bytes
    layers: tuple[tuple[Descriptor, Object], ...]

    @property
    def digest(self) -> str:
        return f"sha256:{hashlib.sha256(self.manifest).hexdigest()}"

    @property
    def download_bytes(self) -> int:
        return len(self.config) + sum(layer.size_bytes for layer, _made in self.layers)


# On the way in


def format_bundle_name(kind: Kind, name: str) -> str:
    """How steps tell the bundle of an image from that of a kernel: no image in a catalog has a slash in its name."""
    return name if kind is Kind.IMAGE else f"kernel/{name}"


def plan_pack(kind: Kind, target: Target) -> Step:
    """Outputs: each file of the target compressed, by role, and `descriptors`, what the registry knows them by."""
    roles = [role for role in ROLES[kind] if role in target.artifacts]

    def pack(job: Job) -> None:
        job.write_json("descriptors", {role: _pack_file(job, role, job.get_input(role)) for role in roles})

    return Step(
        name=f"bundle:{format_bundle_name(kind, target.name)}",
        kind="bundle",
        version=1,
        build=pack,
        outputs=(*roles, "descriptors"),
        parameters={"level": _LEVEL},
        inputs={role: target.artifacts[role] for role in roles},
    )


def _pack_file(job: Job, role: str, made: Object) -> dict[str, str | int]:
    with job.create(role) as sink:
        packed = pack_object(
            job.input(role),
            made,
            _LEVEL,
            sink,
            lambda done: job.progress(f"compressing {role}", done, made.size_bytes),
        )
    return {"digest": packed.digest, "size_bytes": packed.size_bytes}


def pack(store: Store, kind: Kind, target: Target, named: Named, version: str | None, reporter: Reporter) -> Packed:
    """Compress what is not yet, and describe it all. `version` is what people call it; None takes the content's own."""
    step = plan_pack(kind, target)
    record = build(store, [step], reporter).record(step)
    assert record is not None
    told = json.loads(store.path(record.outputs["descriptors"]).read_bytes())
    bundle = describe(store, kind, named, version)
    config = format_bundle(bundle)
    # What nobody could pull is refused here: a summary that is too long, a distribution with a space in its name.
    parse_bundle(config, kind)
    layers = tuple(
        (
            with_title(Descriptor(role.media_type, told[name]["digest"], told[name]["size_bytes"]), role.title),
            record.outputs[name],
        )
        for name, role in ROLES[kind].items()
        if name in told
    )
    manifest = format_artifact(
        kind.artifact_type, describe_blob(config, kind.config_type, _TITLE), [layer for layer, _made in layers]
    )
    return Packed(bundle, manifest, config, layers)


def describe(store: Store, kind: Kind, named: Named, version: str | None) -> Bundle:
    """The document of what is here under a name. What was pulled keeps the provenance that it came with."""
    files = {role: named.files[role] for role in ROLES[kind] if role in named.files}
    if DOCUMENT in named.files:
        came = parse_bundle(named.path(DOCUMENT).read_bytes(), kind)
        kernel = str(named.details.get(CHOSEN_KERNEL) or came.kernel)
        return replace(came, name=named.name, version=version or came.version, kernel=kernel)
    details = named.details
    source = {name: str(details[name]) for name in _SOURCES if name in details}
    # A folder of this host means nothing elsewhere.
    if is_local(source.get("reference", "")):
        del source["reference"]
    # Of a recipe on top of another image it is that one's origin that says whose mirrors its guests want.
    source["kind"] = str(details.get("origin") or details.get("source") or "unknown")
    locks = {record.inputs["lock"] for record in named.records.values() if "lock" in record.inputs}
    if locks:
        source["lock"] = min(locks)
    return Bundle(
        kind=kind,
        name=named.name,
        version=version or details.get("version") or _find_version(store, kind, files),
        files=files,
        summary=str(details.get("summary", "")),
        distro=str(details.get("distro", "")),
        kernel=str(details.get("kernel") or DEFAULT_KERNEL) if kind is Kind.IMAGE else "",
        runtime=str(details.get("runtime", "")),
        source={name: text for name, text in source.items() if WORD.fullmatch(text)},
        provenance={key: without_times(record) for key, record in named.records.items()},
    )


def _find_version(store: Store, kind: Kind, files: Mapping[str, Object]) -> str:
    """A kernel's release, as its banner has it (init/version.c, `linux_banner`); else the start of a digest."""
    if kind is Kind.KERNEL and files["vmlinux"].size_bytes:
        with store.path(files["vmlinux"]).open("rb") as file:
            with mmap.mmap(file.fileno(), 0, access=mmap.ACCESS_READ) as content:
                found = _RELEASE.search(content)
                release = found[1].decode() if found else None
                # It holds on to the map.
                del found
            if release:
                return release
    whole = blake3("\n".join(f"{role} {made.digest}" for role, made in sorted(files.items())).encode())
    return whole.hexdigest()[:12]


# On the way out


def plan_downloads(
    source: Source, artifact: OciArtifact, bundle: Bundle, raw: bytes, limits: Limits
) -> dict[str, Artifact]:
    """The files of a bundle by role, and `bundle`, its document. Nothing is downloaded yet.

    CORRUPT when the manifest lacks a file that the bundle has, TOO_LARGE for one past the limits, or whose download is.
    """
    artifacts = {DOCUMENT: _plan_keep(raw).output(DOCUMENT)}
    for role, made in bundle.files.items():
        layer = get_layer(artifact, ROLES[bundle.kind][role].media_type, source.reference)
        check_download(layer, made, limits, f"{role} of {bundle.name}")
        artifacts[role] = _plan_download(role, layer, made, source, limits).output(role)
    return artifacts


def _plan_download(role: str, layer: Descriptor, made: Object, source: Source, limits: Limits) -> Step:
    return Step(
        name=f"download:{role}-{layer.digest.partition(':')[2][:12]}",
        kind=FILE_STEP,
        version=1,
        build=lambda job: _download(job, role, layer, made, source, limits),
        outputs=(role,),
        # All that is verified: with another promise it is another step.
        parameters={"role": role, "digest": layer.digest, "blake3": made.digest, "size_bytes": made.size_bytes},
    )


def _download(job: Job, role: str, layer: Descriptor, made: Object, source: Source, limits: Limits) -> None:
    with job.create(role) as sink:
        download_object(
            source,
            layer,
            made,
            sink,
            lambda done: job.progress("downloading", done, layer.size_bytes),
            what=f"{role} of {source.reference}",
            limits=limits,
        )


def _plan_keep(raw: bytes) -> Step:
    """The bundle's document as a file of the image, so that it can be shown and published on."""
    digest = blake3(raw).hexdigest()

    def keep(job: Job) -> None:
        with job.create(DOCUMENT) as sink:
            sink.write(raw)

    return Step(
        name=f"keep:bundle-{digest[:12]}",
        kind="bundle-manifest",
        version=1,
        build=keep,
        outputs=(DOCUMENT,),
        parameters={"digest": digest},
    )
