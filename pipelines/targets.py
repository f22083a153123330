"""From a name to what must be built: the artifacts of images and kernels, and the step that gives them their name.

A name that is here already stands for exactly what it stood for when it was made, whatever its recipe, its suite or
its registry say today, until somebody asks to build it again. So nothing is asked of the network for it.

Any other name of an image is that of a recipe, or else a reference into a registry, or a place on this host
(`pipelines/oci/sources.py`). What layers a reference stands for is asked while planning: the rest depends on it.
"""

from __future__ import annotations

from collections.abc import Collection, Mapping
from dataclasses import dataclass, field
from difflib import get_close_matches
from typing import IO

from banger.errors import BangerError, Reason
from cache import Store
from catalog.kernels import DEFAULT_KERNEL, get_kernel_recipe
from catalog.local import Named, Names
from catalog.names import nearest
from catalog.recipes import find_recipe, list_recipe_names
from pipelines.image import plan_recipe_image
from pipelines.initramfs import runtime_version
from pipelines.job import Job
from pipelines.kernel import plan_kernel
from pipelines.naming import Target, plan_named
from pipelines.oci.image import plan_oci_image, resolve
from pipelines.oci.limits import Limits
from pipelines.oci.registry import RegistryOptions
from pipelines.oci.sources import STDIN, find_familiar_name, is_local, open_source
from pipelines.reporter import Reporter, Silent
from pipelines.step import Step

# `config` is the configuration that came with an OCI image; others have none.
IMAGE_ROLES = ("rootfs", "home", "config")
_NEARLY = 0.85
KERNEL_ROLES = ("vmlinux", "modules", "initramfs")


@dataclass(frozen=True)
class Targets:
    """Plans by name, over what is local, what the catalog knows, and what registries have.

    `stdin` is what the image `-` is read from. `reporter` is told of what is asked while planning.
    """

    store: Store
    images: Names
    kernels: Names
    debian_mirror: str | None = None
    registries: Mapping[str, RegistryOptions] = field(default_factory=dict)
    limits: Limits = field(default_factory=Limits)
    reporter: Reporter = field(default_factory=Silent)
    stdin: IO[bytes] | None = None

    def find_image(self, text: str) -> Named | None:
        """What is here under a name or a reference, however that is written: `docker.io/library/debian:12`."""
        return find_image(self.images, text)

    def plan_image(
        self, text: str, *, anew: bool = False, name: str | None = None, kernel: str | None = None
    ) -> Target:
        """With `anew`, from where it comes from even when it is here. `name` and `kernel` are the user's choice."""
        if kernel is not None:
            # It is refused now rather than when a machine is made.
            self.plan_kernel(kernel)
        local = self.find_image(text)
        if local is not None and not anew:
            return self._plan_local(local, IMAGE_ROLES, self.images)
        recipe = find_recipe(text)
        if recipe is not None:
            artifacts = plan_recipe_image(recipe, self.debian_mirror)
            details = {"kernel": kernel or recipe.kernel, "summary": recipe.summary, "distro": recipe.distro}
            return plan_named(self.store, self.images, name or text, artifacts, {**details, "source": "recipe"})
        if local is not None and local.name == text and is_word(text) and local.details.get("source") == "oci":
            # Built again under the name it was given.
            if local.details["reference"] == STDIN:
                raise BangerError(
                    f"the image {text!r} came from standard input",
                    reason=Reason.BAD_INPUT,
                    hint=f"give it again: … | banger image build - --name {text}",
                )
            return self._plan_oci(local.details["reference"], name or text, kernel or local.details["kernel"])
        return self._plan_oci(text, name, kernel)

    def _plan_oci(self, text: str, name: str | None, kernel: str | None) -> Target:
        self._refuse_mistyped(text)
        source = open_source(text, self.registries, self.limits, self.store.root, self.stdin)
        resolved, answer = resolve(self.store, source, self.reporter)
        name = name or source.name or f"image-{answer.digest.partition(':')[2][:12]}"
        before = self.images.find(name)
        if before is not None and "digest" in before.details:
            self._tell_whether_it_moved(name, before.details["digest"], answer.digest)
        kernel = kernel or (before.details.get("kernel") if before is not None else None) or DEFAULT_KERNEL
        details = {
            "kernel": kernel,
            "source": "oci",
            "reference": answer.reference,
            "digest": answer.digest,
            "manifest_digest": answer.manifest_digest,
        }
        artifacts = plan_oci_image(name, resolved, answer, source, self.limits)
        return plan_named(self.store, self.images, name, artifacts, details)

    def _refuse_mistyped(self, text: str) -> None:
        """A word that is nearly a name is taken for that: nobody shall run a stranger's image by a slip of a finger."""
        known = {*list_recipe_names(), *(each.name for each in self.images.list() if is_word(each.name))}
        if is_mistyped(text, known):
            raise BangerError(
                f"there is no image {text!r}",
                reason=Reason.NOT_FOUND,
                hint=f"{nearest(text, known)} (if not: docker.io/library/{text})",
            )

    def _tell_whether_it_moved(self, name: str, old: str, new: str) -> None:
        if old == new:
            self.reporter.note(f"{name} is still {new[:19]}")
        else:
            self.reporter.note(f"{name} has moved: it was {old[:19]}, it is {new[:19]}")

    def plan_kernel(self, name: str, *, anew: bool = False) -> Target:
        local = None if anew else self.kernels.find(name)
        if local is not None:
            return self._plan_local(local, KERNEL_ROLES, self.kernels)
        recipe = get_kernel_recipe(name)
        artifacts = plan_kernel(recipe, self.debian_mirror)
        details = {"source": f"{recipe.suite}/{recipe.package}", "runtime": runtime_version()}
        return plan_named(self.store, self.kernels, name, artifacts, details)

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
        return plan_named(self.store, names, local.name, artifacts, local.details)


def find_image(images: Names, text: str) -> Named | None:
    """What is here under a name or a reference. A word is a name first, whoever gave it, then a recipe's."""
    if is_local(text):
        return None
    if is_word(text):
        own = images.find(text)
        if own is not None or find_recipe(text) is not None:
            return own
    familiar = find_familiar_name(text)
    if familiar is not None:
        return images.find(familiar)
    return images.find(text) if is_word(text) else None


def is_mistyped(text: str, known: Collection[str]) -> bool:
    return is_word(text) and bool(get_close_matches(text, set(known) - {text}, n=1, cutoff=_NEARLY))


def is_word(text: str) -> bool:
    """Whether it may be a name that somebody gave, not only a reference."""
    return not any(sign in text for sign in "/:@")


def _refuse(job: Job) -> None:
    kind, _, name = job.step.name.partition(":")
    raise BangerError(f"{name!r} has lost its {kind}", reason=Reason.CORRUPT, hint=f"banger image build {name}")
