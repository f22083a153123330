"""The catalogs that were seen here: the last good document of each, by the reference that it came from.

It is what an older one is told by (`check_serial`), and what is listed while its registry cannot be reached. One file a
catalog, 0600, replaced as a whole. One that cannot be read is an error: to forget it means to trust an older catalog.
"""

from __future__ import annotations

import contextlib
import json
from dataclasses import dataclass
from pathlib import Path
from urllib.parse import quote

from blake3 import blake3

from banger.errors import BangerError, Reason
from cache.failures import explained
from cache.files import make_folder
from cache.temporary import remove_stale, replace_file

_FORMAT = 1
_LONGEST_NAME_BYTES = 200


@dataclass(frozen=True)
class Remembered:
    """`digest` is that of the manifest (`sha256:…`), `document` the catalog as it was read."""

    serial: int
    digest: str
    document: bytes


class Memory:
    """What is remembered below a folder. Who reads and then writes holds a lock."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder

    def path(self, reference: str) -> Path:
        name = quote(reference, safe="")
        if len(name) > _LONGEST_NAME_BYTES:
            name = f"{name[:80]}%{blake3(reference.encode()).hexdigest()}"
        return self.folder / f"{name}.json"

    def find(self, reference: str) -> Remembered | None:
        path = self.path(reference)
        try:
            found = json.loads(path.read_text())
            if found["format"] != _FORMAT:
                raise ValueError
            return Remembered(int(found["serial"]), str(found["digest"]), found["document"].encode())
        except FileNotFoundError:
            return None
        except (ValueError, KeyError, TypeError, AttributeError) as error:
            raise BangerError(
                f"what is remembered of the catalog {reference} is damaged",
                reason=Reason.CORRUPT,
                hint=f"if you trust what its registry has now: rm {path}",
            ) from error

    def put(self, reference: str, seen: Remembered) -> None:
        content = {
            "format": _FORMAT,
            "reference": reference,
            "serial": seen.serial,
            "digest": seen.digest,
            "document": seen.document.decode(),
        }
        unfinished = self.folder / ".unfinished"
        with explained(f"remember the catalog {reference}", self.folder):
            make_folder(self.folder)
            remove_stale(unfinished)
            try:
                replace_file(unfinished, self.path(reference), json.dumps(content).encode())
            finally:
                # It stays while another catalog is being remembered.
                with contextlib.suppress(OSError):
                    unfinished.rmdir()

    def check_serial(self, reference: str, serial: int, digest: str) -> None:
        """Raises UNTRUSTED for a catalog older than one that was here, or another with the same number."""
        known = self.find(reference)
        if known is None or serial > known.serial or (serial, digest) == (known.serial, known.digest):
            return
        if serial == known.serial:
            what = f"has another content than before, with the same serial {serial}"
        else:
            what = f"was rolled back: its serial is {serial}, and it was {known.serial} before"
        raise BangerError(
            f"the catalog {reference} {what}",
            reason=Reason.UNTRUSTED,
            hint=f"ask who publishes it; if it is meant to be so: rm {self.path(reference)}",
        )
