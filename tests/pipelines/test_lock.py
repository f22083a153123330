"""Locks become arguments of programs: what is none is refused, whoever wrote it."""

from __future__ import annotations

import json
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from banger.errors import BangerError, Reason
from pipelines.lock import parse_lock

_LOCK: dict[str, Any] = {
    "suite": "bookworm",
    "epoch": 1700000000,
    "packages": [{"name": "git", "version": "1:2.39.5-0+deb12u1"}, {"name": "libc6", "version": "2.36~rc1-9"}],
}


def test_a_lock_pins_every_package_to_its_version() -> None:
    lock = parse_lock(json.dumps(_LOCK).encode())
    assert (lock.suite, lock.epoch) == ("bookworm", 1700000000)
    assert lock.pins == ("git=1:2.39.5-0+deb12u1", "libc6=2.36~rc1-9")


@pytest.mark.parametrize(
    "change",
    [
        {"suite": "--setup-hook=touch /tmp/x"},
        {"suite": ""},
        {"suite": None},
        {"epoch": "now"},
        {"epoch": -1},
        {"epoch": True},
        {"packages": [{"name": "git,--hook", "version": "1"}]},
        {"packages": [{"name": "-o", "version": "1"}]},
        {"packages": [{"name": "git", "version": "1,evil"}]},
        {"packages": [{"name": "git", "version": "1 2"}]},
        {"packages": [{"name": "git"}]},
        {"packages": [7]},
        {"packages": None},
    ],
)
def test_what_could_be_an_option_of_a_program_is_refused(change: dict[str, object]) -> None:
    with pytest.raises(BangerError) as caught:
        parse_lock(json.dumps({**_LOCK, **change}).encode())
    assert caught.value.reason is Reason.CORRUPT


@given(st.binary())
def test_anything_else_is_refused(data: bytes) -> None:
    with pytest.raises(BangerError):
        parse_lock(data)
