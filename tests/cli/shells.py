"""The real bash, zsh and fish, in which Tab is pressed behind `banger …`."""

from __future__ import annotations

import contextlib
import os
import pty
import re
import select
import subprocess
import sys
import time
from pathlib import Path
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from conftest import Cli

_PATIENCE_S = 60.0
_READY = "READY> "
_INTERACTIVE = {"bash": ["bash", "--norc", "--noprofile", "-i"], "zsh": ["zsh", "-f", "-i"]}
_SETUP = {
    "bash": "bind 'set bell-style none'; source {script}; PS1={prompt!r}",
    # As it is installed: a file of that name in the fpath.
    "zsh": "fpath=({script.parent} $fpath); autoload -Uz compinit; compinit -D -u; bindkey -e; PS1={prompt!r}",
}
# bash calls a function with these variables; what it would ask compopt for is told too.
_BASH = """
source "$1"
COMP_LINE=$2 COMP_POINT=${#2}; shift 2
COMP_WORDS=("$@") COMP_CWORD=$(($# - 1))
compopt() { printf '%s\\n' "$*"; }
_banger_completion "$1" "${COMP_WORDS[COMP_CWORD]}" "${COMP_WORDS[COMP_CWORD - 1]}"
[ ${#COMPREPLY[@]} = 0 ] || printf '%s\\n' "${COMPREPLY[@]}"
"""


def write_script(cli: Cli, shell: str) -> Path:
    done = cli.run("completion", shell)
    assert (done.returncode, done.stderr) == (0, "")
    script = cli.home / shell / "_banger"
    script.parent.mkdir(exist_ok=True)
    script.write_text(done.stdout)
    return script


def offered_by_bash(cli: Cli, *words: str, line: str | None = None) -> list[str]:
    """What bash puts in the place of the last of `words`, into which it has cut the line."""
    argv = ["bash", "--norc", "-c", _BASH, "bash", write_script(cli, "bash"), line or " ".join(words), *words]
    return _run(cli, *argv)


def offered_by_fish(cli: Cli, line: str) -> list[str]:
    argv = ["fish", "--no-config", "-c", "source $argv[1]; complete -C $argv[2]", write_script(cli, "fish"), line]
    # A description stands behind a tab.
    return [each.partition("\t")[0] for each in _run(cli, *argv)]


def _run(cli: Cli, *argv: object) -> list[str]:
    done = subprocess.run(
        list(map(str, argv)),
        env=_variables(cli),
        cwd=cli.home,
        capture_output=True,
        text=True,
        stdin=subprocess.DEVNULL,
        timeout=_PATIENCE_S,
    )
    assert (done.returncode, done.stderr) == (0, "")
    return done.stdout.splitlines()


def line_after_tab(cli: Cli, shell: str, typed: str) -> str:
    """The line as the shell has it when Tab was pressed at its end, on a terminal.

    Without the space or slash that may follow: zsh takes it back as soon as the cursor moves.
    """
    setup = _SETUP[shell].format(script=write_script(cli, shell), prompt=_READY)
    pid, terminal = pty.fork()
    if pid == 0:
        os.chdir(cli.home)
        os.execvpe(_INTERACTIVE[shell][0], _INTERACTIVE[shell], {**_variables(cli), "TERM": "xterm"})
    try:
        os.write(terminal, f"{setup}\n".encode())
        _read_until(terminal, re.compile(f"[\r\n].*{_READY}"))
        # To the beginning of the line, so that it becomes something to print.
        os.write(terminal, f"{typed}\t\x01echo 'GO''T<'\x05'>'\n".encode())
        return _read_until(terminal, re.compile(r"GOT<(.*)>"))[1].rstrip(" /")
    finally:
        os.close(terminal)
        os.waitpid(pid, 0)


def read_rest(terminal: int) -> bytes:
    """All that is said until everybody has left the terminal; one read may give a part of it."""
    said = b""
    with contextlib.suppress(OSError):  # EIO: the other end is closed, and everything was read
        while block := os.read(terminal, 65536):
            said += block
    os.close(terminal)
    return said


def _read_until(terminal: int, wanted: re.Pattern[str]) -> re.Match[str]:
    said = b""
    deadline = time.monotonic() + _PATIENCE_S
    while (found := wanted.search(said.decode("utf-8", "replace"))) is None:
        ready, _, _ = select.select([terminal], [], [], max(0.0, deadline - time.monotonic()))
        assert ready, said
        said += os.read(terminal, 4096)
    return found


def _variables(cli: Cli) -> dict[str, str]:
    variables = cli.variables()
    return {**variables, "PATH": f"{Path(sys.executable).parent}:{variables['PATH']}"}
