"""Which monitor is chosen, by what a host has."""

from __future__ import annotations

import os
from pathlib import Path

import pytest

from banger.errors import BangerError, Reason
from banger.settings import KvmChoice, parse_settings
from banger.vmm import monitor as module
from banger.vmm.firecracker import Firecracker
from banger.vmm.monitor import choose_monitor, find_kvm_trouble, get_monitor
from banger.vmm.qemu import Qemu


@pytest.fixture
def device(tmp_path: Path) -> Path:
    path = tmp_path / "kvm"
    path.touch()
    return path


def _cpuinfo(tmp_path: Path, flags: str) -> Path:
    path = tmp_path / "cpuinfo"
    path.write_text(
        f"processor\t: 0\nmodel name\t: vmx svm\nflags\t\t: {flags}\n\nprocessor\t: 1\nflags\t\t: {flags}\n"
    )
    return path


@pytest.mark.parametrize("flags", ["fpu vmx sse", "svm", "vmx svm"])
def test_kvm_works_with_a_device_and_a_processor_for_it(tmp_path: Path, device: Path, flags: str) -> None:
    assert find_kvm_trouble(KvmChoice.AUTO, device, _cpuinfo(tmp_path, flags)) == ""


@pytest.mark.parametrize("flags", ["", "fpu sse", "vmxx nosvm"])
def test_a_device_alone_is_not_enough_unless_it_is_forced(tmp_path: Path, device: Path, flags: str) -> None:
    cpuinfo = _cpuinfo(tmp_path, flags)
    assert find_kvm_trouble(KvmChoice.AUTO, device, cpuinfo)
    assert find_kvm_trouble(KvmChoice.FORCE, device, cpuinfo) == ""


def test_nothing_can_force_a_device_that_is_not_there(tmp_path: Path) -> None:
    cpuinfo = _cpuinfo(tmp_path, "vmx")
    for choice in (KvmChoice.AUTO, KvmChoice.FORCE):
        assert "no" in find_kvm_trouble(choice, tmp_path / "missing", cpuinfo)
        assert find_kvm_trouble(choice, tmp_path, cpuinfo)


def test_kvm_can_be_switched_off(tmp_path: Path, device: Path) -> None:
    assert find_kvm_trouble(KvmChoice.OFF, device, _cpuinfo(tmp_path, "vmx"))


@pytest.mark.skipif(os.geteuid() != 0, reason="only root can become somebody who may not open it")
def test_a_device_that_may_not_be_opened_is_told_with_what_to_do(tmp_path: Path, device: Path) -> None:
    device.chmod(0)
    for parent in [tmp_path, *tmp_path.parents[:2]]:
        parent.chmod(parent.stat().st_mode | 0o011)
    pid = os.fork()
    if pid == 0:
        os.setresuid(65534, 65534, 65534)
        os._exit("usermod" not in find_kvm_trouble(KvmChoice.AUTO, device))
    assert os.waitpid(pid, 0)[1] == 0


@pytest.fixture
def host(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A folder that is the whole of the PATH (but for the sbin folders, which hold no monitor)."""
    folder = tmp_path / "bin"
    folder.mkdir()
    monkeypatch.setenv("PATH", str(folder))
    return folder


@pytest.mark.parametrize(
    ("vmm", "kvm_works", "installed", "expected"),
    [
        ("auto", True, "fq", Firecracker),
        ("auto", True, "f", Firecracker),
        ("auto", True, "q", Qemu(kvm=True)),
        ("auto", True, "", Reason.MISSING_PROGRAM),
        ("auto", False, "fq", Qemu(kvm=False)),
        ("auto", False, "q", Qemu(kvm=False)),
        ("auto", False, "f", Reason.MISSING_PROGRAM),
        ("auto", False, "", Reason.MISSING_PROGRAM),
        ("firecracker", True, "fq", Firecracker),
        ("firecracker", True, "q", Reason.MISSING_PROGRAM),
        ("firecracker", False, "fq", Reason.UNAVAILABLE),
        ("qemu", True, "fq", Qemu(kvm=True)),
        ("qemu", True, "f", Reason.MISSING_PROGRAM),
        ("qemu", False, "fq", Qemu(kvm=False)),
    ],
)
def test_the_monitor_is_the_best_that_the_host_can_run(
    host: Path, monkeypatch: pytest.MonkeyPatch, vmm: str, kvm_works: bool, installed: str, expected: object
) -> None:
    for letter, program in (("f", "firecracker"), ("q", "qemu-system-x86_64")):
        if letter in installed:
            (host / program).touch(0o755)
    monkeypatch.setattr(module, "find_kvm_trouble", lambda _choice: "" if kvm_works else "no KVM")
    settings = parse_settings({"vmm": vmm})
    if isinstance(expected, Reason):
        with pytest.raises(BangerError) as caught:
            choose_monitor(settings)
        assert caught.value.reason is expected
        assert caught.value.hint
        return
    choice = choose_monitor(settings)
    if expected is Firecracker:
        assert isinstance(choice.monitor, Firecracker)
    else:
        assert choice.monitor == expected
    assert (choice.slowdown > 1) == (choice.monitor == Qemu(kvm=False))
    # People are told why, unless they said so themselves.
    assert bool(choice.why) == (vmm == "auto" or not kvm_works)


def test_the_program_of_firecracker_can_be_anywhere(host: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (host / "my-firecracker").touch(0o755)
    monkeypatch.setattr(module, "find_kvm_trouble", lambda _choice: "")
    choice = choose_monitor(parse_settings({"firecracker_bin": "my-firecracker"}))
    assert isinstance(choice.monitor, Firecracker)


def test_a_running_machine_keeps_its_monitor_whatever_the_configuration_says_now() -> None:
    settings = parse_settings({"vmm": "qemu"})
    assert get_monitor("firecracker", settings).name == "firecracker"
    assert get_monitor("qemu", parse_settings({"vmm": "firecracker"})).name == "qemu"
