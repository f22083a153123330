"""A kernel of a user's own, made into what a machine boots, and given a name.

    imported-vmlinux ──────────────────────┬─ kernel:NAME
    imported-modules ──┬───────────────────┤
    initramfs:DEFAULT ─┴─ other-initramfs ─┘   the guest runtime of the default kernel, with the modules of this one

Its files come by their content. What the kernel says about itself is read first: its release is a part of the plan.
"""

from __future__ import annotations

import json
from dataclasses import dataclass

from banger.errors import BangerError, Reason
from catalog.kernels import DEFAULT_KERNEL
from catalog.names import parse_name
from pipelines.content import Content, Measured, measure
from pipelines.graph import build
from pipelines.initramfs import plan_other_initramfs, runtime_version
from pipelines.initrd import MAX_INITRD_BYTES, check_initrd
from pipelines.job import Job
from pipelines.modules import MAX_MODULES_BYTES, plan_imported_modules
from pipelines.naming import Target, plan_named
from pipelines.step import Artifact, Step
from pipelines.targets import IMPORTED, Targets
from pipelines.vmlinux import MAX_VMLINUX_BYTES, STRIP_HINT, Facts, unpack_vmlinux


@dataclass(frozen=True)
class KernelFiles:
    """`modules` is a tar of them, or a folder; with none, the kernel has all that a guest needs built in."""

    kernel: Content
    initrd: Content | None = None
    modules: Content | None = None


def plan_imported_kernel(targets: Targets, name: str, files: KernelFiles) -> Target:
    """Raises `BangerError` for files that are not what they should be: for the modules, only when they are built."""
    parse_name(name, "a kernel")
    kernel = measure(files.kernel, MAX_VMLINUX_BYTES, STRIP_HINT)
    initrd = None if files.initrd is None else measure(files.initrd, MAX_INITRD_BYTES)
    modules = None if files.modules is None else measure(files.modules, MAX_MODULES_BYTES)
    if initrd is not None:
        check_initrd(initrd)
    before = targets.kernels.find(name, may_be_damaged=True)
    if before is not None and before.details.get("source") != IMPORTED:
        targets.reporter.note(f"{name} is a kernel of your own from now on; machines that are there keep theirs")
    vmlinux = _plan_vmlinux(name, kernel)
    release, pvh = _read_facts(targets, vmlinux)
    if not pvh:
        targets.reporter.note(f"{name} has no PVH entry (CONFIG_PVH): Firecracker can boot it, QEMU can not")
    made = plan_imported_modules(name, modules, release)
    initramfs = plan_other_initramfs(name, _find_base(targets), made.output("drivers"), initrd)
    artifacts = {
        "vmlinux": vmlinux.output("vmlinux"),
        "modules": made.output("modules"),
        "initramfs": initramfs.output("initramfs"),
    }
    details = {"source": IMPORTED, "runtime": runtime_version()}
    if release is not None:
        details["version"] = release
    return plan_named(targets.store, targets.kernels, name, artifacts, details)


def _plan_vmlinux(name: str, kernel: Measured) -> Step:
    """Outputs: `vmlinux`, and `facts` (JSON): its `release` or null, and whether it has a `pvh` entry."""

    def make(job: Job) -> None:
        facts = Facts()
        with kernel.open() as image, job.create("vmlinux") as sink:
            try:
                for block in unpack_vmlinux(image):
                    facts.feed(block)
                    sink.write(block)
            except BangerError as error:
                raise BangerError(f"{kernel.what}: {error.message}", reason=error.reason, hint=error.hint) from error
            image.finish()
            if not facts.is_linux:
                raise BangerError(f"{kernel.what} is a program, but no Linux kernel", reason=Reason.BAD_INPUT)
        job.write_json("facts", {"release": facts.release, "pvh": facts.pvh})

    return Step(
        name=f"imported-vmlinux:{name}",
        kind="imported-vmlinux",
        version=1,
        build=make,
        outputs=("vmlinux", "facts"),
        parameters={"content": kernel.digest},
    )


def _read_facts(targets: Targets, vmlinux: Step) -> tuple[str | None, bool]:
    record = build(targets.store, [vmlinux], targets.reporter, remote=targets.remote).record(vmlinux)
    assert record is not None
    facts = json.loads(targets.store.path(record.outputs["facts"]).read_bytes())
    return facts["release"], facts["pvh"]


def _find_base(targets: Targets) -> Artifact:
    """The initramfs of the default kernel, as this banger makes it."""
    base = targets.plan_kernel(DEFAULT_KERNEL)
    is_imported = IMPORTED in (base.details.get("source"), base.details.get("origin"))
    if is_imported or base.details.get("runtime") != runtime_version():
        base = targets.plan_kernel(DEFAULT_KERNEL, anew=True)
    return base.artifacts["initramfs"]
