"""Images in tar archives: an OCI layout (`oci-archive:FILE[:TAG]`), or what `docker save` writes
(`docker-archive:FILE[:REF]`).

An archive is read once for its headers; nothing is extracted, and a blob is a window into the file, so that links and
names of members lead to other members or nowhere. One that is compressed as a whole is unpacked first, into a file
without a name, up to a limit. Blobs are not verified here (see `source.py`).
"""

from __future__ import annotations

import contextlib
import hashlib
import io
import json
import os
import posixpath
import stat
import tempfile
import threading
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import IO, TYPE_CHECKING, Literal

from banger.errors import BangerError, Reason
from banger.run import is_cancelled
from cache.failures import explain, explained
from pipelines.oci.config import Document, parse_image_config, parse_json, shown
from pipelines.oci.layout import Layout, find_familiar, not_one, not_there, read_limited
from pipelines.oci.limits import Limits
from pipelines.oci.manifest import MAX_CONFIG_BYTES, MAX_DOCUMENT_BYTES, MAX_LAYERS, OCI_CONFIG, OCI_LAYER, OCI_MANIFEST
from pipelines.oci.source import Descriptor, Source, parse_digest
from pipelines.oci.stream import CHUNK_BYTES, Cursor, unpack
from pipelines.oci.tar import Kind, read_entries

if TYPE_CHECKING:
    from _typeshed import WriteableBuffer

ArchiveKind = Literal["oci-archive", "docker-archive"]

_GZIP, _ZSTD, _XZ = b"\x1f\x8b", b"\x28\xb5\x2f\xfd", b"\xfd7zXZ\0"
_MAX_MEMBERS = 100_000
# More than any path of a blob in an archive; what is longer is never looked for.
_MAX_NAME_CHARACTERS = 512
_MAX_LINKS = 8


def open_archive(path: Path, kind: ArchiveKind | None, tag: str | None, *, scratch: Path, limit_bytes: int) -> Source:
    """The image in a tar archive; with `kind` None, as for standard input (spooled by the caller), it is detected.

    One that is compressed as a whole is unpacked into a nameless file in `scratch`, TOO_LARGE past `limit_bytes`.
    The file stays open as long as the source lives, so it may be removed. Raises NOT_FOUND for a missing file, CORRUPT
    for one that is damaged, BAD_INPUT for what is no such archive.
    """
    reference = "-" if kind is None else f"{kind}:{path.absolute()}"
    if tag is not None:
        reference += f":{tag}"
    what = "standard input" if kind is None else str(path)
    files = _Files(_unpack_whole(_open_file(path), scratch, limit_bytes, what), what)
    if kind is None:
        # An archive of docker 25 or later is both; there its manifest.json is the part that is whole in any case.
        kind = "docker-archive" if files.has("manifest.json") else "oci-archive"
    marker = "manifest.json" if kind == "docker-archive" else "oci-layout"
    if not files.has(marker):
        raise BangerError(
            f"{what} is not what docker save or an OCI archive looks like: it has no {marker}",
            reason=Reason.BAD_INPUT,
            hint="make one: skopeo copy docker://IMAGE oci-archive:FILE",
        )
    if kind == "docker-archive":
        return DockerArchive(files, tag, reference)
    stem = "" if reference.startswith("-") else path.name.partition(".tar")[0]
    return Layout(files.open, tag, reference=reference, stem=stem)


class _Window(io.RawIOBase):
    """A part of a file, with a position of its own: many may read the same file at once."""

    def __init__(self, file: IO[bytes], begin: int, size: int) -> None:
        self._file = file
        self._begin = begin
        self._size = size
        self._position = 0

    def readable(self) -> bool:
        return True

    def seekable(self) -> bool:
        return True

    def seek(self, offset: int, whence: int = os.SEEK_SET) -> int:
        self._position = offset + (0, self._position, self._size)[whence]
        return self._position

    def readinto(self, buffer: WriteableBuffer) -> int:
        part = memoryview(buffer)[: max(0, self._size - self._position)]
        got = os.preadv(self._file.fileno(), [part], self._begin + self._position) if part else 0
        self._position += got
        return got


class _Headers(Cursor):
    """A cursor for headers alone: it jumps over content instead of reading it."""

    def __init__(self, file: IO[bytes], what: str) -> None:
        super().__init__(iter(()), what)
        self._file = file
        self._size = os.fstat(file.fileno()).st_size

    def take(self, size: int) -> bytes:
        begin = self.position
        self.skip(size)
        return os.pread(self._file.fileno(), size, begin)

    def take_block(self, size: int) -> bytes | None:
        return self.take(size) if self.position < self._size else None

    def skip(self, size: int) -> None:
        if self.position + size > self._size:
            raise BangerError("it ends too early", reason=Reason.CORRUPT)
        self.position += size


