"""Packs as no git would write them: any object, whether it is sound or not, and what a guest says before them.

gitformat-pack(5).
"""

from __future__ import annotations

import hashlib
import struct
import zlib
from collections.abc import Sequence
from dataclasses import dataclass, field

_KINDS = {"commit": 1, "tree": 2, "blob": 3, "tag": 4}
_REF_DELTA = 7
FILE, PROGRAM, LINK, FOLDER, MODULE = "100644", "100755", "120000", "40000", "160000"
WHO = b"Mallory <m@example.org> 1700000000 +0000"

# mode, name, id
Entry = tuple[str, bytes, str]


@dataclass
class Pack:
    """Objects in the order in which they were added; each `add_` gives the name that git has for it."""

    entries: list[bytes] = field(default_factory=list)

    def add(self, kind: str, content: bytes, *, is_sent: bool = True) -> str:
        if is_sent:
            self.entries.append(format_head(_KINDS[kind], len(content)) + zlib.compress(content))
        return hashlib.sha1(b"%s %d\0%s" % (kind.encode(), len(content), content)).hexdigest()

    def add_blob(self, content: bytes = b"of the guest\n", *, is_sent: bool = True) -> str:
        return self.add("blob", content, is_sent=is_sent)

    def add_tree(self, *entries: Entry, is_sent: bool = True) -> str:
        """In this order, as they are."""
        content = b"".join(
            b"%s %s\0%s" % (mode.encode(), name, bytes.fromhex(digest)) for mode, name, digest in entries
        )
        return self.add("tree", content, is_sent=is_sent)

    def add_commit(
        self, tree: str, *parents: str, author: bytes = WHO, message: bytes = b"work tree\n", is_sent: bool = True
    ) -> str:
        lines = [b"tree " + tree.encode(), *(b"parent " + parent.encode() for parent in parents)]
        lines += [b"author " + author, b"committer " + author, b"", message]
        return self.add("commit", b"\n".join(lines), is_sent=is_sent)

    def add_doubled(self, base: str, size_bytes: int, times: int) -> None:
        """Differences one upon the other, each twice as large as the one before: a few bytes that stand for very much.

        `base` is the name of an object whose content is all zeros.
        """
        for _ in range(times):
            copies = b"".join(_format_copy(at, min(size_bytes - at, 0xFFFFFF)) for at in range(0, size_bytes, 0xFFFFFF))
            delta = _format_size(size_bytes) + _format_size(size_bytes * 2) + copies * 2
            head = format_head(_REF_DELTA, len(delta)) + bytes.fromhex(base)
            self.entries.append(head + zlib.compress(delta))
            size_bytes *= 2
            base = _hash_zeros(size_bytes)

    def finish(self, *, count: int | None = None) -> bytes:
        body = b"PACK" + struct.pack(">II", 2, len(self.entries) if count is None else count) + b"".join(self.entries)
        return body + hashlib.sha1(body).digest()


def format_head(kind: int, size_bytes: int) -> bytes:
    """Type and size of an entry."""
    first = kind << 4 | size_bytes & 15
    size_bytes >>= 4
    found = bytearray()
    while size_bytes:
        found.append(first | 0x80)
        first = size_bytes & 0x7F
        size_bytes >>= 7
    return bytes([*found, first])


def say(pack: bytes, last: str, head: str | None) -> bytes:
    """The whole answer."""
    return f"banger 1 {head or '-'} {last}\n".encode() + pack


def answer(entries: Sequence[Entry], pack: Pack, head: str) -> bytes:
    """A guest whose work tree is these entries, over the commit that was sent."""
    last = pack.add_commit(pack.add_tree(*entries), head)
    return say(pack.finish(), last, head)


def _format_size(size_bytes: int) -> bytes:
    found = bytearray()
    while size_bytes > 0x7F:
        found.append(size_bytes & 0x7F | 0x80)
        size_bytes >>= 7
    return bytes([*found, size_bytes])


def _format_copy(offset: int, size_bytes: int) -> bytes:
    return b"\xff" + struct.pack("<I", offset) + struct.pack("<I", size_bytes)[:3]


def _hash_zeros(size_bytes: int) -> str:
    found = hashlib.sha1(b"blob %d\0" % size_bytes)
    block = bytes(1 << 20)
    for at in range(0, size_bytes, 1 << 20):
        found.update(block[: size_bytes - at])
    return found.hexdigest()
