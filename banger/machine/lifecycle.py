"""A machine's life: create, start, wait until it can be used, stop, delete.

A machine is a record and a folder with hard links to shared artifacts and two disks of its own. Each call does the
whole of its work or undoes what it did. Whoever changes a machine holds its lock.
"""

from __future__ import annotations

import contextlib
import os
import shutil
import signal
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import replace
from pathlib import Path

from banger import network
from banger.errors import BangerError, Reason
from banger.guest import ssh
from banger.machine.console_log import rotate_log
from banger.machine.file_sync import plan_file_sync
from banger.machine.home import Home, write_home
from banger.machine.identity import Identity, find_nameservers, write_overlay
from banger.machine.inside import ANSWER_S, talk
from banger.machine.machine_lock import locked, try_locked
from banger.machine.machines import Machines, identity
from banger.machine.record import Machine, State, Wish
from banger.paths import ensure_private
from banger.vmm import process as processes
from banger.vmm.monitor import Choice, Monitor, choose_monitor, get_monitor
from banger.vmm.spec import GUEST_WORDS, Drive, MachineSpec, Nic
from banger.workspace.shipment import Shipment
from cache import Object, Store
from pipelines.apt import Mirrors
from pipelines.ext4 import make_ext4

ARTIFACTS = ("rootfs", "home", "vmlinux", "modules", "initramfs")
# Of images that say how they want to be run.
IMAGE_CONFIG = "config"
SSH_TIMEOUT_S = 90.0
_STOP_TIMEOUT_S = 30.0
_KILL_TIMEOUT_S = 10.0
_SIGNAL_WAIT_S = 1.0
_SSH_PORT = 22
_POLL_FIRST_S = 0.02
_POLL_MOST_S = 0.2
_LONGEST_RUNTIME_BYTES = 107 - len("/firecracker.sock")


def create(
    machines: Machines,
    wish: Wish,
    store: Store,
    artifacts: Mapping[str, Object],
    mirrors: Mirrors | None,
    workspace: Shipment | None = None,
    warn: Callable[[str], None] = lambda _text: None,
) -> Machine:
    """A machine that has never run: record, links, identity and disks. `artifacts` by the roles of `ARTIFACTS`,
    and `IMAGE_CONFIG` if the image has one. `warn` hears of what could not be taken along.

    A failure leaves neither record nor folder.
    """
    creator = processes.identify_self()
    with contextlib.ExitStack() as made, contextlib.ExitStack() as undo:
        machine = machines.records.add(wish, machines.subnet, creator)
        undo.callback(machines.records.remove, machine)
        folder = machines.folder(machine)
        ensure_private(folder.parent)
        folder.mkdir(mode=0o700)
        undo.callback(shutil.rmtree, folder, ignore_errors=True)
        made.enter_context(locked(folder))
        for role in [*ARTIFACTS, *({IMAGE_CONFIG} & artifacts.keys())]:
            store.link(artifacts[role], folder / role)
        key = ssh.make_host_key(folder)
        me = Identity(
            id=machine.id,
            name=machine.name,
            address=machine.address,
            host_key=key,
            nameservers=find_nameservers(),
            mirrors=mirrors,
        )
        (folder / "known_hosts").write_text(ssh.format_known_host(machine.name, key))
        make_ext4(folder / "system.ext4", machine.disk_mib, lambda tar: write_overlay(tar, me))
        home = Home(
            ssh.read_public_key(identity(machines)),
            folder / "home",
            synced=plan_file_sync(machines.settings.file_sync, warn),
        )
        with contextlib.ExitStack() as packed:
            if workspace is not None:
                cargo = packed.enter_context(workspace.pack(folder))
                home = replace(home, gitconfig=cargo.gitconfig, write_workspace=cargo.write)
            make_ext4(folder / "work.ext4", machine.disk_mib, lambda tar: write_home(tar, home))
        machine = machines.records.update(machine, creator=None)
        undo.pop_all()
    return machine


def start(machines: Machines, machine: Machine, choice: Choice | None = None) -> Machine:
    """Boot a machine that is stopped. Returns when the monitor runs it; `wait_ready` tells when it can be used."""
    choice = choice or choose_monitor(machines.settings)
    with locked(machines.folder(machine)):
        machine = machines.records.refresh(machine)
        _refuse_half_made(machine)
        if machine.state is State.RUNNING:
            raise BangerError(f"{machine.name!r} runs already", reason=Reason.WRONG_STATE)
        machine = machines.records.update(
            machine,
            monitor=choice.monitor.name,
            slowdown=choice.slowdown,
            runtime=str(plan_runtime(machines.paths.runtime, machine)),
            used_at=time.time(),
        )
        rotate_log(machines.log(machine))
        with contextlib.ExitStack() as undo:
            runtime = machines.runtime(machine)
            ensure_private(runtime.parent)
            shutil.rmtree(runtime, ignore_errors=True)
            runtime.mkdir(mode=0o700)
            undo.callback(shutil.rmtree, runtime, ignore_errors=True)
            connect(machines, machine, nat=machine.nat)
            # Not before: an address that turned out to be somebody else's is theirs.
            undo.callback(network.disconnect, machines.subnet, machine.address)
            # Recorded before it runs: whatever happens to us, its record leads to it.
            running = choice.monitor.start(
                plan_spec(machines, machine, choice.monitor),
                lambda process: _record_process(machines, machine, process),
            )
            undo.pop_all()
        machine = replace(machine, process=running)
    machines.on_start()
    return machine


