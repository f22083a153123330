"""The files of a recipe as one layer, made on the host: the same files give the same bytes.

They come from below the recipe's folder and from nowhere else: a link that leads out is refused, and one inside of a
folder stays a link. All belong to root and have one time, since a checkout has no times worth keeping.
"""

from __future__ import annotations

import os
import stat
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from pathlib import Path

from blake3 import blake3

from banger.errors import BangerError, Reason
from banger.run import is_cancelled, printable
from pipelines.job import Job
from pipelines.oci.changeset import split_path
from pipelines.oci.layer_writer import OUTPUTS, open_layer
from pipelines.oci.limits import Limits
from pipelines.oci.stream import CHUNK_BYTES
from pipelines.oci.tar import Entry, Kind
from pipelines.oci.tar_writer import format_header
from pipelines.recipe import RecipeFile
from pipelines.step import Step

# 1980, the first year that zip files know.
_MTIME_NS = 315_532_800 * 1_000_000_000


@dataclass(frozen=True)
class _Planned:
    """An entry of the layer, and the file of the host that its content comes from, with the digest of that."""

    entry: Entry
    source: Path | None = None
    digest: str = ""


def plan_files(name: str, files: Sequence[RecipeFile], folder: Path, limits: Limits) -> Step:
    """Outputs: `blob` and `index`. The files are read now, to know what they are."""
    top = folder.resolve()
    planned = [each for file in files for each in _plan_file(file, top)]
    whole = blake3()
    for each in planned:
        whole.update(format_header(each.entry) + each.digest.encode())

    def make(job: Job) -> None:
        with open_layer(job, limits, f"the files of {name}") as layer:
            for each in planned:
                layer.add(each.entry, () if each.source is None else _read_again(each))

    return Step(
        name=f"files:{name}",
        kind="recipe-files",
        version=1,
        build=make,
        outputs=OUTPUTS,
        parameters={"files": whole.hexdigest()},
    )


def _plan_file(file: RecipeFile, top: Path) -> Iterator[_Planned]:
    shown = printable(file.source)
    try:
        source = (top / file.source).resolve(strict=True)
    except FileNotFoundError as error:
        raise BangerError(f"the recipe has no file {shown!r}", reason=Reason.NOT_FOUND) from error
    except (OSError, RuntimeError) as error:
        raise BangerError(f"cannot follow {shown!r}: {error}", reason=Reason.BAD_INPUT) from error
    if not source.is_relative_to(top):
        raise BangerError(f"{shown!r} leads out of the recipe's folder", reason=Reason.BAD_INPUT)
    planned = _walk(source, file.target)
    if file.mode is None:
        yield from planned
        return
    first = next(planned)
    if first.entry.kind is Kind.FOLDER:
        raise BangerError(f"{shown!r} is a folder: mode is for one file", reason=Reason.BAD_INPUT)
    yield replace(first, entry=replace(first.entry, mode=file.mode))


def _walk(source: Path, target: str) -> Iterator[_Planned]:
    """A file, or a folder with all that is in it, sorted."""
    todo = [(source, target)]
    while todo:
        if is_cancelled():
            raise KeyboardInterrupt
        path, place = todo.pop()
        if any(part.startswith(".wh.") for part in split_path(place)):
            raise BangerError(
                f"{printable(str(path))!r}: names that begin with '.wh.' mean something else in layers",
                reason=Reason.BAD_INPUT,
            )
        try:
            planned = _describe(path, place)
            if planned.entry.kind is Kind.FOLDER:
                names = sorted(os.listdir(path), reverse=True)  # noqa: PTH208 - sorted as text
                todo += [(path / name, f"{place}/{name}") for name in names]
        except OSError as error:
            raise BangerError(f"cannot read {printable(str(path))!r}: {error.strerror}", reason=Reason.IO) from error
        yield planned


def _describe(path: Path, place: str) -> _Planned:
    found = path.lstat()
    entry = Entry(place, Kind.FOLDER, 0o755, mtime_ns=_MTIME_NS)
    if stat.S_ISDIR(found.st_mode):
        return _Planned(entry)
    if stat.S_ISLNK(found.st_mode):
        return _Planned(replace(entry, kind=Kind.SYMLINK, mode=0o777, target=os.readlink(path)))  # noqa: PTH115
    if not stat.S_ISREG(found.st_mode):
        raise BangerError(f"{printable(str(path))!r} is neither file nor folder", reason=Reason.BAD_INPUT)
    mode = 0o755 if found.st_mode & stat.S_IXUSR else 0o644
    digest, size = blake3(), 0
    for chunk in _read(path):
        digest.update(chunk)
        size += len(chunk)
    return _Planned(replace(entry, kind=Kind.FILE, mode=mode, size=size), path, digest.hexdigest())


def _read_again(planned: _Planned) -> Iterator[bytes]:
    assert planned.source is not None
    digest = blake3()
    for chunk in _read(planned.source):
        digest.update(chunk)
        yield chunk
    if digest.hexdigest() != planned.digest:
        raise BangerError(f"{printable(str(planned.source))!r} was changed meanwhile", reason=Reason.WRONG_STATE)


def _read(path: Path) -> Iterator[bytes]:
    with open(os.open(path, os.O_RDONLY | os.O_NOFOLLOW | os.O_CLOEXEC), "rb", buffering=0) as file:  # noqa: PTH123
        while chunk := file.read(CHUNK_BYTES):
            if is_cancelled():
                raise KeyboardInterrupt
            yield chunk
