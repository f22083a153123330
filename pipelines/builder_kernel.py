"""Which kernel a builder boots: one whose guest runtime knows the same jobs as this banger."""

from __future__ import annotations

from banger.errors import BangerError, Reason
from catalog.origin import tell_remake
from pipelines.initramfs import runtime_version
from pipelines.naming import Target
from pipelines.targets import Targets


def plan_builder_kernel(targets: Targets, name: str) -> Target:
    """Raises WRONG_STATE for a kernel that is here with the runtime of another banger."""
    kernel = targets.plan_kernel(name)
    if kernel.details.get("runtime") != runtime_version():
        raise BangerError(
            f"{kernel.name} has the guest runtime of another banger, which cannot build images for this one",
            reason=Reason.WRONG_STATE,
            hint=tell_remake("kernel", kernel.name, kernel.details),
        )
    return kernel
