"""Names of machines are host names."""

from __future__ import annotations

import re

import pytest
from hypothesis import given
from hypothesis import strategies as st

from banger.errors import BangerError, Reason
from banger.machine.name import _ADJECTIVES, _NOUNS, make_up_name, parse_machine_name


@given(st.from_regex(r"[a-z0-9]([a-z0-9-]{0,61}[a-z0-9])?", fullmatch=True))
def test_every_lower_case_dns_label_is_a_name_and_stays_as_it_is(name: str) -> None:
    assert parse_machine_name(name) == name


@given(st.text(max_size=70) | st.text("abz09-.", max_size=66))
def test_what_is_taken_is_a_dns_label_of_rfc_1123(text: str) -> None:
    is_label = (
        1 <= len(text) <= 63
        and all(letter in "abcdefghijklmnopqrstuvwxyz0123456789-" for letter in text)
        and not text.startswith("-")
        and not text.endswith("-")
    )
    if is_label:
        assert parse_machine_name(text) == text
    else:
        with pytest.raises(BangerError) as caught:
            parse_machine_name(text)
        assert caught.value.reason is Reason.BAD_INPUT


@pytest.mark.parametrize("name", ["", "Box", "-a", "a-", "a" * 64, "a.b", "a_b", "a\n", "bö", "../x", "a b", "a=b"])
def test_what_is_no_host_name_is_refused(name: str) -> None:
    with pytest.raises(BangerError):
        parse_machine_name(name)


def test_a_name_that_is_made_up_is_a_name_and_not_taken() -> None:
    taken: set[str] = set()
    for _ in range(500):
        name = make_up_name(taken)
        assert parse_machine_name(name) not in taken
        assert re.fullmatch(r"[a-z]+-[a-z]+(-\d{1,4})?", name)
        taken.add(name)


def test_a_name_is_made_up_even_when_all_words_are_used() -> None:
    taken = {f"{adjective}-{noun}" for adjective in _ADJECTIVES for noun in _NOUNS}
    assert make_up_name(taken) not in taken
