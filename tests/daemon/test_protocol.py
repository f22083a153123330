"""The lines of the daemon's socket, and what is no such line."""

from __future__ import annotations

import json

import pytest
from hypothesis import given
from hypothesis import strategies as st

from banger.daemon.protocol import format_refusal, format_request, format_result, parse_answer, parse_request
from banger.errors import BangerError, Reason


def test_a_request_is_read_as_it_was_written() -> None:
    assert parse_request(format_request("stats", name="web", all=True)) == ("stats", {"name": "web", "all": True})


def test_a_result_is_read_as_it_was_written() -> None:
    assert parse_answer(format_result({"a": [1, None]})) == {"a": [1, None]}


def test_a_refusal_is_raised_as_it_was_there() -> None:
    with pytest.raises(BangerError) as caught:
        parse_answer(format_refusal(BangerError("no", hint="do", reason=Reason.IN_USE)))
    assert (caught.value.message, caught.value.hint, caught.value.reason) == ("no", "do", Reason.IN_USE)


@pytest.mark.parametrize(
    "line", [b"", b"\n", b"{", b"[]", b'"status"', b"{}", b'{"do": 5}', b'{"do": null}', b"\xff" * 9]
)
def test_what_is_no_request_is_refused(line: bytes) -> None:
    with pytest.raises(BangerError) as caught:
        parse_request(line)
    assert caught.value.reason is Reason.BAD_INPUT


@pytest.mark.parametrize(
    "line", [b"", b"{}", b"7", b'{"error": 5}', b'{"error": {"message": "m", "hint": "h", "reason": "?"}}']
)
def test_what_is_no_answer_is_told(line: bytes) -> None:
    with pytest.raises(BangerError) as caught:
        parse_answer(line)
    assert caught.value.reason is Reason.UNAVAILABLE


@given(
    st.binary() | st.recursive(st.none() | st.text(), lambda more: st.lists(more)).map(lambda x: json.dumps(x).encode())
)
def test_anything_is_a_request_or_refused(line: bytes) -> None:
    try:
        do, _ = parse_request(line)
    except BangerError:
        return
    assert isinstance(do, str)


def test_nesting_without_end_is_no_request() -> None:
    with pytest.raises(BangerError):
        parse_request(b'{"do":' + b"[" * 100_000)
