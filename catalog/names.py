"""Names that people give to images and kernels."""

from __future__ import annotations

import difflib
import re
from collections.abc import Iterable

from banger.errors import BangerError, Reason

# One folder below the state directory each: no slash, no leading dot, nothing a shell or terminal would mind.
_NAME = re.compile(r"^[a-z0-9][a-z0-9._-]{0,127}$")


def parse_name(text: str, what: str) -> str:
    """A name fit for a folder. Raises `BangerError` for anything else."""
    if _NAME.fullmatch(text) is None:
        raise BangerError(
            f"{text!r} is no name for {what}",
            reason=Reason.BAD_INPUT,
            hint="use 1 to 128 of a-z 0-9 . _ -, beginning with a letter or digit",
        )
    return text


def nearest(name: str, known: Iterable[str]) -> str:
    """A hint for a name that is not known: the most similar one, or all there are."""
    names = sorted(known)
    close = difflib.get_close_matches(name, names, n=1)
    if close:
        return f"did you mean {close[0]!r}?"
    return f"known: {', '.join(names)}" if names else ""
