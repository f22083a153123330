"""From a name to what must be built: the artifacts of images and kernels, and the step that gives them their name.

A name that is here already stands for exactly what it stood for when it was made, whatever its recipe, its suite or
its registry say today, until somebody asks to build it again. So nothing is asked of the network for it.

Any other name is looked up in the catalogs of the configuration (`pipelines/pull.py`), then among the recipes. An image
may also be a reference into a registry, or a place on this host (`pipelines/oci/sources.py`). What a catalog has, and
what layers a reference stands for, is asked while planning: the rest depends on it.

A recipe stands in for what a catalog cannot give at the moment. A stranger's image of the same name never does: a word
is taken for an image of a registry only when all catalogs were asked. What is not to be trusted is an error.
"""

from __future__ import annotations

from collections.abc import Collection, Mapping
from dataclasses import dataclass, field, replace
from difflib import get_close_matches
from functools import partial
from typing import IO

from banger.errors import BangerError, Reason
from cache import Store
from catalog.bundle import Kind
from catalog.kernels import CHOSEN_KERNEL, DEFAULT_KERNEL, KernelRecipe, find_kernel_recipe, get_kernel_recipe
from catalog.local import Named, Names
from catalog.names import nearest, parse_name
from catalog.origin import tell_remake
from catalog.recipes import ImageRecipe, find_recipe, list_recipe_names
from pipelines.bundle import FILE_STEP
from pipelines.catalogs import Catalogs
from pipelines.image import plan_recipe_image
from pipelines.initramfs import runtime_version
from pipelines.job import Job
from pipelines.kernel import plan_kernel
from pipelines.naming import Target, plan_named
from pipelines.oci.image import plan_oci_image, resolve
from pipelines.oci.limits import Limits
from pipelines.oci.registry import RegistryOptions
from pipelines.oci.sources import STDIN, find_familiar_name, is_local, open_source
from pipelines.pull import pull
from pipelines.remote import RemoteCache
from pipelines.reporter import Reporter, Silent
from pipelines.step import Step

# `config` is the configuration that came with an OCI image; others have none.
IMAGE_ROLES = ("rootfs", "home", "config")
_NEARLY = 0.85
KERNEL_ROLES = ("vmlinux", "modules", "initramfs")
# Where a kernel comes from that a user brought.
IMPORTED = "import"


