"""The Firecracker driver: a `MachineSpec` becomes requests to the API of a Firecracker process of its own.

Guarantees: `start` gives a process that has accepted every device and runs the guest, or raises a `BangerError` and
leaves neither process nor socket. Configuration is planned by a pure function (`plan_requests`). Firecracker's own
reasons are shown, escaped. Every wait for it has a time limit.

Not promised: that the guest comes up (the agent tells), or any clean-up after a machine that did start: its sockets
stay when the process ends. No jailer is used; Firecracker's own seccomp filters stay on.

Formats: Firecracker's API description, src/firecracker/swagger/firecracker.yaml, with no field that 1.10 does not
know; program arguments from src/firecracker/src/main.rs.
"""

from __future__ import annotations

import contextlib
import re
import socket
import subprocess
import time
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import ClassVar

from banger.errors import BangerError, Reason
from banger.run import printable
from banger.vmm import process, vsock
from banger.vmm.process import OnSpawned, ProcessId
from banger.vmm.spec import Drive, MachineSpec

API_SOCKET = "firecracker.sock"
VSOCK_SOCKET = "vsock.sock"
AGENT_PORT = 1024

# 0 to 2 are reserved (vsock(7)). Each device has a Unix socket of its own, so that all guests may share a number.
_GUEST_CID = 3
# vmm_config/machine_config.rs, MAX_SUPPORTED_VCPUS.
_MAX_VCPUS = 32
# utils/validators.rs, validate_instance_id: letters, digits and hyphens.
_MAX_ID_LENGTH = 64
_MAX_ANSWER_BYTES = 64 * 1024
_FIRST_PAUSE_S = 0.001
_LONGEST_PAUSE_S = 0.05
# How long a process that stopped answering may take to be seen as ended.
_DEATH_GRACE_S = 1.0


@dataclass(frozen=True)
class Put:
    """One API request. Firecracker answers 204, or an error status and `{"fault_message": ...}`."""

    path: str
    body: Mapping[str, object]


class _NoAnswerError(Exception):
    """The API did not give an answer that can be read; why is for the caller, who knows the process, to find out."""

    def __init__(self, what: str, reason: Reason) -> None:
        super().__init__(what)
        self.reason = reason


@dataclass(frozen=True)
class Firecracker:
    """`timeout_s` is how long the process may take to open its API socket, and again to answer each request."""

    binary: str
    timeout_s: float = 30.0
    name: ClassVar[str] = "firecracker"
    label: ClassVar[str] = "firecracker"
    agent_channel: ClassVar[str] = "vsock"
    # There is no power-off on x86: a guest that halts leaves its process running. A reset ends it, with status 0.
    power_off_word: ClassVar[str] = "reboot"

    def kernel_words(self) -> tuple[str, ...]:
        """What this monitor needs on the kernel command line; Firecracker's own default words are not added to ours.

        Two of those are left out: `nomodule`, because the disks are reached by modules, and `i8042.nopnp`, because with
        ACPI the keyboard is found by PnP only, and Ctrl-Alt-Del would be lost (CHANGELOG, #5074).
        """
        return (
            "console=ttyS0",  # the only console there is; Firecracker prints it to its stdout
            "reboot=k",  # reset through the keyboard controller: the one way that ends the process
            "panic=1",  # a guest that panics resets after 1 s instead of spinning unseen
            "pci=off",  # devices are virtio-mmio, announced by ACPI; from 1.13 on Firecracker says so itself
            "i8042.noaux",  # no mouse to probe for
            "i8042.nomux",  # no multiplexer to probe for
            "i8042.dumbkbd",  # no keyboard LEDs to set
        )

    def start(self, spec: MachineSpec, on_spawned: OnSpawned = lambda _process: None) -> ProcessId:
        """Start a process, configure it and let the guest run; see `process.spawn` for `on_spawned`.

        Raises `BangerError`: BAD_INPUT for a refused configuration, UNAVAILABLE for a refused start or an unreadable
        answer, TIMEOUT, or MONITOR_DIED with the last words of a process that ended.
        """
        puts = plan_requests(spec)
        api = spec.runtime_dir / API_SOCKET
        argv = plan_argv(self.binary, spec)
        log_start = spec.log.stat().st_size if spec.log.exists() else 0
        with contextlib.ExitStack() as undo:
            # A killed process leaves its sockets behind, and Firecracker refuses to bind over them.
            _remove_sockets(spec.runtime_dir)
            undo.callback(_remove_sockets, spec.runtime_dir)
            child = process.spawn(argv, spec.log, on_spawned)
            undo.callback(_end, child)
            try:
                _wait_for_api(child, api, self.timeout_s)
                for put in puts:
                    _send(api, put, self.timeout_s)
            except _NoAnswerError as failure:
                if _has_ended(child):
                    raise process.died(spec.name, argv, spec.log, log_start) from failure
                raise BangerError(
                    f"the monitor of {spec.name!r} {failure}"
                    + (f"\n{words}" if (words := process.last_words(spec.log, log_start)) else ""),
                    reason=failure.reason,
                ) from failure
            identity = process.identify(child.pid)
            if identity is None:
                raise process.died(spec.name, argv, spec.log, log_start)
            undo.pop_all()
        return identity

    def connect_agent(self, runtime_dir: Path, timeout_s: float) -> socket.socket:
        """A blocking socket to the guest agent, at the first byte it sends; see `vsock.connect_guest` for errors."""
        return vsock.connect_guest(runtime_dir / VSOCK_SOCKET, AGENT_PORT, timeout_s)

    def press_power_button(self, runtime_dir: Path) -> None:
        """Ask the guest to go down, by Ctrl-Alt-Del on its keyboard; x86 only, and the guest's init decides."""
        try:
            _send(runtime_dir / API_SOCKET, _action("SendCtrlAltDel"), self.timeout_s)
        except _NoAnswerError as failure:
            raise BangerError(f"the monitor in {runtime_dir} {failure}", reason=failure.reason) from failure


