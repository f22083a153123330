"""What the operating system refused, said as a `BangerError`: which folder, and what to do about it.

Only the store's own operations are wrapped, never the code of a caller that runs inside one of our `with` blocks: its
OSErrors are its own story.
"""

from __future__ import annotations

import errno
from pathlib import Path
from types import TracebackType

from banger.errors import BangerError, Reason

_FULL = {errno.ENOSPC, errno.EDQUOT}
_FORBIDDEN = {errno.EACCES, errno.EPERM, errno.EROFS}


class explained:
    """Turn an OSError inside the block into a BangerError that names `folder`.

    A class and not a generator, since it stands around every write of a stream; named to be read in its place.
    """

    __slots__ = ("_doing", "_folder")

    def __init__(self, doing: str, folder: Path) -> None:
        self._doing = doing
        self._folder = folder

    def __enter__(self) -> None:
        return None

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        if isinstance(error, OSError):
            raise explain(error, self._doing, self._folder) from error


def explain(error: OSError, doing: str, folder: Path) -> BangerError:
    why = error.strerror or str(error)
    if error.errno in _FULL:
        return BangerError(
            f"cannot {doing}: {why} ({folder})",
            reason=Reason.NO_SPACE,
            hint=f"free some space on the filesystem of {folder}, or raise the quota",
        )
    if error.errno in _FORBIDDEN:
        return BangerError(
            f"cannot {doing}: {why} ({folder})",
            reason=Reason.NO_PERMISSION,
            hint=f"see who owns {folder} and whether it is mounted read-only",
        )
    if error.errno == errno.ENOENT:
        return BangerError(
            f"cannot {doing}: {why} ({folder})",
            reason=Reason.IO,
            hint=f"somebody removed what is below {folder} meanwhile: do it again",
        )
    return BangerError(
        f"cannot {doing}: {why} ({folder})", reason=Reason.IO, hint=f"see whether the disk under {folder} is healthy"
    )
