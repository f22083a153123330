"""Tar archives as layers use them: v7, POSIX ustar and pax, GNU. One pass forward, nothing extracted.

Forms: POSIX.1-2017 pax(1), "ustar Interchange Format" and "pax Extended Header"; GNU tar manual, "Basic Tar Format"
and "Storing Sparse Files". Where those leave room, an entry means what it means to Go's archive/tar, with which
layers are written and read everywhere else. Names are bytes there; here they are text with surrogates (PEP 383).

Everything is bounded and checked. What is not a tar is CORRUPT; what no Linux filesystem could hold is BAD_INPUT.
"""

from __future__ import annotations

import struct
from collections.abc import Iterator
from dataclasses import dataclass, field, replace
from enum import StrEnum

from banger.errors import BangerError, Reason
from pipelines.oci.number import parse_decimal, parse_number
from pipelines.oci.sparse import parse_gnu_map, parse_pax_map, parse_text_map
from pipelines.oci.stream import Cursor

BLOCK_BYTES = 512
# Far more than any tool writes; xattrs are at most 64 KiB each (xattr(7)).
_MAX_EXTENSION_BYTES = 1 << 20
_MAX_XATTR_NAME_BYTES = 255
# What mkfs.erofs holds for one file.
_MAX_XATTRS_BYTES = 32 << 10
_HEADER = struct.Struct("100s8s8s8s12s12s8sc100s8s32s32s8s8s155s12x")
_XATTR = b"SCHILY.xattr."
_NUL_FREE = (b"path", b"linkpath", b"GNU.sparse.name")


class Kind(StrEnum):
    """Of an entry, by its ustar type flag."""

    FILE = "0"
    LINK = "1"
    SYMLINK = "2"
    CHAR = "3"
    BLOCK = "4"
    FOLDER = "5"
    FIFO = "6"


_KINDS = {b"\0": Kind.FILE, b"7": Kind.FILE, b"S": Kind.FILE, **{kind.encode(): kind for kind in Kind}}
# Types with an effect on the next entry, and those that say nothing about the tree: global pax headers, volume labels.
_EXTENSIONS = (b"x", b"X", b"L", b"K")
_IGNORED = (b"g", b"V")


@dataclass(frozen=True, slots=True)
class Entry:
    """A member of an archive. `mtime_ns` since the epoch; `offset` and `size` of its content in the unpacked stream.

    `size` is that of the file. Where `segments` is not None the file has holes: (offset, length) of what is there,
    in order; the content at `offset` is these segments without the holes.
    """

    path: str
    kind: Kind
    mode: int = 0o755
    uid: int = 0
    gid: int = 0
    mtime_ns: int = 0
    size: int = 0
    offset: int = 0
    target: str = ""
    device: tuple[int, int] = (0, 0)
    xattrs: dict[str, bytes] = field(default_factory=dict)
    segments: list[tuple[int, int]] | None = None


def read_entries(cursor: Cursor, *, is_digested: bool = False) -> Iterator[Entry]:
    """Every entry in order. The content of a file may be taken from the cursor before the next entry is asked for.

    With `is_digested`, what would follow the last content may be missing, as after what `umoci insert` adds: that
    nothing was cut off is known from elsewhere.
    """
    skip_padding = cursor.skip_padding if is_digested else cursor.skip
    pax: dict[bytes, bytes] = {}
    sparse_records: list[tuple[bytes, bytes]] = []
    long: dict[bytes, bytes] = {}
    while (block := cursor.take_block(BLOCK_BYTES)) is not None:
        if not block.strip(b"\0"):
            # One block of zeros ends the archive as well as two do (POSIX wants two; readers are content with one).
            return
        fields = _HEADER.unpack(block)
        _check_sum(block, fields[6])
        flag, size = fields[7], parse_number(fields[4])
        if flag in _EXTENSIONS:
            if size > _MAX_EXTENSION_BYTES:
                raise _bad("an extended header of more than 1 MiB", Reason.TOO_LARGE)
            content = cursor.take(size)
            skip_padding(-size % BLOCK_BYTES)
            if flag in (b"L", b"K"):
                long[flag] = content.split(b"\0", 1)[0]
            else:
                pax, sparse_records = _parse_pax(content)
            continue
        if flag in _IGNORED:
            cursor.skip(size)
            skip_padding(-size % BLOCK_BYTES)
            continue
        entry, stored = _parse_entry(cursor, block, fields, pax, sparse_records, long)
        pax, sparse_records, long = {}, [], {}
        begin = cursor.position
        yield entry
        taken = cursor.position - begin
        assert taken <= stored, "more was taken than the entry holds"
        cursor.skip(stored - taken)
        skip_padding(-stored % BLOCK_BYTES)
    if pax or long:
        raise _bad("an extended header with nothing after it")


