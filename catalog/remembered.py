"""The catalogs that were seen here: the last good document of each, by the reference that it came from.

It is what an older one is told by (`check`), and what is listed while its registry cannot be reached. One file a
catalog, 0600, replaced as a whole. One that cannot be read is an error: to forget it means to trust an older catalog.
"""

from __future__ import annotations

import contextlib
import json
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from urllib.parse import quote

from blake3 import blake3

from banger.errors import BangerError, Reason
from cache.failures import explained
from cache.files import make_folder
from cache.temporary import remove_stale, replace_file
from catalog.catalog import Catalog

_FORMAT = 1
_LONGEST_NAME_BYTES = 200


@dataclass(frozen=True)
class Remembered:
    """`digest` is that of the manifest (`sha256:…`), `document` the catalog as it was read.

    `entries` are the serials of all entries that were ever seen (`Catalog.serials`), of those that are gone too: one
    that was left out for a while does not come back older.
    """

    serial: int
    digest: str
    document: bytes
    entries: Mapping[str, int] = field(default_factory=dict)


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
            entries = {str(name): int(serial) for name, serial in found["entries"].items()}
            return Remembered(int(found["serial"]), str(found["digest"]), found["document"].encode(), entries)
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
            "entries": dict(seen.entries),
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

    def check(self, reference: str, catalog: Catalog, digest: str) -> None:
        """Raises UNTRUSTED for a catalog that is older than one that was here, another with the same serial, or one
        that has an older entry than was here.
        """
        known = self.find(reference)
        if known is None or (catalog.serial, digest) == (known.serial, known.digest):
            return
        hint = "ask who publishes it"
        older = [name for name, serial in catalog.serials().items() if serial < known.entries.get(name, 0)]
        if catalog.serial == known.serial:
            what = f"has another content than before, with the same serial {catalog.serial}"
        elif catalog.serial < known.serial:
            what = f"was rolled back: its serial is {catalog.serial}, and it was {known.serial} before"
        elif older:
            kind, name, _architecture = older[0].split("/", 2)
            what = f"was made from one that was rolled back: it has an older {kind} {name} than before"
            hint = f"ask who publishes it to publish {name} again"
        else:
            return
        raise BangerError(
            f"the catalog {reference} {what}",
            reason=Reason.UNTRUSTED,
            hint=f"{hint}; if it is meant to be so: rm {self.path(reference)}",
        )
