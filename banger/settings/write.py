"""Writing the configuration file: whole or not at all, for its owner alone, and never over another unasked."""

from __future__ import annotations

import os
import tempfile
from pathlib import Path

from banger.errors import BangerError, Reason


def write_file(path: Path, text: str, *, overwrite: bool) -> None:
    """Write `path` with mode 0600. Raises ALREADY_EXISTS, or IO. Of a link, what it leads to is written."""
    target = Path(os.path.realpath(path))
    try:
        target.parent.mkdir(mode=0o700, parents=True, exist_ok=True)
        with tempfile.TemporaryDirectory(prefix=".config-", dir=target.parent) as folder:
            fresh = Path(folder) / target.name
            with open(fresh, "x", encoding="utf-8", opener=lambda path, flags: os.open(path, flags, 0o600)) as file:
                file.write(text)
                file.flush()
                os.fsync(file.fileno())
            if overwrite:
                fresh.replace(target)
            else:
                _link(fresh, target)
    except OSError as error:
        raise BangerError(f"cannot write {path}: {error.strerror}", reason=Reason.IO) from error


def _link(fresh: Path, target: Path) -> None:
    """Unlike a rename, this replaces nothing."""
    try:
        os.link(fresh, target)
    except FileExistsError as error:
        raise BangerError(
            f"{target} is there already", reason=Reason.ALREADY_EXISTS, hint="to overwrite it, add --force"
        ) from error
