"""Any OCI image as artifacts: what its reference stands for is resolved, its layers fetched, and flattened to disks.

    resolve ─┬─ layer … ─┐
             ├─ layer … ─┴─ rootfs, home
             └─ config, answer

Resolving is the only step that asks what a tag is now. Which layers there are is known only after it, so it is run
before the rest is planned. Nothing below it depends on where the image comes from, or on its name.
"""

from __future__ import annotations

from dataclasses import dataclass

from blake3 import blake3

from cache import Store
from pipelines.graph import build
from pipelines.job import Job
from pipelines.oci.config import parse_document
from pipelines.oci.layer import plan_layer
from pipelines.oci.limits import Limits
from pipelines.oci.manifest import Layer, parse_descriptor, resolve_image
from pipelines.oci.rootfs import plan_rootfs
from pipelines.oci.source import Source, parse_digest
from pipelines.oci.sources import is_local
from pipelines.remote import RemoteCache
from pipelines.reporter import Reporter
from pipelines.step import Artifact, Step


@dataclass(frozen=True)
class Answer:
    """What a reference stands for: `digest` of what the tag names, `manifest_digest` of the image chosen from it."""

    reference: str
    digest: str
    manifest_digest: str
    layers: tuple[Layer, ...]


def plan_resolve(source: Source) -> Step:
    """Outputs: `answer` (JSON) and `config`, the image's own configuration, as it is."""
    return Step(
        name=f"resolve:{source.reference}",
        kind="oci-resolve",
        version=1,
        build=lambda job: _resolve(job, source),
        outputs=("answer", "config"),
        parameters={"reference": source.reference},
        resolves=True,
    )


def _resolve(job: Job, source: Source) -> None:
    found = resolve_image(source)
    job.write_json(
        "answer",
        {
            "reference": source.reference,
            "digest": found.digest,
            "manifest_digest": found.manifest_digest,
            "layers": [
                {
                    "media_type": layer.descriptor.media_type,
                    "digest": layer.descriptor.digest,
                    "size_bytes": layer.descriptor.size_bytes,
                    "diff_id": layer.diff_id,
                }
                for layer in found.layers
            ],
        },
    )
    with job.create("config") as sink:
        sink.write(found.config)


def plan_config(answer: bytes, config: bytes) -> Step:
    """What was resolved, kept by its content: the reference may stand for something else tomorrow.

    Outputs: `answer` and `config`, as those of `plan_resolve`.
    """
    contents = {"answer": answer, "config": config}
    digests = {name: blake3(content).hexdigest() for name, content in contents.items()}

    def keep(job: Job) -> None:
        for name, content in contents.items():
            with job.create(name) as sink:
                sink.write(content)

    return Step(
        name=f"config:{digests['config'][:12]}-{digests['answer'][:12]}",
        kind="oci-config",
        version=1,
        build=keep,
        outputs=("answer", "config"),
        parameters=digests,
    )


def resolve(store: Store, source: Source, reporter: Reporter, remote: RemoteCache | None = None) -> tuple[Step, Answer]:
    """Ask now. A step that keeps the answer is returned too: its `config` is one of the image's artifacts.

    What was never asked here may be answered by the remote cache (see `Graph`).
    """
    step = plan_resolve(source)
    # The same path is another image on another host.
    graph = build(store, [step], reporter, refresh=True, remote=None if is_local(source.reference) else remote)
    record = graph.record(step)
    assert record is not None
    answer, config = (store.path(record.outputs[name]).read_bytes() for name in ("answer", "config"))
    return plan_config(answer, config), parse_answer(answer, source.reference)


def parse_answer(raw: bytes, reference: str) -> Answer:
    """Raises CORRUPT for what is no answer about `reference`: it may come from elsewhere."""
    found = parse_document(raw, "the recorded answer")
    if found.text("reference") != reference:
        found.refuse("reference")
    layers = []
    for each in found.documents("layers"):
        fields = {"mediaType": each.text("media_type"), "digest": each.text("digest")}
        descriptor = parse_descriptor({**fields, "size": each.fields.get("size_bytes")})
        layers.append(Layer(descriptor, parse_digest(each.text("diff_id"))))
    digest, manifest_digest = (parse_digest(found.text(name)) for name in ("digest", "manifest_digest"))
    return Answer(reference, digest, manifest_digest, tuple(layers))


def plan_oci_image(name: str, config: Step, answer: Answer, source: Source, limits: Limits) -> dict[str, Artifact]:
    """The artifacts of an image that was resolved: `rootfs`, `home` and `config`."""
    steps: dict[str, Step] = {}
    for layer in answer.layers:
        # The same layer may come twice: an empty one often does.
        steps.setdefault(f"{layer.diff_id} {layer.descriptor.digest}", plan_layer(layer, source, limits))
    layers = [steps[f"{layer.diff_id} {layer.descriptor.digest}"] for layer in answer.layers]
    return {**plan_rootfs(name, layers, limits), "config": config.output("config")}
