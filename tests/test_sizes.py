"""Sizes as people write them."""

from __future__ import annotations

import contextlib

import pytest
from hypothesis import given
from hypothesis import strategies as st

from banger.errors import BangerError, Reason
from banger.sizes import format_bytes, format_mib, parse_mib


@pytest.mark.parametrize(
    ("text", "size_mib"),
    [
        ("512", 512),
        ("512M", 512),
        ("512MB", 512),
        ("512MiB", 512),
        ("4G", 4096),
        ("4g", 4096),
        ("4GiB", 4096),
        ("2T", 2 << 20),
        (" 8G ", 8192),
        ("007", 7),
    ],
)
def test_a_size_is_read_in_the_usual_spellings(text: str, size_mib: int) -> None:
    assert parse_mib(text) == size_mib


@pytest.mark.parametrize(
    "text",
    [
        "",
        "0",
        "0G",
        "-5",
        "+5",
        "1K",
        "4 G",
        "1.5G",
        "G",
        "abc",
        "1e3",
        "4GG",
        "4iB2",
        "\u0664G",
        "\uff14G",
        "1\n2",
        "9" * 40,
    ],
)
def test_what_is_no_size_is_refused(text: str) -> None:
    with pytest.raises(BangerError) as caught:
        parse_mib(text)
    assert caught.value.reason is Reason.BAD_INPUT


@given(st.integers(min_value=1, max_value=999_999_999))
def test_a_formatted_size_reads_back_as_the_same(size_mib: int) -> None:
    assert parse_mib(format_mib(size_mib)) == size_mib


@given(st.text())
def test_any_text_is_a_size_or_refused(text: str) -> None:
    with contextlib.suppress(BangerError):
        assert parse_mib(text) > 0


@pytest.mark.parametrize(
    ("size_bytes", "text"),
    [(0, "0 B"), (1023, "1023 B"), (1024, "1.0 KiB"), (1536, "1.5 KiB"), (150 << 20, "150 MiB"), (5 << 40, "5.0 TiB")],
)
def test_bytes_are_shown_in_figures_that_people_read(size_bytes: int, text: str) -> None:
    assert format_bytes(size_bytes) == text