@dataclass(frozen=True)
class Targets:
    """Plans by name, over what is local, what the catalog knows, and what registries have.

    `stdin` is what the image `-` is read from. `reporter` is told of what is asked while planning. With `may_pull` off
    neither catalogs nor registries are asked; with `may_build` off only what is here or in a catalog will do.
    """

    store: Store
    images: Names
    kernels: Names
    debian_mirror: str | None = None
    registries: Mapping[str, RegistryOptions] = field(default_factory=dict)
    limits: Limits = field(default_factory=Limits)
    reporter: Reporter = field(default_factory=Silent)
    stdin: IO[bytes] | None = None
    catalogs: Catalogs | None = None
    may_pull: bool = True
    may_build: bool = True
    remote: RemoteCache | None = None

    def find_image(self, text: str) -> Named | None:
        """What is here under a name or a reference, however that is written: `docker.io/library/debian:12`."""
        return find_image(self.images, text)

    def plan_image(
        self, text: str, *, anew: bool = False, name: str | None = None, kernel: str | None = None
    ) -> Target:
        """With `anew`, built from where it comes from even when it is here, and no catalog is asked.

        `name` and `kernel` are the user's choice.
        """
        self.check_kernel(kernel, may_ask=not anew)
        local = find_image(self.images, text, may_be_damaged=anew)
        if local is not None and not anew:
            return self._plan_local(local, IMAGE_ROLES, self.images)
        if not anew:
            pulled = self._find_in_catalogs(Kind.IMAGE, text, name or text, find_recipe(text), kernel)
            if pulled is not None:
                return pulled
        return self._plan_built(text, local, name, kernel)

    def pull_image(self, text: str, *, name: str | None = None, kernel: str | None = None) -> Target:
        """What the catalogs, else a recipe or a registry, have for a name now, whatever is here.

        What came from a registry comes from there again.
        """
        self.check_kernel(kernel, may_ask=True)
        local = find_image(self.images, text, may_be_damaged=True)
        if local is not None and local.details.get("source") == "oci":
            return self._plan_built(text, local, name, kernel)
        # What was pulled under a name of the user's own is pulled again by the one it has in its catalog.
        entry = text if local is None else str(local.details.get("entry", text))
        # What is here is better than what may stand in for what a catalog has.
        instead = None if local is not None else find_recipe(text)
        pulled = self._find_in_catalogs(Kind.IMAGE, entry, name or text, instead, kernel)
        return pulled or self._plan_built(text, local, name, kernel)

    def _plan_built(self, text: str, local: Named | None, name: str | None, kernel: str | None) -> Target:
        recipe = find_recipe(text)
        if recipe is not None:
            self._refuse_build(text)
            artifacts = plan_recipe_image(recipe, self.debian_mirror)
            details = {
                **self._choose_kernel(name or text, kernel, recipe.kernel),
                "summary": recipe.summary,
                "distro": recipe.distro,
                "recipe": recipe.digest,
                "source": "recipe",
            }
            return plan_named(self.store, self.images, name or text, artifacts, details)
        if local is not None and local.name == text and is_word(text) and local.details.get("source") == "oci":
            # Built again under the name it was given.
            if local.details["reference"] == STDIN:
                raise BangerError(
                    f"the image {text!r} came from standard input",
                    reason=Reason.BAD_INPUT,
                    hint=f"give it again: … | banger image build - --name {text}",
                )
            kernel = kernel or local.details.get(CHOSEN_KERNEL)
            return self._plan_oci(local.details["reference"], name or text, kernel)
        if local is not None and local.name == text and is_word(text):
            # Else a stranger's image of the same name would take its place.
            raise BangerError(
                f"there is nothing that the image {text!r} could be built from again",
                reason=Reason.NOT_FOUND,
                hint=_tell_origin(local),
            )
        if is_word(text) and not is_local(text):
            # Nor when nobody can tell any more what it was made from.
            self.images.find(text)
        return self._plan_oci(text, name, kernel)

    def check_kernel(self, name: str | None, *, may_ask: bool) -> None:
        """A wrong choice is refused now rather than when a machine is made.

        Of catalogs, what they said last will do, unless they may be asked.
        """
        if name is None or self.kernels.find(name) is not None or find_kernel_recipe(name) is not None:
            return
        may_ask = may_ask and self.may_pull
        if self.catalogs is not None and name in self.catalogs.list_names(Kind.KERNEL, may_ask=may_ask):
            return
        try:
            get_kernel_recipe(name)
        except BangerError as error:
            if self.catalogs is None or not self.catalogs.sources or may_ask:
                raise
            hint = f"{error.hint}\nif a catalog has it: banger kernel pull {name}"
            raise BangerError(error.message, reason=error.reason, hint=hint) from error

    def _choose_kernel(self, name: str, kernel: str | None, own: str) -> dict[str, str]:
        """What machines of an image boot: what its user chose, now or when it last got its name, else its own."""
        before = self.images.find(name, may_be_damaged=True)
        chosen = kernel or (before.details.get(CHOSEN_KERNEL) if before is not None else None)
        return {"kernel": chosen or own, **({CHOSEN_KERNEL: chosen} if chosen else {})}

    def _find_in_catalogs(
        self,
        kind: Kind,
        text: str,
        name: str,
        recipe: ImageRecipe | KernelRecipe | None,
        kernel: str | None = None,
    ) -> Target | None:
        """What the catalogs have. None when they have nothing, or cannot be reached and there is a recipe instead."""
        if self.catalogs is None or not self.may_pull or not is_word(text):
            return None
        answer = pull(self.store, self.catalogs, kind, text, self.limits, self.reporter)
        if answer.pulled is not None:
            for failure in answer.failures:
                self.reporter.note(f"{failure.message}: {text} is taken from {answer.pulled.details['reference']}")
            details = dict(answer.pulled.details)
            if kind is Kind.IMAGE:
                details |= self._choose_kernel(name, kernel, details["kernel"])
            names, roles = self._names(kind)
            before = names.find(name, may_be_damaged=True)
            if before is not None and "digest" in before.details:
                self._tell_whether_it_moved(name, before.details["digest"], details["digest"])
            target = plan_named(self.store, names, name, answer.pulled.artifacts, details)
            return replace(target, artifacts={role: made for role, made in target.artifacts.items() if role in roles})
        if answer.failures and (recipe is None or not self.may_build):
            failure = answer.failures[0]
            hint = f"{failure.hint}\n" if failure.hint else ""
            if kind is Kind.IMAGE and find_recipe(text) is None:
                hint += f"if an image of Docker Hub is meant, say so: docker.io/library/{text}"
            raise BangerError(f"{text}: {failure.message}", reason=failure.reason, hint=hint.strip())
        if answer.failures:
            self.reporter.note(f"{answer.failures[0].message}: {text} is built from its recipe instead")
        return None

    def _names(self, kind: Kind) -> tuple[Names, tuple[str, ...]]:
        return (self.images, IMAGE_ROLES) if kind is Kind.IMAGE else (self.kernels, KERNEL_ROLES)

    def _refuse_build(self, text: str) -> None:
        if not self.may_build:
            raise BangerError(
                f"{text!r} is neither here nor in a catalog, and building it is ruled out",
                reason=Reason.NOT_FOUND,
                hint="leave out --no-build, or add a catalog that has it to the configuration",
            )

    def _plan_oci(self, text: str, name: str | None, kernel: str | None) -> Target:
        self._refuse_mistyped(text)
        self._refuse_build(text)
        if not self.may_pull and not is_local(text):
            raise BangerError(
                f"{text!r} is not here, and asking a registry is ruled out",
                reason=Reason.NOT_FOUND,
                hint="leave out --no-pull",
            )
        source = open_source(text, self.registries, self.limits, self.store.root, self.stdin)
        resolved, answer = resolve(self.store, source, self.reporter, self.remote)
        name = name or source.name or f"image-{answer.digest.partition(':')[2][:12]}"
        before = self.images.find(name, may_be_damaged=True)
        if before is not None and "digest" in before.details:
            self._tell_whether_it_moved(name, before.details["digest"], answer.digest)
        details = {
            **self._choose_kernel(name, kernel, DEFAULT_KERNEL),
            "source": "oci",
            "reference": answer.reference,
            "digest": answer.digest,
            "manifest_digest": answer.manifest_digest,
        }
        artifacts = plan_oci_image(name, resolved, answer, source, self.limits)
        return plan_named(self.store, self.images, name, artifacts, details)

    def _refuse_mistyped(self, text: str) -> None:
        """A word that is nearly a name is taken for that: nobody shall run a stranger's image by a slip of a finger."""
        known = {*list_recipe_names(), *self.images.list_words()}
        if self.catalogs is not None and is_word(text):
            # As they were seen last: to build asks no catalog, and whoever may pull has asked by now.
            known |= self.catalogs.list_names(Kind.IMAGE, may_ask=False)
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
        """With `anew`, built from its packages even when it is here, and no catalog is asked."""
        local = None if anew else self.kernels.find(name)
        if local is not None:
            return self._plan_local(local, KERNEL_ROLES, self.kernels)
        if not anew:
            pulled = self._find_in_catalogs(Kind.KERNEL, name, name, find_kernel_recipe(name))
            if pulled is not None:
                return pulled
        recipe = find_kernel_recipe(name)
        if recipe is None and self._is_imported(name):
            raise BangerError(
                f"the kernel {name!r} was imported",
                reason=Reason.BAD_INPUT,
                hint=f"import it again: banger kernel import {name} FILE",
            )
        recipe = recipe or get_kernel_recipe(name)
        self._refuse_build(name)
        artifacts = plan_kernel(recipe, self.debian_mirror)
        details = {"source": f"{recipe.suite}/{recipe.package}", "runtime": runtime_version()}
        return plan_named(self.store, self.kernels, name, artifacts, details)

    def _is_imported(self, name: str) -> bool:
        local = self.kernels.find(name)
        return local is not None and local.details.get("source") == IMPORTED

    def pull_kernel(self, name: str) -> Target:
        """What the catalogs, else a recipe, have for a name now, whatever is here."""
        before = self.kernels.find(name, may_be_damaged=True)
        instead = None if before is not None else find_kernel_recipe(name)
        pulled = self._find_in_catalogs(Kind.KERNEL, parse_name(name, "a kernel"), name, instead)
        return pulled or self.plan_kernel(name, anew=True)

    def _plan_local(self, local: Named, roles: tuple[str, ...], names: Names) -> Target:
        """A name whose files are mended is given all that it has, also what only tells of where that came from."""
        local.restore(self.store)
        artifacts = {}
        for record in local.records.values():
            # Of what was pulled, each file has a step of the same kind.
            is_file = record.step == FILE_STEP
            step = Step(
                name=f"{record.step}:{local.name}" + (f"/{min(record.outputs)}" if is_file else ""),
                kind=record.step,
                version=record.version,
                build=partial(_refuse, local),
                outputs=tuple(record.outputs),
                parameters=record.parameters,
                inputs=dict(record.inputs),
            )
            # By one of its outputs the name gets all of a step's.
            wanted = [role for role in record.outputs if role in roles] or list(record.outputs)
            artifacts.update({role: step.output(role) for role in wanted})
        whole = plan_named(self.store, names, local.name, artifacts, local.details, is_here=True)
        return replace(whole, artifacts={role: made for role, made in artifacts.items() if role in roles})


