"""Kernels by name: what a name stands for before anything is fetched."""

from __future__ import annotations

from dataclasses import dataclass

from banger.errors import BangerError, Reason
from catalog.names import nearest

# Where an image's details have the kernel that its user chose, which goes before what the image says.
CHOSEN_KERNEL = "chosen_kernel"
DEFAULT_KERNEL = "debian-6.12"


@dataclass(frozen=True)
class KernelRecipe:
    """A kernel made from a Debian package of a suite."""

    name: str
    suite: str
    package: str


_RECIPES = {
    recipe.name: recipe for recipe in (KernelRecipe("debian-6.12", suite="trixie", package="linux-image-cloud-amd64"),)
}


def list_kernel_recipes() -> list[KernelRecipe]:
    return list(_RECIPES.values())


def find_kernel_recipe(name: str) -> KernelRecipe | None:
    return _RECIPES.get(name)


def get_kernel_recipe(name: str) -> KernelRecipe:
    recipe = _RECIPES.get(name)
    if recipe is None:
        raise BangerError(f"there is no kernel {name!r}", reason=Reason.NOT_FOUND, hint=nearest(name, _RECIPES))
    return recipe
