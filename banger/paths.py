"""Where things are, by the XDG Base Directory specification. All folders of ours have mode 0700."""

from __future__ import annotations

import os
import stat
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from banger.errors import BangerError, Reason

if TYPE_CHECKING:
    from catalog.local import Names


@dataclass(frozen=True)
class Paths:
    """`runtime` holds sockets and is gone after a reboot; everything else stays."""

    config: Path
    state: Path
    store: Path
    runtime: Path

    @classmethod
    def from_environment(cls, environment: Mapping[str, str] = os.environ) -> Paths:
        home = Path(environment.get("HOME") or _home_of_user())

        def base(variable: str, default: str) -> Path:
            value = environment.get(variable, "")
            # "All paths … must be absolute. If … relative … consider the path invalid and ignore it."
            return Path(value) if value.startswith("/") else home / default

        runtime = environment.get("XDG_RUNTIME_DIR", "")
        # logind removes /run/user/UID with the user's last session, but a machine outlives it.
        if not runtime.startswith("/") or runtime.startswith("/run/user/"):
            runtime = "/run" if os.geteuid() == 0 else ""
        return cls(
            config=base("XDG_CONFIG_HOME", ".config") / "banger",
            state=base("XDG_STATE_HOME", ".local/state") / "banger",
            store=base("XDG_CACHE_HOME", ".cache") / "banger",
            # In /tmp it is the folder itself, since `ensure_private` checks the last one of a path, not its parents.
            runtime=Path(runtime) / "banger" if runtime else Path(f"/tmp/banger-{os.getuid()}"),  # noqa: S108
        )

    @property
    def images(self) -> Names:
        from catalog.local import Names  # with the store, which Tab and `vm list` do without

        return Names(self.state / "images", "image")

    @property
    def kernels(self) -> Names:
        from catalog.local import Names

        return Names(self.state / "kernels", "kernel")

    @property
    def catalogs(self) -> Path:
        """What is remembered of them."""
        return self.state / "catalogs"

    @property
    def machines(self) -> Path:
        return self.state / "vms"

    @property
    def database(self) -> Path:
        return self.state / "banger.db"


def ensure_private(folder: Path) -> Path:
    """Make a folder with mode 0700, or refuse one that somebody else could have prepared (a link, a foreign owner)."""
    folder.mkdir(mode=0o700, parents=True, exist_ok=True)
    found = folder.lstat()
    if not stat.S_ISDIR(found.st_mode) or found.st_uid != os.geteuid():
        raise BangerError(
            f"{folder} is not a folder of yours",
            reason=Reason.NO_PERMISSION,
            hint="remove it, or set XDG_RUNTIME_DIR to a folder that only you can write",
        )
    if stat.S_IMODE(found.st_mode) != 0o700:
        folder.chmod(0o700)
    return folder


def _home_of_user() -> str:
    import pwd

    try:
        return pwd.getpwuid(os.getuid()).pw_dir
    except KeyError as error:
        raise BangerError(
            f"user {os.getuid()} has no home: HOME is not set and there is no such account",
            reason=Reason.NOT_FOUND,
            hint="set HOME to a folder of yours",
        ) from error
