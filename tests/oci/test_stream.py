"""Layers are unpacked whole or refused: gzip with its members and padding, zstd with its frames, xz, plain bytes."""

from __future__ import annotations

import contextlib
import gzip
import io
import threading
from collections.abc import Iterator

import pytest
import zstandard
from hypothesis import given
from hypothesis import strategies as st

from banger.errors import BangerError, Reason
from pipelines.oci.limits import Limits
from pipelines.oci.stream import Cursor, read_ahead, unpack

TEXT = b"".join(b"%d\n" % number for number in range(300_000))


def unpacked(packed: bytes, limits: Limits | None = None) -> bytes:
    return b"".join(unpack(io.BytesIO(packed), limits or Limits(), "it"))


class Trickle:
    """Gives a few bytes at a time, as a network does."""

    def __init__(self, data: bytes, size: int) -> None:
        self._file = io.BytesIO(data)
        self._size = size

    def read(self, size: int) -> bytes:
        return self._file.read(min(size, self._size))


@pytest.mark.parametrize("parts", [1, 2, 5])
@pytest.mark.parametrize("padding", [0, 1, 1000, 3_000_000])
def test_all_members_of_a_gzip_file_count_and_zeros_after_them_do_not(parts: int, padding: int) -> None:
    size = len(TEXT) // parts + 1
    packed = b"".join(gzip.compress(TEXT[at : at + size], 1) for at in range(0, len(TEXT), size))
    assert unpacked(packed + bytes(padding)) == TEXT


@pytest.mark.parametrize("tail", [b"x", b"\x1f", b"\x1f\x8b", b"\0\0more", b"\x1f\x8b\x08\0"])
def test_what_stands_after_the_end_of_gzip_is_refused(tail: bytes) -> None:
    with pytest.raises(BangerError) as refused:
        unpacked(gzip.compress(b"abc") + tail)
    assert refused.value.reason is Reason.CORRUPT


@given(st.integers(0, 1 << 16), st.integers(1, 4000))
def test_a_cut_gzip_file_is_never_taken_for_whole(cut: int, step: int) -> None:
    packed = gzip.compress(TEXT[:200_000], 1)
    with pytest.raises(BangerError) as refused:
        list(unpack(Trickle(packed[: 2 + cut % (len(packed) - 2)], step), Limits(), "it"))
    assert refused.value.reason is Reason.CORRUPT


def test_a_flipped_bit_in_gzip_is_found_by_its_checksum() -> None:
    packed = bytearray(gzip.compress(TEXT, 1))
    packed[-6] ^= 1
    with pytest.raises(BangerError) as refused:
        unpacked(bytes(packed))
    assert refused.value.reason is Reason.CORRUPT


def test_all_frames_of_zstd_count() -> None:
    compress = zstandard.ZstdCompressor(level=3).compress
    assert unpacked(compress(TEXT) + compress(b"more")) == TEXT + b"more"


@given(st.integers(1, 1 << 16), st.integers(1, 4000))
def test_a_cut_zstd_file_is_never_taken_for_whole(cut: int, step: int) -> None:
    packed = zstandard.ZstdCompressor().compress(TEXT[:200_000])
    with pytest.raises(BangerError) as refused:
        list(unpack(Trickle(packed[: 4 + cut % (len(packed) - 4)], step), Limits(), "it"))
    assert refused.value.reason is Reason.CORRUPT


def test_damaged_zstd_is_refused() -> None:
    packed = bytearray(zstandard.ZstdCompressor(level=3, write_checksum=True).compress(TEXT))
    packed[len(packed) // 2] ^= 255
    with pytest.raises(BangerError) as refused:
        unpacked(bytes(packed))
    assert refused.value.reason is Reason.CORRUPT


@given(
    st.binary(max_size=3000).filter(lambda data: data[:2] not in (b"\x1f\x8b", b"\x28\xb5", b"\xfd7")),
    st.integers(1, 99),
)
def test_plain_bytes_pass_through(data: bytes, step: int) -> None:
    assert b"".join(unpack(Trickle(data, step), Limits(), "it")) == data


@pytest.mark.parametrize("pack", [gzip.compress, zstandard.ZstdCompressor().compress])
def test_a_bomb_is_refused_long_before_it_is_unpacked(pack: object) -> None:
    packed = pack(bytes(64 << 20))  # type: ignore[operator]
    for limits in (Limits(max_image_bytes=1 << 20), Limits(ratio_free_bytes=1 << 20, max_ratio=100)):
        chunks: list[int] = []
        with pytest.raises(BangerError) as refused:
            chunks.extend(map(len, unpack(io.BytesIO(packed), limits, "it")))
        assert refused.value.reason is Reason.TOO_LARGE
        assert sum(chunks) < 16 << 20


def test_reading_ahead_gives_the_same_and_hands_on_errors() -> None:
    def failing() -> Iterator[bytes]:
        yield b"a"
        raise BangerError("no", reason=Reason.IO)

    assert list(read_ahead(iter([b"a", b"b", b"c"] * 50))) == [b"a", b"b", b"c"] * 50
    with pytest.raises(BangerError):
        list(read_ahead(failing()))


def test_a_reader_that_stops_early_leaves_no_thread() -> None:
    before = set(threading.enumerate())
    with contextlib.closing(read_ahead(iter([b"x"] * 1000))) as chunks:
        assert next(chunks) == b"x"
    # Those of other tests may end meanwhile.
    assert set(threading.enumerate()) <= before


@given(st.lists(st.binary(min_size=1, max_size=50), max_size=20), st.lists(st.integers(0, 60), max_size=20))
def test_a_cursor_gives_each_byte_once_and_knows_its_place(chunks: list[bytes], steps: list[int]) -> None:
    whole = b"".join(chunks)
    cursor = Cursor(iter(chunks), "it")
    at = 0
    for number, step in enumerate(steps):
        if at + step > len(whole):
            with pytest.raises(BangerError):
                cursor.take(step)
            return
        if number % 3 == 0:
            assert cursor.take(step) == whole[at : at + step]
        elif number % 3 == 1:
            cursor.skip(step)
        else:
            sink = io.BytesIO()
            cursor.copy(step, sink)
            assert sink.getvalue() == whole[at : at + step]
        at += step
        assert cursor.position == at
    cursor.drain()
    assert cursor.position == len(whole)
    assert cursor.take_block(1) is None
