"""ssh into a guest: the user's key, a host key that is known before the first connection, and the system's `ssh`.

The user's own ssh configuration is left out of it (`-F none`), so that nothing in it can change where a connection
goes or what it trusts.
"""

from __future__ import annotations

import os
import subprocess
import tempfile
from dataclasses import dataclass
from ipaddress import IPv4Address
from pathlib import Path

from banger.errors import BangerError, Reason
from banger.paths import ensure_private
from banger.run import get_program, run

SSH_FAILED = 255
_CONNECT_TIMEOUT_S = 15


@dataclass(frozen=True)
class Access:
    """How to reach one guest. `known_hosts` holds its host key under `name`, and nothing else."""

    name: str
    address: IPv4Address
    identity: Path
    known_hosts: Path


@dataclass(frozen=True)
class HostKey:
    """A guest's ssh host key in OpenSSH's formats: private key file, and the line of the .pub file without comment."""

    private: str
    public: str


def ensure_key(configured: Path | None, own: Path) -> Path:
    """The private key to use: the configured one (which must exist), else banger's own, made when missing."""
    if configured is not None:
        for path in (configured, public_path(configured)):
            if not path.is_file():
                raise BangerError(
                    f"ssh_key_path: there is no file {path}",
                    reason=Reason.NOT_FOUND,
                    hint=f'make it: ssh-keygen -t ed25519 -f "{configured}"',
                )
        return configured
    if not own.exists():
        ensure_private(own.parent)
        with tempfile.TemporaryDirectory(dir=own.parent) as folder:
            fresh = Path(folder) / own.name
            run(["ssh-keygen", "-q", "-t", "ed25519", "-N", "", "-C", "banger", "-f", str(fresh)])
            # Two that do this at once agree on whichever linked its private key first.
            try:
                os.link(fresh, own)
            except FileExistsError:
                return own
            public_path(fresh).replace(public_path(own))
    return own


def read_public_key(identity: Path) -> str:
    """The public key of an identity, one line. A key banger made has it beside it; else it is derived."""
    path = public_path(identity)
    if path.exists():
        return path.read_text().strip()
    return run(["ssh-keygen", "-y", "-f", str(identity)]).stdout.decode().strip()


def make_host_key(folder: Path) -> HostKey:
    """A fresh host key for a guest, so that the host knows it before the first connection; made below `folder`."""
    with tempfile.TemporaryDirectory(dir=folder) as scratch:
        path = Path(scratch) / "key"
        run(["ssh-keygen", "-q", "-t", "ed25519", "-N", "", "-C", "", "-f", str(path)])
        return HostKey(path.read_text(), " ".join(public_path(path).read_text().split()[:2]))


def format_known_host(name: str, key: HostKey) -> str:
    """One line of sshd(8) "SSH_KNOWN_HOSTS FILE FORMAT"."""
    return f"{name} {key.public}\n"


def plan_ssh(access: Access, command: str | None, *, tty: bool) -> list[str]:
    """The `ssh` command line; `command` is a line for the guest's shell, None for a login shell."""
    options = {
        # The host's own bridge lies between: the quickest exchange first (a tenth of a second, where emulated).
        "KexAlgorithms": "^curve25519-sha256",
        "ConnectTimeout": str(_CONNECT_TIMEOUT_S),
        "HostKeyAlias": access.name,
        # Not -i: it takes a `%` as it stands when it looks for the file, and as a token when it opens it.
        "IdentityFile": quote_path(access.identity),
        "IdentitiesOnly": "yes",
        "LogLevel": "ERROR",
        # A guest that refuses the key must not get to ask the person for anything.
        "PreferredAuthentications": "publickey",
        "ServerAliveInterval": "15",
        "StrictHostKeyChecking": "yes",
        "UserKnownHostsFile": quote_path(access.known_hosts),
        "GlobalKnownHostsFile": "none",
        "UpdateHostKeys": "no",
    }
    argv = [get_program("ssh"), "-F", "none", "-t" if tty else "-T"]
    for name, value in options.items():
        argv += ["-o", f"{name}={value}"]
    argv += [f"root@{access.address}"]
    return argv if command is None else [*argv, "--", command]


def run_ssh(access: Access, command: str | None, *, tty: bool) -> int:
    """Run `ssh` with the terminal, or whatever stands for it, passed through. Gives ssh's own exit status."""
    child = subprocess.Popen(plan_ssh(access, command, tty=tty))
    try:
        status = child.wait()
    except KeyboardInterrupt:
        # A terminal sends Ctrl-C to ssh too, which ends by it when the session is not interactive.
        child.terminate()
        child.wait()
        raise
    if status < 0:
        raise BangerError(f"ssh was killed by signal {-status}", reason=Reason.COMMAND_FAILED)
    return status


def quote_path(path: Path) -> str:
    """A file name in ssh_config(5): in quotes, and nothing in it is a token ("TOKENS")."""
    text = str(path).replace("\\", "\\\\").replace('"', '\\"').replace("%", "%%")
    return f'"{text}"'


def public_path(private: Path) -> Path:
    return private.with_name(private.name + ".pub")
