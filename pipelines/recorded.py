"""Plans from what is here alone: names, recipes, and what was resolved before. Nothing is asked, built or written.

A name stands for what building it again would make of it with the answers that the outside gave last. One that cannot
be built again (pulled, imported, promoted, …) stands for what it was made from.
"""

from __future__ import annotations

import contextlib
from collections.abc import Iterable, Iterator
from contextlib import AbstractContextManager
from dataclasses import dataclass
from difflib import get_close_matches
from functools import partial
from pathlib import Path
from shlex import quote
from typing import IO

from banger.errors import BangerError, Reason
from catalog.kernels import DEFAULT_KERNEL, find_kernel_recipe, list_kernel_recipes
from catalog.local import Named
from catalog.names import nearest
from catalog.recipes import find_recipe, list_recipe_names
from pipelines.builder import Guest
from pipelines.graph import Graph
from pipelines.naming import Target, plan_named
from pipelines.oci.image import parse_answer, plan_config, plan_oci_image, plan_resolve
from pipelines.oci.reference import parse_reference
from pipelines.oci.source import Descriptor
from pipelines.oci.sources import STDIN, is_local
from pipelines.recipe import FILE_NAME, read_recipe
from pipelines.recipe_image import SOURCE, plan_own_recipe
from pipelines.reporter import Silent
from pipelines.step import Effect, Step, walk
from pipelines.targets import Targets, is_word

# So much like a step, it is a slip of a finger and no reference.
_NEARLY = 0.8


@dataclass(frozen=True)
class Found:
    """`root` is what was asked for; `targets` are all that it is part of."""

    root: Step | Effect
    targets: list[Target]


class RecordedTargets(Targets):
    """To be made over a `ReadOnlyStore`, without catalogs and without a remote cache."""

    def plan_image(
        self, text: str, *, anew: bool = False, name: str | None = None, kernel: str | None = None
    ) -> Target:
        """Of a registry's image, what its reference stood for when it was last resolved."""
        if (not anew and self.find_image(text) is not None) or find_recipe(text) is not None:
            return super().plan_image(text, anew=anew, name=name, kernel=kernel)
        place = _Elsewhere.parse(text)
        if place is None:
            raise _never_resolved(text)
        return self.plan_resolved(place, name)

    def plan_resolved(self, place: _Elsewhere, name: str | None = None) -> Target:
        """Raises NOT_FOUND for what was never resolved here."""
        answer, config = self._find_answer(place)
        resolved = parse_answer(answer, place.reference)
        name = name or place.name or f"image-{resolved.digest.partition(':')[2][:12]}"
        details = {
            **self._choose_kernel(name, None, DEFAULT_KERNEL),
            "source": "oci",
            "reference": resolved.reference,
            "digest": resolved.digest,
            "manifest_digest": resolved.manifest_digest,
        }
        artifacts = plan_oci_image(name, plan_config(answer, config), resolved, place, self.limits)
        return plan_named(self.store, self.images, name, artifacts, details)

    def _find_answer(self, place: _Elsewhere) -> tuple[bytes, bytes]:
        step = plan_resolve(place)
        graph = Graph(self.store, [step], Silent())
        # What came from standard input last may be another image by now.
        record = graph.record(step) if place.reference.partition(":")[0] != STDIN and graph.is_present(step) else None
        if record is not None:
            paths = [self.store.path(record.outputs[name]) for name in ("answer", "config")]
        else:
            same = [each for each in self.images.list() if _is_from(each, place.reference)]
            same.sort(key=lambda each: each.name != place.name)
            paths = next(filter(None, map(_list_answer, same)), [])
        if not paths:
            raise _never_resolved(place.name or place.reference)
        answer, config = (path.read_bytes() for path in paths)
        return answer, config

    def plan_image_again(self, text: str) -> Target:
        """An image by its name or reference, as it would be made again."""
        local = self.find_image(text)
        source = None if local is None else local.details.get("source")
        if local is None:
            return self.plan_image(text)
        if source == "recipe" and find_recipe(local.name) is not None:
            return self.plan_image(local.name, anew=True)
        if source == "oci":
            return self.plan_resolved(_Elsewhere(local.details["reference"], local.name))
        if source == SOURCE:
            # The recipe may be gone, or its base.
            with contextlib.suppress(BangerError):
                return self.plan_recipe(Path(local.details["path"]), local.name)
        return self.plan_image(local.name)

    def plan_kernel_again(self, name: str) -> Target:
        local, recipe = self.kernels.find(name), find_kernel_recipe(name)
        is_made = recipe is not None and (
            local is None or local.details.get("source") == f"{recipe.suite}/{recipe.package}"
        )
        return self.plan_kernel(name, anew=is_made)

    def plan_recipe(self, path: Path, name: str | None = None) -> Target:
        """A recipe of the user's own."""
        return plan_own_recipe(self, read_recipe(path, name), _Nowhere())

    def find(self, text: str) -> list[Found]:
        """What people mean by a name: an image or a kernel (or both), a recipe's path, a step, a reference, in turn."""
        targets = list(self._find_named(text))
        if not targets and _is_recipe(text):
            targets = [self.plan_recipe(Path(text))]
        if targets:
            return [Found(target.naming, [target]) for target in targets]
        steps = self._list_steps()
        if text in steps:
            return [steps[text]]
        names = {*self._list_images(), *self._list_kernels()}
        place = _Elsewhere.parse(text)
        if place is not None:
            try:
                target = self.plan_resolved(place)
            except BangerError as error:
                is_slip = is_word(text) or get_close_matches(text, steps, n=1, cutoff=_NEARLY)
                if error.reason is not Reason.NOT_FOUND or not is_slip:
                    raise
            else:
                return [Found(target.naming, [target])]
        # All steps there are would be no hint.
        near = {*names, *steps} if get_close_matches(text, {*names, *steps}, n=1) else names
        raise BangerError(
            f"there is no image, kernel or step {text!r}",
            reason=Reason.NOT_FOUND,
            hint=nearest(text, near),
        )

    def _find_named(self, text: str) -> Iterator[Target]:
        try:
            image, kernel = self.find_image(text), self.kernels.find(text) if is_word(text) else None
        except BangerError as error:
            if error.reason is not Reason.BAD_INPUT:
                raise
            # No name at all; it may be a path.
            return
        if image is not None or find_recipe(text) is not None:
            yield self.plan_image_again(text)
        if kernel is not None or find_kernel_recipe(text) is not None:
            yield self.plan_kernel_again(text)

    def _list_images(self) -> set[str]:
        return {*list_recipe_names(), *(each.name for each in self.images.list())}

    def _list_kernels(self) -> set[str]:
        return {*(recipe.name for recipe in list_kernel_recipes()), *(each.name for each in self.kernels.list())}

    def _list_steps(self) -> dict[str, Found]:
        """All steps of what is here or has a recipe, by what people see of them."""
        steps: dict[str, Found] = {}
        for target in self._plan_all():
            for node in walk([target.naming]):
                steps.setdefault(node.name, Found(node, [])).targets.append(target)
            # doit's words for a step that makes more than one thing.
            for role, artifact in target.artifacts.items():
                steps.setdefault(f"{role}:{target.name}", steps[artifact.step.name])
        return steps

    def _plan_all(self) -> Iterator[Target]:
        images, kernels = sorted(self._list_images()), sorted(self._list_kernels())
        plans = [partial(self.plan_image_again, name) for name in images]
        plans += [partial(self.plan_kernel_again, name) for name in kernels]
        for plan in plans:
            # What is wrong with it is told to whoever asks for that very name.
            with contextlib.suppress(BangerError):
                yield plan()


