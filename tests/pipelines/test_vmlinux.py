"""The ELF kernel out of a bzImage, and nothing out of anything else."""

from __future__ import annotations

import contextlib
import gzip
import io
import struct

import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st

from banger.errors import BangerError, Reason
from pipelines.vmlinux import Facts, unpack_vmlinux
from tests.pipelines.kernels import ELF, PACKERS, RELEASE, make_bzimage, make_elf


class _Slow:
    """Gives a few bytes at a time."""

    def __init__(self, data: bytes, size: int) -> None:
        self._file = io.BytesIO(data)
        self._size = size

    def read(self, size: int) -> bytes:
        return self._file.read(min(size, self._size))


def _unpack(image: bytes) -> bytes:
    return b"".join(unpack_vmlinux(io.BytesIO(image)))


def _refusal(image: bytes) -> BangerError:
    with pytest.raises(BangerError) as caught:
        _unpack(image)
    return caught.value


@pytest.mark.parametrize("packer", PACKERS)
@pytest.mark.parametrize("sectors", [0, 3, 27])
def test_the_kernel_comes_out_of_a_bzimage(packer: str, sectors: int) -> None:
    # The kernel's build appends the size of the kernel.
    payload = PACKERS[packer](ELF) + struct.pack("<I", len(ELF))
    assert _unpack(make_bzimage(payload, sectors=sectors)) == ELF


@pytest.mark.parametrize("image", [ELF, make_bzimage(PACKERS["zstd"](ELF))], ids=["elf", "bzimage"])
@pytest.mark.parametrize("size", [1000, 4097])
def test_a_kernel_may_come_in_small_pieces(image: bytes, size: int) -> None:
    assert b"".join(unpack_vmlinux(_Slow(image, size))) == ELF


def test_a_kernel_that_is_an_elf_file_stays_as_it_is() -> None:
    assert _unpack(ELF) == ELF


@pytest.mark.parametrize("size", [1, 7, 1000, 1 << 20])
def test_a_kernel_says_its_release_and_how_it_can_be_entered(size: int) -> None:
    facts = Facts()
    for at in range(0, len(ELF), size):
        facts.feed(ELF[at : at + size])
    assert (facts.is_linux, facts.release, facts.pvh) == (True, RELEASE, True)


@pytest.mark.parametrize("release", ["6.12\x1b[31m", "../6.12", "6", "6.12;id", "6.1" + "2" * 60, ""])
def test_a_release_of_odd_characters_is_none(release: str) -> None:
    facts = Facts()
    facts.feed(make_elf(release=release))
    assert (facts.is_linux, facts.release) == (True, None)


def test_what_is_no_linux_says_nothing() -> None:
    facts = Facts()
    facts.feed(make_elf(b"x" * 5000, release=None))
    assert (facts.is_linux, facts.release, facts.pvh) == (False, None, False)


@pytest.mark.parametrize("packer", PACKERS)
@pytest.mark.parametrize("kept", [0.1, 0.5, 0.999])
def test_a_payload_that_ends_in_the_middle_is_refused(packer: str, kept: float) -> None:
    payload = PACKERS[packer](ELF)
    assert _refusal(make_bzimage(payload[: int(len(payload) * kept)])).reason is Reason.CORRUPT


@pytest.mark.parametrize("packer", PACKERS)
def test_a_payload_with_wrong_bytes_is_refused(packer: str) -> None:
    payload = bytearray(PACKERS[packer](ELF))
    payload[6:40] = b"\xff" * 34
    assert _refusal(make_bzimage(bytes(payload))).reason is Reason.CORRUPT


@pytest.mark.parametrize("packer", PACKERS)
@pytest.mark.parametrize("content", [b"", b"MZ" + bytes(100), b"\x7fELF\x01\x01" + bytes(100)])
def test_a_payload_that_is_no_64_bit_elf_is_refused(packer: str, content: bytes) -> None:
    assert _refusal(make_bzimage(PACKERS[packer](content))).reason is Reason.CORRUPT


@pytest.mark.parametrize(
    "image",
    [
        b"",
        b"\x7fELF",
        b"HdrS" * 400,
        make_bzimage(b"\x28\xb5\x2f\xfd", length=1 << 31),
        make_bzimage(gzip.compress(ELF), length=1 << 31),
        make_bzimage(gzip.compress(ELF), length=7),
        make_bzimage(gzip.compress(ELF), version=0x207),
        make_bzimage(b"BZh9" + bytes(100)),
        make_bzimage(gzip.compress(ELF))[:3000],
        make_bzimage(gzip.compress(ELF))[:700],
    ],
    ids=[
        "empty",
        "only-a-magic",
        "no-header",
        "length-past-the-end",
        "whole-but-length-past-the-end",
        "tiny",
        "old-protocol",
        "bzip2",
        "cut",
        "cut-in-the-setup",
    ],
)
def test_what_is_no_kernel_is_refused(image: bytes) -> None:
    assert _refusal(image).reason is Reason.CORRUPT


_MAGICS = st.sampled_from([b"", b"\x28\xb5\x2f\xfd", b"\xfd7zXZ\x00", b"\x1f\x8b\x08\x00"])


@settings(max_examples=150)
@given(_MAGICS, st.binary(max_size=200))
@example(b"\x28\xb5\x2f\xfd", b"\x00" * 20)
def test_any_payload_is_unpacked_or_refused(magic: bytes, rest: bytes) -> None:
    with contextlib.suppress(BangerError):
        assert _unpack(make_bzimage(magic + rest)).startswith(b"\x7fELF")


@settings(max_examples=100)
@given(st.binary(max_size=1500), st.booleans())
def test_any_bytes_are_a_kernel_or_refused(image: bytes, is_elf: bool) -> None:
    with contextlib.suppress(BangerError):
        assert _unpack(ELF[:40] + image if is_elf else image).startswith(b"\x7fELF")
