"""QEMU as a monitor: for hosts without Firecracker or without KVM.

The machine type is q35 with virtio-pci devices and nothing else. Not `microvm`: QEMU 10 loads the initramfs over the
ACPI tables of that type, and whether the guest then hangs depends on sizes. Disks are given as JSON (`-blockdev`),
so that no path can be read as an option.
"""

from __future__ import annotations

import contextlib
import json
import socket
import subprocess
import time
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any, ClassVar

from banger.errors import BangerError, Reason
from banger.vmm.process import OnSpawned, ProcessId, died, identify, spawn
from banger.vmm.spec import MachineSpec

# Only what a guest of ours uses: it would load drivers for the rest, which takes seconds where it is emulated.
_MACHINE = "q35,usb=off,vmport=off,smm=off,sata=off,smbus=off,i8042=off"
# All that QEMU can emulate, but for what makes the guest slower: longer page tables, and machines inside it.
_EMULATED_CPU = "max,la57=off,svm=off"
_START_TIMEOUT_S = 20.0
_QMP_TIMEOUT_S = 5.0
_POLL_S = 0.01
_QMP_SOCKET = "qmp.sock"
_AGENT_SOCKET = "agent.sock"


@dataclass(frozen=True)
class Qemu:
    """`kvm` false means software emulation: some ten times slower, but anywhere."""

    kvm: bool
    binary: str = "qemu-system-x86_64"
    name: ClassVar[str] = "qemu"
    # With -no-reboot both words end the process; a power-off is what the guest's journal should say.
    power_off_word: ClassVar[str] = "poweroff"
    agent_channel: ClassVar[str] = "virtio"

    @property
    def label(self) -> str:
        return "qemu (kvm)" if self.kvm else "qemu (software emulation)"

    def kernel_words(self) -> tuple[str, ...]:
        # panic=1: a guest that panics ends the process instead of hanging in it.
        return ("console=ttyS0", "panic=1")

    def start(self, spec: MachineSpec, on_spawned: OnSpawned = lambda _process: None) -> ProcessId:
        """Start the machine; returns when QEMU runs it. See `spawn` for `on_spawned`.

        Raises `BangerError` with its last words if it does not.
        """
        argv = self.plan_command(spec)
        begin = spec.log.stat().st_size if spec.log.exists() else 0
        child = spawn(argv, spec.log, on_spawned)
        try:
            self._wait_running(spec, child, argv, begin)
            process = identify(child.pid)
            if process is None:
                raise died(spec.name, argv, spec.log, begin)
        except BaseException:
            child.kill()
            child.wait()
            for name in (_QMP_SOCKET, _AGENT_SOCKET):
                (spec.runtime_dir / name).unlink(missing_ok=True)
            raise
        return process

    def connect_agent(self, runtime_dir: Path, timeout_s: float) -> socket.socket:
        """The agent's channel. QEMU serves one client at a time: a second one waits in line."""
        agent = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
        agent.settimeout(timeout_s)
        try:
            agent.connect(str(runtime_dir / _AGENT_SOCKET))
        except OSError as error:
            agent.close()
            raise BangerError(f"the machine's agent channel is gone: {error}", reason=Reason.GUEST) from error
        return agent

    def press_power_button(self, runtime_dir: Path) -> None:
        with _qmp(runtime_dir / _QMP_SOCKET) as ask:
            ask("system_powerdown")

    def plan_command(self, spec: MachineSpec) -> list[str]:
        accelerator = (
            ["-accel", "kvm", "-cpu", "host"] if self.kvm else ["-accel", "tcg,thread=multi", "-cpu", _EMULATED_CPU]
        )
        argv = [
            self.binary,
            "-nodefaults",
            "-no-user-config",
            "-no-reboot",
            "-name",
            _escape(spec.name),
            *("-display", "none"),
            *("-machine", _MACHINE),
            *accelerator,
            *("-smp", str(spec.vcpus)),
            *("-m", f"{spec.memory_mib}M"),
            # A monitor that a guest took over can start nothing and gain nothing.
            *("-sandbox", "on,obsolete=deny,elevateprivileges=deny,spawn=deny,resourcecontrol=deny"),
            *("-kernel", str(spec.kernel)),
            *("-initrd", str(spec.initramfs)),
            *("-append", " ".join(spec.command_line)),
            *("-chardev", f"file,id=console,append=on,path={_escape(str(spec.log))}"),
            *("-serial", "chardev:console"),
            *("-chardev", f"socket,id=qmp,server=on,wait=off,path={_escape(str(spec.runtime_dir / _QMP_SOCKET))}"),
            *("-mon", "chardev=qmp,mode=control"),
            *("-device", "virtio-serial-pci"),
            *("-chardev", f"socket,id=agent,server=on,wait=off,path={_escape(str(spec.runtime_dir / _AGENT_SOCKET))}"),
            *("-device", "virtserialport,chardev=agent,name=org.qemu.guest_agent.0"),
            *("-device", "virtio-rng-pci"),
        ]
        for drive in spec.drives:
            node = {
                "driver": "raw",
                "node-name": drive.id,
                "read-only": drive.read_only,
                "discard": "unmap",
                "file": {"driver": "file", "filename": str(drive.path)},
            }
            argv += ["-blockdev", json.dumps(node), "-device", f"virtio-blk-pci,drive={drive.id}"]
        if spec.nic is not None:
            argv += ["-netdev", f"tap,id=eth0,ifname={spec.nic.tap},script=no,downscript=no"]
            argv += ["-device", f"virtio-net-pci,netdev=eth0,mac={spec.nic.mac},romfile="]
        return argv

    def _wait_running(self, spec: MachineSpec, child: subprocess.Popen[bytes], argv: list[str], log_begin: int) -> None:
        """Until QMP answers that the machine runs; the socket appears some tens of milliseconds after the start."""
        deadline = time.monotonic() + _START_TIMEOUT_S
        while time.monotonic() < deadline:
            if child.poll() is not None:
                raise died(spec.name, argv, spec.log, log_begin)
            try:
                with _qmp(spec.runtime_dir / _QMP_SOCKET) as ask:
                    if ask("query-status").get("running"):
                        return
            except BangerError:
                # Not there yet, or ending: the next look at the process tells.
                pass
            time.sleep(_POLL_S)
        raise BangerError(f"QEMU did not start {spec.name!r} within {_START_TIMEOUT_S:.0f} s", reason=Reason.TIMEOUT)


