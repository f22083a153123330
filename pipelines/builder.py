"""Builder machines: microVMs that do one job for the graph and are gone. Their side of it is `pipelines/runtime/build`.

A filesystem that a guest wrote is never read on the host. What comes out is a tar, and a line that says that it is
whole; the tar goes through the same strict reader as every layer. The function that boots a machine is handed in from
above: the graph knows neither monitors nor networks.
"""

from __future__ import annotations

import re
from collections import deque
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from enum import StrEnum
from pathlib import Path
from typing import Protocol

from banger.errors import BangerError, Reason
from banger.run import printable
from pipelines.job import Job
from pipelines.oci.layer_writer import OUTPUTS
from pipelines.oci.limits import Limits
from pipelines.oci.overlay import write_changes
from pipelines.step import Artifact, Step

# What of a kernel a builder boots with; it has no use for further modules.
BOOT_ROLES = ("vmlinux", "initramfs")
_PACK_TIMEOUT_S = 1200.0
_REPORT_BYTES = 4096
_REPORT = re.compile(rb"banger (?:(whole|broken)|exit ([0-9]{1,3}))\n\0*")
_LAST_LINES = 30
_LAST_BYTES = 64 << 10
_BEGIN, _END = "banger: begin", "banger: end"


class Task(StrEnum):
    """UNPACK gives all of an image, EXPORT what a machine changed, RUN runs a script and gives what that changed."""

    UNPACK = "unpack"
    EXPORT = "export"
    RUN = "run"


@dataclass(frozen=True)
class Disk:
    path: Path
    read_only: bool


@dataclass(frozen=True)
class Guest:
    """`disks` in the order of the task. `timeout_s` is meant for KVM. `say` gets a line now and then: the last printed.

    `log` takes the console.
    """

    task: Task
    what: str
    vmlinux: Path
    initramfs: Path
    disks: tuple[Disk, ...]
    network: bool
    log: Path
    timeout_s: float
    say: Callable[[str], None]


class Guests(Protocol):
    """Where builders can be booted. Methods are called from several threads."""

    def run(self, guest: Guest) -> None:
        """Boot it and wait until it is off, without a trace left. Raises TIMEOUT, and what monitors and networks do."""

    def keep_output(self, lines: Iterable[str]) -> Path:
        """Keep what a failed step printed for a person to read; gives where."""


def plan_unpack(name: str, rootfs: Artifact, kernel: Mapping[str, Artifact], guests: Guests, limits: Limits) -> Step:
    """All of an image, of which there is only its disk, as one layer: `blob` and `index`."""

    def make(job: Job) -> None:
        tar = run_task(job, guests, Task.UNPACK, [Disk(job.input("rootfs"), read_only=True)], limits)
        write_changes(job, tar, limits, f"the image {name}")

    return Step(
        name=f"unpack:{name}",
        kind="image-layer",
        version=1,
        build=make,
        outputs=OUTPUTS,
        inputs={"rootfs": rootfs, **{role: kernel[role] for role in BOOT_ROLES}},
    )


def run_task(
    job: Job,
    guests: Guests,
    task: Task,
    disks: Sequence[Disk],
    limits: Limits,
    *,
    timeout_s: float = _PACK_TIMEOUT_S,
    network: bool = False,
) -> Path:
    """The tar that a builder made of its disks. `job` has a kernel's `BOOT_ROLES` among its inputs."""
    report, tar, log = job.directory / "report", job.directory / "tar", job.directory / "console.log"
    _make_sparse(report, _REPORT_BYTES)
    _make_sparse(tar, limits.max_image_bytes)
    guests.run(
        Guest(
            task=task,
            what=job.step.name,
            vmlinux=job.input("vmlinux"),
            initramfs=job.input("initramfs"),
            disks=(*disks, Disk(report, read_only=False), Disk(tar, read_only=False)),
            network=network,
            log=log,
            timeout_s=timeout_s,
            say=job.progress,
        )
    )
    told = _REPORT.fullmatch(report.read_bytes())
    if told is None:
        raise BangerError(
            f"the builder of {job.step.name} ended before it was done\n{format_lines(read_lines(log))}",
            reason=Reason.GUEST,
        )
    if told[2] is not None:
        output = guests.keep_output(read_output(log))
        raise BangerError(
            f"{job.step.name} failed with status {int(told[2])}\n{format_lines(read_output(log))}",
            reason=Reason.COMMAND_FAILED,
            hint=f"all that it printed: {output}",
        )
    if told[1] == b"broken":
        raise BangerError(
            f"the result of {job.step.name} cannot be packed\n{format_lines(read_lines(log))}",
            reason=Reason.GUEST,
            hint="it may be larger than max_image_size in the configuration",
        )
    return tar


def read_lines(log: Path) -> Iterator[str]:
    """The lines of a console, safe for a terminal."""
    try:
        with log.open("rb") as file:
            for line in file:
                yield _clean(line.rstrip(b"\r\n"))
    except FileNotFoundError:
        return


def read_output(log: Path) -> Iterator[str]:
    """Of these, what a step printed."""
    is_inside = False
    for line in read_lines(log):
        if line == _END:
            is_inside = False
        if is_inside:
            yield line
        if line == _BEGIN:
            is_inside = True


def find_last_line(log: Path) -> str | None:
    """What a console shows now; None while there is nothing of interest."""
    try:
        with log.open("rb") as file:
            file.seek(max(0, file.seek(0, 2) - _LAST_BYTES))
            lines = file.read().split(b"\n")
    except FileNotFoundError:
        return None
    texts = (_clean(line.rstrip(b"\r")) for line in reversed(lines))
    return next((text for text in texts if text and not text.startswith("banger: ")), None)


def format_lines(lines: Iterable[str]) -> str:
    """The last of them, for an error message."""
    last = deque((line for line in lines if line.strip()), _LAST_LINES)
    return "\n".join(f"  | {line}" for line in last)


def _clean(line: bytes) -> str:
    """As a terminal may show it: of a line that was drawn over, what was drawn last."""
    return printable(line.rpartition(b"\r")[2].decode("utf-8", "replace").expandtabs().rstrip())


def _make_sparse(path: Path, size_bytes: int) -> None:
    with path.open("xb") as file:
        path.chmod(0o600)
        file.truncate(size_bytes)