def find_image(images: Names, text: str, *, may_be_damaged: bool = False) -> Named | None:
    """What is here under a name or a reference. A word is a name first, whoever gave it, then a recipe's.

    `may_be_damaged` as for `Names.find`.
    """
    if is_local(text):
        return None
    if is_word(text):
        own = images.find(text, may_be_damaged=may_be_damaged)
        if own is not None or find_recipe(text) is not None:
            return own
    familiar = find_familiar_name(text)
    if familiar is not None:
        return images.find(familiar, may_be_damaged=may_be_damaged)
    return images.find(text, may_be_damaged=may_be_damaged) if is_word(text) else None


def is_mistyped(text: str, known: Collection[str]) -> bool:
    return is_word(text) and bool(get_close_matches(text, set(known) - {text}, n=1, cutoff=_NEARLY))


def is_word(text: str) -> bool:
    """Whether it may be a name that somebody gave, not only a reference."""
    return not any(sign in text for sign in "/:@")


def _tell_origin(local: Named) -> str:
    if local.details.get("source") == "catalog":
        # Which has it no more.
        return f"it came from: {local.details.get('reference')}"
    return tell_remake(local.what, local.name, local.details)


def _refuse(local: Named, job: Job) -> None:
    lost = " and ".join(job.step.outputs)
    raise BangerError(
        f"the {local.what} {local.name!r} has lost its {lost}",
        reason=Reason.CORRUPT,
        hint=tell_remake(local.what, local.name, local.details),
    )
