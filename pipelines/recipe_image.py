"""A recipe of a user's own as an image: a base, its files, and one step after the other on top of it.

    base ─ unpack ─┬──────────────┬─ … ─ rootfs, home ─ image:NAME
           files ──┴─ rootfs ─ run-1 ─ …

Each step is a layer. The next one boots on all layers so far, joined as those of any image are; the last join is the
image. Nothing that came before a change is run again.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, replace
from pathlib import Path

from banger.errors import BangerError, Reason
from banger.run import printable
from catalog.kernels import DEFAULT_KERNEL
from pipelines.builder import Guests, plan_unpack
from pipelines.builder_kernel import plan_builder_kernel
from pipelines.naming import Target, plan_named
from pipelines.oci.rootfs import plan_rootfs
from pipelines.oci.sources import is_local
from pipelines.recipe import OwnRecipe
from pipelines.recipe_files import plan_files
from pipelines.recipe_run import plan_run
from pipelines.recipe_suite import plan_suite
from pipelines.step import Artifact, Effect, Step
from pipelines.targets import IMAGE_ROLES, Targets

SOURCE = "recipe-file"


@dataclass(frozen=True)
class _Base:
    """What a recipe begins with: one layer, and the image that it is already, if it is one."""

    layer: Step
    details: Mapping[str, str]
    image: Mapping[str, Artifact]
    naming: Effect | None


def plan_own_recipe(targets: Targets, recipe: OwnRecipe, guests: Guests) -> Target:
    """The image of a recipe, under the recipe's name.

    A base that is here is taken as it is; what a suite has is asked each time. Raises `BangerError` for files that are
    not there, and for names that are not known.
    """
    name, limits = recipe.name, targets.limits
    found = None if recipe.base is None else targets.plan_image(_find_place(recipe.base, recipe.folder))
    if found is not None and found.name == name:
        raise BangerError(
            f"the image {name!r} would take the place of its own base",
            reason=Reason.BAD_INPUT,
            hint='give it a name of its own: name = "…" in the recipe, or --name NAME',
        )
    wanted = recipe.kernel or (found.details.get("kernel") if found is not None else None) or DEFAULT_KERNEL
    kernel = plan_builder_kernel(targets, wanted)
    base = _plan_base(targets, recipe, found, kernel, guests)
    layers = [base.layer]
    rootfs = base.image.get("rootfs")
    if recipe.files:
        layers.append(plan_files(name, recipe.files, recipe.folder, limits))
        rootfs = None
    for number, step in enumerate(recipe.runs, 1):
        if rootfs is None:
            rootfs = plan_rootfs(f"{name}+{number - 1}", tuple(layers), limits)["rootfs"]
        layers.append(
            plan_run(
                f"run-{number}:{name}",
                step,
                rootfs,
                base.image.get("config"),
                kernel.artifacts,
                guests,
                limits,
                targets.debian_mirror,
            )
        )
        rootfs = None
    # What else the base has tells of the base.
    artifacts = {role: artifact for role, artifact in base.image.items() if role in IMAGE_ROLES}
    if rootfs is None:
        artifacts.update(plan_rootfs(name, tuple(layers), limits))
    details = {
        **base.details,
        "kernel": wanted,
        "source": SOURCE,
        "recipe": recipe.digest,
        "path": printable(str(recipe.path)),
        **({"summary": recipe.summary} if recipe.summary else {}),
    }
    target = plan_named(targets.store, targets.images, name, artifacts, details)
    before = (kernel.naming, *(() if base.naming is None else (base.naming,)))
    return replace(target, naming=replace(target.naming, after=before))


def _plan_base(targets: Targets, recipe: OwnRecipe, found: Target | None, kernel: Target, guests: Guests) -> _Base:
    if found is None:
        assert recipe.suite is not None
        layer = plan_suite(recipe.name, recipe.suite, recipe.packages, targets.debian_mirror, targets.limits)
        return _Base(layer, {"base": recipe.suite, "distro": "debian", **ORIGIN}, {}, None)
    assert recipe.base is not None
    layer = plan_unpack(found.name, found.artifacts["rootfs"], kernel.artifacts, guests, targets.limits)
    # An image in a folder of this host needs no name here.
    naming = None if is_local(recipe.base) else found.naming
    return _Base(layer, {"base": printable(recipe.base), **derive_details(found.details)}, found.artifacts, naming)


# Images that leave the choice of a mirror to the machine say so.
ORIGIN: Mapping[str, str] = {"origin": "recipe"}


def derive_details(base: Mapping[str, str]) -> dict[str, str]:
    """What holds for an image that is made from another, too."""
    kept = {name: base[name] for name in ("distro",) if name in base}
    return {**kept, **(ORIGIN if "recipe" in (base.get("source"), base.get("origin")) else {})}


def _find_place(base: str, folder: Path) -> str:
    """A place on this host is told from the recipe's folder on."""
    if not is_local(base):
        return base
    transport, _, rest = base.partition(":")
    return f"{transport}:{folder}/{rest}" if rest and not rest.startswith("/") else base
