"""A kernel from Debian's packages: the ELF a monitor boots, its modules as a read-only disk, and the guest runtime.

One archive call fetches the kernel and the runtime's packages together (`packages:` step); three steps take it apart.
"""

from __future__ import annotations

import re
import tarfile

from banger.errors import BangerError, Reason
from catalog.kernels import KernelRecipe
from pipelines.apt import find_mirrors, plan_lock
from pipelines.initramfs import RUNTIME_PACKAGES, plan_initramfs
from pipelines.job import Job
from pipelines.mmdebstrap import make_system
from pipelines.modules import plan_modules
from pipelines.step import Artifact, Step
from pipelines.vmlinux import unpack_vmlinux


def plan_kernel(recipe: KernelRecipe, debian_mirror: str | None = None) -> dict[str, Artifact]:
    """The artifacts of a kernel: `vmlinux`, `modules` and `initramfs`."""
    lock = plan_lock(
        f"kernel-{recipe.name}", recipe.suite, [recipe.package, *RUNTIME_PACKAGES], "?essential", debian_mirror
    )

    def fetch(job: Job) -> None:
        make_system(job, "system", find_mirrors(debian_mirror), "extract")

    packages = Step(
        name=f"packages:{recipe.name}",
        kind="debian-packages",
        version=1,
        build=fetch,
        outputs=("system",),
        inputs={"lock": lock.output("lock")},
    )
    system = packages.output("system")
    vmlinux = Step(
        name=f"vmlinux:{recipe.name}",
        kind="vmlinux",
        version=1,
        build=_build_vmlinux,
        outputs=("vmlinux",),
        inputs={"system": system},
    )
    modules = plan_modules(recipe.name, system, lock.output("lock"))
    initramfs = plan_initramfs(recipe.name, system, modules.output("drivers"))
    return {
        "vmlinux": vmlinux.output("vmlinux"),
        "modules": modules.output("modules"),
        "initramfs": initramfs.output("initramfs"),
    }


def _build_vmlinux(job: Job) -> None:
    with tarfile.open(job.input("system")) as tar:
        images = [member for member in tar if member.isreg() and re.fullmatch(r"\./boot/vmlinuz-[^/]+", member.name)]
        if len(images) != 1:
            raise BangerError(f"the packages hold {len(images)} kernels, not one", reason=Reason.CORRUPT)
        image = tar.extractfile(images[0])
        assert image is not None
        with job.create("vmlinux") as sink:
            for block in unpack_vmlinux(image):
                sink.write(block)
