"""A machine's system disk as a new image: the image it was made from, and its changes as one more layer.

    the machine's rootfs ─ unpack ─┬───────────┐
    the machine's disk ─────── changes ────────┴─ rootfs, home ─ image:NAME

What makes the machine this one is left out on the host (`pipelines/strip.py`), from what comes out of the guest that
reads the disk, before any of it is kept. Its /root and Docker's data lie elsewhere and are not taken.
"""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path

from blake3 import blake3

from banger.errors import BangerError, Reason
from banger.machine.lifecycle import IMAGE_CONFIG
from banger.machine.machine_lock import locked
from banger.machine.machines import Machines
from banger.machine.record import Machine, State
from catalog.kernels import DEFAULT_KERNEL
from catalog.names import parse_name
from catalog.recipes import find_recipe
from pipelines.builder import BOOT_ROLES, Disk, Guests, Task, plan_unpack, run_task
from pipelines.builder_kernel import plan_builder_kernel
from pipelines.content import Measured, measure, open_file
from pipelines.graph import build
from pipelines.job import Job
from pipelines.naming import Target, plan_named
from pipelines.oci.changeset import merge
from pipelines.oci.image import plan_config
from pipelines.oci.index import read_index
from pipelines.oci.layer_writer import OUTPUTS
from pipelines.oci.overlay import write_changes
from pipelines.oci.rootfs import plan_rootfs
from pipelines.oci.stream import CHUNK_BYTES
from pipelines.recipe_image import derive_details
from pipelines.step import Artifact, Step
from pipelines.strip import VERSION, find_aliases, is_identity, rename
from pipelines.targets import Targets

SOURCE = "promoted"


def promote(machines: Machines, machine: Machine, name: str, targets: Targets, guests: Guests) -> Target:
    """Make an image of a stopped machine and name it.

    Raises WRONG_STATE for one that runs, and ALREADY_EXISTS for the name of an image that came in another way.
    """
    _check_name(name, targets)
    with locked(machines.folder(machine)):
        machine = machines.records.refresh(machine)
        if machine.state is not State.STOPPED:
            raise BangerError(
                f"{machine.name!r} is {machine.state}",
                reason=Reason.WRONG_STATE,
                hint=f"stop it first: banger vm stop {machine.name}",
            )
        target = _plan(machines.folder(machine), machine, name, targets, guests)
        build(targets.store, [target.naming], targets.reporter)
    return target


def _check_name(name: str, targets: Targets) -> None:
    parse_name(name, "an image")
    before = targets.images.find(name)
    if (before is None and find_recipe(name) is not None) or (
        before is not None and before.details.get("source") != SOURCE
    ):
        raise BangerError(
            f"there is an image {name!r} already",
            reason=Reason.ALREADY_EXISTS,
            hint="choose another name" + ("" if before is None else f", or: banger image delete {name}"),
        )


def _plan(folder: Path, machine: Machine, name: str, targets: Targets, guests: Guests) -> Target:
    kernel = _plan_kernel(machine.kernel, targets)
    rootfs = measure(open_file(folder / "rootfs"), targets.limits.max_image_bytes)
    base = plan_unpack(machine.image, _plan_own(rootfs, machine), kernel.artifacts, guests, targets.limits)
    changes = _plan_changes(folder / "system.ext4", machine, base, kernel.artifacts, guests, targets)
    artifacts = plan_rootfs(name, [base, changes], targets.limits)
    if (folder / IMAGE_CONFIG).exists():
        # Of where it came from nothing is known here any more.
        config = plan_config(b'{"layers": []}', (folder / IMAGE_CONFIG).read_bytes())
        artifacts["config"] = config.output("config")
    details = {
        **derive_details(_find_details(machine.image, rootfs, targets)),
        "kernel": machine.kernel,
        "source": SOURCE,
        "base": machine.image,
    }
    return plan_named(targets.store, targets.images, name, artifacts, details)


def _plan_kernel(name: str, targets: Targets) -> Target:
    """The machine's own, if it still is here under its name: any will do to read the disk."""
    try:
        return plan_builder_kernel(targets, name)
    except BangerError as error:
        if error.reason is not Reason.NOT_FOUND:
            raise
        return plan_builder_kernel(targets, DEFAULT_KERNEL)


def _find_details(image: str, rootfs: Measured, targets: Targets) -> Mapping[str, str]:
    """What is known of the image that the machine was made from, as long as its name stands for it."""
    found = targets.images.find(image)
    if found is not None and found.files["rootfs"].digest == rootfs.digest:
        return found.details
    return {"source": "recipe"} if find_recipe(image) is not None else {}


def _plan_own(rootfs: Measured, machine: Machine) -> Artifact:
    """The image's disk, of which the machine has a link, whatever has become of the image."""

    def make(job: Job) -> None:
        with rootfs.open() as source, job.create("rootfs") as sink:
            while chunk := source.read(CHUNK_BYTES):
                sink.write(chunk)
            source.finish()

    return Step(
        name=f"image-of:{machine.name}",
        kind="machine-rootfs",
        version=1,
        build=make,
        outputs=("rootfs",),
        parameters={"rootfs": rootfs.digest},
    ).output("rootfs")


def _plan_changes(
    disk: Path,
    machine: Machine,
    base: Step,
    kernel: Mapping[str, Artifact],
    guests: Guests,
    targets: Targets,
) -> Step:
    """Outputs: `blob` and `index`."""
    # Hashed, since the machine's own id is a part of its identity. The disk changes only while the machine runs.
    found = disk.stat()
    state = blake3(f"{machine.id} {found.st_size} {found.st_mtime_ns}".encode()).hexdigest()

    def make(job: Job) -> None:
        # Written to only by the journal of the filesystem, as it would be when the machine is started.
        tar = run_task(job, guests, Task.EXPORT, [Disk(disk, read_only=False)], targets.limits)
        aliases = find_aliases(merge([read_index(job.input("index")).entries], targets.limits))
        write_changes(
            job,
            tar,
            targets.limits,
            f"what {machine.name} changed",
            lambda path, kind: is_identity(rename(path, aliases), kind),
        )

    return Step(
        name=f"changes:{machine.name}",
        kind="machine-changes",
        version=VERSION,
        build=make,
        outputs=OUTPUTS,
        parameters={"disk": state},
        inputs={"index": base.output("index"), **{role: kernel[role] for role in BOOT_ROLES}},
    )
