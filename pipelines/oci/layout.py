"""An image in an OCI layout: a folder (`oci:DIR[:TAG]`), or the same tree of files somewhere else (image-spec,
image-layout.md).

In a folder only regular files are opened, and no symlink below it is followed: a layout that somebody else made leads
to nothing outside of it. Blobs are not verified here (see `source.py`).
"""

from __future__ import annotations

import contextlib
import errno
import os
import stat
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import IO

from banger.errors import BangerError, Reason
from banger.run import printable
from cache.failures import explain
from pipelines.oci.config import Document, parse_document, shown
from pipelines.oci.manifest import MAX_DOCUMENT_BYTES, parse_descriptor
from pipelines.oci.reference import parse_reference
from pipelines.oci.source import Descriptor, parse_digest

_TAG = "org.opencontainers.image.ref.name"
# The whole reference, where BuildKit and containerd leave only the tag in the spec's own annotation.
_WHOLE_NAME = "io.containerd.image.name"
_VERSION = "1.0.0"
_MAX_TAGS_SHOWN = 20

# Opens a file of the layout by its path inside; raises `BangerError` when it is not there.
OpenFile = Callable[[str], IO[bytes]]


class Layout:
    """A source of images over the files of a layout, wherever they are.

    `tag` is a `ref.name`, `@sha256:…`, or None for the only image there is. `stem` goes before the tag in `name`.
    """

    def __init__(self, open_file: OpenFile, tag: str | None, *, reference: str, stem: str) -> None:
        self._open_file = open_file
        self._tag = tag
        self._reference = reference
        self._stem = stem

    @property
    def reference(self) -> str:
        return self._reference

    @property
    def name(self) -> str | None:
        annotations = self._find_entry().annotations
        tag = annotations.get(_TAG, "")
        if _WHOLE_NAME in annotations:
            return find_familiar(annotations[_WHOLE_NAME])
        if "/" in tag or ":" in tag:
            return find_familiar(tag)
        return find_familiar(f"{self._stem}:{tag}" if tag else self._stem)

    def read_root(self) -> tuple[Descriptor, bytes]:
        entry = self._find_entry()
        return entry, self.read_manifest(entry)

    def read_manifest(self, descriptor: Descriptor) -> bytes:
        with self.open_blob(descriptor) as blob:
            return read_limited(blob, MAX_DOCUMENT_BYTES, f"the manifest {descriptor.digest}")

    @contextlib.contextmanager
    def open_blob(self, descriptor: Descriptor, offset: int = 0) -> Iterator[IO[bytes]]:
        algorithm, _, encoded = parse_digest(descriptor.digest).partition(":")
        with self._open_file(f"blobs/{algorithm}/{encoded}") as blob:
            blob.seek(offset)
            yield blob

    def _find_entry(self) -> Descriptor:
        """The one entry of index.json that is meant."""
        if self._read("oci-layout").text("imageLayoutVersion") != _VERSION:
            raise BangerError(
                f"{printable(self._reference)} is a layout of another version than {_VERSION}", reason=Reason.BAD_INPUT
            )
        entries = [parse_descriptor(value) for value in self._read("index.json").items("manifests")]
        tags = [entry.annotations.get(_TAG) or "@" + entry.digest for entry in entries]
        if self._tag is None:
            fitting = entries
        else:
            fitting = [e for e in entries if self._tag in (e.annotations.get(_TAG), "@" + e.digest)]
        if not fitting:
            raise not_there(self._reference, tags)
        if len({entry.digest for entry in fitting}) > 1:
            raise not_one(self._reference, tags if self._tag is None else ["@" + entry.digest for entry in fitting])
        return fitting[0]

    def _read(self, path: str) -> Document:
        with self._open_file(path) as file:
            return parse_document(read_limited(file, MAX_DOCUMENT_BYTES, path), path)


class LayoutSource(Layout):
    """A layout in a folder. Nothing is opened before something is asked."""

    def __init__(self, folder: Path, tag: str | None) -> None:
        folder = folder.absolute()
        super().__init__(
            lambda path: _open_beneath(folder, path),
            tag,
            reference=f"oci:{folder}" + (f":{tag}" if tag is not None else ""),
            stem=folder.name,
        )


def find_familiar(text: str) -> str | None:
    """The short form of a reference, None for what is none."""
    try:
        return parse_reference(text).familiar
    except BangerError:
        return None


def read_limited(file: IO[bytes], limit_bytes: int, what: str) -> bytes:
    raw = file.read(limit_bytes + 1)
    if len(raw) > limit_bytes:
        raise BangerError(f"{what} is larger than {limit_bytes >> 20} MiB", reason=Reason.TOO_LARGE)
    return raw


def not_there(reference: str, tags: list[str]) -> BangerError:
    return BangerError(
        f"{printable(reference)} is not there",
        reason=Reason.NOT_FOUND,
        hint=f"there are: {_format_tags(tags)}" if tags else "it holds no image at all",
    )


def not_one(reference: str, tags: list[str]) -> BangerError:
    return BangerError(
        f"{printable(reference)} stands for several images",
        reason=Reason.BAD_INPUT,
        hint=f"say which, after a colon: {_format_tags(tags)}",
    )


def _format_tags(tags: list[str]) -> str:
    more = ["…"] if len(tags) > _MAX_TAGS_SHOWN else []
    return ", ".join([shown(tag) for tag in tags[:_MAX_TAGS_SHOWN]] + more)


def _open_beneath(folder: Path, path: str) -> IO[bytes]:
    """A regular file below `folder`, without following a symlink below it or waiting for a fifo's other end."""
    *parents, name = path.split("/")
    with contextlib.ExitStack() as cleanup:
        try:
            at = os.open(folder, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
            cleanup.callback(os.close, at)
            for parent in parents:
                at = os.open(parent, os.O_RDONLY | os.O_DIRECTORY | os.O_NOFOLLOW | os.O_CLOEXEC, dir_fd=at)
                cleanup.callback(os.close, at)
            file = open(os.open(name, os.O_RDONLY | os.O_NOFOLLOW | os.O_NONBLOCK | os.O_CLOEXEC, dir_fd=at), "rb")  # noqa: PTH123, SIM115
        except FileNotFoundError as error:
            raise BangerError(
                f"{folder} has no {path}", reason=Reason.NOT_FOUND, hint="is it the folder of an OCI layout, whole?"
            ) from error
        except OSError as error:
            if error.errno in (errno.ELOOP, errno.ENOTDIR, errno.ENXIO, errno.EISDIR):
                raise _not_regular(folder, path) from error
            raise explain(error, f"read {path}", folder) from error
    if not stat.S_ISREG(os.fstat(file.fileno()).st_mode):
        file.close()
        raise _not_regular(folder, path)
    return file


def _not_regular(folder: Path, path: str) -> BangerError:
    return BangerError(
        f"{folder}/{path} is no regular file in folders of its own",
        reason=Reason.BAD_INPUT,
        hint="an OCI layout holds neither symlinks nor devices",
    )
