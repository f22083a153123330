"""Tar entries for our own readers (mkfs.erofs, mke2fs): ustar, with pax records for all that does not fit in it.

POSIX.1-2017 pax(1), "ustar Interchange Format" and "pax Extended Header"; xattrs as SCHILY.xattr records, the way
GNU tar and star write them.
"""

from __future__ import annotations

from pipelines.oci.tar import BLOCK_BYTES, Entry, Kind

END = bytes(2 * BLOCK_BYTES)

_LARGEST_ID = 0o7777777
_LARGEST_SIZE = 0o77777777777
_NAME_BYTES = 100
_SECOND_NS = 1_000_000_000


def format_header(entry: Entry) -> bytes:
    """All that stands before the content: of a file, `entry.size` bytes have to follow, filled up to whole blocks."""
    name = entry.path.encode("utf-8", "surrogateescape")
    if entry.kind is Kind.FOLDER:
        name += b"/"
    target = entry.target.encode("utf-8", "surrogateescape")
    size = entry.size if entry.kind is Kind.FILE else 0
    mtime, fraction = divmod(entry.mtime_ns, _SECOND_NS)
    pax: dict[bytes, bytes] = {}
    if len(name) > _NAME_BYTES:
        pax[b"path"] = name
    if len(target) > _NAME_BYTES:
        pax[b"linkpath"] = target
    for key, number, largest in (
        (b"uid", entry.uid, _LARGEST_ID),
        (b"gid", entry.gid, _LARGEST_ID),
        (b"size", size, _LARGEST_SIZE),
    ):
        if number > largest:
            pax[key] = b"%d" % number
    if fraction or not 0 <= mtime <= _LARGEST_SIZE:
        pax[b"mtime"] = b"%d.%09d" % (mtime, fraction) if fraction else b"%d" % mtime
    for key_text, value in sorted(entry.xattrs.items()):
        pax[b"SCHILY.xattr." + key_text.encode("utf-8", "surrogateescape")] = value
    return _format_pax(pax) + _format_block(name, target, entry, size, mtime)


def _format_pax(records: dict[bytes, bytes]) -> bytes:
    if not records:
        return b""
    content = b"".join(_format_record(key, value) for key, value in records.items())
    head = _pack(b"././@PaxHeader", b"", "x", 0o644, 0, 0, len(content), 0, (0, 0))
    return head + content + bytes(-len(content) % BLOCK_BYTES)


def _format_record(key: bytes, value: bytes) -> bytes:
    """The length counts its own digits."""
    rest = len(key) + len(value) + 3
    length = rest + len(str(rest))
    if len(str(length)) != len(str(rest)):
        length += 1
    return b"%d %s=%s\n" % (length, key, value)


def _format_block(name: bytes, target: bytes, entry: Entry, size: int, mtime: int) -> bytes:
    return _pack(
        name[:_NAME_BYTES],
        target[:_NAME_BYTES],
        entry.kind,
        entry.mode,
        min(entry.uid, _LARGEST_ID),
        min(entry.gid, _LARGEST_ID),
        min(size, _LARGEST_SIZE),
        min(max(mtime, 0), _LARGEST_SIZE),
        entry.device,
    )


def _pack(
    name: bytes,
    target: bytes,
    flag: str,
    mode: int,
    uid: int,
    gid: int,
    size: int,
    mtime: int,
    device: tuple[int, int],
) -> bytes:
    block = bytearray(BLOCK_BYTES)
    block[0 : len(name)] = name
    block[100:148] = b"%07o\0%07o\0%07o\0%011o\0%011o\0" % (mode, uid, gid, size, mtime)
    block[148:156] = b" " * 8
    block[156] = ord(flag)
    block[157 : 157 + len(target)] = target
    block[257:265] = b"ustar\x0000"
    block[329:345] = b"%07o\0%07o\0" % device
    assert len(block) == BLOCK_BYTES
    block[148:156] = b"%06o\0 " % sum(block)
    return bytes(block)
