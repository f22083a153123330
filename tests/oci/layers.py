"""Layers and OCI layouts made byte by byte, so that a test can say what no well-behaved tool would write.

A member of a tar is bytes: a layer is any of them one after another. Formats: POSIX.1-2017 `pax` ("ustar Interchange
Format", "pax Header Block") and GNU tar's manual, "Basic Tar Format" (long names, base-256 numbers). Nothing is
checked here: what is written may be as broken as a test wants it.
"""

from __future__ import annotations

import gzip
import hashlib
import json
import os
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

BLOCK_BYTES = 512
END = bytes(2 * BLOCK_BYTES)
# Before any clock that runs a test, so that "now" is never mistaken for it.
MTIME = 1_500_000_000
USTAR, GNU, V7 = b"ustar\x0000", b"ustar  \x00", b"\0" * 8
_GZIP_PART_BYTES = 700
_NAME_BYTES = 100
_LAYER_TYPE = "application/vnd.oci.image.layer.v1.tar"
_CONFIG_TYPE = "application/vnd.oci.image.config.v1+json"
_MANIFEST_TYPE = "application/vnd.oci.image.manifest.v1+json"

Text = str | bytes


def layer(*members: bytes) -> bytes:
    return b"".join(members) + END


def file(name: Text, content: bytes = b"", *, mode: int = 0o644, **more: Any) -> bytes:
    return member(name, b"0", content, mode=mode, **more)


def folder(name: Text, *, mode: int = 0o755, **more: Any) -> bytes:
    return member(os.fsencode(name).rstrip(b"/") + b"/", b"5", mode=mode, **more)


def symlink(name: Text, target: Text, **more: Any) -> bytes:
    return member(name, b"2", link=target, mode=0o777, **more)


def hardlink(name: Text, target: Text, **more: Any) -> bytes:
    return member(name, b"1", link=target, **more)


def device(name: Text, kind: bytes, major: int, minor: int, *, mode: int = 0o600, **more: Any) -> bytes:
    """`kind` is b"3" for a character device, b"4" for a block device."""
    return member(name, kind, device=(major, minor), mode=mode, **more)


def fifo(name: Text, *, mode: int = 0o600, **more: Any) -> bytes:
    return member(name, b"6", mode=mode, **more)


def whiteout(name: str) -> bytes:
    """image-spec, layer.md, "Whiteouts"."""
    parent, _slash, base = name.rpartition("/")
    return file(f"{parent}/.wh.{base}" if parent else f".wh.{base}")


def opaque(name: str) -> bytes:
    """image-spec, layer.md, "Opaque Whiteout"; the root is ""."""
    return file(f"{name}/.wh..wh..opq" if name else ".wh..wh..opq")


def member(
    name: Text,
    kind: bytes,
    content: bytes = b"",
    *,
    link: Text = b"",
    mode: int = 0o644,
    uid: int = 0,
    gid: int = 0,
    mtime: int | str = MTIME,
    device: tuple[int, int] = (0, 0),
    xattrs: Mapping[str, bytes] | None = None,
    pax: Mapping[str, Text] | None = None,
    magic: bytes = USTAR,
) -> bytes:
    """One member with whatever extended headers it needs: pax records, or with `magic=GNU` what GNU tar writes."""
    name, link = os.fsencode(name), os.fsencode(link)
    records: dict[str, Text] = {f"SCHILY.xattr.{key}": value for key, value in (xattrs or {}).items()}
    before = b""
    if magic == GNU:
        before += _gnu_long(b"L", name) + _gnu_long(b"K", link)
    else:
        wild = {"path": name, "linkpath": link}
        records.update({key: text for key, text in wild.items() if len(text) > _NAME_BYTES})
        records.update({key: str(number) for key, number in (("uid", uid), ("gid", gid)) if number >= 1 << 21})
        if isinstance(mtime, str) or not 0 <= mtime < 1 << 33:
            records["mtime"], mtime = str(mtime), 0
    records.update(pax or {})
    if records:
        before += pax_header(records)
    assert isinstance(mtime, int)
    return before + header(name, kind, len(content), link, mode, uid, gid, mtime, device, magic) + pad(content)


def header(
    name: bytes,
    kind: bytes,
    size: int = 0,
    link: bytes = b"",
    mode: int = 0o644,
    uid: int = 0,
    gid: int = 0,
    mtime: int = MTIME,
    device: tuple[int, int] = (0, 0),
    magic: bytes = USTAR,
) -> bytes:
    """One block. A number too large for its field is base-256 with `magic=GNU`, else cut off (pax says it)."""
    wide = magic == GNU
    fields = [
        name[:100].ljust(100, b"\0"),
        *(_number(value, 8, wide) for value in (mode, uid, gid)),
        _number(size, 12, wide),
        _number(mtime, 12, wide),
        b" " * 8,
        kind,
        link[:100].ljust(100, b"\0"),
        magic,
        b"\0" * 64,
        *(b"\0" * 8 if magic == V7 else _number(value, 8, wide) for value in device),
    ]
    return seal(b"".join(fields).ljust(BLOCK_BYTES, b"\0"))