def connect(machines: Machines, machine: Machine, *, nat: bool) -> None:
    """Give a machine its network. Its record has `runtime` by now, so whoever deletes it takes that away again."""
    try:
        network.connect(machines.subnet, machine.address, nat=nat)
    except network.NoRight:
        # Nothing was begun, so nobody shall need for its removal the right that is missing.
        machines.records.update(machine, runtime="")
        raise


def _record_process(machines: Machines, machine: Machine, process: processes.ProcessId) -> None:
    machines.records.update(machine, process=process)


def plan_runtime(folder: Path, machine: Machine) -> Path:
    """The machine's folder for sockets, whose names have a limit (unix(7): 108 bytes with the NUL)."""
    runtime = folder / machine.id
    if len(os.fsencode(runtime)) > _LONGEST_RUNTIME_BYTES:
        raise BangerError(
            f"{folder} is too long a path for sockets",
            reason=Reason.BAD_INPUT,
            hint="set XDG_RUNTIME_DIR to a shorter one",
        )
    return runtime


def plan_spec(machines: Machines, machine: Machine, monitor: Monitor) -> MachineSpec:
    folder = machines.folder(machine)
    subnet = machines.subnet
    return MachineSpec(
        name=machine.name,
        kernel=folder / "vmlinux",
        initramfs=folder / "initramfs",
        command_line=(
            *monitor.kernel_words(),
            # The kernel's notices and worse go to the log; its chatter would cost time on a serial port.
            "loglevel=6",
            *GUEST_WORDS,
            # Nobody can log in there; an image without udev would wait 90 s for the port (systemd-getty-generator(8)).
            "systemd.getty_auto=no",
            f"banger.address={machine.address}/{subnet.network.prefixlen}",
            f"banger.gateway={subnet.gateway}",
            f"banger.agent={monitor.agent_channel}",
            f"banger.off={monitor.power_off_word}",
        ),
        vcpus=machine.vcpus,
        memory_mib=machine.memory_mib,
        # The order in which the guest's /init expects them.
        drives=(
            Drive("rootfs", folder / "rootfs", read_only=True),
            Drive("modules", folder / "modules", read_only=True),
            Drive("system", folder / "system.ext4", read_only=False),
            Drive("work", folder / "work.ext4", read_only=False),
        ),
        nic=Nic(subnet.tap_of(machine.address), subnet.mac_of(machine.address)),
        runtime_dir=machines.runtime(machine),
        log=machines.log(machine),
    )


def wait_ready(machines: Machines, machine: Machine, timeout_s: float) -> None:
    """Until the guest's ssh server listens, as its agent sees it. Raises TIMEOUT, or MONITOR_DIED with last words."""
    deadline = time.monotonic() + timeout_s
    pause = _POLL_FIRST_S
    trouble = "no ssh server listens in the guest"
    while time.monotonic() < deadline:
        try:
            with talk(machines, machine, deadline - time.monotonic()) as guest:
                while time.monotonic() < deadline:
                    if guest.listens(_SSH_PORT):
                        return
                    time.sleep(pause)
                    pause = min(_POLL_MOST_S, pause * 1.3)
        except BangerError as error:
            # A guest at its busiest may not answer once; that it is not ready is for the clock to say.
            trouble = error.message
            time.sleep(pause)
        if machine.state is not State.RUNNING:
            raise BangerError(
                f"{machine.name!r} ended while it booted\n{processes.last_words(machines.log(machine))}",
                reason=Reason.MONITOR_DIED,
                hint=f"banger vm logs {machine.name}",
            )
    raise BangerError(
        f"{machine.name!r} was not ready within {timeout_s:g} s: {trouble}",
        reason=Reason.TIMEOUT,
        hint=f"look at its console: banger vm logs {machine.name}",
    )


def stop(machines: Machines, machine: Machine, timeout_s: float | None = None) -> Machine:
    """Shut a machine down cleanly; after `timeout_s` it is killed. A stopped machine is fine."""
    with locked(machines.folder(machine)):
        machine = machines.records.refresh(machine)
        _refuse_half_made(machine)
        if machine.state is State.RUNNING and machine.process is not None:
            if timeout_s is None:
                timeout_s = _STOP_TIMEOUT_S * machine.slowdown
            _ask_to_stop(machines, machine)
            if not processes.wait_gone(machine.process, timeout_s):
                _kill(machine.process)
        _free_host(machines, machine)
        return machines.records.update(machine, process=None, runtime="")


