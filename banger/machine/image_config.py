"""What the image of a machine wants to be run with: its config, honoured from the host's side only.

image-spec, config.md: Env, WorkingDir, User, Entrypoint and Cmd. An image of our own recipes has no config.
"""

from __future__ import annotations

from collections.abc import Sequence
from enum import StrEnum
from pathlib import Path

from banger.errors import BangerError, Reason
from banger.guest.command import Surroundings
from banger.machine.lifecycle import IMAGE_CONFIG
from banger.machine.machines import Machines
from banger.machine.record import Machine
from pipelines.oci.config import ImageConfig, parse_image_config

# Who needs no looking up in the guest.
_ROOT = ("", "0", "root")


class RunAs(StrEnum):
    """Root, or whom the image's config names (root when it names nobody)."""

    ROOT = "root"
    IMAGE = "image"


def find_config(machines: Machines, machine: Machine) -> ImageConfig | None:
    return read_config(machines.folder(machine) / IMAGE_CONFIG)


def read_config(path: Path) -> ImageConfig | None:
    try:
        raw = path.read_bytes()
    except FileNotFoundError:
        return None
    return parse_image_config(raw)


def plan_surroundings(config: ImageConfig | None, run_as: RunAs) -> Surroundings:
    if config is None:
        return Surroundings()
    return Surroundings(
        env=config.env,
        # A relative one begins at the root, where a container does.
        folder=f"/{config.working_dir.lstrip('/')}" if config.working_dir else None,
        user=config.user if run_as is RunAs.IMAGE and config.user not in _ROOT else None,
    )


def plan_entrypoint(config: ImageConfig | None, image: str, arguments: Sequence[str]) -> list[str]:
    """Entrypoint and Cmd, or `arguments` in place of Cmd. Raises BAD_INPUT for an image that has neither of them."""
    if config is None or not (config.entrypoint or config.cmd):
        raise BangerError(
            f"the image {image!r} has no entrypoint and no command of its own",
            reason=Reason.BAD_INPUT,
            hint="name the command: banger vm run … -- COMMAND [ARG]...",
        )
    return [*config.entrypoint, *(arguments or config.cmd)]
