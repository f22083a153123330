"""Trees of kernel modules: ELF objects that the real depmod reads, and tars of anything."""

from __future__ import annotations

import io
import struct
import tarfile
from pathlib import Path

Entry = tuple[str, bytes | str]


def make_module(name: str) -> bytes:
    """An object of sections alone, as far as depmod looks: modinfo(8), and an empty table of symbols.

    System V ABI, chapter 4, "ELF Header" and "Sections".
    """
    contents = {
        "": b"",
        ".modinfo": f"name={name}\0license=GPL\0".encode(),
        ".symtab": bytes(24),
        ".strtab": b"\0",
        ".shstrtab": b"\0.modinfo\0.symtab\0.strtab\0.shstrtab\0",
    }
    kinds = {"": 0, ".modinfo": 1, ".symtab": 2, ".strtab": 3, ".shstrtab": 3}
    names = contents[".shstrtab"]
    body, table = b"", b""
    for section, content in contents.items():
        link, entry_size = (3, 24) if section == ".symtab" else (0, 0)
        where = (names.index(section.encode()), kinds[section], 0, 0, 64 + len(body), len(content))
        table += struct.pack("<IIQQQQIIQQ", *where, link, 1 if link else 0, 8, entry_size)
        body += content + bytes(-len(content) % 8)
    ident = b"\x7fELF\x02\x01\x01".ljust(16, b"\0")
    head = struct.pack("<16sHHIQQQIHHHHHH", ident, 1, 62, 1, 0, 0, 64 + len(body), 0, 64, 0, 0, 64, len(contents), 4)
    return head + body + table


def write_tar(path: Path, *entries: Entry) -> Path:
    """Files (bytes) and symbolic links (text) in a tar."""
    with tarfile.open(path, "w", format=tarfile.PAX_FORMAT) as tar:
        for name, content in entries:
            entry = tarfile.TarInfo(name)
            if isinstance(content, str):
                entry.type, entry.linkname = tarfile.SYMTYPE, content
                tar.addfile(entry)
            else:
                entry.size = len(content)
                tar.addfile(entry, io.BytesIO(content))
    return path
