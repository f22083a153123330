"""`banger completion SHELL`: a script with which the shell asks banger at each Tab, and the answers to it.

The scripts and what they ask are click's. bash has one of ours: it cuts words at `:` and `=`, and images are called
`debian:12`.
"""

from __future__ import annotations

import os
import sys
from pathlib import Path

import click
from click.shell_completion import (
    BashComplete,
    CompletionItem,
    FishComplete,
    ShellComplete,
    ZshComplete,
    split_arg_string,
)

from banger.cli.main import COMPLETE

# Asked with the line up to the cursor, and with what bash takes for the last word of it: that is what it replaces.
_BASH = """\
%(complete_func)s() {
    local type value line=${COMP_LINE:0:COMP_POINT} last=${COMP_WORDS[COMP_CWORD]}
    COMPREPLY=()
    while IFS=, read -r type value; do
        case $type in
        dir) compopt -o dirnames ;;
        file) compopt -o default ;;
        plain) COMPREPLY+=("$value") ;;
        esac
    done < <(COMP_WORDS=$line COMP_CWORD=$last %(complete_var)s=bash_complete "$1")
}

complete -o nosort -F %(complete_func)s %(prog_name)s
"""


class _Words(ShellComplete):
    """As click answers, but nothing in the command of a guest, and `--image=` stays before what follows it."""

    def get_completions(self, args: list[str], incomplete: str) -> list[CompletionItem]:
        if "--" in args:
            return []
        found = super().get_completions([*args], incomplete)
        option, sign, _ = incomplete.partition("=")
        if not sign or not option.startswith("--"):
            return found
        return [_change(item, f"{option}={item.value}") for item in found]


class _Bash(_Words, BashComplete):
    source_template = _BASH

    def source(self) -> str:
        # Without click's question for bash's version, which may be that of another bash than the one that reads it.
        return ShellComplete.source(self)

    def get_completion_args(self) -> tuple[list[str], str]:
        # One more letter, so that there is a last word also after a space, whatever is quoted before it.
        *words, last = split_arg_string(f"{os.environ['COMP_WORDS']}x")
        return words[1:], last[:-1]

    def get_completions(self, args: list[str], incomplete: str) -> list[CompletionItem]:
        head = _find_head(incomplete, os.environ["COMP_CWORD"])
        return [_change(item, item.value.removeprefix(head)) for item in super().get_completions(args, incomplete)]


class _Zsh(_Words, ZshComplete):
    pass


class _Fish(_Words, FishComplete):
    pass


_SHELLS: dict[str, type[ShellComplete]] = {"bash": _Bash, "zsh": _Zsh, "fish": _Fish}


@click.command(context_settings={"help_option_names": ["-h", "--help"]})
@click.argument("shell", type=click.Choice(list(_SHELLS)))
@click.pass_context
def completion(ctx: click.Context, shell: str) -> None:
    """Print the script that makes Tab complete commands, options and names of machines, images and kernels.

    `make install` puts all three below PREFIX/share, where most shells look. By hand, for you alone:

    \b
    bash   banger completion bash > ~/.local/share/bash-completion/completions/banger
           (needs the package bash-completion; without it, in ~/.bashrc:
           source <(banger completion bash))
    zsh    banger completion zsh > ~/.zfunc/_banger
           (in ~/.zshrc, before compinit: fpath+=~/.zfunc)
    fish   banger completion fish > ~/.config/fish/completions/banger.fish
    """
    click.echo(_make(shell, ctx.find_root().command).source(), nl=False)


def answer(command: click.Command, question: str) -> int:
    """What a script asks: `bash_complete`. Whatever goes wrong, nothing is said: it would stand in the prompt."""
    sys.stderr = Path(os.devnull).open("w")  # noqa: SIM115 - for as long as we live
    shell, _, verb = question.partition("_")
    if shell not in _SHELLS or verb != "complete":
        return 1
    click.echo(_make(shell, command).complete())
    return 0


def _make(shell: str, command: click.Command) -> ShellComplete:
    return _SHELLS[shell](command, {}, "banger", COMPLETE)


def _change(item: CompletionItem, value: str) -> CompletionItem:
    """Files and folders the shell finds by itself."""
    return CompletionItem(value, item.type, item.help) if item.type == "plain" else item


def _find_head(word: str, last: str) -> str:
    """What of a word bash has cut off before the part that it replaces; of one that ends with a sign, all."""
    if last and not last.strip(":="):
        return word
    return word[: -len(last)] if last and word.endswith(last) else ""
