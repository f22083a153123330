"""The daemon as a service of the user's own systemd: systemd.unit(5), systemd.service(5)."""

from __future__ import annotations

import os
import sys
from collections.abc import Callable
from pathlib import Path

from banger.errors import BangerError, Reason
from banger.run import find_program, run

_NAME = "bangerd.service"
_UNIT = """\
[Unit]
Description=Names and tidiness for banger's machines

[Service]
ExecStart={program}
Restart=on-failure
StandardError=append:{log}
# Machines are not its children, but were they: its end is not theirs.
KillMode=process

[Install]
WantedBy=default.target
"""


def install_unit(log: Path, make_way: Callable[[], object]) -> Path:
    """Write the unit and start it. Raises UNAVAILABLE where no systemd of this user answers."""
    path = _unit_path()
    _systemctl("--version")
    _systemctl("show-environment")
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(format_unit(_find_bangerd(), log))
    _systemctl("daemon-reload")
    make_way()
    _systemctl("enable", "--now", _NAME)
    return path


def uninstall_unit() -> None:
    """Stop it and remove the unit; one that is not there is fine."""
    path = _unit_path()
    if path.exists():
        _systemctl("disable", "--now", _NAME)
        path.unlink()
        _systemctl("daemon-reload")


def format_unit(program: Path, log: Path) -> str:
    return _UNIT.format(program=_quote(program), log=str(log).replace("%", "%%"))


def _unit_path() -> Path:
    base = os.environ.get("XDG_CONFIG_HOME", "")
    return (Path(base) if base.startswith("/") else Path.home() / ".config") / "systemd/user" / _NAME


def _find_bangerd() -> Path:
    return Path(sys.executable).with_name("bangerd")


def _quote(path: Path) -> str:
    """systemd.service(5), "COMMAND LINES": specifiers begin with %; no variables are looked for in a program's path."""
    text = str(path).replace("\\", "\\\\").replace('"', '\\"').replace("%", "%%")
    return f'"{text}"'


def _systemctl(*words: str) -> None:
    if find_program("systemctl") is None:
        raise BangerError("this host has no systemd", reason=Reason.UNAVAILABLE, hint="banger daemon start")
    done = run(["systemctl", "--user", *words], must_succeed=False)
    if done.returncode != 0:
        said = done.stderr.decode("utf-8", "replace").strip().splitlines()
        raise BangerError(
            f"your systemd refused: {said[-1] if said else ' '.join(words)}",
            reason=Reason.UNAVAILABLE,
            hint="bangerd also starts by itself, with the first machine",
        )
