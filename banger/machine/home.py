"""What a new machine finds at /root, as the tar that its work disk is made from.

The key that opens the machine, what the user's configuration wants there, the workspace, and below all that the image's
own /root: of it everything comes that nothing else has the place of.

The image's may be anybody's: it is read as a layer is, and every entry is written anew. What the host's programs then
parse has plain relative names, each once, each folder before what is in it, and links to what came before.
"""

from __future__ import annotations

import io
import tarfile
import time
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, replace
from pathlib import Path

from banger.errors import BangerError, Reason
from banger.machine import file_sync
from banger.machine.file_sync import SyncedFile, write_synced
from banger.machine.identity import TarWriter
from banger.run import is_cancelled
from pipelines.oci.changeset import split_path
from pipelines.oci.limits import Limits
from pipelines.oci.stream import CHUNK_BYTES, Cursor
from pipelines.oci.tar import Entry, Kind, read_entries

WORKSPACE = "repo"
_CAPABILITY = "security.capability"
_LIMITS = Limits()
_WHAT = "the image's /root"
# What symlink(2) takes.
_MAX_TARGET_BYTES = 4095
_SECOND_NS = 1_000_000_000
# How bytes are text here (PEP 383).
_NAMES = ("utf-8", "surrogateescape")


@dataclass(frozen=True)
class Home:
    """`image_home` is the tar of the image's /root; `gitconfig` the text of ~/.gitconfig, empty for none.

    `write_workspace` writes entries at and below `repo`, the folder first.
    """

    authorized_key: str
    image_home: Path
    gitconfig: str = ""
    synced: Sequence[SyncedFile] = ()
    write_workspace: Callable[[tarfile.TarFile], None] | None = None


class _Taken:
    """Paths that have their content: a folder may get more, anything else may not."""

    def __init__(self) -> None:
        self._folders: set[str] = set()
        self._others: set[str] = set()

    def add(self, path: str, *, is_folder: bool) -> None:
        (self._folders if is_folder else self._others).add(path)

    def covers(self, path: str) -> bool:
        """Whether nothing more may be written at this path."""
        if path in self._folders:
            return True
        parts = path.split("/")
        return any("/".join(parts[:count]) in self._others for count in range(1, len(parts) + 1))

    def has_folder(self, path: str) -> bool:
        return path in self._folders


def write_home(tar: tarfile.TarFile, home: Home) -> None:
    """The folders that sshd looks at (StrictModes) get the modes it wants, whatever the image says."""
    taken = _Taken()
    disk = TarWriter(tar)
    disk.folder(".", 0o700)
    disk.folder(".ssh", 0o700)
    disk.file(".ssh/authorized_keys", f"{home.authorized_key}\n", 0o600)
    for path, is_folder in ((".", True), (".ssh", True), (".ssh/authorized_keys", False)):
        taken.add(path, is_folder=is_folder)
    synced = [file for file in home.synced if not taken.covers(file.guest_path)]
    write_synced(tar, synced)
    for file in synced:
        taken.add(file.guest_path, is_folder=file.kind is file_sync.Kind.FOLDER)
    if home.gitconfig and not taken.covers(".gitconfig"):
        _write_gitconfig(tar, home.gitconfig)
        taken.add(".gitconfig", is_folder=False)
    if home.write_workspace is not None:
        home.write_workspace(tar)
        # Of what the image has there nothing comes.
        taken.add(WORKSPACE, is_folder=False)
    _copy_image_home(tar, home.image_home, taken)


def _write_gitconfig(tar: tarfile.TarFile, text: str) -> None:
    """A name in it may be in any encoding."""
    content = text.encode("utf-8", "surrogateescape")
    entry = tarfile.TarInfo(".gitconfig")
    entry.mode, entry.size, entry.mtime = 0o644, len(content), int(time.time())
    tar.addfile(entry, io.BytesIO(content))


def _copy_image_home(tar: tarfile.TarFile, image_home: Path, taken: _Taken) -> None:
    with image_home.open("rb") as file:
        cursor = Cursor(iter(lambda: file.read(CHUNK_BYTES), b""), _WHAT)
        for entry in _read_image_home(cursor, taken):
            member, is_pax = _format_member(entry)
            tar.format = tarfile.PAX_FORMAT if is_pax else tarfile.GNU_FORMAT
            try:
                tar.addfile(member, _Content(cursor) if member.isreg() else None)
            finally:
                tar.format = tarfile.GNU_FORMAT


def _read_image_home(cursor: Cursor, taken: _Taken) -> Iterator[Entry]:
    """What comes of it, under plain names. CORRUPT, BAD_INPUT or TOO_LARGE for what no home of ours is."""
    came: dict[str, Kind] = {}
    count = names_bytes = 0
    try:
        for entry in read_entries(cursor):
            if is_cancelled():
                raise KeyboardInterrupt
            count += 1
            names_bytes += len(entry.path) + len(entry.target)
            _LIMITS.check_entries(count, _WHAT)
            _LIMITS.check_names(names_bytes, _WHAT)
            path = "/".join(split_path(entry.path))
            # Of the root there is one already.
            if not path or taken.covers(path):
                continue
            parent = path.rpartition("/")[0]
            is_placed = not parent or taken.has_folder(parent) or came.get(parent) is Kind.FOLDER
            if path in came or not is_placed:
                raise _bad(f"{path[:100]!r} comes twice, or not in a folder")
            target = entry.target
            if entry.kind is Kind.LINK:
                target = "/".join(split_path(target))
                if taken.covers(target):
                    continue
                if came.get(target, Kind.FOLDER) is Kind.FOLDER:
                    raise _bad(f"the hard link {path[:100]!r} leads to no file before it")
            elif entry.kind is Kind.SYMLINK and not 0 < len(target.encode(*_NAMES)) <= _MAX_TARGET_BYTES:
                raise _bad(f"the symlink {path[:100]!r} leads to no name")
            elif entry.segments is not None:
                raise _bad(f"{path[:100]!r} is stored with holes")
            came[path] = entry.kind
            yield replace(entry, path=path, target=target)
    except BangerError as error:
        why = error.message.removeprefix("the layer has ")
        raise BangerError(
            f"{_WHAT} cannot be used: {why}",
            reason=error.reason,
            hint="the image is damaged, or not meant well; pull it again, or ask who publishes it",
        ) from error


def _format_member(entry: Entry) -> tuple[tarfile.TarInfo, bool]:
    """The entry for mke2fs, and whether pax has to carry it."""
    member = tarfile.TarInfo(entry.path)
    member.type = entry.kind.encode()
    member.mode, member.uid, member.gid = entry.mode, entry.uid, entry.gid
    member.size, member.mtime, member.linkname = entry.size, entry.mtime_ns // _SECOND_NS, entry.target
    member.devmajor, member.devminor = entry.device
    capability = entry.xattrs.get(_CAPABILITY)
    if capability is not None:
        # The only xattr that mke2fs takes from a tar. It reads names that are not ASCII only with this charset.
        member.pax_headers = {
            f"SCHILY.xattr.{_CAPABILITY}": capability.decode(*_NAMES),
            "hdrcharset": "BINARY",
        }
    return member, capability is not None


class _Content:
    """Of the entry where the cursor stands, as the tar reads it: as many bytes as it asks for, or CORRUPT."""

    def __init__(self, cursor: Cursor) -> None:
        self._cursor = cursor

    def read(self, size: int = -1, /) -> bytes:
        return self._cursor.take(size)


def _bad(what: str) -> BangerError:
    return BangerError(what, reason=Reason.BAD_INPUT)
