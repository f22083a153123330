"""What the user may do: make namespaces (for building), and change the host's network (for machines)."""

from __future__ import annotations

import os
import stat
import sys
from collections.abc import Mapping
from pathlib import Path

import banger
from banger.doctor.finding import Check, Finding, Subject, failed, passed, warned
from banger.doctor.host import find_user
from banger.doctor.programs import PATIENCE_S
from banger.errors import BangerError
from banger.network.privileges import STARTED, can_change_network, plan_helper
from banger.run import find_program, printable, run
from pipelines.namespace import plan_user_namespace

# `bin` and the environment, the package and what it lies in.
_OWN_FOLDERS = 2
_TUN = Path("/dev/net/tun")
# Ubuntu's AppArmor: a user namespace without a profile has no capabilities in it.
_RESTRICTED = Path("/proc/sys/kernel/apparmor_restrict_unprivileged_userns")


def check_namespaces(_subject: Subject, restricted: Path = _RESTRICTED) -> Finding:
    inside = plan_user_namespace()
    if not inside:
        # A container's root may be one in name only.
        done = run(["unshare", "--mount", "--pid", "--fork", "true"], must_succeed=False, timeout_s=PATIENCE_S)
        if done.returncode != 0:
            return failed("this root may make no namespaces: nothing can be built", "give it CAP_SYS_ADMIN")
        return passed("root needs no user namespace")
    if restricted.exists() and restricted.read_text().strip() == "1":
        return warned(
            "AppArmor restricts user namespaces: building may be refused",
            "sudo sysctl kernel.apparmor_restrict_unprivileged_userns=0",
        )
    return passed("user namespaces work, with a range of subordinate uids")


def check_network_rights(_subject: Subject) -> Finding:
    if can_change_network():
        return passed("this process may change the network (CAP_NET_ADMIN)")
    if os.geteuid() == 0:
        return failed("this root may not change the network", "in a container: --cap-add NET_ADMIN")
    sudo = find_program("sudo")
    if sudo is None:
        return failed("sudo is missing: machines get no network", "as root: apt-get install sudo, and allow it for you")
    said = _ask_sudo(sudo)
    if said is None:
        return passed("by sudo, without a password")
    return warned(f"sudo asks for a password when a machine starts or ends ({said})", _find_sudo_fix())


def check_tun(_subject: Subject, device: Path = _TUN) -> Finding:
    """A machine's monitor opens it as the user."""
    try:
        os.close(os.open(device, os.O_RDWR | os.O_CLOEXEC))
    except FileNotFoundError:
        return failed(f"there is no {device}", "sudo modprobe tun; in a container: --device /dev/net/tun")
    except PermissionError:
        return failed(f"{device} may not be opened by you", f"sudo chmod 666 {device}")
    return passed(f"{device} opens")


def _ask_sudo(sudo: str) -> str | None:
    """None when the helper was let begin, else what sudo said. The helper refuses the word, and does nothing."""
    argv = [sudo, "-n", "--", *plan_helper(), "doctor"]
    try:
        done = run(argv, must_succeed=False, timeout_s=PATIENCE_S)
    except BangerError as error:
        return error.message
    if done.stdout.startswith(STARTED.encode()):
        return None
    lines = done.stderr.decode("utf-8", "replace").splitlines()
    return printable(lines[-1]) if lines else "it says nothing"


def _find_sudo_fix() -> str:
    """A rule without a password is as good as root for whoever may write what it runs."""
    if not all(is_root_s(Path(each)) for each in (sys.executable, os.path.realpath(sys.executable), banger.__file__)):
        return "sudo -v before; to do without, install banger for all users (docs/advanced.md)"
    rule = f"{find_user()} ALL=(root) NOPASSWD: {' '.join(plan_helper())} *"
    return f"echo '{rule}' | sudo tee /etc/sudoers.d/banger"


def is_root_s(path: Path) -> bool:
    """Whether nobody but root can change a program or a package, or put something beside it that it would load."""
    for distance, each in enumerate((path, *path.parents)):
        found = each.stat()
        # Further up, others may make what they like as long as they cannot move what is root's.
        is_sticky = distance > _OWN_FOLDERS and bool(found.st_mode & stat.S_ISVTX)
        others = stat.S_IWOTH | (stat.S_IWGRP if found.st_gid != 0 else 0)
        if found.st_uid != 0 or (found.st_mode & others and not is_sticky):
            return False
    return True


CHECKS: Mapping[str, Check] = {
    "namespaces": check_namespaces,
    "network rights": check_network_rights,
    "tun": check_tun,
}
