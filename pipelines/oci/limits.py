"""How much an image may ask of the host. What goes past a limit is refused as TOO_LARGE, before it is on the disk."""

from __future__ import annotations

from dataclasses import dataclass

from banger.errors import BangerError, Reason
from banger.sizes import format_bytes

_GIB = 1 << 30


@dataclass(frozen=True)
class Limits:
    """`max_image_bytes` holds for each unpacked layer and for all files of the flattened image together.

    `max_ratio` is what a compressed layer may grow to, as a multiple; a layer of at most `ratio_free_bytes` may be
    of any ratio, since honest layers hold files of zeros. `max_names_bytes` is for what is kept in memory: the names
    of an image, or a layer's names and xattrs. `max_steps` is for what names cost to follow, through links too.
    """

    max_image_bytes: int = 64 * _GIB
    max_ratio: int = 500
    ratio_free_bytes: int = _GIB
    max_entries: int = 2_000_000
    max_names_bytes: int = _GIB // 4
    max_steps: int = 50_000_000

    def check_size(self, size_bytes: int, what: str) -> None:
        if size_bytes > self.max_image_bytes:
            raise BangerError(
                f"{what} is larger than {format_bytes(self.max_image_bytes)}",
                reason=Reason.TOO_LARGE,
                hint="if you trust it, raise max_image_size in the configuration",
            )

    def check_ratio(self, packed_bytes: int, unpacked_bytes: int, what: str) -> None:
        if unpacked_bytes > max(self.ratio_free_bytes, packed_bytes * self.max_ratio):
            raise BangerError(
                f"{what} unpacks to more than {self.max_ratio} times its size",
                reason=Reason.TOO_LARGE,
                hint="this is how decompression bombs look",
            )

    def check_entries(self, count: int, what: str) -> None:
        if count > self.max_entries:
            raise BangerError(f"{what} has more than {self.max_entries} entries", reason=Reason.TOO_LARGE)

    def check_steps(self, count: int) -> None:
        if count > self.max_steps:
            raise BangerError("the image's names take too long to follow", reason=Reason.TOO_LARGE)

    def check_names(self, size_bytes: int, what: str) -> None:
        if size_bytes > self.max_names_bytes:
            raise BangerError(
                f"{what} has names and xattrs of more than {format_bytes(self.max_names_bytes)}",
                reason=Reason.TOO_LARGE,
            )