def _parse_entry(
    cursor: Cursor,
    block: bytes,
    fields: tuple[bytes, ...],
    pax: dict[bytes, bytes],
    sparse_records: list[tuple[bytes, bytes]],
    long: dict[bytes, bytes],
) -> tuple[Entry, int]:
    """The entry, and how many bytes of content follow in the archive."""
    name, mode, uid, gid, size, mtime, _sum, flag, link, magic, _user, _group, major, minor, prefix = fields
    name, link = name.split(b"\0", 1)[0], link.split(b"\0", 1)[0]
    is_gnu = magic == b"ustar  \0"
    # Of any version, as Go's reader takes it.
    if magic[:6] == b"ustar\0" and prefix[0]:
        # POSIX has 155 bytes there; star, which says so at the end of the block, has 131 (and times after them).
        folder = (prefix[:131] if block[508:] == b"tar\0" else prefix).split(b"\0", 1)[0]
        name = folder + b"/" + name if folder else name
    name = long.get(b"L") or pax.get(b"path") or name
    link = long.get(b"K") or pax.get(b"linkpath") or link
    kind = _KINDS.get(flag)
    if kind is None or (flag == b"S" and not is_gnu):
        raise _bad(f"{_text(name)[:100]!r} is of a type that is not known: {flag!r}", Reason.BAD_INPUT)
    if flag == b"\0" and name.endswith(b"/"):
        # How v7 says "folder".
        kind = Kind.FOLDER
    stored = _pax_number(pax, b"size", size) if kind is Kind.FILE else 0
    has_device = kind in (Kind.CHAR, Kind.BLOCK)
    entry = Entry(
        path=_text(name),
        kind=kind,
        mode=parse_number(mode) & 0o7777,
        uid=_check_id(_pax_number(pax, b"uid", uid)),
        gid=_check_id(_pax_number(pax, b"gid", gid)),
        mtime_ns=_parse_time(pax[b"mtime"]) if pax.get(b"mtime") else parse_number(mtime, signed=True) * 1_000_000_000,
        size=stored,
        target=_text(link) if kind in (Kind.LINK, Kind.SYMLINK) else "",
        device=_check_device(parse_number(major), parse_number(minor)) if has_device else (0, 0),
        xattrs=_parse_xattrs(pax),
    )
    if kind is Kind.FILE:
        begin = cursor.position
        entry = _parse_sparse(cursor, block if is_gnu and flag == b"S" else None, entry, pax, sparse_records)
        if flag != b"S":
            # A map in front of the content counts as content.
            stored -= cursor.position - begin
            if stored < 0:
                raise _bad(f"the map of holes of {entry.path[:100]!r} is longer than the file")
        entry = replace(entry, offset=cursor.position)
        if entry.segments is not None and sum(length for _offset, length in entry.segments) != stored:
            raise _bad(f"the map of holes of {entry.path[:100]!r} does not fit its content")
    return entry, stored


def _parse_sparse(
    cursor: Cursor,
    gnu_block: bytes | None,
    entry: Entry,
    pax: dict[bytes, bytes],
    records: list[tuple[bytes, bytes]],
) -> Entry:
    """The holes of a file, in any of the four forms there are (GNU tar manual, "Sparse Formats")."""
    if gnu_block is not None:
        size = parse_number(gnu_block[483:495])
        segments = parse_gnu_map(gnu_block, lambda: cursor.take(BLOCK_BYTES))
    elif pax.get(b"GNU.sparse.major") == b"1" and pax.get(b"GNU.sparse.minor") == b"0":
        size = parse_decimal(pax.get(b"GNU.sparse.realsize", b""))
        segments = parse_text_map(lambda: cursor.take(BLOCK_BYTES))
    elif b"GNU.sparse.map" in pax:
        size = parse_decimal(pax.get(b"GNU.sparse.size", b""))
        segments = parse_pax_map(pax[b"GNU.sparse.map"].split(b","))
    elif records:
        size = parse_decimal(pax.get(b"GNU.sparse.size", b""))
        segments = parse_pax_map([value for _key, value in records])
    else:
        return entry
    name = pax.get(b"GNU.sparse.name")
    # Joined where they touch: a map of many that are empty is small in an archive, and large in memory.
    joined: list[tuple[int, int]] = []
    end = 0
    for offset, length in segments:
        if offset < end or length < 0 or offset + length > size:
            raise _bad(f"the map of holes of {entry.path[:100]!r} is not in order")
        if length and joined and offset == end:
            joined[-1] = (joined[-1][0], joined[-1][1] + length)
        elif length:
            joined.append((offset, length))
        end = offset + length
    return replace(entry, path=_text(name) if name else entry.path, size=size, segments=joined)


