"""What makes a machine this one: its name, address, host key and mirrors, as files on its overlay disk.

Nothing here touches an image. The overlay disk lies over the image's root (`upper/`); the work disk (`home.py`) becomes
/root.
"""

from __future__ import annotations

import io
import tarfile
import time
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from ipaddress import IPv4Address, ip_address
from pathlib import Path

from banger.guest.ssh import HostKey
from pipelines.apt import Mirrors

# Row by row what D4 asks for; the file sorts first, and in sshd the first value wins (sshd_config(5)).
_SSHD = """\
PermitRootLogin prohibit-password
PubkeyAuthentication yes
PasswordAuthentication no
KbdInteractiveAuthentication no
AuthorizedKeysFile /root/.ssh/authorized_keys
StrictModes yes
HostKey /etc/ssh/ssh_host_ed25519_key
UseDNS no
"""
# Some monitors end when the guest reboots, not when it powers off: then a power-off ends as a reboot
# (systemd-poweroff.service(8): programs here run last, with the verb as their argument).
_SHUTDOWN_HOOK = """\
#!/run/banger/bin/busybox sh
[ "$1" = poweroff ] && [ "$(/run/banger/bin/busybox cat /run/banger/off)" = reboot ] || exit 0
/run/banger/bin/busybox sync
exec /run/banger/bin/busybox reboot -f
"""
_RESOLVED_CONF = Path("/run/systemd/resolve/resolv.conf")


@dataclass(frozen=True)
class Identity:
    """`mirrors` is None for an image that brings its own package sources."""

    id: str
    name: str
    address: IPv4Address
    host_key: HostKey
    nameservers: tuple[str, ...]
    mirrors: Mirrors | None


def find_nameservers(resolv_conf: Path = Path("/etc/resolv.conf")) -> tuple[str, ...]:
    """IPv4 name servers of the host that a guest can reach: not those on the host's own loopback.

    A host with a stub resolver (systemd-resolved) tells the real ones in a second file.
    """
    for path in (resolv_conf, _RESOLVED_CONF):
        try:
            lines = path.read_text("utf-8", "replace").splitlines()
        except OSError:
            continue
        found = tuple(_parse_nameservers(lines))
        if found:
            return found
    return ()


def _parse_nameservers(lines: Sequence[str]) -> Iterator[str]:
    for line in lines:
        words = line.split()
        if len(words) >= 2 and words[0] == "nameserver":
            try:
                address = ip_address(words[1])
            except ValueError:
                continue
            if address.version == 4 and not address.is_loopback and not address.is_unspecified:
                yield str(address)


def write_overlay(tar: tarfile.TarFile, identity: Identity) -> None:
    """The content of the overlay disk: `upper` and `work` of the overlay, Docker's folders, and the identity."""
    disk = TarWriter(tar)
    for folder in ("work", "docker", "containerd"):
        disk.folder(folder, 0o710)
    disk.folder("upper", 0o755)
    for folder in (
        "etc",
        "etc/ssh",
        "etc/ssh/sshd_config.d",
        "usr",
        "usr/lib",
        "usr/lib/systemd",
        "usr/lib/systemd/system-shutdown",
        "var",
    ):
        disk.folder(f"upper/{folder}", 0o755)
    for path, content, mode in plan_identity_files(identity):
        if path.startswith("etc/apt/mirrors/"):
            for folder in ("etc/apt", "etc/apt/mirrors"):
                disk.folder(f"upper/{folder}", 0o755)
        disk.file(f"upper/{path}", content, mode)


def plan_identity_files(identity: Identity) -> list[tuple[str, str, int]]:
    """(path, content, mode) of every file that carries the identity."""
    name, address = identity.name, identity.address
    hosts = f"127.0.0.1 localhost\n{address} {name}.vm {name}\n::1 localhost ip6-localhost ip6-loopback\n"
    files = [
        ("etc/hostname", f"{name}\n", 0o644),
        ("etc/hosts", hosts, 0o644),
        ("etc/resolv.conf", "".join(f"nameserver {server}\n" for server in identity.nameservers), 0o644),
        # 32 hexadecimal digits (machine-id(5)); an id has twelve.
        ("etc/machine-id", f"{identity.id:0>32}\n", 0o444),
        ("etc/ssh/ssh_host_ed25519_key", identity.host_key.private, 0o600),
        ("etc/ssh/ssh_host_ed25519_key.pub", f"{identity.host_key.public}\n", 0o644),
        ("etc/ssh/sshd_config.d/00-banger.conf", _SSHD, 0o600),
        ("usr/lib/systemd/system-shutdown/banger", _SHUTDOWN_HOOK, 0o755),
        # Or systemd would take the hook's folders for a new /usr, and do again at the first boot what was done when
        # the image's packages were installed (systemd-update-done.service(8)).
        ("etc/.updated", "", 0o644),
        ("var/.updated", "", 0o644),
    ]
    if identity.mirrors is not None:
        files.append(("etc/apt/mirrors/debian.list", f"{identity.mirrors.debian}\n", 0o644))
        files.append(("etc/apt/mirrors/debian-security.list", f"{identity.mirrors.security}\n", 0o644))
    return files


class TarWriter:
    """Adds entries of root with the time of now to a tar."""

    def __init__(self, tar: tarfile.TarFile) -> None:
        self._tar = tar
        self._folders: set[str] = set()
        self._now = int(time.time())

    def folder(self, path: str, mode: int) -> None:
        if path not in self._folders:
            self._folders.add(path)
            self._add(path, mode, tarfile.DIRTYPE, b"")

    def file(self, path: str, content: str, mode: int) -> None:
        self._add(path, mode, tarfile.REGTYPE, content.encode())

    def _add(self, path: str, mode: int, kind: bytes, content: bytes) -> None:
        entry = tarfile.TarInfo(path)
        entry.type, entry.mode, entry.size, entry.mtime = kind, mode, len(content), self._now
        self._tar.addfile(entry, io.BytesIO(content))
