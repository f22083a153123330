"""What the daemon tells, a line each with the time, on its standard error: a file, or the journal."""

from __future__ import annotations

import sys
import time

from banger.run import printable


class Diary:
    """The same line is not told twice in a row."""

    def __init__(self) -> None:
        self._last = ""

    def note(self, text: str) -> None:
        if text == self._last:
            return
        self._last = text
        for line in text.splitlines():
            print(f"{time.strftime('%Y-%m-%dT%H:%M:%S')} {printable(line)}", file=sys.stderr, flush=True)