def kill(machines: Machines, machine: Machine, number: signal.Signals = signal.SIGKILL) -> Machine:
    """Send the monitor a signal, without a word to the guest. Raises WRONG_STATE for a machine that does not run.

    What a monitor makes of a signal is its own affair; when it ends by it, what the machine held is given back.
    """
    if machine.state is not State.RUNNING or machine.process is None:
        raise BangerError(f"{machine.name!r} does not run", reason=Reason.WRONG_STATE)
    # Before the lock, which a `stop` holds for as long as it waits: that one shall be cut short.
    processes.kill(machine.process, number)
    wait_s = _KILL_TIMEOUT_S if number == signal.SIGKILL else _SIGNAL_WAIT_S
    if not processes.wait_gone(machine.process, wait_s):
        return machine
    with locked(machines.folder(machine)):
        machine = machines.records.refresh(machine)
        if machine.state is State.STOPPED and machine.runtime:
            _free_host(machines, machine)
            machine = machines.records.update(machine, process=None, runtime="")
    return machine


def reclaim(machines: Machines, machine: Machine) -> bool:
    """Give back what a machine held whose monitor has ended by itself. False when somebody else is at it, or was."""
    try:
        with try_locked(_find_lock(machines.folder(machine))) as is_ours:
            if not is_ours:
                return False
            machine = machines.records.refresh(machine)
            if machine.state is not State.STOPPED or not machine.runtime:
                return False
            _free_host(machines, machine)
            machines.records.update(machine, process=None, runtime="")
            return True
    except BangerError as error:
        # Deleted meanwhile.
        if error.reason is not Reason.NOT_FOUND:
            raise
        return False


def delete(machines: Machines, machine: Machine, *, only_if: Callable[[Machine], bool] = lambda _machine: True) -> bool:
    """Everything of the machine goes, whatever state it is in. Nothing, and False, unless `only_if` holds by then."""
    folder = machines.folder(machine)
    with _locked_even_without(folder):
        machine = machines.records.refresh(machine)
        if not only_if(machine):
            return False
        # Not only of one that is made: a builder runs before.
        if machine.process is not None and processes.is_alive(machine.process):
            _kill(machine.process)
        _free_host(machines, machine)
        # From here on it is half made and holds nothing, for whoever comes when we have died. On a full disk that
        # cannot be written: what is removed makes room.
        with contextlib.suppress(BangerError):
            machines.records.update(machine, creator=processes.identify_self(), process=None, runtime="")
        if folder.exists():
            shutil.rmtree(folder)
        machines.records.remove(machine)
    return True


def remove_half_made(machines: Machines) -> None:
    """Undo what creators that died left behind."""
    for machine in machines.records.list():
        if machine.is_half_made:
            # Two commands may do this at once; and what cannot be undone now must not stop what was asked for.
            with contextlib.suppress(BangerError):
                delete(machines, machine, only_if=lambda found: found.is_half_made)


def ask_to_stop(machines: Machines, wanted: Sequence[Machine]) -> None:
    """Have several machines begin to shut down at the same moment; `stop` waits for each."""
    for machine in wanted:
        if machine.state is State.RUNNING:
            _ask_to_stop(machines, machine)


def _ask_to_stop(machines: Machines, machine: Machine) -> None:
    """By its agent; by its power button when the agent is silent. Killing comes later if neither helps."""
    monitor = get_monitor(machine.monitor, machines.settings)
    try:
        with talk(machines, machine, ANSWER_S) as guest:
            guest.ask("guest-exec", path="/run/banger/bin/off")
    except BangerError:
        with contextlib.suppress(BangerError):
            monitor.press_power_button(machines.runtime(machine))


def _free_host(machines: Machines, machine: Machine) -> None:
    """Give back what a machine that no longer runs holds on the host; one that was never started holds nothing."""
    if machine.runtime:
        network.disconnect(machines.subnet, machine.address)
    # A builder without a network has one all the same.
    shutil.rmtree(machines.runtime(machine), ignore_errors=True)


def _find_lock(folder: Path) -> Path:
    """What to lock for a machine: its folder, or the one of all machines while it has none.

    It has none when its creator died before it was made, or who deleted it after it was removed, or when somebody
    removed it by hand.
    """
    if folder.exists():
        return folder
    ensure_private(folder.parent)
    return folder.parent


@contextlib.contextmanager
def _locked_even_without(folder: Path) -> Iterator[None]:
    with locked(found := _find_lock(folder)), contextlib.ExitStack() as more:
        # Made while we waited.
        if found != folder and folder.exists():
            more.enter_context(locked(folder))
        yield


def _refuse_half_made(machine: Machine) -> None:
    if machine.state is State.CREATING:
        raise BangerError(f"{machine.name!r} is still being made", reason=Reason.WRONG_STATE)


def _kill(process: processes.ProcessId) -> None:
    processes.kill(process, signal.SIGKILL)
    if not processes.wait_gone(process, _KILL_TIMEOUT_S):
        raise BangerError(f"process {process.pid} does not end", reason=Reason.WRONG_STATE)
