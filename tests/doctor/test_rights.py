"""What the user may not do, and what gives them the right."""

from __future__ import annotations

import os
import shutil
import sys
from pathlib import Path
from typing import TYPE_CHECKING

import pytest

from banger.doctor import Status
from banger.doctor.finding import Subject
from banger.doctor.host import check_architecture, check_kvm
from banger.doctor.rights import check_namespaces, check_tun, is_root_s
from banger.network.privileges import plan_helper
from banger.paths import Paths
from banger.settings.document import Document
from banger.settings.load import configure
from tests.ordinary_user import UID

if TYPE_CHECKING:
    from conftest import Lab

_HELPER = f"{' '.join(plan_helper())} *"


def test_kvm_that_may_not_be_opened_is_told(user: Lab) -> None:
    status, detail, fix = user.examine()["kvm"]
    assert status == "WARN"
    assert "/dev/kvm may not be opened by you" in detail
    assert fix


def _look_at_kvm(tmp_path: Path, flags: str, mode: int | None, group: int = 0, kvm: str = "auto") -> tuple[str, str]:
    """As the ordinary user would: root may open everything."""
    device, cpuinfo = tmp_path / "kvm", tmp_path / "cpuinfo"
    cpuinfo.write_text(f"processor : 0\nflags\t\t: fpu {flags}\n")
    if mode is not None:
        device.touch()
        device.chmod(mode)
        os.chown(device, 0, group)
    subject = Subject(Paths.from_environment({"HOME": "/"}), configure(Document({"kvm": kvm}), {}, {}))
    found = check_kvm(subject, device, cpuinfo)
    return found.status, found.fix or found.detail


@pytest.mark.parametrize(
    ("flags", "mode", "kvm", "status", "words"),
    [
        ("vmx", 0o666, "auto", "PASS", "opens"),
        ("svm", 0o666, "auto", "PASS", "opens"),
        ("", 0o666, "force", "PASS", 'kvm = "force"'),
        ("vmx", 0o666, "off", "PASS", 'kvm = "off"'),
        ("vmx", None, "auto", "WARN", "sudo modprobe kvm_intel"),
        ("svm", None, "auto", "WARN", "sudo modprobe kvm_amd"),
        ("", None, "auto", "WARN", "firmware"),
        ("", 0o666, "auto", "WARN", "nested virtualisation"),
    ],
)
def test_what_kvm_lacks_is_told(
    tmp_path: Path, flags: str, mode: int | None, kvm: str, status: str, words: str
) -> None:
    found, told = _look_at_kvm(tmp_path, flags, mode, kvm=kvm)
    assert found == status
    assert words in told


_AS_USER = """
import sys
from pathlib import Path
from banger.doctor.finding import Subject
from banger.doctor.host import check_kvm
from banger.paths import Paths
from banger.settings.document import Document
from banger.settings.load import configure
subject = Subject(Paths.from_environment({"HOME": "/"}), configure(Document(), {}, {}))
print(check_kvm(subject, Path(sys.argv[1]), Path(sys.argv[2])).fix)
"""


@pytest.mark.parametrize(
    ("mode", "members", "fix"),
    [
        (0o660, "", "sudo usermod -aG lab-kvm lab, then log in again"),
        (0o660, "lab", "log in again: this session began before you were in the group"),
        (0o600, "lab", "sudo chgrp kvm {device} && sudo chmod 660 {device}"),
    ],
)
def test_who_may_open_kvm_is_explained_by_its_group(user: Lab, mode: int, members: str, fix: str) -> None:
    device, cpuinfo = user.home / "kvm", user.home / "cpuinfo"
    device.touch()
    device.chmod(mode)
    os.chown(device, 0, 5151)
    # What the processor offers comes second.
    cpuinfo.write_text("flags : fpu\n")
    # The user's own scaffold copies this one.
    user.prepare.append(f"cp /etc/group {user.home}/group; echo lab-kvm:x:5151:{members} >>{user.home}/group")
    user.prepare.append(f"mount --bind {user.home}/group /etc/group")
    done = user.run(sys.executable, "-I", "-c", _AS_USER, device, cpuinfo)
    assert (done.stdout, done.stderr) == (f"{fix.format(device=device)}\n", "")


@pytest.mark.parametrize("machine", ["aarch64", "i686"])
def test_another_architecture_fails(machine: str) -> None:
    subject = Subject(Paths.from_environment({"HOME": "/"}), configure(Document(), {}, {}))
    assert check_architecture(subject, machine).status is Status.FAIL


def test_a_monitor_that_is_wanted_and_cannot_run_fails(lab: Lab) -> None:
    lab.configure('vmm = "firecracker"\nkvm = "off"\n')
    assert lab.examine()["monitor"][0] == "FAIL"
    lab.configure('vmm = "qemu"\nkvm = "off"\n')
    assert lab.examine()["monitor"][1].startswith("QEMU under software emulation")
    lab.hide(shutil.which("qemu-system-x86_64") or "")
    assert lab.examine()["monitor"][2].endswith("apt-get install qemu-system-x86")


def test_a_user_without_subordinate_uids_cannot_build(user: Lab) -> None:
    status, detail, fix = user.examine()["namespaces"]
    assert status == "FAIL"
    assert "subordinate" in detail
    assert "usermod --add-subuids" in fix


def _grant_ids(user: Lab) -> None:
    user.prepare.append(f"echo lab:300000:65536 >{user.home}/ids")
    user.prepare += [f"mount --bind {user.home}/ids /etc/{name}" for name in ("subuid", "subgid")]


