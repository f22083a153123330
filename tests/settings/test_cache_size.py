"""`cache.max_size`: a size, a number of MiB, or a part of the filesystem."""

from __future__ import annotations

from pathlib import Path

import pytest

from banger.errors import BangerError, Reason
from banger.paths import Paths
from banger.settings import CacheSize, config_path, load_settings
from banger.settings.values import format_cache_size, parse_cache_size


@pytest.fixture
def paths(tmp_path: Path) -> Paths:
    return Paths.from_environment({"HOME": str(tmp_path)})


def load(paths: Paths, value: str) -> CacheSize:
    paths.config.mkdir(parents=True, exist_ok=True)
    config_path(paths).write_text(f"[cache]\nmax_size = {value}\n")
    return load_settings(paths, {}).cache_max_size


@pytest.mark.parametrize(
    ("value", "meant"),
    [
        ('"20G"', CacheSize(mib=20 * 1024)),
        ('"512MiB"', CacheSize(mib=512)),
        ('"1M"', CacheSize(mib=1)),
        ('"2T"', CacheSize(mib=2 << 20)),
        ("100", CacheSize(mib=100)),
        ('"100"', CacheSize(mib=100)),
        ('"20%"', CacheSize(percent=20)),
        ('"1%"', CacheSize(percent=1)),
        ('"100%"', CacheSize(percent=100)),
    ],
)
def test_a_size_and_a_part_are_taken(paths: Paths, value: str, meant: CacheSize) -> None:
    assert load(paths, value) == meant
    assert parse_cache_size(format_cache_size(meant)) == meant


@pytest.mark.parametrize(
    "value",
    [
        "0",
        "-1",
        "1.5",
        "true",
        "[20]",
        '""',
        '"0"',
        '"0G"',
        '"0%"',
        '"00%"',
        '"020%"',
        '"101%"',
        '"1000%"',
        '"-5%"',
        '"2.5%"',
        '"20 %"',
        '"%"',
        '"20%%"',
        '"20%\\n"',
        '"٢٠%"',
        '"much"',
        '"20K"',
        '"20 percent"',
        "1000000000",
    ],
)
def test_what_is_neither_is_refused_with_what_is_allowed(paths: Paths, value: str) -> None:
    with pytest.raises(BangerError) as caught:
        load(paths, value)
    assert caught.value.reason is Reason.BAD_INPUT
    assert "cache.max_size" in caught.value.message
    assert '"20%"' in f"{caught.value.message} {caught.value.hint}"


def test_without_a_word_it_is_a_fifth_of_the_filesystem(paths: Paths) -> None:
    assert load_settings(paths, {}).cache_max_size == CacheSize(percent=20)


def test_a_variable_says_it_too(paths: Paths) -> None:
    assert load_settings(paths, {"BANGER_CACHE_MAX_SIZE": "30%"}).cache_max_size == CacheSize(percent=30)
    assert load_settings(paths, {"BANGER_CACHE_MAX_SIZE": "3G"}).cache_max_size == CacheSize(mib=3072)
