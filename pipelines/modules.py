"""The modules of a kernel: a read-only disk of them for the guest, and the few of them that reach that disk.

They come in a tar, of which only regular files count; nothing of it can get outside of its own folder.
"""

from __future__ import annotations

import os
import re
from collections.abc import Iterator
from pathlib import Path

from banger.errors import BangerError, Reason
from banger.run import is_cancelled, run
from pipelines.content import Measured
from pipelines.drivers import NEEDED, list_missing, read_module, write_drivers
from pipelines.erofs import make_erofs
from pipelines.job import Job
from pipelines.lock import read_lock
from pipelines.oci.changeset import split_path
from pipelines.oci.limits import Limits
from pipelines.oci.stream import Cursor, Reads, unpack
from pipelines.oci.tar import Entry, Kind, read_entries
from pipelines.step import Artifact, Step

_PLACE = re.compile(r"(?:usr/)?lib/modules/[^/]+/.+", re.DOTALL)
# What `uname -r` prints, and kmod takes for a release.
_RELEASE = re.compile(r"[0-9]{1,4}\.[0-9]{1,6}[0-9A-Za-z.+_~-]{0,50}")
# Nothing that modules.dep(5), a shell or a terminal would mind.
_NAME = re.compile(r"[!-~]+")
_IS_MODULE = re.compile(r".+\.ko(?:\.(?:xz|zst|gz))?")
# Those of a whole distribution, with debugging symbols.
MAX_MODULES_BYTES = 8 << 30
_LIMITS = Limits(max_image_bytes=MAX_MODULES_BYTES, max_entries=500_000)
# For depmod, which wants a release; nothing that it writes speaks of it.
_ANY_RELEASE = "0.0"


def plan_modules(kernel: str, system: Artifact, lock: Artifact) -> Step:
    """Outputs: `modules`, the disk, and `drivers`, a part of the initramfs. Of the tar of a Debian system."""

    def build(job: Job) -> None:
        tree = job.directory / "tree"
        with job.input("system").open("rb") as system:
            extract_files(system, tree, "the packages", only=_PLACE)
        folder, _release = find_folder(tree, "the packages")
        _finish(job, folder, read_lock(job).epoch)

    return Step(
        name=f"modules:{kernel}",
        kind="modules",
        version=3,
        build=build,
        outputs=("modules", "drivers"),
        parameters={"drivers": list(NEEDED)},
        inputs={"system": system, "lock": lock},
    )


def plan_imported_modules(kernel: str, content: Measured | None, release: str | None) -> Step:
    """The same of a user's own, or of none: then all that a guest needs has to be built into the kernel.

    `release` is that of the kernel, if it is known: modules of another one are refused.
    """

    def build(job: Job) -> None:
        folder = tree = job.directory / "tree"
        tree.mkdir()
        if content is not None:
            with content.open() as stream:
                extract_files(stream, tree, content.what)
                stream.finish()
            folder, found = find_folder(tree, content.what)
            if release is not None and found is not None and found != release:
                raise BangerError(
                    f"the modules are those of {found}, but the kernel is {release}", reason=Reason.BAD_INPUT
                )
        _finish(job, folder, 0)

    return Step(
        name=f"imported-modules:{kernel}",
        kind="imported-modules",
        version=1,
        build=build,
        outputs=("modules", "drivers"),
        parameters={
            "drivers": list(NEEDED),
            "content": None if content is None else content.digest,
            "release": release,
        },
    )


def _finish(job: Job, folder: Path, epoch: int) -> None:
    """Links into a kernel's source tree, which no guest has, were not unpacked; all else is as it came."""
    place = job.directory / "depmod/lib/modules" / _ANY_RELEASE
    place.parent.mkdir(parents=True)
    folder.rename(place)
    for packed in place.rglob("*.ko.gz"):
        # Which a kmod without zlib, as Debian's is, knows nothing of.
        packed.with_suffix("").write_bytes(read_module(packed))
        packed.unlink()
    run(["depmod", "--basedir", str(job.directory / "depmod"), _ANY_RELEASE])
    builtin = place / "modules.builtin"
    if builtin.exists():
        missing = list_missing((place / "modules.dep").read_text(), builtin.read_text("utf-8", "replace"))
        if missing:
            job.note(f"{job.step.name.partition(':')[2]} has no {', '.join(missing)}: no machine can boot it")
    with job.create("drivers") as sink:
        write_drivers(sink, place)
    make_erofs(job, "modules", place, epoch)


def extract_files(source: Reads, tree: Path, what: str, only: re.Pattern[str] | None = None) -> None:
    """Unpack the regular files of a tar below `tree`: all, or those at paths that match `only`."""
    try:
        _extract(Cursor(_watched(unpack(source, _LIMITS, "it")), "it"), tree, only)
    except BangerError as error:
        why = error.message.replace("the layer has", "it has")
        raise BangerError(f"{what} holds no modules that can be used: {why}", reason=error.reason) from error


def _extract(cursor: Cursor, tree: Path, only: re.Pattern[str] | None) -> None:
    done: set[str] = set()
    for entry in read_entries(cursor):
        path = "/".join(split_path(entry.path))
        if entry.kind not in (Kind.FILE, Kind.LINK) or (only is not None and only.fullmatch(path) is None):
            continue
        if _NAME.fullmatch(path) is None:
            raise _bad(f"{entry.path[:200]!r} is no name of a module")
        if path in done or entry.segments is not None:
            raise _bad(f"{path} comes twice, or has holes")
        _LIMITS.check_entries(len(done), "it")
        target = tree / path
        try:
            target.parent.mkdir(parents=True, exist_ok=True)
            if entry.kind is Kind.LINK:
                _link(tree, entry, target, done)
            else:
                with target.open("xb") as sink:
                    cursor.copy(entry.size, sink)
        except (FileExistsError, NotADirectoryError) as error:
            raise _bad(f"{path} is below a file, or in the place of a folder") from error
        done.add(path)
    cursor.drain()


def _link(tree: Path, entry: Entry, target: Path, done: set[str]) -> None:
    first = "/".join(split_path(entry.target))
    if first not in done:
        raise _bad(f"{target.name} is a hard link to what did not come before")
    os.link(tree / first, target)


def find_folder(tree: Path, what: str) -> tuple[Path, str | None]:
    """Where the modules are that were unpacked, and of which release, if their folder says so.

    That is lib/modules/RELEASE, or the whole tree where it is such a folder itself. CORRUPT when there are none, or
    those of more than one kernel.
    """
    folders = [each for top in ("lib", "usr/lib") for each in (tree / top / "modules").glob("*/")]
    if len(folders) > 1:
        raise _bad(f"{what} holds modules of {len(folders)} kernels, not one")
    folder = folders[0] if folders else tree
    if not any(_IS_MODULE.fullmatch(name) for _, _, names in os.walk(folder) for name in names):
        raise _bad(f"{what} holds no kernel modules")
    if not folders:
        return tree, None
    if _RELEASE.fullmatch(folder.name) is None:
        raise _bad(f"{what} holds modules of {folder.name[:100]!r}, which is no release of a kernel")
    return folder, folder.name


def _watched(chunks: Iterator[bytes]) -> Iterator[bytes]:
    for chunk in chunks:
        if is_cancelled():
            raise KeyboardInterrupt
        yield chunk


def _bad(message: str) -> BangerError:
    return BangerError(message, reason=Reason.CORRUPT)
