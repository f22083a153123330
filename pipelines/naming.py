"""The end of a plan: artifacts get a name among the images or kernels that are here."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

from cache import Digest, Store, key_of
from catalog.local import Names
from pipelines.step import Artifact, Effect, Result


@dataclass(frozen=True)
class Target:
    """A named thing: `artifacts` by role, and `naming`, which registers them (done when they have the name)."""

    name: str
    artifacts: Mapping[str, Artifact]
    naming: Effect
    details: Mapping[str, str]


def plan_named(
    store: Store,
    names: Names,
    name: str,
    artifacts: Mapping[str, Artifact],
    details: Mapping[str, str],
    *,
    is_here: bool = False,
) -> Target:
    """The artifacts under a name, with `details` as they are to stand in its manifest.

    What was built anew replaces files that are damaged, though they have the right digests; with `is_here`, the name is
    only used, and its files are not read for that.
    """

    def is_named(digests: Mapping[str, Digest]) -> bool:
        local = names.find(name, may_be_damaged=True)
        return (
            local is not None
            and local.details == details
            and all(role in local.files and local.files[role].digest == digest for role, digest in digests.items())
            and local.is_whole(store, read=not is_here)
        )

    def give_name(results: Mapping[str, Result]) -> None:
        # Two that built the same at the same moment also name it at the same moment.
        lock = key_of("name", 1, {"kind": names.what, "name": name}, {})
        with store.lock(lock, f"{names.what}:{name}"):
            if not is_named({role: result.made.digest for role, result in results.items()}):
                put(results)

    def put(results: Mapping[str, Result]) -> None:
        records = {result.key: result.record for result in results.values()}
        # Whole records: a step is only known to be done when all of its outputs are there.
        files = {role: made for record in records.values() for role, made in record.outputs.items()}
        names.put(name, store, files, records, details)

    return Target(name, artifacts, Effect(f"{names.what}:{name}", artifacts, give_name, is_named), details)
