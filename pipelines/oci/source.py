"""What an image can come from: a registry, an OCI layout, an archive. All give the same: a manifest, and blobs.

Nothing that a source gives is trusted: whoever reads checks digest and size (`blob.py`, `manifest.py`).
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from contextlib import AbstractContextManager
from dataclasses import dataclass, field
from typing import IO, Protocol

from banger.errors import BangerError, Reason

# image-spec, descriptor.md, "Registered Algorithms".
_DIGEST = re.compile(r"sha256:[0-9a-f]{64}|sha512:[0-9a-f]{128}")


@dataclass(frozen=True)
class Descriptor:
    """A blob as a manifest speaks of it (image-spec, descriptor.md). `digest` is checked to be one, as is `size_bytes`.

    A `size_bytes` of -1 is unknown: of a tag's manifest before it was read.
    """

    media_type: str
    digest: str
    size_bytes: int
    platform: Mapping[str, object] = field(default_factory=dict)
    annotations: Mapping[str, str] = field(default_factory=dict)


class Source(Protocol):
    """One image somewhere. Its methods raise `BangerError`; they may be called from several threads at once."""

    @property
    def reference(self) -> str:
        """Canonical, for people and records: `docker.io/library/debian:12`, `oci:/path/to/dir:tag`."""

    @property
    def name(self) -> str | None:
        """The name that the image gets when the user gives none: `debian:12`; None when there is none to guess."""

    def read_root(self) -> tuple[Descriptor, bytes]:
        """Ask what the reference stands for now: a manifest or an index, and its bytes (at most 4 MiB)."""

    def read_manifest(self, descriptor: Descriptor) -> bytes:
        """A manifest or index that an index speaks of. Not verified."""

    def open_blob(self, descriptor: Descriptor, offset: int = 0) -> AbstractContextManager[IO[bytes]]:
        """The bytes of a config or layer, from `offset` on. Not verified; a read may fail with a temporary error."""


class TemporaryFailure(BangerError):
    """After it the same may succeed: a broken connection, 429, 503. `retry_after_s` is what the server asked for."""

    def __init__(self, message: str, *, hint: str = "", retry_after_s: float | None = None) -> None:
        super().__init__(message, reason=Reason.NETWORK, hint=hint)
        self.retry_after_s = retry_after_s


def parse_digest(text: object) -> str:
    if not isinstance(text, str) or _DIGEST.fullmatch(text) is None:
        raise BangerError(f"{str(text)[:100]!r} is no digest", reason=Reason.CORRUPT)
    return text
