"""Where untidy programs run: a PID and mount namespace whose whole content ends with the program.

mmdebstrap, apt, dpkg and what they start can be killed at any point without leaving a process, a mount or a file
behind: the namespace's first process dies with us (`unshare --kill-child`), every other process with it, and their
temporary files live on a tmpfs that no one else sees. An ordinary user gets a user namespace beside it, in which
the files of a Debian system keep their owners (`newuidmap` and a range in /etc/subuid are needed for that).
"""

from __future__ import annotations

import os
from collections.abc import Sequence
from pathlib import Path

from banger.errors import BangerError, Reason
from banger.run import get_program, run

# The only way to mount before the program starts; `"$@"` passes its arguments on untouched.
_MOUNT_THEN_RUN = 'mount -t tmpfs -o mode=0755,size=90% tmpfs "$0" && TMPDIR="$0" exec "$@"'


def plan_namespace(argv: Sequence[str], scratch: Path) -> list[str]:
    """The command that runs `argv` inside; `scratch` is an empty directory to cover with the tmpfs (TMPDIR)."""
    return [
        "unshare",
        *plan_user_namespace(),
        "--mount",
        "--pid",
        "--fork",
        "--kill-child",
        "--mount-proc",
        "--",
        "sh",
        "-c",
        _MOUNT_THEN_RUN,
        str(scratch),
        get_program(argv[0]),
        *argv[1:],
    ]


def plan_user_namespace() -> list[str]:
    """Words for `unshare` that make an ordinary user root over the uids of a whole system; nothing for root.

    Raises `BangerError` when the host does not let the user make one, or does not grant a range of uids.
    """
    if os.geteuid() == 0:
        return []
    get_program("newuidmap")
    if not _has_subordinate_ids():
        name = _user_name()
        raise BangerError(
            f"the user {name!r} has no range of subordinate uids",
            reason=Reason.NO_PERMISSION,
            hint=f"grant one: sudo usermod --add-subuids 100000-165535 --add-subgids 100000-165535 {name}",
        )
    # Asked first: where it is refused, `unshare --map-auto` leaves a child behind that waits for ever.
    refused = run(["unshare", "--user", "true"], must_succeed=False)
    if refused.returncode != 0:
        raise BangerError(
            f"this host lets the user {_user_name()!r} make no user namespace",
            reason=Reason.NO_PERMISSION,
            hint="allow it (sysctl kernel.unprivileged_userns_clone, user.max_user_namespaces), or run banger as root",
        )
    return ["--map-root-user", "--map-auto"]


def _has_subordinate_ids() -> bool:
    names = {_user_name(), str(os.getuid())}
    for path in ("/etc/subuid", "/etc/subgid"):
        try:
            lines = Path(path).read_text().splitlines()
        except FileNotFoundError:
            lines = []
        if not any(line.split(":")[0] in names for line in lines):
            return False
    return True


def _user_name() -> str:
    import pwd

    return pwd.getpwuid(os.getuid()).pw_name