class _Ask:
    """One QMP conversation (QEMU's "QMP Protocol Specification"): events in between are skipped."""

    def __init__(self, connection: socket.socket) -> None:
        self._lines = connection.makefile("rb")
        self._connection = connection
        self._read()
        self("qmp_capabilities")

    def __call__(self, command: str) -> dict[str, Any]:
        self._connection.sendall(json.dumps({"execute": command}).encode() + b"\n")
        while True:
            answer = self._read()
            if "error" in answer:
                raise BangerError(f"QEMU refused {command}: {answer['error'].get('desc')}", reason=Reason.UNAVAILABLE)
            if "return" in answer:
                found = answer["return"]
                return found if isinstance(found, dict) else {}

    def _read(self) -> dict[str, Any]:
        line = self._lines.readline(1 << 20)
        if not line:
            raise OSError("the connection ended")
        found: dict[str, Any] = json.loads(line)
        return found


@contextlib.contextmanager
def _qmp(path: Path) -> Iterator[_Ask]:
    with socket.socket(socket.AF_UNIX, socket.SOCK_STREAM) as connection:
        connection.settimeout(_QMP_TIMEOUT_S)
        try:
            connection.connect(str(path))
            ask = _Ask(connection)
            yield ask
        except (OSError, ValueError) as error:
            raise BangerError(f"QEMU does not answer: {error}", reason=Reason.UNAVAILABLE) from error


def _escape(value: str) -> str:
    """A value inside a QEMU option list: a comma is written twice."""
    return value.replace(",", ",,")