@dataclass(frozen=True)
class _Elsewhere:
    """A `Source` that is known by its reference alone."""

    reference: str
    name: str | None

    @classmethod
    def parse(cls, text: str) -> _Elsewhere | None:
        """None for what is no reference."""
        if text == STDIN:
            return None
        if is_local(text):
            transport, _, path = text.partition(":")
            return cls(f"{transport}:{Path(path).absolute()}", None)
        try:
            found = parse_reference(text.removeprefix("docker://"))
        except BangerError:
            return None
        return cls(found.canonical, found.familiar)

    def read_root(self) -> tuple[Descriptor, bytes]:
        raise AssertionError(f"{self.reference} is not to be asked")

    def read_manifest(self, descriptor: Descriptor) -> bytes:
        raise AssertionError(f"{self.reference} is not to be asked")

    def open_blob(self, descriptor: Descriptor, offset: int = 0) -> AbstractContextManager[IO[bytes]]:
        raise AssertionError(f"{self.reference} is not to be asked")


class _Nowhere:
    """`Guests` of which none is booted."""

    def run(self, guest: Guest) -> None:
        raise AssertionError("nothing is to be built")

    def keep_output(self, lines: Iterable[str]) -> Path:
        raise AssertionError("nothing is to be built")


def _is_recipe(text: str) -> bool:
    try:
        return (Path(text) / FILE_NAME).is_file() or (text.endswith(".toml") and Path(text).is_file())
    except OSError:  # too long for a path
        return False


def _is_from(image: Named, reference: str) -> bool:
    return image.details.get("source") == "oci" and image.details.get("reference") == reference


def _list_answer(image: Named) -> list[Path]:
    paths = [image.path(role) for role in ("answer", "config")]
    return paths if all(path.is_file() for path in paths) else []


def _never_resolved(text: str) -> BangerError:
    return BangerError(
        f"what {text!r} stands for was never asked here, so nobody can tell what it is made of",
        reason=Reason.NOT_FOUND,
        hint=f"ask, and build it: banger image build {quote(text)}",
    )
