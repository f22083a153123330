"""How data and errors are printed: tables for people, JSON for programs, nothing from outside unescaped."""

from __future__ import annotations

import codecs
import json
import os
import sys
import textwrap
import time
from collections.abc import Sequence
from pathlib import Path

import click

from banger.errors import BangerError, Reason
from banger.run import printable


def print_json(value: object) -> None:
    # ASCII: labels of images may hold what moves a terminal's cursor, or is no character at all.
    click.echo(json.dumps(value, indent=2))


def print_table(head: Sequence[str], rows: Sequence[Sequence[str]]) -> None:
    """Columns as wide as their content, as `ps` and `docker ps` print them."""
    clean = [[printable(cell) for cell in row] for row in rows]
    widths = [max(map(len, column)) for column in zip(head, *clean, strict=True)]
    for row in [head, *clean]:
        cells = (cell.ljust(width) for cell, width in zip(row, widths, strict=True))
        click.echo("   ".join(cells).rstrip())


class TerminalText:
    """Bytes from a guest, block by block, as text that a terminal can take; a character may span blocks.

    Tabs and line ends stay, a line may also end in CR LF, and all other control characters become escapes.
    """

    def __init__(self) -> None:
        self._decode = codecs.getincrementaldecoder("utf-8")("replace").decode
        self._held = ""

    def clean(self, block: bytes, *, is_last: bool = False) -> str:
        text = self._held + self._decode(block, is_last)
        # What a carriage return at the end of a block is, the next one tells.
        whole = text.rstrip("\r")
        self._held = text[len(whole) :]
        return "\n".join("\t".join(map(printable, line.rstrip("\r").split("\t"))) for line in whole.split("\n"))


def print_error(error: BangerError, *, as_json: bool) -> None:
    """One line and a hint on stderr."""
    if as_json:
        value = {"error": {"message": error.message, "hint": error.hint, "reason": error.reason}}
        click.echo(json.dumps(value), err=True)
        return
    style = {"fg": "red", "bold": True}
    click.echo(f"{paint('banger:', **style)} {printable_lines(error.message)}", err=True)
    if error.hint:
        click.echo(textwrap.indent(printable_lines(error.hint), "  "), err=True)


def say(text: str, before: str = "") -> None:
    """A line for people, on stderr; `before` is ours and may be painted."""
    click.echo(before + printable_lines(text), err=True)


def paint(text: str, **style: object) -> str:
    """Colour for stderr; none when it is no terminal or NO_COLOR is set (no-color.org)."""
    return click.style(text, **style) if want_colour() else text  # type: ignore[arg-type]


def want_colour() -> bool:

    return sys.stderr.isatty() and not os.environ.get("NO_COLOR") and os.environ.get("TERM") != "dumb"


def format_age(seconds: float) -> str:
    """`5 s`, `12 min`, `3 h`, `9 d`."""
    for unit, length in (("d", 86400), ("h", 3600), ("min", 60)):
        if seconds >= length:
            return f"{int(seconds // length)} {unit}"
    return f"{max(0, int(seconds))} s"


def format_time(moment: float) -> str:
    return time.strftime("%Y-%m-%dT%H:%M:%SZ", time.gmtime(moment))


def printable_lines(text: str) -> str:
    return "\n".join(printable(line) for line in text.split("\n"))


def explain_refusal(error: OSError) -> BangerError:
    """What the system refused to somebody who had no better words for it."""
    from cache.failures import explain

    if isinstance(error.filename, str | bytes):
        told = explain(error, "go on", Path(os.fsdecode(error.filename)))
        # That the disk is ill is a guess of the store's, which has looked at all else before.
        return BangerError(told.message, reason=told.reason, hint="" if told.reason is Reason.IO else told.hint)
    # No file is named for what is open already: most often that is our stdout.
    return BangerError(f"cannot go on: {error.strerror or error}", reason=explain(error, "", Path()).reason)