def plan_argv(binary: str, spec: MachineSpec) -> tuple[str, ...]:
    """The program's arguments. Its log goes to stdout beside the serial console: from Warning up, and saying so."""
    identifier = re.sub(r"[^A-Za-z0-9-]", "-", spec.name).strip("-")[:_MAX_ID_LENGTH]
    return (
        binary,
        "--api-sock",
        str(spec.runtime_dir / API_SOCKET),
        "--id",
        identifier or "machine",
        # The default, Info, prints every request with its body into the guest's console.
        "--level",
        "Warning",
        "--show-level",
    )


def plan_requests(spec: MachineSpec) -> tuple[Put, ...]:
    """Everything Firecracker is told, in order; the last request starts the guest."""
    if not 1 <= spec.vcpus <= _MAX_VCPUS:
        raise BangerError(
            f"Firecracker runs 1 to {_MAX_VCPUS} vCPUs, and {spec.name!r} wants {spec.vcpus}",
            reason=Reason.BAD_INPUT,
            hint="ask for fewer CPUs, or use QEMU",
        )
    puts = [
        Put("/machine-config", {"vcpu_count": spec.vcpus, "mem_size_mib": spec.memory_mib}),
        Put(
            "/boot-source",
            {
                "kernel_image_path": str(spec.kernel),
                "initrd_path": str(spec.initramfs),
                "boot_args": " ".join(spec.command_line),
            },
        ),
    ]
    # The order of these requests is the order in the ACPI table, and so of /dev/vda, /dev/vdb, ... in the guest.
    puts += [_plan_drive(drive) for drive in spec.drives]
    if spec.nic is not None:
        nic = {"iface_id": "eth0", "host_dev_name": spec.nic.tap, "guest_mac": spec.nic.mac}
        puts.append(Put("/network-interfaces/eth0", nic))
    puts.append(Put("/vsock", {"guest_cid": _GUEST_CID, "uds_path": str(spec.runtime_dir / VSOCK_SOCKET)}))
    puts.append(Put("/entropy", {}))
    puts.append(_action("InstanceStart"))
    return tuple(puts)


def _plan_drive(drive: Drive) -> Put:
    body: dict[str, object] = {
        "drive_id": drive.id,
        "path_on_host": str(drive.path),
        # A root device is moved to the front and puts root=/dev/vda on the command line; our initramfs mounts the root.
        "is_root_device": False,
        "is_read_only": drive.read_only,
    }
    if not drive.read_only:
        # The default, Unsafe, offers the guest no flush: after a crash of the host a journal could not be trusted.
        body["cache_type"] = "Writeback"
    return Put(f"/drives/{drive.id}", body)


