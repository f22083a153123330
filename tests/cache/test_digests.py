import string

import pytest
from blake3 import blake3
from hypothesis import assume, given
from hypothesis import strategies as st

from banger.errors import BangerError, Reason
from cache import Digest, Object, parse_digest
from cache.layout import lock_path, object_path, record_path


@given(st.binary())
def test_what_blake3_prints_is_a_digest(data: bytes) -> None:
    assert parse_digest(blake3(data).hexdigest()) == blake3(data).hexdigest()


@given(st.text())
def test_nothing_else_is_a_digest(text: str) -> None:
    assume(not (len(text) == 64 and set(text) <= set("0123456789abcdef")))
    with pytest.raises(BangerError) as caught:
        parse_digest(text)
    assert caught.value.reason is Reason.BAD_INPUT


@pytest.mark.parametrize(
    "text",
    [
        "A" * 64,
        "a" * 63,
        "a" * 65,
        "a" * 64 + "\n",
        " " + "a" * 63,
        "blake3:" + "a" * 64,
        "../" * 21 + "x",
        "\N{FULLWIDTH DIGIT ONE}" * 64,
        "\N{ARABIC-INDIC DIGIT ONE}" * 64,
        "a" * 32 + "/" + "a" * 31,
        "a" * 63 + "\0",
    ],
)
def test_near_misses_are_refused(text: str) -> None:
    with pytest.raises(BangerError):
        parse_digest(text)


@pytest.mark.parametrize("to_path", [object_path, record_path, lock_path])
def test_a_forged_digest_never_becomes_a_path(tmp_path, to_path) -> None:
    with pytest.raises(BangerError):
        to_path(tmp_path, Digest("../../etc/passwd"))


def test_an_object_cannot_be_made_with_a_bad_digest_or_size() -> None:
    with pytest.raises(BangerError):
        Object(Digest("../x"), 1)
    with pytest.raises(BangerError):
        Object(Digest("a" * 64), -1)


def test_digits_are_only_the_sixteen() -> None:
    for letter in string.printable:
        is_hex = letter in "0123456789abcdef"
        try:
            parse_digest("a" * 63 + letter)
        except BangerError:
            assert not is_hex
        else:
            assert is_hex
