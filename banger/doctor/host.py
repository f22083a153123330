"""The machine that banger runs on: its processor, KVM, and which monitor that comes to."""

from __future__ import annotations

import os
import platform
import stat
from collections.abc import Mapping
from pathlib import Path

from banger.doctor.finding import Check, Finding, Subject, failed, passed, warned
from banger.doctor.programs import find_version
from banger.run import find_program
from banger.settings import KvmChoice
from banger.vmm.monitor import choose_monitor, find_kvm_trouble

_KVM = Path("/dev/kvm")
_CPUINFO = Path("/proc/cpuinfo")
_ALL_OF_GROUP = stat.S_IRGRP | stat.S_IWGRP


def check_architecture(_subject: Subject, machine: str = platform.machine()) -> Finding:
    if machine != "x86_64":
        return failed(f"{machine}: kernels and images are for x86_64 only", "use a host with such a processor")
    return passed(f"{machine}, {platform.system()} {platform.release()}")


def check_kvm(subject: Subject, device: Path = _KVM, cpuinfo: Path = _CPUINFO) -> Finding:
    choice = subject.settings.kvm
    trouble = find_kvm_trouble(choice, device, cpuinfo)
    if not trouble:
        return passed(f"{device} opens" + ("" if choice is KvmChoice.AUTO else ', and kvm = "force"'))
    if choice is KvmChoice.OFF:
        return passed(f"not used: {trouble}")
    return warned(f"{trouble.partition(' (sudo')[0]}: machines run slowly", _find_kvm_fix(device, cpuinfo))


def check_monitor(subject: Subject) -> Finding:
    choice = choose_monitor(subject.settings)
    versions = ", ".join(
        f"{name} {find_version(program, '--version')}"
        for name, program in (("Firecracker", subject.settings.firecracker_bin), ("QEMU", "qemu-system-x86_64"))
        if find_program(program)
    )
    return passed(f"{choice.why or choice.monitor.label} (here: {versions})")


def _find_kvm_fix(device: Path, cpuinfo: Path) -> str:
    flags = {word for line in cpuinfo.read_text().splitlines() if line.startswith("flags") for word in line.split()}
    module = "kvm_intel" if "vmx" in flags else "kvm_amd" if "svm" in flags else ""
    switch_on = "switch virtualisation on in the firmware or, on a virtual machine, nested virtualisation on its host"
    if not device.exists():
        return f"sudo modprobe {module}" if module else switch_on
    if os.access(device, os.R_OK | os.W_OK):
        return "look for its refusals: sudo dmesg | grep kvm" if module else switch_on
    found = device.stat()
    group = _find_group(found.st_gid)
    if found.st_mode & _ALL_OF_GROUP != _ALL_OF_GROUP or found.st_gid == 0:
        return f"sudo chgrp kvm {device} && sudo chmod 660 {device}"
    name = find_user()
    if name in _find_members(found.st_gid):
        return "log in again: this session began before you were in the group"
    return f"sudo usermod -aG {group} {name}, then log in again"


def find_user() -> str:
    import pwd

    try:
        return pwd.getpwuid(os.getuid()).pw_name
    except KeyError:
        return str(os.getuid())


def _find_group(gid: int) -> str:
    import grp

    try:
        return grp.getgrgid(gid).gr_name
    except KeyError:
        return str(gid)


def _find_members(gid: int) -> list[str]:
    import grp

    try:
        return grp.getgrgid(gid).gr_mem
    except KeyError:
        return []


CHECKS: Mapping[str, Check] = {
    "architecture": check_architecture,
    "kvm": check_kvm,
    "monitor": check_monitor,
}
