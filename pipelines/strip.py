"""What of a machine's changes never gets into an image: who it was, what it logged, what its people typed.

Only what a machine added or changed is left out; what its image has there shows again. What it deleted stays deleted.
Decided by paths alone.
"""

from __future__ import annotations

import contextlib
import re
from collections.abc import Mapping
from fnmatch import translate

from banger.errors import BangerError
from pipelines.oci.changeset import Node, Tree, split_path
from pipelines.oci.limits import Limits
from pipelines.oci.tar import Kind

# Raised with each change of what is left out.
VERSION = 1

_FILES = (
    # What banger writes into a machine (banger/machine/identity.py).
    "etc/.updated",
    "etc/apt/mirrors/debian.list",
    "etc/apt/mirrors/debian-security.list",
    "etc/hostname",
    "etc/hosts",
    "etc/machine-id",
    "etc/resolv.conf",
    "etc/ssh/ssh_host_*",
    "etc/ssh/sshd_config.d/00-banger.conf",
    "usr/lib/systemd/system-shutdown/banger",
    "var/.updated",
    # What else tells one machine from another, or is to be known to one only.
    "etc/dropbear/dropbear_*_host_key",
    "etc/machine-info",
    "var/lib/NetworkManager/*.lease",
    "var/lib/NetworkManager/secret_key",
    "var/lib/dbus/machine-id",
    "var/lib/systemd/credential.secret",
    "var/lib/systemd/random-seed",
    "var/lib/urandom/random-seed",
)
# Everything in them, folders too: these have names that tell of the machine, or do not outlive it.
_CONTENTS = (
    "dev",
    "proc",
    # Another disk lies over it.
    "root",
    "run",
    "sys",
    "tmp",
    "var/crash",
    "var/lib/cloud",
    "var/lib/dhcp",
    "var/lib/dhcpcd",
    "var/lib/systemd/coredump",
    "var/lib/systemd/timers",
    "var/log/journal",
    "var/run",
    "var/tmp",
)
# Of these the folders stay: a service looks for the one that it logs to.
_LOGS = ("var/log",)
# Wherever somebody's home is.
_HISTORIES = (".*_history", ".*_history-*.tmp", ".histfile", ".history", ".lesshst", ".viminfo", "fish_history")
_KEYS = ".ssh"

_IS_FILE = re.compile("|".join(map(translate, _FILES)))
_IS_HISTORY = re.compile("|".join(map(translate, _HISTORIES)))
# A machine has folders of its own in the place of these, if they are links (pipelines/runtime/init).
_NEVER_LINKS = {"dev", "proc", "run", "sys"}
_FOLDERS = sorted({*_CONTENTS, *_LOGS, *(path.rpartition("/")[0] for path in _FILES)} - _NEVER_LINKS)


def is_identity(path: str, kind: Kind) -> bool:
    """Whether what is at a path of a machine's root belongs to that machine alone."""
    parts = path.split("/")
    inside = {"/".join(parts[:count]) for count in range(1, len(parts))}
    if not inside.isdisjoint(_CONTENTS) or _KEYS in parts[:-1]:
        return True
    if kind is Kind.FOLDER:
        return False
    named = _IS_FILE.match(path) or _IS_HISTORY.match(parts[-1])
    return named is not None or not inside.isdisjoint(_LOGS)


def find_aliases(image: Node) -> dict[str, str]:
    """Where links of the image lead to, of the folders that `is_identity` knows: what they are called there, and here.

    An image may have its /etc elsewhere; what a machine writes to /etc is found there then.
    """
    tree = Tree(Limits())
    tree.root = image
    aliases: dict[str, str] = {}
    for folder in _FOLDERS:
        # One that leads out of the image leads nowhere.
        with contextlib.suppress(BangerError):
            way = tree.find_parent([*split_path(folder), ""])
            real = None if way is None else "/".join(way.names)
            if real and real != folder:
                aliases.setdefault(real, folder)
    return aliases


def rename(path: str, aliases: Mapping[str, str]) -> str:
    """The name by which `is_identity` knows a path."""
    parts = path.split("/")
    for count in range(len(parts), 0, -1):
        folder = "/".join(parts[:count])
        if folder in aliases:
            return "/".join([aliases[folder], *parts[count:]])
    return path
