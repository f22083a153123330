"""An image built without giving it a name."""

from __future__ import annotations

from collections.abc import Mapping

from cache import Object, Store
from pipelines.graph import build
from pipelines.oci.image import plan_oci_image, resolve
from pipelines.oci.limits import Limits
from pipelines.oci.source import Source
from pipelines.reporter import Reporter, Silent


def build_oci_image(
    store: Store, source: Source, limits: Limits | None = None, reporter: Reporter | None = None
) -> Mapping[str, Object]:
    """Its objects by role."""
    limits, reporter = limits or Limits(), reporter or Silent()
    step, answer = resolve(store, source, reporter)
    artifacts = plan_oci_image("image", step, answer, source, limits)
    graph = build(store, [artifact.step for artifact in artifacts.values()], reporter)
    made = {}
    for role, artifact in artifacts.items():
        record = graph.record(artifact.step)
        assert record is not None
        made[role] = record.outputs[artifact.name]
    return made