@dataclass(frozen=True)
class _Member:
    """A file of the archive, or a link; `target` of a symlink is relative to its folder, of a hard link to the top."""

    kind: Kind
    offset: int
    size: int
    target: str


class _Files:
    """The members of an archive by their paths. As tar has it, the last one of a name counts."""

    def __init__(self, file: IO[bytes], what: str) -> None:
        self._file = file
        self._what = what
        self._members: dict[str, _Member] = {}
        try:
            self._index()
        except BangerError as error:
            why = error.message.removeprefix("the layer has ")
            raise BangerError(f"{what} is no tar archive that can be read: {why}", reason=error.reason) from error

    def _index(self) -> None:
        for entry in read_entries(_Headers(self._file, self._what)):
            is_plain = entry.kind in (Kind.FILE, Kind.LINK, Kind.SYMLINK) and entry.segments is None
            if is_plain and max(len(entry.path), len(entry.target)) <= _MAX_NAME_CHARACTERS:
                path = posixpath.normpath(entry.path)
                self._members[path] = _Member(entry.kind, entry.offset, entry.size, entry.target)
            if len(self._members) > _MAX_MEMBERS:
                raise BangerError(f"more than {_MAX_MEMBERS} members", reason=Reason.TOO_LARGE)

    def has(self, path: str) -> bool:
        return path in self._members

    def get(self, path: str) -> _Member:
        """The file that a path leads to, by links to other members where there are some."""
        at = posixpath.normpath(path)
        for _hop in range(_MAX_LINKS):
            member = self._members.get(at)
            if member is None:
                break
            if member.kind is Kind.FILE:
                return member
            folder = posixpath.dirname(at) if member.kind is Kind.SYMLINK else ""
            at = posixpath.normpath(posixpath.join(folder, member.target))
        raise BangerError(
            f"{self._what} has no {shown(path)}", reason=Reason.CORRUPT, hint="the archive is not whole; make it again"
        )

    def open(self, path: str) -> IO[bytes]:
        member = self.get(path)
        return io.BufferedReader(_Window(self._file, member.offset, member.size))


@dataclass(frozen=True)
class _Saved:
    """One image of a docker archive: its manifest as OCI has it, and which members its blobs are."""

    root: Descriptor
    manifest: bytes
    paths: dict[str, str]