def _check_sum(block: bytes, field: bytes) -> None:
    """Of all bytes, its own as spaces; some old tars summed signed chars."""
    told = parse_number(field)
    total = sum(block) - sum(field) + 8 * 0x20
    if told != total:
        negative = sum(byte >= 0x80 for byte in block[:148] + block[156:])
        if told != total - 256 * negative:
            raise _bad("a header whose checksum is wrong")


def _parse_pax(content: bytes) -> tuple[dict[bytes, bytes], list[tuple[bytes, bytes]]]:
    """Records "LENGTH KEY=VALUE\\n" as a mapping, and the numbers of sparse form 0.0, whose keys come many times."""
    records: dict[bytes, bytes] = {}
    sparse: list[tuple[bytes, bytes]] = []
    position = 0
    while position < len(content):
        head, space, _rest = content[position : position + 20].partition(b" ")
        length = parse_decimal(head)
        record = content[position : position + length]
        key, equals, value = record[len(head) + 1 :].partition(b"=")
        if not space or not equals or not key or len(record) != length or not value.endswith(b"\n"):
            raise _bad("a pax record that is none")
        value = value[:-1]
        if key in _NUL_FREE and b"\0" in value:
            raise _bad("a NUL in a name", Reason.BAD_INPUT)
        if key in (b"GNU.sparse.offset", b"GNU.sparse.numbytes"):
            sparse.append((key, value))
        else:
            records[key] = value
        position += length
    wanted = (b"GNU.sparse.offset", b"GNU.sparse.numbytes") * (len(sparse) // 2)
    if len(sparse) % 2 or any(key != expected for (key, _), expected in zip(sparse, wanted, strict=False)):
        raise _bad("a map of holes that is none")
    return records, sparse


def _pax_number(pax: dict[bytes, bytes], key: bytes, field: bytes) -> int:
    return parse_decimal(pax[key]) if pax.get(key) else parse_number(field)


def _parse_time(text: bytes) -> int:
    """Decimal seconds with a fraction of any length, as nanoseconds (rounded down)."""
    whole, _, fraction = text.partition(b".")
    digits = whole.removeprefix(b"-")
    if (fraction and not fraction.isdigit()) or len(digits) > 15:
        raise _bad(f"a time that is none: {text[:30]!r}")
    nanoseconds = parse_decimal(digits) * 1_000_000_000 + int(fraction[:9].ljust(9, b"0"))
    return -nanoseconds if whole.startswith(b"-") else nanoseconds


def _check_device(major: int, minor: int) -> tuple[int, int]:
    # Linux, include/linux/kdev_t.h: 12 bits and 20.
    if major >= 1 << 12 or minor >= 1 << 20:
        raise _bad(f"a device out of range: {major}:{minor}", Reason.BAD_INPUT)
    return major, minor


def _parse_xattrs(pax: dict[bytes, bytes]) -> dict[str, bytes]:
    """Those of an entry, as star and GNU tar write them; an empty value is none there."""
    found = {key[len(_XATTR) :]: value for key, value in pax.items() if key.startswith(_XATTR) and value}
    for name in found:
        # xattr(7): "namespace.attribute", at most 255 bytes.
        if not all(name.partition(b".")[::2]) or len(name) > _MAX_XATTR_NAME_BYTES or b"\0" in name:
            raise _bad(f"an xattr of no valid name: {_text(name)[:50]!r}", Reason.BAD_INPUT)
    if sum(len(name) + len(value) for name, value in found.items()) > _MAX_XATTRS_BYTES:
        raise _bad("an entry with more xattrs than a filesystem holds", Reason.BAD_INPUT)
    return {_text(name): value for name, value in found.items()}


def _check_id(number: int) -> int:
    # 2^32 - 1 is "no change" to chown(2).
    if number >= (1 << 32) - 1:
        raise _bad(f"an owner out of range: {number}", Reason.BAD_INPUT)
    return number


def _text(name: bytes) -> str:
    return name.decode("utf-8", "surrogateescape")


def _bad(what: str, reason: Reason = Reason.CORRUPT) -> BangerError:
    return BangerError(f"the layer has {what}", reason=reason)
