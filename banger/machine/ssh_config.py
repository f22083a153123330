"""`ssh NAME.vm` by the person's own ssh: a file of ours with one block for each machine, and a line that includes it.

The file (`~/.config/banger/ssh_config`) is ours and kept true. `~/.ssh/config` is the person's: `install` and
`uninstall` change it, nothing else does, and of it only the lines between two markers.
"""

from __future__ import annotations

import os
import re
import tempfile
from collections.abc import Iterable
from enum import StrEnum
from pathlib import Path

from banger.errors import BangerError, Reason
from banger.guest.ssh import Access, quote_path
from banger.machine.machine_lock import locked
from banger.machine.machines import Machines
from banger.machine.record import State
from banger.paths import Paths, ensure_private
from banger.settings.write import write_file
from cache.failures import explained

_HEAD = "# Written by banger, and written anew whenever a machine comes or goes.\n"
_BEGIN = b"# >>> banger ssh-config >>>"
_END = b"# <<< banger ssh-config <<<"
# What means itself in a pattern of glob(7) and in a line of ssh_config(5).
_NOT_PLAIN = re.compile(r"[^\w./-]")


class Inclusion(StrEnum):
    """Whether the person's configuration includes ours."""

    NO = "no"
    YES = "yes"
    DAMAGED = "damaged"


def ssh_config_path(paths: Paths) -> Path:
    return paths.config / "ssh_config"


def user_config_path() -> Path:
    return Path.home() / ".ssh" / "config"


def write_ssh_config(machines: Machines) -> Path:
    """Bring our file up to date with the records; one that is right already is not touched.

    Raises `BangerError` when it cannot be written, or when the key of the settings is not there.
    """
    path = ssh_config_path(machines.paths)
    with explained("write the ssh configuration", path.parent):
        ensure_private(path.parent)
        # Whoever reads the records last also writes last.
        with locked(path.parent):
            made = [machine for machine in machines.records.list() if machine.state is not State.CREATING]
            text = format_ssh_config(map(machines.access, made))
            if _read(path) != text.encode():
                write_file(path, text, overwrite=True)
    return path


def format_ssh_config(accesses: Iterable[Access]) -> str:
    return _HEAD + "".join(f"\n{_format_host(access)}" for access in accesses)


def format_include(path: Path) -> str:
    """The line that includes a file. It takes a pattern, in which `?` stands for any one character."""
    return f"Include {_NOT_PLAIN.sub('?', str(path))}"


def find_inclusion(user_config: Path) -> Inclusion:
    """Raises `BangerError` for a file that cannot be read."""
    content = _read(user_config) or b""
    try:
        return Inclusion.NO if _cut(content, user_config) == content else Inclusion.YES
    except BangerError:
        return Inclusion.DAMAGED


def install(user_config: Path, include: str) -> bool:
    """Put our lines at the top of the person's configuration; False when they are there.

    At the top, since an Include below a Host line would count for that host only. A file that is missing is made
    with mode 0600, its folder with 0700; one that is there keeps its mode and owner, and of a link what it leads to is
    written. Raises `BangerError` for damaged markers, and when it cannot be written.
    """
    content = _read(user_config) or b""
    block = b"".join(line + b"\n" for line in (_BEGIN, include.encode(), _END))
    fresh = block + _cut(content, user_config)
    if fresh == content:
        return False
    with explained("write the ssh configuration", user_config):
        if not os.path.lexists(user_config.parent):
            user_config.parent.mkdir(mode=0o700, parents=True)
        _replace(user_config, fresh)
    return True


def uninstall(user_config: Path) -> bool:
    """Take exactly our lines away; False when there are none. A file that held nothing else goes, if it is no link."""
    content = _read(user_config) or b""
    fresh = _cut(content, user_config)
    if fresh == content:
        return False
    with explained("write the ssh configuration", user_config):
        if fresh or user_config.is_symlink():
            _replace(user_config, fresh)
        else:
            user_config.unlink()
    return True


def _format_host(access: Access) -> str:
    """As `banger vm ssh` does it: root, one key, and a host key that is known before the first connection."""
    options = {
        "HostName": str(access.address),
        "User": "root",
        "IdentityFile": quote_path(access.identity),
        "IdentitiesOnly": "yes",
        "HostKeyAlias": access.name,
        "UserKnownHostsFile": quote_path(access.known_hosts),
        "GlobalKnownHostsFile": "none",
        "StrictHostKeyChecking": "yes",
        "CheckHostIP": "no",
        "UpdateHostKeys": "no",
        "LogLevel": "ERROR",
    }
    return f"Host {access.name}.vm\n" + "".join(f"    {name} {value}\n" for name, value in options.items())


def _cut(content: bytes, path: Path) -> bytes:
    """Everything outside of our markers, byte for byte."""
    kept = []
    inside = False
    for line in content.splitlines(keepends=True):
        # An editor may have given them other line ends.
        word = line.strip()
        if word == (_BEGIN if inside else _END):
            raise _damaged(path)
        if word in (_BEGIN, _END):
            inside = word == _BEGIN
        elif not inside:
            kept.append(line)
    if inside:
        raise _damaged(path)
    return b"".join(kept)


def _damaged(path: Path) -> BangerError:
    return BangerError(
        f"the lines of banger in {path} are damaged: of their two markers one is missing",
        reason=Reason.CORRUPT,
        hint=f"remove by hand what is left of them: {_BEGIN.decode()}, the Include, {_END.decode()}",
    )


def _read(path: Path) -> bytes | None:
    with explained("read the ssh configuration", path):
        try:
            return path.read_bytes()
        except FileNotFoundError:
            return None


def _replace(path: Path, content: bytes) -> None:
    """Whole or not at all, with the mode and owner that it has."""
    target = Path(os.path.realpath(path))
    with tempfile.NamedTemporaryFile(prefix=".banger-", dir=target.parent, delete=False) as file:
        fresh = Path(file.name)
        try:
            if target.exists():
                found = target.stat()
                os.fchown(file.fileno(), found.st_uid, found.st_gid)
                os.fchmod(file.fileno(), found.st_mode & 0o7777)
            file.write(content)
            file.flush()
            os.fsync(file.fileno())
            fresh.replace(target)
        except BaseException:
            fresh.unlink(missing_ok=True)
            raise
