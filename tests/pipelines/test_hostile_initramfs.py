"""The default kernel's initramfs may be a stranger's: only its first archive is taken, and nothing believed."""

from __future__ import annotations

import io
import os
import tracemalloc
from collections.abc import Callable
from pathlib import Path

import pytest
import zstandard

from banger.errors import BangerError, Reason
from banger.run import resume
from cache import Store
from pipelines.graph import build
from pipelines.initramfs import TAIL, plan_other_initramfs
from pipelines.job import Job
from pipelines.reporter import Silent
from pipelines.step import Artifact, Step

_MIB = 1 << 20
_DRIVERS = b"drivers" * 1000


@pytest.fixture
def store(tmp_path: Path) -> Store:
    resume()
    return Store.open(tmp_path / "store")


def _give(name: str, content: bytes) -> Artifact:
    def make(job: Job) -> None:
        with job.create("out") as sink:
            sink.write(content)

    return Step(name, name, 1, make, ("out",)).output("out")


def _make(store: Store, base: bytes) -> bytes:
    step = plan_other_initramfs("mine", _give("base", base), _give("drivers", _DRIVERS), None)
    record = build(store, [step], Silent()).record(step)
    assert record is not None
    return store.path(record.outputs["initramfs"]).read_bytes()


def _refuse(store: Store, base: bytes) -> Reason:
    with pytest.raises(BangerError) as refused:
        _make(store, base)
    assert "initramfs" in refused.value.message
    return refused.value.reason


def _pack(count_mib: int, content: Callable[[int], bytes]) -> bytes:
    sink = io.BytesIO()
    with zstandard.ZstdCompressor(level=1).stream_writer(sink, closefd=False) as packed:
        for _ in range(count_mib):
            packed.write(content(_MIB))
    return sink.getvalue()


@pytest.mark.parametrize("content", [bytes, os.urandom], ids=["small", "larger than a chunk"])
def test_the_first_archive_is_taken_to_the_byte(content: Callable[[int], bytes], store: Store) -> None:
    first = _pack(3, content)
    assert _make(store, first + _pack(1, bytes)) == first + _DRIVERS + TAIL
    assert _make(store, first) == first + _DRIVERS + TAIL


def test_one_that_unpacks_to_gigabytes_is_refused_without_filling_the_memory(store: Store) -> None:
    bomb = _pack(1024, bytes)
    assert len(bomb) < _MIB
    tracemalloc.start()
    reason = _refuse(store, bomb)
    _now, most = tracemalloc.get_traced_memory()
    tracemalloc.stop()
    assert reason is Reason.TOO_LARGE
    assert most < 128 * _MIB


def test_one_that_unpacks_to_much_does_not_fill_the_memory(store: Store) -> None:
    """It stays below the limit, so that all of it is unpacked."""
    first = _pack(400, bytes)
    tracemalloc.start()
    made = _make(store, first)
    _now, most = tracemalloc.get_traced_memory()
    tracemalloc.stop()
    assert made == first + _DRIVERS + TAIL
    assert most < 128 * _MIB


def test_what_follows_is_not_read_into_memory(store: Store) -> None:
    first = _pack(1, bytes)
    base, drivers = _give("base", first + bytes(200 * _MIB)), _give("drivers", bytes(200 * _MIB))
    build(store, [base.step, drivers.step], Silent())
    step = plan_other_initramfs("mine", base, drivers, None)
    tracemalloc.start()
    build(store, [step], Silent())
    _now, most = tracemalloc.get_traced_memory()
    tracemalloc.stop()
    assert most < 64 * _MIB


@pytest.mark.parametrize(
    "base",
    [b"", b"junk", b"junk" * 10_000, _pack(3, os.urandom)[:-10], _pack(1, bytes)[:5]],
    ids=["empty", "short junk", "junk", "cut off", "cut off in its head"],
)
def test_what_is_no_archive_of_ours_is_refused(base: bytes, store: Store) -> None:
    assert _refuse(store, base) is Reason.CORRUPT
