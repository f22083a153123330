"""A first look at a tar that is to be a root filesystem: what it is called, and whether it can be one.

One pass, nothing kept but the names at its top. What leads out of it, or is damaged inside, is for those who make a
filesystem of it (`oci/layer.py`, `oci/changeset.py`); here it is told what people hand over by mistake.
"""

from __future__ import annotations

import hashlib
from collections.abc import Iterator

from banger.errors import BangerError, Reason
from pipelines.content import Content
from pipelines.oci.limits import Limits
from pipelines.oci.manifest import OCI_LAYER, Layer
from pipelines.oci.source import Descriptor
from pipelines.oci.stream import CHUNK_BYTES, Cursor, Reads, unpack
from pipelines.oci.tar import BLOCK_BYTES, Entry, Kind, read_entries

# Folders by which a root filesystem is known (hier(7)); a tool's image may have none of them.
_USUAL = frozenset({"bin", "boot", "etc", "home", "lib", "lib64", "root", "sbin", "usr", "var"})
_ARCHIVES = frozenset({"oci-layout", "manifest.json"})
_WHITEOUT = ".wh."
_UNREADABLE = "the layer has "


def survey_tar(content: Content, limits: Limits) -> Layer:
    """The tar as the one layer of an image, by its digests. Raises `BangerError` for what can be no root filesystem."""
    what = content.what
    with content.read() as stream:
        packed = _Packed(stream)
        chunks = _Unpacked(unpack(packed, limits, what))
        cursor = Cursor(iter(chunks), what)
        names = _Names(what, limits)
        try:
            for entry in read_entries(cursor):
                names.add(entry)
            cursor.drain()
            while packed.read(CHUNK_BYTES):
                # What a packer left behind the end.
                pass
        except BangerError as error:
            why = error.message
            if not names.count and (why.startswith(_UNREADABLE) or packed.size_bytes < BLOCK_BYTES):
                raise _unknown(what) from error
            if why.startswith(_UNREADABLE):
                why = f"{what} has {why.removeprefix(_UNREADABLE)}"
            raise BangerError(why, reason=error.reason, hint=error.hint) from error
    names.check()
    if chunks.end.strip(b"\0"):
        raise BangerError(f"{what} is cut off: it has no end", reason=Reason.CORRUPT)
    return Layer(Descriptor(OCI_LAYER, f"sha256:{packed.hash.hexdigest()}", packed.size_bytes), chunks.diff_id)


class _Packed:
    """Hands on what it reads, and hashes it."""

    def __init__(self, source: Reads) -> None:
        self._source = source
        self.hash = hashlib.sha256()
        self.size_bytes = 0

    def read(self, size: int) -> bytes:
        data = self._source.read(size)
        self.hash.update(data)
        self.size_bytes += len(data)
        return data


class _Unpacked:
    """Hands on chunks, hashes them, and keeps the last block: zeros, where an archive is whole."""

    def __init__(self, chunks: Iterator[bytes]) -> None:
        self._chunks = chunks
        self._hash = hashlib.sha256()
        self.end = b""

    def __iter__(self) -> Iterator[bytes]:
        for chunk in self._chunks:
            self._hash.update(chunk)
            self.end = (self.end + chunk[-BLOCK_BYTES:])[-BLOCK_BYTES:]
            yield chunk

    @property
    def diff_id(self) -> str:
        return f"sha256:{self._hash.hexdigest()}"


class _Names:
    """What is at the top of an archive, and which of the usual names are below that."""

    def __init__(self, what: str, limits: Limits) -> None:
        self._what = what
        self._limits = limits
        self._below: dict[str, set[str]] = {}
        self._has_folders = self._has_files = False
        self._bytes = 0
        self.count = 0

    def add(self, entry: Entry) -> None:
        self.count += 1
        self._limits.check_entries(self.count, self._what)
        parts = [part for part in entry.path.split("/") if part not in ("", ".")]
        if not parts or parts[-1].startswith(_WHITEOUT):
            return
        self._has_folders |= entry.kind is Kind.FOLDER or len(parts) > 1
        self._has_files |= entry.kind is not Kind.FOLDER
        if parts[0] not in self._below:
            self._bytes += len(parts[0])
            self._limits.check_names(self._bytes, self._what)
        self._below.setdefault(parts[0], set()).update(_USUAL.intersection(parts[1:2]))

    def check(self) -> None:
        tops = self._below.keys()
        if not tops:
            raise self._refuse("it is empty")
        if tops & _ARCHIVES and not tops & _USUAL:
            raise self._refuse(
                "it is an image in an archive", "banger image build docker-archive:FILE (or oci-archive:)"
            )
        if not self._has_folders:
            raise self._refuse("there are no folders in it")
        if not self._has_files:
            raise self._refuse("there are only folders in it")
        if len(tops) == 1 and not tops & _USUAL:
            [(top, below)] = self._below.items()
            if len(below) > 1:
                raise self._refuse(f"it lies a folder deeper, in {top[:100]!r}", "make a tar of what is in that folder")

    def _refuse(self, why: str, hint: str = "") -> BangerError:
        return BangerError(f"{self._what} is no root filesystem: {why}", reason=Reason.BAD_INPUT, hint=hint)


def _unknown(what: str) -> BangerError:
    return BangerError(
        f"{what} is neither a folder, nor a tar, nor an EROFS image",
        reason=Reason.BAD_INPUT,
        hint="a tar may be packed with gzip, zstd or xz",
    )
