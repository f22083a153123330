"""Recipes: how an image is made from Debian packages. Each is a folder under `catalog/recipes/`.

`recipe.toml` holds the keys below and no others; an executable `customize` beside it is run by mmdebstrap with the
image's root as its argument.
"""

from __future__ import annotations

import tomllib
from dataclasses import dataclass
from functools import cache
from importlib import resources
from pathlib import Path
from typing import Any

import blake3

from banger.errors import BangerError, Reason


@dataclass(frozen=True)
class NpmBinary:
    """A program inside an npm package: `file` in the package's tar becomes `path` in the image."""

    package: str
    file: str
    path: str


@dataclass(frozen=True)
class ImageRecipe:
    """`customize` is a program on the host; `digest` covers the whole folder."""

    name: str
    summary: str
    distro: str
    kernel: str
    suite: str
    packages: tuple[str, ...]
    npm: tuple[NpmBinary, ...]
    customize: Path
    digest: str


def list_recipe_names() -> list[str]:
    return sorted(entry.name for entry in _folder().iterdir() if (entry / "recipe.toml").is_file())


@cache
def find_recipe(name: str) -> ImageRecipe | None:
    return _load(_folder() / name) if name in list_recipe_names() else None


def _folder() -> Path:
    return Path(str(resources.files("catalog") / "recipes"))


def _load(folder: Path) -> ImageRecipe:
    text = (folder / "recipe.toml").read_bytes()
    customize = folder / "customize"
    values: dict[str, Any] = tomllib.loads(text.decode())
    try:
        npm = tuple(NpmBinary(**entry) for entry in values.pop("npm", []))
        packages = tuple(values.pop("packages"))
        return ImageRecipe(
            name=folder.name,
            packages=packages,
            npm=npm,
            customize=customize,
            digest=blake3.blake3(text + b"\0" + customize.read_bytes()).hexdigest(),
            **values,
        )
    except (TypeError, KeyError) as error:
        raise BangerError(f"the recipe {folder.name!r} is not valid: {error}", reason=Reason.BAD_INPUT) from error
