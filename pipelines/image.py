"""An image from a recipe: packages are resolved, a system is made of them, and it becomes a read-only disk.

Artifacts: `rootfs`, the EROFS disk; `home`, a tar of the image's own /root, with which every work disk begins.
"""

from __future__ import annotations

import tarfile
from pathlib import Path
from shlex import quote
from typing import IO

from catalog.recipes import ImageRecipe
from pipelines.apt import find_mirrors, plan_lock
from pipelines.erofs import make_erofs_from_file
from pipelines.job import Job
from pipelines.lock import read_lock
from pipelines.mmdebstrap import make_system
from pipelines.npm import plan_npm_binary
from pipelines.step import Artifact, Step

# Names that are long or not ASCII come as pax records (pax(1), "pax Extended Header").
_PAX_NAMES = ("path", "linkpath", "size")


def plan_recipe_image(recipe: ImageRecipe, debian_mirror: str | None = None) -> dict[str, Artifact]:
    """The artifacts of a recipe: `rootfs` and `home`."""
    lock = plan_lock(f"image-{recipe.name}", recipe.suite, recipe.packages, "?essential", debian_mirror)
    binaries = {f"files-{number}": plan_npm_binary(binary) for number, binary in enumerate(recipe.npm)}

    def make(job: Job) -> None:
        hooks = [f"--customize-hook=tar-in {quote(str(job.input(name)))} /" for name in binaries]
        hooks.append(f'--customize-hook=sh {quote(str(recipe.customize))} "$1"')
        make_system(job, "system", find_mirrors(debian_mirror), "apt", hooks)

    system = Step(
        name=f"system:{recipe.name}",
        kind="debian-system",
        version=1,
        build=make,
        outputs=("system",),
        parameters={"recipe": recipe.digest},
        inputs={"lock": lock.output("lock"), **binaries},
    ).output("system")
    return plan_rootfs(recipe.name, system, lock.output("lock"))


def plan_rootfs(name: str, system: Artifact, lock: Artifact) -> dict[str, Artifact]:
    """The disks' worth of a system that comes as a tar."""
    rootfs = Step(
        name=f"rootfs:{name}",
        kind="rootfs",
        version=2,
        build=lambda job: make_erofs_from_file(job, "rootfs", job.input("system"), read_lock(job).epoch),
        outputs=("rootfs",),
        inputs={"system": system, "lock": lock},
    )
    home = Step(
        name=f"home:{name}",
        kind="home",
        version=2,
        build=_build_home,
        outputs=("home",),
        inputs={"system": system},
    )
    return {"rootfs": rootfs.output("rootfs"), "home": home.output("home")}


def _build_home(job: Job) -> None:
    with job.create("home") as sink:
        write_home(job.input("system"), sink)


def write_home(system: Path, sink: IO[bytes]) -> None:
    """Copy what a system's tar has below /root to a tar of its own, paths relative to it."""
    with (
        tarfile.open(system) as source,
        tarfile.open(fileobj=sink, mode="w|", format=tarfile.PAX_FORMAT) as home,
    ):
        for member in source:
            path = member.name.removeprefix("./")
            if path != "root" and not path.startswith("root/"):
                continue
            # What stands there has priority over the fields that are changed below.
            member.pax_headers = {key: text for key, text in member.pax_headers.items() if key not in _PAX_NAMES}
            member.name = path.removeprefix("root").removeprefix("/") or "."
            content = source.extractfile(member) if member.isreg() else None
            if member.islnk():
                first = member.linkname.removeprefix("./")
                if first.startswith("root/"):
                    member.linkname = first.removeprefix("root/")
                else:
                    # Its other name stays outside: here it is a file of its own.
                    content = source.extractfile(member)
                    member.type, member.size = tarfile.REGTYPE, source.getmember(member.linkname).size
            home.addfile(member, content)