def test_a_user_with_subordinate_uids_can_build(user: Lab) -> None:
    _grant_ids(user)
    assert user.examine()["namespaces"][0] == "PASS"
    user.hide(shutil.which("newuidmap") or "")
    assert user.examine()["namespaces"][::2] == ("FAIL", "install it: sudo apt-get install uidmap")


def test_a_kernel_that_restricts_user_namespaces_is_told(user: Lab) -> None:
    _grant_ids(user)
    program = (
        "import sys; from pathlib import Path; from banger.doctor.rights import check_namespaces\n"
        "print(check_namespaces(None, Path(sys.argv[1])).fix)"
    )
    for text, fix in (("1\n", "sudo sysctl kernel.apparmor_restrict_unprivileged_userns=0"), ("0\n", "")):
        (user.home / "restricted").write_text(text)
        done = user.run(sys.executable, "-I", "-c", program, user.home / "restricted")
        assert (done.stdout, done.stderr) == (f"{fix}\n", "")


@pytest.mark.parametrize(("capability", "check"), [("sys_admin", "namespaces"), ("net_admin", "network rights")])
def test_a_root_that_is_none_is_told(lab: Lab, capability: str, check: str) -> None:
    rows = lab.examine("setpriv", "--bounding-set", f"-{capability}", "--inh-caps", f"-{capability}")
    assert rows[check][0] == "FAIL"


def test_sudo_without_a_password_is_enough_for_the_network(user: Lab) -> None:
    assert user.examine()["network rights"][:2] == ("PASS", "by sudo, without a password")
    user.sudoers = f"lab ALL=(root) NOPASSWD: {_HELPER}"
    assert user.examine()["network rights"][0] == "PASS"


@pytest.mark.parametrize(
    "sudoers", ["lab ALL=(root) ALL", "", "lab ALL=(root) ALL\nlab ALL=(root) NOPASSWD: /usr/bin/true"]
)
def test_where_sudo_asks_the_rule_that_does_without_is_told(user: Lab, sudoers: str) -> None:
    user.sudoers = sudoers
    status, detail, fix = user.examine()["network rights"]
    assert status == "WARN"
    assert "password" in detail
    assert fix == f"echo 'lab ALL=(root) NOPASSWD: {_HELPER}' | sudo tee /etc/sudoers.d/banger"
    # And it is true.
    user.sudoers = fix.split("'")[1]
    assert user.examine()["network rights"][0] == "PASS"


def test_no_rule_is_told_for_an_installation_that_is_not_root_s(user: Lab) -> None:
    user.sudoers = "lab ALL=(root) ALL"
    own = user.home / "own"
    (own / "bin").mkdir(parents=True)
    for name in ("bin/python", "lib", "pyvenv.cfg"):
        (own / name).symlink_to(Path(sys.prefix) / name)
    os.chown(own, UID, UID)
    done = user.run(own / "bin/python", "-I", "-c", "from banger.cli import main; main()", "doctor")
    assert "sudo -v before; to do without, install banger for all users" in done.stdout
    assert "NOPASSWD" not in done.stdout


def test_without_sudo_a_user_s_machines_have_no_network(user: Lab) -> None:
    user.hide(shutil.which("sudo") or "")
    status, _, fix = user.examine()["network rights"]
    assert status == "FAIL"
    assert "apt-get install sudo" in fix


def test_a_tun_device_that_does_not_open_is_told(tmp_path: Path, user: Lab) -> None:
    assert check_tun(None, tmp_path / "tun").fix.startswith("sudo modprobe tun")  # type: ignore[arg-type]
    device = user.home / "tun"
    device.touch(mode=0o600)
    program = (
        "import sys; from pathlib import Path; from banger.doctor.rights import check_tun\n"
        "print(check_tun(None, Path(sys.argv[1])))"
    )
    assert f"sudo chmod 666 {device}" in user.run(sys.executable, "-I", "-c", program, device).stdout


def test_root_needs_no_user_namespace(tmp_path: Path, lab: Lab) -> None:
    (tmp_path / "restricted").write_text("1\n")
    assert check_namespaces(None, tmp_path / "restricted").status is Status.PASS  # type: ignore[arg-type]


@pytest.mark.skipif(os.geteuid() != 0, reason="makes files of root's")
def test_what_others_can_change_is_not_root_s(tmp_path: Path) -> None:
    program = tmp_path / "home/venv/bin/python"
    program.parent.mkdir(parents=True)
    program.touch()
    assert is_root_s(program)
    for folder, mode, is_safe in (
        ("home", 0o1777, True),
        ("home", 0o777, False),
        ("home/venv", 0o1777, False),
        ("home/venv/bin", 0o1777, False),
        ("home/venv/bin/python", 0o777, False),
    ):
        path = tmp_path / folder
        path.chmod(mode)
        assert is_root_s(program) == is_safe, folder
        path.chmod(0o755)
    os.chown(tmp_path / "home", 12345, 12345)
    assert not is_root_s(program)


@pytest.mark.skipif(os.geteuid() != 0, reason="makes files of root's")
@pytest.mark.parametrize(("gid", "mode", "is_safe"), [(0, 0o775, True), (50, 0o755, True), (50, 0o775, False)])
@pytest.mark.parametrize("place", ["home", "home/venv/bin", "home/venv/bin/python"])
def test_what_a_group_of_others_can_change_is_not_root_s(
    tmp_path: Path, place: str, gid: int, mode: int, is_safe: bool
) -> None:
    program = tmp_path / "home/venv/bin/python"
    program.parent.mkdir(parents=True)
    program.touch()
    os.chown(tmp_path / place, 0, gid)
    (tmp_path / place).chmod(mode)
    assert is_root_s(program) == is_safe
