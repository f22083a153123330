"""What the catalog knows, and what a recipe may say."""

from __future__ import annotations

from pathlib import Path

import pytest

from banger.errors import BangerError, Reason
from catalog.kernels import DEFAULT_KERNEL, get_kernel_recipe, list_kernel_recipes
from catalog.names import nearest, parse_name
from catalog.recipes import _load, find_recipe, list_recipe_names

_RECIPE = """
summary = "A test"
distro = "debian"
kernel = "debian-6.12"
suite = "bookworm"
packages = ["jq", "git"]
[[npm]]
package = "tool"
file = "package/tool"
path = "usr/bin/tool"
"""


def _write(folder: Path, text: str = _RECIPE, customize: str = "true\n") -> Path:
    folder.mkdir(exist_ok=True)
    (folder / "recipe.toml").write_text(text)
    (folder / "customize").write_text(customize)
    return folder


def test_every_recipe_of_the_catalog_loads_and_names_a_kernel_that_exists() -> None:
    assert "debian-bookworm" in list_recipe_names()
    for name in list_recipe_names():
        recipe = find_recipe(name)
        assert recipe is not None
        assert parse_name(name, "image") == recipe.name
        assert recipe.packages
        assert recipe.customize.is_file()
        get_kernel_recipe(recipe.kernel)


def test_the_default_kernel_is_in_the_catalog() -> None:
    assert DEFAULT_KERNEL in [recipe.name for recipe in list_kernel_recipes()]


def test_an_unknown_kernel_is_refused_with_the_nearest() -> None:
    with pytest.raises(BangerError) as caught:
        get_kernel_recipe("debian-6.21")
    assert caught.value.reason is Reason.NOT_FOUND
    assert "did you mean" in caught.value.hint


@pytest.mark.parametrize("name", ["../recipes/debian-bookworm", "..", "", ".", "debian-bookworm/"])
def test_a_name_that_is_a_path_finds_no_recipe(name: str) -> None:
    assert find_recipe(name) is None


def test_a_recipe_is_read_whole(tmp_path: Path) -> None:
    recipe = _load(_write(tmp_path / "box"))
    assert (recipe.name, recipe.suite, recipe.packages) == ("box", "bookworm", ("jq", "git"))
    assert recipe.npm[0].path == "usr/bin/tool"


def test_any_change_in_a_recipe_s_folder_changes_its_digest(tmp_path: Path) -> None:
    digests = {
        _load(_write(tmp_path / "box", text, customize)).digest
        for text, customize in ((_RECIPE, "a"), (_RECIPE, "b"), (_RECIPE + "# more\n", "a"), (_RECIPE, "a"))
    }
    assert len(digests) == 3


@pytest.mark.parametrize(
    "text",
    [
        'colour = "red"\n' + _RECIPE,
        _RECIPE + 'colour = "red"\n',
        _RECIPE.replace('suite = "bookworm"\n', ""),
        _RECIPE.replace('packages = ["jq", "git"]\n', ""),
        _RECIPE.replace('file = "package/tool"\n', ""),
    ],
    ids=["unknown-key", "unknown-npm-key", "no-suite", "no-packages", "no-npm-file"],
)
def test_a_recipe_with_unknown_or_missing_keys_is_refused(tmp_path: Path, text: str) -> None:
    with pytest.raises(BangerError) as caught:
        _load(_write(tmp_path / "box", text))
    assert caught.value.reason is Reason.BAD_INPUT


def test_a_hint_names_the_nearest_or_all_there_are() -> None:
    assert nearest("debain", ["debian", "alpine"]) == "did you mean 'debian'?"
    assert nearest("zzz", ["debian", "alpine"]) == "known: alpine, debian"
    assert nearest("zzz", []) == ""
