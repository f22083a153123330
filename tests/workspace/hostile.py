"""What must be left of a guest's answer that is refused, whatever is asked for: nothing."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import pytest

from banger.errors import BangerError
from banger.machine.exchange import Copy, apply_copy, branch_copy, export_patch, summarise
from banger.machine.record import Machine
from tests.workspace.copies import Pair, assert_clean, make_sent, unchanged, write


def apply(copy: Copy, say: Callable[[str], None] = lambda _text: None) -> object:
    return apply_copy(copy, say, lambda _summary: True)


def export(copy: Copy) -> object:
    with (copy.state.git.parent / "patch").open("wb") as sink:
        export_patch(copy, sink)
    return (copy.state.git.parent / "patch").read_bytes()


def branch(copy: Copy) -> object:
    machine = Machine.__new__(Machine)
    object.__setattr__(machine, "name", "box")
    return branch_copy(copy, machine, "result")


WAYS: dict[str, Callable[[Copy], object]] = {
    "apply": apply,
    "export": export,
    "stat": lambda copy: summarise(copy),
    "branch": branch,
}


def make_hosts(folder: Path) -> Pair:
    """A host's repository that was sent, beside something that is nobody's business."""
    (folder / "world").mkdir()
    pair = make_sent(folder / "world")
    write(folder / "world", "outside/secret", "outside\n")
    return pair


def refuse(pair: Pair, stream: bytes, *ways: str) -> BangerError:
    """Whatever is asked for, it is refused with the same words, and nothing has changed anywhere."""
    errors = []
    for way in ways or WAYS:
        with unchanged(pair.folder), pytest.raises(BangerError) as caught, pair.take_stream(stream) as copy:
            WAYS[way](copy)
        assert_clean(caught.value)
        errors.append(caught.value)
    assert len({error.reason for error in errors}) == 1
    return errors[0]
