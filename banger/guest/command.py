"""A command as one line for a guest: exactly these words, in a folder, with variables, as a user.

Everything about a command is said on this line and nothing of it is written into the image, so it holds whichever
ssh server runs there. The line for a POSIX shell and the wrapping that takes it through any login shell are two
functions. Programs of the guest's runtime are used where an image may have none; a command that is named without a
folder is always the image's own (busybox would prefer its applets).
"""

from __future__ import annotations

import os
import re
from collections.abc import Sequence
from dataclasses import dataclass
from shlex import quote

from banger.guest.ssh import SSH_FAILED

_RUNTIME = "/run/banger/bin"
_SHELL = '"${SHELL:-/bin/sh}"'
# What every shell (sh, csh, fish, rc) takes as it stands between single quotes.
_UNSAFE = re.compile(rb"[^ -~]|[!'\\]")


@dataclass(frozen=True)
class Surroundings:
    """`folder` is made when it is missing; None is where a login begins.

    `user` is in the notation of image-spec, config.md, "User", and is looked up in the guest; None is root.
    """

    env: tuple[tuple[str, str], ...] = ()
    folder: str | None = None
    user: str | None = None


def format_command(argv: Sequence[str], around: Surroundings, status_file: str | None) -> str:
    """A line for a POSIX shell that runs exactly `argv`.

    The shell stays the parent of the command, so a death by signal becomes 128 + signal as usual: otherwise ssh would
    report it as 255, its own word for a failed connection. `status_file` is written by a command that ends with
    255, which tells it from a connection that broke.
    """
    words = _plan_prefix(around)
    if words and "=" in argv[0]:
        # env(1) would take it for a variable.
        words += ["/bin/sh", "-c", 'exec "$@"', "sh"]
    # The program is quoted even where it need not be: `if` and `A=b` are words of the shell's own otherwise.
    first, *rest = [*words, *argv]
    program = quote(first)
    line = " ".join([program if program != first else f"'{program}'", *map(quote, rest)])
    # Not `status`: zsh has a variable of that name.
    line = f"{_format_entry(around)}{line}; ended=$?"
    if status_file is not None:
        line += f"; [ $ended -ne {SSH_FAILED} ] || echo $ended >{quote(status_file)}"
    return f"{line}; exit $ended"


def format_shell(around: Surroundings) -> str | None:
    """A line that becomes root's own shell there; None when a plain login does.

    With variables of the image it is no login shell: /etc/profile would set another PATH than the image wants.
    """
    if around == Surroundings():
        return None
    words = [*map(quote, _plan_prefix(around)), _SHELL, *([] if around.env else ["-l"])]
    return f"{_format_entry(around)}exec {' '.join(words)}"


def format_for_any_shell(line: str) -> str:
    """The same line for whatever shell root may have (csh, fish, …): it sees three simple words."""
    escaped = _UNSAFE.sub(lambda found: b"\\%04o" % ord(found[0]), os.fsencode(line)).decode("ascii")
    return f"""/bin/sh -c 'eval "$({_RUNTIME}/busybox printf %b "$0")"' '{escaped}'"""


def format_removal(path: str) -> str:
    return f"{_RUNTIME}/busybox rm -f {quote(path)}"


def _format_entry(around: Surroundings) -> str:
    """Into the folder, or no further."""
    if around.folder is None:
        return ""
    folder = quote(around.folder)
    return f"{{ [ -d {folder} ] || {_RUNTIME}/busybox mkdir -p {folder}; }} && cd {folder} && "


def _plan_prefix(around: Surroundings) -> list[str]:
    """The variables last: HOME is the user's own unless the image says otherwise."""
    words = [] if around.user is None else [f"{_RUNTIME}/as", around.user]
    if around.env:
        words += [f"{_RUNTIME}/env", "--", *(f"{name}={value}" for name, value in around.env)]
    return words
