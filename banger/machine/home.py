"""What a new machine finds at /root, as the tar that its work disk is made from.

The key that opens the machine, what the user's configuration wants there, the workspace, and below all that the image's
own /root: of it everything comes that nothing else has the place of.
"""

from __future__ import annotations

import io
import tarfile
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path

from banger.machine.file_sync import Kind, SyncedFile, write_synced
from banger.machine.identity import TarWriter

WORKSPACE = "repo"
_CAPABILITY = "SCHILY.xattr.security.capability"


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
        taken.add(file.guest_path, is_folder=file.kind is Kind.FOLDER)
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
    with tarfile.open(image_home) as source:
        for member in source:
            if taken.covers(member.name) or (member.islnk() and taken.covers(member.linkname)):
                continue
            capability = member.pax_headers.get(_CAPABILITY)
            member.pax_headers = {}
            if capability is not None:
                # The only xattr that mke2fs takes from a tar. It reads names that are not ASCII only with this charset.
                member.pax_headers = {_CAPABILITY: capability, "hdrcharset": "BINARY"}
                tar.format = tarfile.PAX_FORMAT
            try:
                tar.addfile(member, source.extractfile(member) if member.isreg() else None)
            finally:
                tar.format = tarfile.GNU_FORMAT
