"""The ELF kernel out of a bzImage, and nothing out of anything else."""

from __future__ import annotations

import contextlib
import gzip
import io
import lzma
import os
import struct
import subprocess
from collections.abc import Callable

import pytest
import zstandard
from hypothesis import example, given, settings
from hypothesis import strategies as st

from banger.errors import BangerError, Reason
from pipelines.kernel import unpack_vmlinux

_ELF = b"\x7fELF\x02\x01\x01" + bytes(57) + os.urandom(200_000)


def _zstd_of_the_program(data: bytes) -> bytes:
    """As the kernel's build does it: a frame that does not say how long it is."""
    return subprocess.run(["zstd", "-q", "-c"], input=data, capture_output=True, check=True).stdout


_PACKERS: dict[str, Callable[[bytes], bytes]] = {
    "zstd": zstandard.ZstdCompressor().compress,
    "zstd-program": _zstd_of_the_program,
    "xz": lambda data: lzma.compress(data, lzma.FORMAT_XZ, check=lzma.CHECK_CRC32),
    "gzip": gzip.compress,
}


def _bzimage(payload: bytes, *, sectors: int = 3, version: int = 0x20F, length: int | None = None) -> bytes:
    """A setup part and a payload, by the kernel's Documentation/arch/x86/boot.rst."""
    setup = bytearray(((sectors or 4) + 1) * 512)
    setup[0x1F1] = sectors
    setup[0x202:0x206] = b"HdrS"
    struct.pack_into("<H", setup, 0x206, version)
    before = b"decompressor"
    struct.pack_into("<II", setup, 0x248, len(before), len(payload) if length is None else length)
    return bytes(setup) + before + payload + b"after"


def _unpack(image: bytes) -> bytes:
    return b"".join(unpack_vmlinux(io.BytesIO(image)))


def _refusal(image: bytes) -> BangerError:
    with pytest.raises(BangerError) as caught:
        _unpack(image)
    return caught.value


@pytest.mark.parametrize("packer", _PACKERS)
@pytest.mark.parametrize("sectors", [0, 3, 27])
def test_the_kernel_comes_out_of_a_bzimage(packer: str, sectors: int) -> None:
    # The kernel's build appends the size of the kernel.
    payload = _PACKERS[packer](_ELF) + struct.pack("<I", len(_ELF))
    assert _unpack(_bzimage(payload, sectors=sectors)) == _ELF


def test_a_kernel_that_is_an_elf_file_stays_as_it_is() -> None:
    assert _unpack(_ELF) == _ELF


@pytest.mark.parametrize("packer", _PACKERS)
@pytest.mark.parametrize("kept", [0.1, 0.5, 0.999])
def test_a_payload_that_ends_in_the_middle_is_refused(packer: str, kept: float) -> None:
    payload = _PACKERS[packer](_ELF)
    assert _refusal(_bzimage(payload[: int(len(payload) * kept)])).reason is Reason.CORRUPT


@pytest.mark.parametrize("packer", _PACKERS)
def test_a_payload_with_wrong_bytes_is_refused(packer: str) -> None:
    payload = bytearray(_PACKERS[packer](_ELF))
    payload[6:40] = b"\xff" * 34
    assert _refusal(_bzimage(bytes(payload))).reason is Reason.CORRUPT


@pytest.mark.parametrize("packer", _PACKERS)
@pytest.mark.parametrize("content", [b"", b"MZ" + bytes(100), b"\x7fELF\x01\x01" + bytes(100)])
def test_a_payload_that_is_no_64_bit_elf_is_refused(packer: str, content: bytes) -> None:
    assert _refusal(_bzimage(_PACKERS[packer](content))).reason is Reason.CORRUPT


@pytest.mark.parametrize(
    "image",
    [
        b"",
        b"\x7fELF",
        b"HdrS" * 400,
        _bzimage(b"\x28\xb5\x2f\xfd", length=1 << 31),
        _bzimage(gzip.compress(_ELF), length=7),
        _bzimage(gzip.compress(_ELF), version=0x207),
        _bzimage(b"BZh9" + bytes(100)),
        _bzimage(gzip.compress(_ELF))[:3000],
    ],
    ids=["empty", "only-a-magic", "no-header", "length-past-the-end", "tiny", "old-protocol", "bzip2", "cut"],
)
def test_what_is_no_kernel_is_refused(image: bytes) -> None:
    assert _refusal(image).reason is Reason.CORRUPT


_MAGICS = st.sampled_from([b"", b"\x28\xb5\x2f\xfd", b"\xfd7zXZ\x00", b"\x1f\x8b\x08\x00"])


@settings(max_examples=150)
@given(_MAGICS, st.binary(max_size=200))
@example(b"\x28\xb5\x2f\xfd", b"\x00" * 20)
def test_any_payload_is_unpacked_or_refused(magic: bytes, rest: bytes) -> None:
    with contextlib.suppress(BangerError):
        assert _unpack(_bzimage(magic + rest)).startswith(b"\x7fELF")


@settings(max_examples=100)
@given(st.binary(max_size=1500))
def test_any_bytes_are_a_kernel_or_refused(image: bytes) -> None:
    with contextlib.suppress(BangerError):
        assert _unpack(image).startswith(b"\x7fELF")
