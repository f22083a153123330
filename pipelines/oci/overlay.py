"""What an overlay holds over its image, as a layer: overlayfs's own notes become those of image-spec, layer.md.

In its upper folder ("Overlay Filesystem" in the kernel's documentation) a deleted file is a character device 0:0, and
a folder that hides all that is below it has the xattr `trusted.overlay.opaque`. All deleted files may be names of one
such device. Comes as a tar from a guest, so nothing of it is trusted: it is read as strictly as any layer.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator
from dataclasses import replace
from pathlib import Path
from typing import IO

from banger.errors import BangerError, Reason
from banger.run import is_cancelled, printable
from pipelines.job import Job
from pipelines.oci.changeset import split_path
from pipelines.oci.layer_writer import open_layer
from pipelines.oci.limits import Limits
from pipelines.oci.stream import CHUNK_BYTES, Cursor
from pipelines.oci.tar import Entry, Kind, read_entries

_WHITEOUT = ".wh."
_OPAQUE = ".wh..wh..opq"
_NOTE = "trusted.overlay."
_DELETED = (0, 0)
# With these a file has its content, or a folder its place, somewhere else. Our own mounts rule them out.
_FOREIGN_NOTES = ("trusted.overlay.redirect", "trusted.overlay.metacopy")

# Of a path in the image, and what is there: whether it is left out.
LeaveOut = Callable[[str, Kind], bool]


def keep_all(_path: str, _kind: Kind) -> bool:
    return False


def plan_changes(entries: Iterable[Entry], leave_out: LeaveOut = keep_all) -> Iterator[Entry]:
    """The entries of the layer, with offsets that still are those in the archive.

    What is deleted stays deleted, whatever `leave_out` says. A file that is left out under one name and stays under
    another is written there. Raises BAD_INPUT for what no layer can say.
    """
    deleted: set[str] = set()
    left_out: dict[str, Entry] = {}
    moved: dict[str, str] = {}
    for entry in entries:
        path = _normalise(entry.path)
        target = _normalise(entry.target.lstrip("/")) if entry.kind is Kind.LINK else entry.target
        if (entry.kind is Kind.CHAR and entry.device == _DELETED) or (entry.kind is Kind.LINK and target in deleted):
            deleted.add(path)
            yield _mark(path, _WHITEOUT)
            continue
        _refuse_unspeakable(path, entry)
        is_opaque = entry.kind is Kind.FOLDER and entry.xattrs.get(f"{_NOTE}opaque") == b"y"
        xattrs = {name: value for name, value in entry.xattrs.items() if not name.startswith(_NOTE)}
        entry = replace(entry, path=path, target=target, xattrs=xattrs)
        if leave_out(path, entry.kind):
            left_out[path] = entry
            continue
        if entry.kind is Kind.LINK and target in left_out:
            if target in moved:
                entry = replace(entry, target=moved[target])
            else:
                moved[target] = path
                entry = replace(left_out[target], path=path)
        yield entry
        if is_opaque:
            yield Entry(f"{path}/{_OPAQUE}" if path else _OPAQUE, Kind.FILE, 0o644)


def write_changes(job: Job, tar: Path, limits: Limits, what: str, leave_out: LeaveOut = keep_all) -> None:
    """Make the job's outputs `blob` and `index` of a tar that a guest wrote."""
    with tar.open("rb", buffering=0) as file, open_layer(job, limits, what) as layer:
        # All of them first: what a link leads to may have been left out.
        for entry in plan_changes(_list_entries(file, limits, what), leave_out):
            layer.add(entry, _read_content(file, entry) if entry.kind is Kind.FILE else ())
            job.progress("writing the layer", layer.size_bytes)


def _list_entries(file: IO[bytes], limits: Limits, what: str) -> list[Entry]:
    entries: list[Entry] = []
    names_bytes = 0
    for entry in read_entries(Cursor(_read_all(file), what)):
        entries.append(entry)
        names_bytes += len(entry.path) + len(entry.target) + sum(map(len, entry.xattrs.values()))
        limits.check_entries(len(entries), what)
        limits.check_names(names_bytes, what)
    return entries


def _read_all(file: IO[bytes]) -> Iterator[bytes]:
    while chunk := file.read(CHUNK_BYTES):
        if is_cancelled():
            raise KeyboardInterrupt
        yield chunk


def _read_content(file: IO[bytes], entry: Entry) -> Iterator[bytes]:
    """The bytes of a file, its holes filled."""
    segments = [(0, entry.size)] if entry.segments is None else [*entry.segments, (entry.size, 0)]
    file.seek(entry.offset)
    at = 0
    for offset, length in segments:
        yield from _chunks_of_zeros(offset - at)
        at = offset + length
        while length:
            data = file.read(min(length, CHUNK_BYTES))
            if not data:
                return
            yield data
            length -= len(data)


def _chunks_of_zeros(size: int) -> Iterator[bytes]:
    for begin in range(0, size, CHUNK_BYTES):
        yield bytes(min(CHUNK_BYTES, size - begin))


def _normalise(path: str) -> str:
    return "/".join(split_path(path))


def _mark(path: str, prefix: str) -> Entry:
    folder, slash, name = path.rpartition("/")
    return Entry(f"{folder}{slash}{prefix}{name}", Kind.FILE, 0o644)


def _refuse_unspeakable(path: str, entry: Entry) -> None:
    if any(part.startswith(_WHITEOUT) for part in path.split("/")):
        raise BangerError(
            f"no layer can hold {printable(path)!r}: names that begin with {_WHITEOUT!r} stand for what was deleted",
            reason=Reason.BAD_INPUT,
            hint="delete it, or give it another name",
        )
    if any(note in entry.xattrs for note in _FOREIGN_NOTES):
        raise BangerError(
            f"{printable(path)!r} is not whole in its overlay: it was written by a kernel with other settings",
            reason=Reason.BAD_INPUT,
        )
