"""A machine as the last step of the graph: what it needs is built or found, then it is made and booted.

Everything before the boot is a cached step; the machine itself is an effect that is never done and so always runs.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping
from dataclasses import dataclass

from banger.machine import lifecycle
from banger.machine.image_config import read_config
from banger.machine.lifecycle import IMAGE_CONFIG
from banger.machine.machines import Machines
from banger.machine.name import parse_machine_name
from banger.machine.record import Machine, Wish, name_taken
from banger.targets import make_targets
from banger.vmm.monitor import Choice
from banger.workspace.shipment import Shipment
from cache import Object, Store
from catalog.kernels import DEFAULT_KERNEL
from catalog.origin import tell_remake
from pipelines.apt import Mirrors, plan_mirrors
from pipelines.graph import build
from pipelines.initramfs import runtime_version
from pipelines.oci.config import ImageConfig
from pipelines.reporter import Reporter
from pipelines.step import Effect, Result


@dataclass(frozen=True)
class Order:
    """What a user asks for; None leaves the choice to the image (kernel) or to banger (name).

    `may_pull` and `may_build` are about what is not here: `pipelines.targets.Targets` tells.
    """

    name: str | None
    image: str
    kernel: str | None
    vcpus: int
    memory_mib: int
    disk_mib: int
    nat: bool
    may_pull: bool = True
    may_build: bool = True


def make_machine(
    machines: Machines,
    store: Store,
    order: Order,
    reporter: Reporter,
    choice: Choice | None,
    check: Callable[[ImageConfig | None], object] = lambda _config: None,
    workspace: Shipment | None = None,
) -> Machine:
    """Build what is missing and create the machine; with a `choice` of monitor it is started too.

    The name is checked, and found free, before anything is built. A start that fails leaves no machine behind.
    `check` is asked before there is a machine: it raises when the image is not fit for what comes. `workspace` is what
    /root/repo comes from.
    """
    if order.name is not None and parse_machine_name(order.name) in {each.name for each in machines.records.list()}:
        raise name_taken(order.name)
    targets = make_targets(
        machines.paths,
        machines.settings,
        store,
        reporter,
        may_pull=order.may_pull,
        may_build=order.may_build,
    )
    image = targets.plan_image(order.image)
    kernel = targets.plan_kernel(order.kernel or image.details.get("kernel", DEFAULT_KERNEL))
    if kernel.details.get("runtime") != runtime_version():
        remedy = tell_remake("kernel", kernel.name, kernel.details)
        reporter.note(f"{kernel.name} has the guest runtime of another banger: {remedy}")
    wish = Wish(order.name, image.name, kernel.name, order.vcpus, order.memory_mib, order.disk_mib, order.nat)
    made: list[Machine] = []

    def boot(results: Mapping[str, Result]) -> None:
        objects = {role: result.made for role, result in results.items()}
        check(read_config(store.path(objects[IMAGE_CONFIG])) if IMAGE_CONFIG in objects else None)
        machine = lifecycle.create(
            machines, wish, store, objects, _read_mirrors(store, objects), workspace, reporter.note
        )
        made.append(machine)
        if choice is not None:
            try:
                made[0] = lifecycle.start(machines, machine, choice)
            except BaseException:
                lifecycle.delete(machines, machine)
                made.clear()
                raise

    inputs = {**image.artifacts, **kernel.artifacts}
    # What was made from a recipe elsewhere leaves the choice of mirror to this host too.
    if "recipe" in (image.details.get("source"), image.details.get("origin")):
        inputs["mirrors"] = plan_mirrors(machines.settings.debian_mirror).output("mirrors")
    vm = Effect(f"vm:{order.name or 'new'}", inputs, boot, after=(image.naming, kernel.naming))
    try:
        build(store, [vm], reporter, remote=targets.remote)
    except BaseException:
        # Ctrl-C after the boot: nobody was handed this machine.
        for machine in made:
            lifecycle.delete(machines, machine)
        raise
    return made[0]


def _read_mirrors(store: Store, objects: Mapping[str, Object]) -> Mirrors | None:
    """For images that leave the choice of mirror to the machine."""
    if "mirrors" not in objects:
        return None
    found = json.loads(store.path(objects["mirrors"]).read_bytes())
    return Mirrors(**found) if found else None
