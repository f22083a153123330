"""Read-only disks: EROFS images whose bytes depend on their content alone.

Times and the filesystem's UUID are fixed (`-T`, `-U`), so that equal trees give equal bytes everywhere.
"""

from __future__ import annotations

import uuid
from pathlib import Path

from banger.run import run
from pipelines.job import Job

# A constant: nothing finds these disks by UUID, and one that differs would make equal content unequal.
_UUID = str(uuid.uuid5(uuid.NAMESPACE_URL, "banger:erofs"))


def make_erofs(job: Job, output: str, tree: Path, epoch: int) -> None:
    """An EROFS image of a folder; all files belong to root."""
    image = job.directory / f"{output}.erofs"
    run(["mkfs.erofs", *_options(), f"-T{epoch}", "--all-root", str(image), str(tree)])
    job.take(output, image)


def make_erofs_from_file(job: Job, output: str, tar: Path, epoch: int) -> None:
    """An EROFS image of a tar file: nothing is extracted anywhere, owners and times are kept as they are."""
    image = job.directory / f"{output}.erofs"
    run(["mkfs.erofs", *_options(), f"-T{epoch}", "--mkfs-time", "--tar=f", str(image), str(tar)])
    job.take(output, image)


def plan_mkfs_from_stream(image: Path) -> list[str]:
    """The command that makes an EROFS image of a tar on its stdin. Times are the entries' own; none is that of now.

    The data is laid out in the order of the stream.
    """
    return ["mkfs.erofs", *_options(), "--quiet", "-T0", "--mkfs-time", "--sort=none", "--tar=f", str(image)]


def _options() -> list[str]:
    # Clusters of 16 KiB instead of 4: smaller, and quicker to make, by a tenth and a third (benchmarks/oci.py).
    return ["-d1", "-zlz4", "-C16384", "-U", _UUID]
