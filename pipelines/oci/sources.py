"""From what a user types to a source: a reference into a registry, or a place on this host, named as skopeo does.

debian:12, ghcr.io/owner/tool@sha256:…   a registry
oci:DIR[:TAG]                            an OCI layout
oci-archive:FILE[:TAG]                   a tar of one
docker-archive:FILE[:REF]                what `docker save` writes
-                                        either of the two from standard input
docker://REF                             a registry, said aloud
"""

from __future__ import annotations

import tempfile
from collections.abc import Mapping
from pathlib import Path
from typing import IO, cast

from banger.errors import BangerError, Reason
from banger.run import is_cancelled
from pipelines.oci.archive import ArchiveKind, open_archive
from pipelines.oci.layout import LayoutSource
from pipelines.oci.limits import Limits
from pipelines.oci.reference import parse_reference
from pipelines.oci.registry import RegistryOptions, RegistrySource
from pipelines.oci.source import Source
from pipelines.oci.stream import CHUNK_BYTES

STDIN = "-"
_TRANSPORTS = ("oci", "oci-archive", "docker-archive")


def is_local(text: str) -> bool:
    """Whether it names a place on this host, not in a registry."""
    return text == STDIN or text.partition(":")[0] in _TRANSPORTS


def find_familiar_name(text: str) -> str | None:
    """The name that an image from a registry goes by here; None for what is no reference of one."""
    if is_local(text):
        return None
    try:
        return parse_reference(text.removeprefix("docker://")).familiar
    except BangerError:
        return None


def open_source(
    text: str, options: Mapping[str, RegistryOptions], limits: Limits, scratch: Path, stdin: IO[bytes] | None = None
) -> Source:
    """`scratch` is a folder for files without a name. Raises BAD_INPUT for what is neither; asks no registry yet."""
    if text == STDIN:
        if stdin is None:
            raise BangerError("standard input is no image here", reason=Reason.BAD_INPUT)
        return _spool(stdin, limits, scratch)
    if not is_local(text):
        return RegistrySource(parse_reference(text.removeprefix("docker://")), options)
    transport, _, rest = text.partition(":")
    path, tag = _split_tag(rest)
    if transport == "oci":
        return LayoutSource(path, tag)
    return open_archive(path, cast(ArchiveKind, transport), tag, scratch=scratch, limit_bytes=limits.max_image_bytes)


def _split_tag(text: str) -> tuple[Path, str | None]:
    """PATH[:TAG], where a path may hold colons: what exists whole is a path whole."""
    if not text:
        raise BangerError("there is no path after the colon", reason=Reason.BAD_INPUT, hint="write oci:DIR[:TAG]")
    path, colon, tag = text.partition(":")
    if not colon or Path(text).exists():
        return Path(text), None
    while not Path(path).exists() and ":" in tag:
        more, _, tag = tag.partition(":")
        path = f"{path}:{more}"
    if not Path(path).exists():
        path, _, tag = text.partition(":")
    return Path(path), tag or None


def _spool(stdin: IO[bytes], limits: Limits, scratch: Path) -> Source:
    """An archive is read from more than one place at once: what comes as a stream is put into a file first."""
    with tempfile.TemporaryFile(dir=scratch) as file:
        done = 0
        while chunk := stdin.read(CHUNK_BYTES):
            if is_cancelled():
                raise KeyboardInterrupt
            done += len(chunk)
            limits.check_size(done, "standard input")
            file.write(chunk)
        file.flush()
        # The archive opens it once more, for itself.
        path = Path(f"/proc/self/fd/{file.fileno()}")
        return open_archive(path, None, None, scratch=scratch, limit_bytes=limits.max_image_bytes)