class DockerArchive:
    """What `docker save` writes: manifest.json, with a config and layers for each image (Docker image spec v1.2,
    "Combined Image JSON + Filesystem Changeset Format").

    Such an archive has no manifest as registries know it, so one is made: the same archive, the same bytes.
    """

    def __init__(self, files: _Files, tag: str | None, reference: str) -> None:
        self._files = files
        self._tag = tag
        self._reference = reference
        self._lock = threading.Lock()
        self._saved: _Saved | None = None

    @property
    def reference(self) -> str:
        return self._reference

    @property
    def name(self) -> str | None:
        if self._tag is not None:
            return find_familiar(self._tag)
        return next(map(find_familiar, self._find_image().texts("RepoTags")), None)

    def read_root(self) -> tuple[Descriptor, bytes]:
        saved = self._read()
        return saved.root, saved.manifest

    def read_manifest(self, descriptor: Descriptor) -> bytes:
        saved = self._read()
        if descriptor.digest != saved.root.digest:
            raise BangerError(f"{self._reference} has no manifest {descriptor.digest}", reason=Reason.CORRUPT)
        return saved.manifest

    @contextlib.contextmanager
    def open_blob(self, descriptor: Descriptor, offset: int = 0) -> Iterator[IO[bytes]]:
        path = self._read().paths.get(descriptor.digest)
        if path is None:
            raise BangerError(f"{self._reference} has no blob {descriptor.digest}", reason=Reason.CORRUPT)
        with self._files.open(path) as blob:
            blob.seek(offset)
            yield blob

    def _find_image(self) -> Document:
        with self._files.open("manifest.json") as file:
            value = parse_json(read_limited(file, MAX_DOCUMENT_BYTES, "manifest.json"), "manifest.json")
        images = Document("the archive", {"manifest.json": value}).documents("manifest.json")
        tags = [tag for image in images for tag in image.texts("RepoTags")]
        wanted = None if self._tag is None else find_familiar(self._tag)
        if self._tag is not None:
            images = [i for i in images if wanted and wanted in map(find_familiar, i.texts("RepoTags"))]
        if not images:
            raise not_there(self._reference, tags)
        if len(images) > 1:
            raise not_one(self._reference, tags)
        return images[0]

    def _read(self) -> _Saved:
        """Once: layers that are compressed are hashed for it. What it gives does not change, as the file is held."""
        with self._lock:
            if self._saved is None:
                self._saved = self._build(self._find_image())
            return self._saved

    def _build(self, image: Document) -> _Saved:
        config_path, layer_paths = image.text("Config"), image.texts("Layers")
        with self._files.open(config_path) as file:
            raw = read_limited(file, MAX_CONFIG_BYTES, "the image config")
        diff_ids = parse_image_config(raw).diff_ids
        if len(layer_paths) > MAX_LAYERS:
            raise BangerError(
                f"the image has {len(layer_paths)} layers, more than {MAX_LAYERS}", reason=Reason.TOO_LARGE
            )
        if len(layer_paths) != len(diff_ids):
            raise BangerError(
                f"the image has {len(layer_paths)} layers, but its config speaks of {len(diff_ids)}",
                reason=Reason.CORRUPT,
            )
        config = Descriptor(OCI_CONFIG, _digest(raw), len(raw))
        paths = {config.digest: config_path}
        layers = []
        for path, diff_id in zip(layer_paths, diff_ids, strict=True):
            layer = self._describe_layer(path, parse_digest(diff_id))
            paths[layer.digest] = path
            layers.append(layer)
        manifest = json.dumps(
            {
                "schemaVersion": 2,
                "mediaType": OCI_MANIFEST,
                "config": _format_descriptor(config),
                "layers": [_format_descriptor(layer) for layer in layers],
            },
            sort_keys=True,
        ).encode()
        return _Saved(Descriptor(OCI_MANIFEST, _digest(manifest), len(manifest)), manifest, paths)

    def _describe_layer(self, path: str, diff_id: str) -> Descriptor:
        size = self._files.get(path).size
        with self._files.open(path) as file:
            first = file.read(len(_ZSTD))
            if not first.startswith((_GZIP, _ZSTD)):
                return Descriptor(OCI_LAYER, diff_id, size)
            packing = "+gzip" if first.startswith(_GZIP) else "+zstd"
            hashed = hashlib.sha256(first)
            while chunk := file.read(CHUNK_BYTES):
                if is_cancelled():
                    raise KeyboardInterrupt
                hashed.update(chunk)
        return Descriptor(OCI_LAYER + packing, f"sha256:{hashed.hexdigest()}", size)


def _format_descriptor(descriptor: Descriptor) -> dict[str, object]:
    return {"mediaType": descriptor.media_type, "digest": descriptor.digest, "size": descriptor.size_bytes}


def _digest(raw: bytes) -> str:
    return f"sha256:{hashlib.sha256(raw).hexdigest()}"


def _open_file(path: Path) -> IO[bytes]:
    """A regular file: one that can be read from any place, again and again."""
    try:
        # Not to wait for the other end of a fifo.
        file = open(os.open(path, os.O_RDONLY | os.O_NONBLOCK | os.O_CLOEXEC), "rb")  # noqa: PTH123, SIM115
    except FileNotFoundError as error:
        raise BangerError(f"there is no file {path}", reason=Reason.NOT_FOUND) from error
    except IsADirectoryError as error:
        raise _no_file(path) from error
    except OSError as error:
        raise explain(error, "read the archive", path) from error
    if not stat.S_ISREG(os.fstat(file.fileno()).st_mode):
        file.close()
        raise _no_file(path)
    return file


def _no_file(path: Path) -> BangerError:
    return BangerError(
        f"{path} is no regular file",
        reason=Reason.BAD_INPUT,
        hint="a folder is named oci:DIR; a stream is given on standard input: -",
    )


def _unpack_whole(file: IO[bytes], scratch: Path, limit_bytes: int, what: str) -> IO[bytes]:
    """The file itself when it is a plain tar, else what it unpacks to."""
    first = os.pread(file.fileno(), len(_XZ), 0)
    if not first.startswith((_GZIP, _ZSTD, _XZ)):
        return file
    limits = Limits(max_image_bytes=limit_bytes)
    with explained("unpack the archive", scratch):
        unpacked = tempfile.TemporaryFile(dir=scratch)  # noqa: SIM115
    with file:
        done = 0
        for chunk in unpack(file, limits, what):
            if is_cancelled():
                raise KeyboardInterrupt
            done += len(chunk)
            limits.check_size(done, what)
            with explained("unpack the archive", scratch):
                unpacked.write(chunk)
    with explained("unpack the archive", scratch):
        unpacked.flush()
    return unpacked