def seal(block: bytes) -> bytes:
    """The block with its checksum put right."""
    blank = block[:148] + b" " * 8 + block[156:]
    return blank[:148] + b"%06o\0 " % sum(blank) + blank[156:]


def pax_header(records: Mapping[str, Text], kind: bytes = b"x") -> bytes:
    body = b"".join(_pax_record(key.encode(), os.fsencode(value)) for key, value in records.items())
    return header(b"././@PaxHeader", kind, len(body)) + pad(body)


def pad(content: bytes) -> bytes:
    return content + bytes(-len(content) % BLOCK_BYTES)


def _pax_record(key: bytes, value: bytes) -> bytes:
    """ "The decimal length of the extended header record" counts its own digits."""
    rest = b" " + key + b"=" + value + b"\n"
    length = len(rest) + len(str(len(rest)))
    length = len(rest) + len(str(length))
    return str(length).encode() + rest


def _gnu_long(kind: bytes, text: bytes) -> bytes:
    if len(text) <= _NAME_BYTES:
        return b""
    return header(b"././@LongLink", kind, len(text) + 1, mtime=0, magic=GNU) + pad(text + b"\0")


def _number(value: int, width: int, wide: bool) -> bytes:
    if 0 <= value < 8 ** (width - 1):
        return b"%0*o\0" % (width - 1, value)
    if not wide:
        return b"0" * (width - 1) + b"\0"
    bits = 8 * width - 1
    return ((1 << bits) | (value & ((1 << bits) - 1))).to_bytes(width, "big")


def compress(tar: bytes, how: str) -> bytes:
    """`gzip`, `gzips` (a file of several members, RFC 1952, 2.2), `zstd`, `none`."""
    if how == "gzip":
        return gzip.compress(tar, 1, mtime=0)
    if how == "gzips":
        parts = [tar[at : at + _GZIP_PART_BYTES] for at in range(0, len(tar), _GZIP_PART_BYTES)]
        return b"".join(gzip.compress(part, 1, mtime=0) for part in parts)
    if how == "zstd":
        import zstandard

        return zstandard.ZstdCompressor(level=1).compress(tar)
    assert how == "none"
    return tar


def write_layout(
    layout: Path, images: Mapping[str, Sequence[bytes]], compression: Sequence[str] = ("gzip",), **wrong: Any
) -> None:
    """An image-layout with a tag for each image, whose layers take turns in how they are compressed.

    `wrong` makes the documents lie: `diff_ids`, `digests` and `sizes` map the number of a layer to what to say instead.
    """
    manifests = []
    for tag, tars in images.items():
        descriptors, diff_ids = [], []
        for number, tar in enumerate(tars):
            how = compression[number % len(compression)]
            kind = _LAYER_TYPE + {"none": "", "zstd": "+zstd"}.get(how, "+gzip")
            descriptor = _put_blob(layout, compress(tar, how), kind)
            descriptor["digest"] = wrong.get("digests", {}).get(number, descriptor["digest"])
            descriptor["size"] = wrong.get("sizes", {}).get(number, descriptor["size"])
            descriptors.append(descriptor)
            diff_ids.append(wrong.get("diff_ids", {}).get(number, _sha256(tar)))
        config = {
            "architecture": "amd64",
            "os": "linux",
            "config": {},
            "rootfs": {"type": "layers", "diff_ids": diff_ids},
            "history": [{"created_by": f"layer {number}"} for number in range(len(tars))],
        }
        manifest = {
            "schemaVersion": 2,
            "mediaType": _MANIFEST_TYPE,
            "config": _put_blob(layout, json.dumps(config).encode(), _CONFIG_TYPE),
            "layers": descriptors,
        }
        entry = _put_blob(layout, json.dumps(manifest).encode(), _MANIFEST_TYPE)
        manifests.append({**entry, "annotations": {"org.opencontainers.image.ref.name": tag}})
    (layout / "oci-layout").write_text('{"imageLayoutVersion": "1.0.0"}')
    (layout / "index.json").write_text(json.dumps({"schemaVersion": 2, "manifests": manifests}))


def blob_path(layout: Path, digest: str) -> Path:
    return layout / "blobs" / digest.replace(":", "/")


def _put_blob(layout: Path, data: bytes, media_type: str) -> dict[str, Any]:
    digest = _sha256(data)
    path = blob_path(layout, digest)
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_bytes(data)
    return {"mediaType": media_type, "digest": digest, "size": len(data)}


def _sha256(data: bytes) -> str:
    return "sha256:" + hashlib.sha256(data).hexdigest()
