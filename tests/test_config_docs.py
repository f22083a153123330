"""What is written about the configuration: page and file are those of the settings table, and their TOML is good."""

from __future__ import annotations

import re
import tomllib
from pathlib import Path
from typing import Any

import pytest

from banger.settings import parse_settings
from banger.settings.entry import TableList
from banger.settings.pages import format_file, format_page
from banger.settings.table import SCALARS, SETTINGS, VARIABLES

_ROOT = Path(__file__).parents[1]
# Recipes are files of another kind.
_PAGES = [_ROOT / "README.md", *sorted({*(_ROOT / "docs").glob("*.md")} - {_ROOT / "docs/recipes.md"})]


def test_the_page_is_what_the_settings_table_says() -> None:
    assert (_ROOT / "docs/config.md").read_text() == format_page(), "run: banger config docs > docs/config.md"


def test_the_page_tells_of_every_key_variable_and_option() -> None:
    page = format_page()
    for setting in SETTINGS:
        names = [field.key for field in setting.fields] if isinstance(setting, TableList) else [setting.variable]
        assert all(f"`{name}`" in page for name in names)
        assert f"`[[{setting.key}]]`" in page or f"`{setting.key}`" in page
    assert all(f"`{setting.option}`" in page for setting in SCALARS if setting.option)
    assert all(f"`{variable.name}`" in page for variable in VARIABLES)


def test_each_link_of_the_page_leads_to_one_of_its_heads() -> None:
    page = format_page()
    # As GitHub makes anchors of heads: without what is neither word nor hyphen.
    heads = {re.sub(r"[^\w-]", "", head) for head in re.findall(r"^## (.*)$", page, re.MULTILINE)}
    assert set(re.findall(r"\]\(#(.*?)\)", page)) == heads - {"Variableswithoutakey"}


def _toml_blocks() -> list[Any]:
    return [
        pytest.param(block, id=f"{path.name}-{number}")
        for path in _PAGES
        for number, block in enumerate(re.findall(r"^```toml\n(.*?)^```$", path.read_text(), re.MULTILINE | re.DOTALL))
    ]


@pytest.mark.parametrize("block", _toml_blocks())
def test_the_configuration_shown_in_a_page_is_taken(block: str) -> None:
    parse_settings(tomllib.loads(block))


def test_the_commented_file_changes_nothing() -> None:
    assert parse_settings(tomllib.loads(format_file())) == parse_settings({})


def test_each_key_of_the_commented_file_can_be_had_by_removing_its_sign() -> None:
    text = re.sub(r"^#(?=\S)", "", format_file(), flags=re.MULTILINE)
    values = tomllib.loads(text)
    settings = parse_settings(values)
    tables = [name for name, value in values.items() if isinstance(value, dict)]
    found = {*values, *(f"{table}.{key}" for table in tables for key in values[table])} - {*tables}
    assert found == {setting.key for setting in SETTINGS}
    defaults = parse_settings({})
    for name in ("default_image_name", "vmm", "kvm", "firecracker_bin", "max_image_mib", "disk_mib"):
        assert getattr(settings, name) == getattr(defaults, name)


def test_no_line_of_the_commented_file_is_longer_than_an_editor_is_wide() -> None:
    assert max(map(len, format_file().splitlines())) <= 120
