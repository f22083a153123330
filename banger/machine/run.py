"""`vm run` and its parts: a machine made, booted, used, its changes taken out, and, if wished, deleted."""

from __future__ import annotations

import contextlib
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path

from banger.errors import BangerError, Reason
from banger.machine import exchange, lifecycle, session, tooling
from banger.machine.image_config import RunAs, plan_entrypoint
from banger.machine.lifecycle import SSH_TIMEOUT_S
from banger.machine.machines import Machines
from banger.machine.record import Machine, State
from banger.machine.sandbox import Order, make_machine
from banger.sizes import format_mib
from banger.vmm.monitor import Choice, choose_monitor
from banger.workspace.apply import Applied
from banger.workspace.shipment import Shipment
from cache import Store
from pipelines.oci.config import ImageConfig
from pipelines.reporter import Reporter

Say = Callable[[str], None]


@dataclass(frozen=True)
class Work:
    """A workspace to be sent, and what becomes of it at the end: a patch in a file, or changes of the work tree.

    `tools` is the file of it that asks for tools, None for none. `confirm` is shown a summary before any are applied.
    """

    shipment: Shipment
    tools: str | None = None
    export: Path | None = None
    apply: bool = False
    confirm: exchange.Confirm = lambda _summary: True


def run_machine(
    machines: Machines,
    store: Store,
    order: Order,
    reporter: Reporter,
    say: Say,
    *,
    command: Sequence[str],
    entrypoint: bool,
    run_as: RunAs | None,
    remove: bool,
    ssh_timeout_s: float | None,
    on_detached: Callable[[Machine], None] | None,
    work: Work | None = None,
) -> int:
    """Gives the exit status of the command or shell. `on_detached` gets the machine instead of a session.

    With `entrypoint` the image's own command is run, `command` being its arguments, as the image's user unless `run_as`
    says otherwise.

    With `remove` the machine goes however the session ends, but not when its ssh server never came up, or when what
    was done in it could not be taken out: then it is kept to be looked at.
    """
    choice = _choose(machines, order, say)

    def check(config: ImageConfig | None) -> None:
        if entrypoint:
            plan_entrypoint(config, order.image, command)

    machine = make_machine(machines, store, order, reporter, choice, check, None if work is None else work.shipment)
    is_worked = False
    try:
        lifecycle.wait_ready(machines, machine, ssh_timeout_s or SSH_TIMEOUT_S * choice.slowdown)
        if on_detached is not None:
            _start_tools(machines, machine, work, say)
            on_detached(machine)
            return 0
        if command and not entrypoint:
            command = _with_tools(machines, machine, work, command, say)
        else:
            _start_tools(machines, machine, work, say)
        if entrypoint:
            status = session.run_entrypoint(machines, machine, command, run_as or RunAs.IMAGE)
        elif command:
            status = session.run_command(machines, machine, command, run_as or RunAs.ROOT)
        else:
            status = session.open_shell(machines, machine, run_as or RunAs.ROOT)
        is_worked = True
        if work is not None and (work.export is not None or work.apply):
            _take_out(machines, machine, work, say)
    except BangerError as error:
        if is_worked:
            raise BangerError(
                error.message,
                reason=error.reason,
                hint=f"{error.hint}\nthe work is in {machine.name}: banger vm workspace export {machine.name}".lstrip(),
            ) from error
        if remove and error.reason is not Reason.TIMEOUT:
            _delete(machines, machine)
            # Its hint may be to look at the machine.
            raise BangerError(error.message, reason=error.reason) from error
        raise
    except BaseException:
        # Ctrl-C or a signal. Without --rm the machine stays; it can be used.
        if remove:
            _delete(machines, machine)
        raise
    if remove:
        _delete(machines, machine)
    elif not command and not entrypoint:
        _say_how_to_go_on(machine, say)
    return status


def _with_tools(
    machines: Machines, machine: Machine, work: Work | None, command: Sequence[str], say: Say
) -> Sequence[str]:
    if work is None or work.tools is None:
        return command
    log = tooling.name_log(str(work.shipment.repository.root))
    is_there = tooling.install(machines, machine, work.tools, log, say)
    return tooling.wrap(command) if is_there else command


def _start_tools(machines: Machines, machine: Machine, work: Work | None, say: Say) -> None:
    if work is None or work.tools is None:
        return
    log = tooling.name_log(str(work.shipment.repository.root))
    if machine.nat:
        say(f"tools of {work.tools}: being installed (log: {log})")
    else:
        say(f"tools of {work.tools}: the machine has no outbound network (--no-nat) to fetch them by (log: {log})")
    with contextlib.suppress(BangerError):
        tooling.start_install(machines, machine, log)


def _take_out(machines: Machines, machine: Machine, work: Work, say: Say) -> None:
    with exchange.open_copy(machines, machine) as copy:
        if work.export is not None:
            exchange.export_to_file(copy, work.export)
            say(f"wrote {work.export}")
        if work.apply:
            say(describe_applied(exchange.apply_copy(copy, say, work.confirm)))


def describe_applied(applied: Applied | None) -> str:
    if applied is None:
        return "nothing was applied"
    if not applied.written:
        return "nothing to apply: the work tree has it all already" if applied.same else "nothing was changed"
    count = len(applied.written)
    return f"applied the changes of {count} file{'s' if count > 1 else ''}"


def create_machine(
    machines: Machines, store: Store, order: Order, reporter: Reporter, say: Say, *, start: bool
) -> Machine:
    choice = _choose(machines, order, say)
    machine = make_machine(machines, store, order, reporter, choice if start else None)
    if start:
        lifecycle.wait_ready(machines, machine, SSH_TIMEOUT_S * choice.slowdown)
    return machine


def start_machine(machines: Machines, machine: Machine, say: Say) -> Machine:
    """Boot a stopped machine and wait until it can be used."""
    choice = choose_monitor(machines.settings)
    if choice.why:
        say(f"vmm: {choice.why}")
    machine = lifecycle.start(machines, machine, choice)
    lifecycle.wait_ready(machines, machine, SSH_TIMEOUT_S * choice.slowdown)
    return machine


def _delete(machines: Machines, machine: Machine) -> None:
    """Delete, also when Ctrl-C comes just then: what is half deleted can be deleted again."""
    try:
        lifecycle.delete(machines, machine)
    except KeyboardInterrupt:
        with contextlib.suppress(BangerError):
            lifecycle.delete(machines, machine)
        raise


def _choose(machines: Machines, order: Order, say: Say) -> Choice:
    choice = choose_monitor(machines.settings)
    if choice.why:
        say(f"vmm: {choice.why}")
    say(
        f"spec: {order.vcpus} vCPU, {format_mib(order.memory_mib)} RAM, {format_mib(order.disk_mib)} disk, "
        f"image {order.image}, {choice.monitor.label}"
    )
    return choice


def _say_how_to_go_on(machine: Machine, say: Say) -> None:
    if machine.state is State.RUNNING:
        say(
            f"{machine.name} is still running: banger vm ssh {machine.name}, "
            f"banger vm stop {machine.name}, banger vm delete {machine.name}"
        )
