"""One `run` step of a recipe: a command inside a microVM on top of an image; what it changed is a layer.

Whatever it gave the first time is its result: a command that asks the network is not asked again while nothing that
it depends on has changed.
"""

from __future__ import annotations

import io
import tarfile
from collections.abc import Mapping
from shlex import quote

from banger.errors import BangerError, Reason
from pipelines.apt import Mirrors, find_mirrors
from pipelines.builder import BOOT_ROLES, Disk, Guests, Task, run_task
from pipelines.ext4 import make_ext4
from pipelines.job import Job
from pipelines.oci.config import parse_image_config
from pipelines.oci.layer_writer import OUTPUTS
from pipelines.oci.limits import Limits
from pipelines.oci.overlay import write_changes
from pipelines.recipe import RunStep
from pipelines.step import Artifact, Step

_TIMEOUT_S = 3600.0
_MIB = 1 << 20
# A sparse file, and no filesystem of more than this is needed to fill the largest image.
_MAX_DISK_MIB = 1 << 20
_SURROUNDINGS = {
    "HOME": "/root",
    "PATH": "/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin",
    # There is nobody to ask.
    "DEBIAN_FRONTEND": "noninteractive",
}


def plan_run(
    name: str,
    step: RunStep,
    rootfs: Artifact,
    config: Artifact | None,
    kernel: Mapping[str, Artifact],
    guests: Guests,
    limits: Limits,
    debian_mirror: str | None,
) -> Step:
    """Outputs: `blob` and `index`. `config` is the image's, whose variables the command has."""

    def make(job: Job) -> None:
        env = () if config is None else parse_image_config(job.input("config").read_bytes()).env
        overlay = job.directory / "overlay.ext4"
        size_mib = min(limits.max_image_bytes // _MIB, _MAX_DISK_MIB)
        script = format_script(step.command, {**_SURROUNDINGS, **dict(env)})
        mirrors = _find_mirrors(debian_mirror)
        make_ext4(overlay, size_mib, lambda tar: _write_overlay(tar, script, mirrors))
        disks = [Disk(job.input("rootfs"), read_only=True), Disk(overlay, read_only=False)]
        tar = run_task(job, guests, Task.RUN, disks, limits, timeout_s=_TIMEOUT_S, network=step.network)
        write_changes(job, tar, limits, f"the result of {name}")

    return Step(
        name=name,
        kind="recipe-run",
        version=1,
        build=make,
        outputs=OUTPUTS,
        parameters={"command": step.command, "network": step.network},
        inputs={
            "rootfs": rootfs,
            **{role: kernel[role] for role in BOOT_ROLES},
            **({} if config is None else {"config": config}),
        },
    )


def format_script(command: str, env: Mapping[str, str]) -> str:
    """For the runtime's own shell: the command for the image's, or for the runtime's where the image has none."""
    variables = " ".join(quote(f"{name}={value}") for name, value in env.items())
    return (
        "set -- /bin/sh\n"
        "[ -x /bin/sh ] || set -- /run/banger/bin/busybox sh\n"
        f'exec /run/banger/bin/env -i -- {variables} "$@" -ec {quote(command)}\n'
    )


def _find_mirrors(configured: str | None) -> Mirrors | None:
    """For images whose sources of packages are the host's to choose. Not a part of what the step is."""
    try:
        return find_mirrors(configured)
    except BangerError as error:
        if error.reason not in (Reason.MISSING_PROGRAM, Reason.NOT_FOUND):
            raise
        return None


def _write_overlay(tar: tarfile.TarFile, script: str, mirrors: Mirrors | None) -> None:
    for folder in ("upper", "work", "mirrors"):
        entry = tarfile.TarInfo(folder)
        entry.type, entry.mode = tarfile.DIRTYPE, 0o755
        tar.addfile(entry)
    files = {"script": script}
    if mirrors is not None:
        files["mirrors/debian.list"] = f"{mirrors.debian}\n"
        files["mirrors/debian-security.list"] = f"{mirrors.security}\n"
    for path, text in files.items():
        content = text.encode()
        entry = tarfile.TarInfo(path)
        entry.mode, entry.size = 0o644, len(content)
        tar.addfile(entry, io.BytesIO(content))
