"""Names that people give to images and kernels."""

from __future__ import annotations

import difflib
import re
from collections.abc import Iterable
from urllib.parse import quote

from blake3 import blake3

from banger.errors import BangerError, Reason

# Nothing a shell, a terminal or an option parser would mind, and never a leading dot.
_NAME = re.compile(r"^[a-z0-9][a-z0-9._-]{0,127}$")
# Images from registries go by their reference: `debian:12`, `[::1]:5000/team/app@sha256:…`.
# The tag or digest tells them from other names.
_REFERENCE = re.compile(r"^(?=.*[:@])[A-Za-z0-9\[][A-Za-z0-9._:/@\[\]-]{0,767}$")
_LONGEST_FOLDER_BYTES = 200


def parse_name(text: str, what: str) -> str:
    """A name as a user may give it. Raises `BangerError` for anything else."""
    if _NAME.fullmatch(text) is None:
        raise BangerError(
            f"{text!r} is no name for {what}",
            reason=Reason.BAD_INPUT,
            hint="use 1 to 128 of a-z 0-9 . _ -, beginning with a letter or digit",
        )
    return text


def format_folder(name: str, what: str) -> str:
    """The one folder that stands for a name or reference: no slash, no leading dot, not too long for a filesystem."""
    if _REFERENCE.fullmatch(name) is None:
        return parse_name(name, what)
    folder = quote(name, safe="")
    if len(folder) <= _LONGEST_FOLDER_BYTES:
        return folder
    # A reference with a digest. What follows "%" in a quoted name are capitals, so this is no other's folder.
    return f"{folder[:80]}%{blake3(name.encode()).hexdigest()}"


def nearest(name: str, known: Iterable[str]) -> str:
    """A hint for a name that is not known: the most similar one, or all there are."""
    names = sorted(known)
    close = difflib.get_close_matches(name, names, n=1)
    if close:
        return f"did you mean {close[0]!r}?"
    return f"known: {', '.join(names)}" if names else ""
