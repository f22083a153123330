"""Kernels that lie about what they are, or would fill the host."""

from __future__ import annotations

import io
import tracemalloc

import pytest
import zstandard

from banger.errors import BangerError, Reason
from pipelines.vmlinux import MAX_VMLINUX_BYTES, unpack_vmlinux
from tests.pipelines.kernels import ELF, make_bzimage, make_elf

_MIB = 1 << 20


def _refusal(image: bytes) -> BangerError:
    with pytest.raises(BangerError) as caught:
        for _block in unpack_vmlinux(io.BytesIO(image)):
            pass
    assert caught.value.message.isprintable()
    return caught.value


@pytest.mark.parametrize(
    ("elf", "why"),
    [
        (make_elf(ident=b"\x7fELF\x01\x01\x01"), "64-bit"),
        (make_elf(ident=b"\x7fELF\x02\x02\x01"), "little-endian"),
        (make_elf(ident=b"\x7fELF\x02\x01\x00"), "64-bit"),
        (make_elf(machine=183), "machine 183"),
        (make_elf(machine=3), "machine 3"),
        (make_elf(kind=1), "cannot be run"),
        (make_elf(kind=4), "cannot be run"),
        (make_elf(segments=[]), "no segment"),
        (make_elf(segments=[(4, 4096, 10), (2, 4096, 10)]), "no segment"),
        (make_elf(segments=[(1, 4096, 0)]), "no segment"),
        (make_elf(segments=[(1, 4096, 1 << 40)]), "ends before"),
        (make_elf(segments=[(1, (1 << 64) - 1, (1 << 64) - 1)]), "ends before"),
        (make_elf(entry_size=32), "program headers"),
        (make_elf(entry_size=0), "program headers"),
        (make_elf(offset=1 << 20), "program headers"),
        (make_elf(offset=(1 << 64) - 8), "program headers"),
        (ELF[:-1], "ends before"),
        (ELF[:5000], "ends before"),
        (ELF[:63], "no ELF"),
    ],
)
@pytest.mark.parametrize("packed", [False, True])
def test_an_elf_file_that_is_no_x86_kernel_is_refused(elf: bytes, why: str, packed: bool) -> None:
    refused = _refusal(make_bzimage(zstandard.ZstdCompressor().compress(elf)) if packed else elf)
    assert refused.reason is Reason.CORRUPT
    assert why in refused.message


def test_a_payload_that_unpacks_to_gigabytes_is_refused_without_filling_the_memory() -> None:
    compressor = zstandard.ZstdCompressor().compressobj()
    parts = [compressor.compress(ELF)]
    parts += [compressor.compress(bytes(_MIB)) for _ in range(3 * MAX_VMLINUX_BYTES // _MIB)]
    payload = b"".join([*parts, compressor.flush()])
    image = make_bzimage(payload)
    assert len(image) < 2 * _MIB
    tracemalloc.start()
    refused = _refusal(image)
    _now, most = tracemalloc.get_traced_memory()
    tracemalloc.stop()
    assert refused.reason is Reason.TOO_LARGE
    assert most < 128 * _MIB


class _Endless:
    """An ELF kernel that never ends."""

    def __init__(self) -> None:
        self.given = 0

    def read(self, size: int) -> bytes:
        data = (ELF if self.given == 0 else bytes(_MIB))[:size]
        self.given += len(data)
        return data


def test_a_plain_kernel_without_end_is_refused() -> None:
    endless = _Endless()
    with pytest.raises(BangerError) as caught:
        for _block in unpack_vmlinux(endless):
            pass
    assert caught.value.reason is Reason.TOO_LARGE
    assert endless.given < 2 * MAX_VMLINUX_BYTES