def _action(action_type: str) -> Put:
    return Put("/actions", {"action_type": action_type})


def _wait_for_api(child: subprocess.Popen[bytes], api: Path, timeout_s: float) -> None:
    """Wait until the API socket accepts connections, or the process has ended, or the time is over."""
    deadline = time.monotonic() + timeout_s
    pause_s = _FIRST_PAUSE_S
    while True:
        try:
            _connect(api, timeout_s).close()
            return
        except (FileNotFoundError, ConnectionRefusedError, TimeoutError, BlockingIOError) as error:
            if child.poll() is not None:
                raise _NoAnswerError("ended before it opened its API socket", Reason.MONITOR_DIED) from error
            if time.monotonic() >= deadline:
                raise _NoAnswerError(f"did not open {api} within {timeout_s:g} s", Reason.TIMEOUT) from error
        with contextlib.suppress(subprocess.TimeoutExpired):
            child.wait(pause_s)
        pause_s = min(pause_s * 2, _LONGEST_PAUSE_S)


def _send(api: Path, put: Put, timeout_s: float) -> None:
    """Send one request and judge the answer."""
    import http.client
    import json

    connection = http.client.HTTPConnection("localhost", timeout=timeout_s)
    try:
        # A connection that has a socket makes none: this is all it takes to speak HTTP over a Unix socket.
        connection.sock = _connect(api, timeout_s)
        headers = {"Accept": "application/json", "Content-Type": "application/json"}
        connection.request("PUT", put.path, body=json.dumps(put.body).encode(), headers=headers)
        answer = connection.getresponse()
        content = answer.read(_MAX_ANSWER_BYTES + 1)
    except TimeoutError as error:
        raise _NoAnswerError(f"did not answer PUT {put.path} within {timeout_s:g} s", Reason.TIMEOUT) from error
    except (FileNotFoundError, ConnectionRefusedError) as error:
        raise _NoAnswerError(f"does not listen at {api}", Reason.MONITOR_DIED) from error
    except (OSError, http.client.HTTPException) as error:
        what = printable(repr(error))[:300]
        raise _NoAnswerError(f"gave no valid answer to PUT {put.path}: {what}", Reason.UNAVAILABLE) from error
    finally:
        connection.close()
    if len(content) > _MAX_ANSWER_BYTES:
        raise _NoAnswerError(f"gave an answer of unreasonable length to PUT {put.path}", Reason.UNAVAILABLE)
    if answer.length:
        raise _NoAnswerError(f"broke off its answer to PUT {put.path}", Reason.UNAVAILABLE)
    if answer.status != http.client.NO_CONTENT:
        raise _refusal(put, answer.status, content)


def _refusal(put: Put, status: int, content: bytes) -> BangerError:
    import json

    try:
        fault = json.loads(content)["fault_message"]
    except (ValueError, TypeError, KeyError, RecursionError):
        fault = content.decode("utf-8", "replace")[:300]
    starting = put.path == "/actions"
    no_kvm = "KVM" in str(fault)
    return BangerError(
        f"Firecracker refused PUT {put.path} (status {status}): {printable(str(fault))}",
        # 400 is the one status by which Firecracker blames the request; an action carries no input to blame.
        reason=Reason.BAD_INPUT if status == 400 and not starting else Reason.UNAVAILABLE,
        hint="Firecracker needs to read and write /dev/kvm" if no_kvm else "",
    )


def _connect(path: Path, timeout_s: float) -> socket.socket:
    connection = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
    try:
        connection.settimeout(timeout_s)
        connection.connect(str(path))
    except BaseException:
        connection.close()
        raise
    return connection


def _has_ended(child: subprocess.Popen[bytes]) -> bool:
    try:
        child.wait(_DEATH_GRACE_S)
    except subprocess.TimeoutExpired:
        return False
    return True


def _end(child: subprocess.Popen[bytes]) -> None:
    child.kill()
    child.wait()


def _remove_sockets(runtime_dir: Path) -> None:
    for name in (API_SOCKET, VSOCK_SOCKET):
        (runtime_dir / name).unlink(missing_ok=True)
