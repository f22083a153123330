"""From a name to what must be built: the artifacts of images and kernels, and the step that gives them their name.

A name that is here already stands for exactly what it stood for when it was made, whatever its recipe or its suite
say today, until somebody asks to build it again. So nothing is asked of the network for it.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

from banger.errors import BangerError, Reason
from cache import Digest, Store, key_of
from catalog.kernels import get_kernel_recipe
from catalog.local import Named, Names
from catalog.names import nearest
from catalog.recipes import find_recipe, list_recipe_names
from pipelines.image import plan_recipe_image
from pipelines.initramfs import runtime_version
from pipelines.job import Job
from pipelines.kernel import plan_kernel
from pipelines.step import Artifact, Effect, Result, Step

IMAGE_ROLES = ("rootfs", "home")
KERNEL_ROLES = ("vmlinux", "modules", "initramfs")


@dataclass(frozen=True)
class Target:
    """A named thing: `artifacts` by role, and `naming`, which registers them (done when they have the name)."""

    name: str
    artifacts: Mapping[str, Artifact]
    naming: Effect
    details: Mapping[str, str]


class Targets:
    """Plans by name, over what is local and what the catalog knows. Planning touches no network."""

    def __init__(self, store: Store, images: Names, kernels: Names, debian_mirror: str | None = None) -> None:
        self.store = store
        self.images = images
        self.kernels = kernels
        self.debian_mirror = debian_mirror

    def plan_image(self, name: str, *, anew: bool = False) -> Target:
        """With `anew`, from the recipe even when the name is here."""
        local = None if anew else self.images.find(name)
        if local is not None:
            return self._plan_local(local, IMAGE_ROLES, self.images)
        recipe = find_recipe(name)
        if recipe is None:
            known = {*list_recipe_names(), *(each.name for each in self.images.list())}
            raise BangerError(f"there is no image {name!r}", reason=Reason.NOT_FOUND, hint=nearest(name, known))
        artifacts = plan_recipe_image(recipe, self.debian_mirror)
        details = {"kernel": recipe.kernel, "summary": recipe.summary, "distro": recipe.distro, "source": "recipe"}
        return self._plan_named(name, artifacts, details, self.images)

    def plan_kernel(self, name: str, *, anew: bool = False) -> Target:
        local = None if anew else self.kernels.find(name)
        if local is not None:
            return self._plan_local(local, KERNEL_ROLES, self.kernels)
        recipe = get_kernel_recipe(name)
        artifacts = plan_kernel(recipe, self.debian_mirror)
        details = {"source": f"{recipe.suite}/{recipe.package}", "runtime": runtime_version()}
        return self._plan_named(name, artifacts, details, self.kernels)

    def _plan_named(
        self, name: str, artifacts: Mapping[str, Artifact], details: Mapping[str, str], names: Names
    ) -> Target:
        def is_named(digests: Mapping[str, Digest]) -> bool:
            local = names.find(name)
            return local is not None and all(
                role in local.files and local.files[role].digest == digest for role, digest in digests.items()
            )

        def give_name(results: Mapping[str, Result]) -> None:
            # Two that built the same at the same moment also name it at the same moment.
            lock = key_of("name", 1, {"kind": names.what, "name": name}, {})
            with self.store.lock(lock, f"{names.what}:{name}"):
                if not is_named({role: result.made.digest for role, result in results.items()}):
                    put(results)

        def put(results: Mapping[str, Result]) -> None:
            records = {result.key: result.record for result in results.values()}
            # Whole records: a step is only known to be done when all of its outputs are there.
            files = {role: made for record in records.values() for role, made in record.outputs.items()}
            names.put(name, self.store, files, records, details)

        return Target(name, artifacts, Effect(f"{names.what}:{name}", artifacts, give_name, is_named), details)

    def _plan_local(self, local: Named, roles: tuple[str, ...], names: Names) -> Target:
        local.restore(self.store)
        artifacts = {}
        for record in local.records.values():
            step = Step(
                name=f"{record.step}:{local.name}",
                kind=record.step,
                version=record.version,
                build=_refuse,
                outputs=tuple(record.outputs),
                parameters=record.parameters,
                inputs=dict(record.inputs),
            )
            artifacts.update({role: step.output(role) for role in record.outputs if role in roles})
        return self._plan_named(local.name, artifacts, local.details, names)


def _refuse(job: Job) -> None:
    kind, _, name = job.step.name.partition(":")
    raise BangerError(f"{name!r} has lost its {kind}", reason=Reason.CORRUPT, hint=f"banger image build {name}")
