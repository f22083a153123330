"""An ordinary user who exists in one mount namespace only, so that the real /etc is never written.

The password is "sesame"; a program is hidden by putting what cannot be executed in its place.
"""

from __future__ import annotations

import sys
from pathlib import Path

UID = 4242
ALL_RIGHTS = "lab ALL=(root) NOPASSWD: ALL"
_SESAME = "$6$banger$1nWjiQJZZ2I3ltnb842KV8I82DXmupYPwflsZ4lf/QZAnLUEYgtOH7xHaBMbc6fx2S5AxGOe0TorSrGJH8Nf8."
_BECOME_USER = """
d=$1; sudoers=$2; uid=$3; home=$4; blocked=$5; hidden=$6; hash=$7; shift 7
mount -t tmpfs -o mode=755 lab "$d"
cp -p /etc/passwd /etc/shadow /etc/group "$d"; mkdir "$d/sudoers.d" "$d/python"
echo "lab:x:$uid:$uid::/:/bin/sh" >>"$d/passwd"; echo "lab:x:$uid:" >>"$d/group"
echo "lab:$hash:19000:0:99999:7:::" >>"$d/shadow"
echo "$sudoers" >"$d/sudoers.d/lab"; chmod 440 "$d/sudoers.d/lab"
for f in passwd shadow group sudoers.d; do mount --bind "$d/$f" "/etc/$f"; done
mknod -m 666 "$d/tun" c 10 200; mount --bind "$d/tun" /dev/net/tun
if [ -n "$blocked" ]; then
  mount --bind "$home" "$d/python"; mount -t tmpfs -o mode=755 lab "$blocked"
  mkdir -p "$home"; mount --bind "$d/python" "$home"
fi
[ -z "$hidden" ] || mount --bind /dev/null "$hidden"
exec setpriv --reuid "$uid" --regid "$uid" --clear-groups "$@"
"""


def become_user(folder: Path, uid: int = UID, sudoers: str = ALL_RIGHTS, hidden: str = "") -> list[str]:
    """Words that run the command after them as the user, inside a mount namespace that is private already.

    `folder` is covered by a tmpfs; `sudoers` is what sudo allows; `hidden` is a program that is not installed.
    """
    home = Path(sys.base_prefix)
    # The interpreter may be one of root's own.
    blocked = next((str(each) for each in (*reversed(home.parents), home) if not each.stat().st_mode & 0o001), "")
    words = (folder, sudoers, uid, home, blocked, hidden, _SESAME)
    return ["sh", "-ec", _BECOME_USER, "sh", *map(str, words)]
