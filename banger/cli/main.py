"""The `banger` command: finds the noun, and turns errors and signals into exit statuses.

Data goes to stdout, everything else to stderr. 1 is a refusal or failure, 2 a misuse of the command line, 130 Ctrl-C.
"""

from __future__ import annotations

import contextlib
import importlib
import os
import signal
import sys
from pathlib import Path
from types import FrameType
from typing import TYPE_CHECKING

import click

from banger import __version__
from banger.cli.output import explain_refusal, print_error
from banger.errors import BangerError

if TYPE_CHECKING:
    from click.shell_completion import CompletionItem

COMPLETE = "_BANGER_COMPLETE"
_NOUNS = {
    "cache": "What was built is kept here.",
    "daemon": "bangerd: serves names, tidies up.",
    "completion": "Words for your shell to complete by Tab.",
    "config": "Settings: show what counts, write a file to begin with.",
    "doctor": "What this host has, what it lacks, and what to do.",
    "image": "What machines are made from.",
    "kernel": "What machines boot.",
    "ssh-config": "For ssh NAME.vm from any terminal.",
    "vm": "Machines: run, create, start, stop, delete, list, show, ssh, exec, logs, …",
}
_INTERRUPTED = 130


class _Nouns(click.Group):
    """Imports a noun's file when it is asked for."""

    def list_commands(self, ctx: click.Context) -> list[str]:
        return sorted({*super().list_commands(ctx), *_NOUNS})

    def get_command(self, ctx: click.Context, cmd_name: str) -> click.Command | None:
        if cmd_name in _NOUNS:
            name = cmd_name.replace("-", "_")
            command: click.Command = getattr(importlib.import_module(f"banger.cli.{name}"), name)
            return command
        return super().get_command(ctx, cmd_name)

    # Neither the help of the top nor Tab needs an import.
    def format_commands(self, ctx: click.Context, formatter: click.HelpFormatter) -> None:
        with formatter.section("Commands"):
            formatter.write_dl(_tell_nouns())

    def shell_complete(self, ctx: click.Context, incomplete: str) -> list[CompletionItem]:
        from click.shell_completion import CompletionItem

        nouns = [CompletionItem(noun, help=about) for noun, about in _tell_nouns() if noun.startswith(incomplete)]
        return [*nouns, *click.Command.shell_complete(self, ctx, incomplete)]


def _tell_nouns() -> list[tuple[str, str]]:
    return sorted([*_NOUNS.items(), ("version", "Print the version.")])


@click.group(cls=_Nouns, context_settings={"help_option_names": ["-h", "--help"]})
@click.version_option(__version__, prog_name="banger", message="%(prog)s %(version)s")
@click.option("-q", "--quiet", is_flag=True, help="No progress, only errors and data.")
@click.pass_context
def banger(ctx: click.Context, quiet: bool) -> None:
    """Throw-away Linux machines with one command.

    \b
    banger vm run                        a machine, and a shell in it
    banger vm run -- COMMAND             run a command in one, with its exit status
    banger vm run --rm -- COMMAND        and delete the machine afterwards
    """
    ctx.obj = {"quiet": quiet}


@banger.command()
def version() -> None:
    """Print the version."""
    click.echo(f"banger {__version__}")


def main() -> None:
    """The console script."""
    _open_standard_streams()
    for number in (signal.SIGINT, signal.SIGTERM, signal.SIGHUP):
        # Under nohup, or as a background job of a script, some are ignored: that is somebody's wish.
        if signal.getsignal(number) is not signal.SIG_IGN:
            signal.signal(number, _interrupt)
    try:
        status = _run()
    except BrokenPipeError:
        # The reader of our stdout has gone: nothing to say, and nobody to say it to.
        status = 128 + signal.SIGPIPE
    except OSError:
        # Nor can it be said on stderr.
        status = 1
    finally:
        _settle_standard_streams()
    sys.exit(status)


def _run() -> int:
    """One command, with its errors told. (click's own `main` would make a silent exit 1 of a reader that has gone.)"""
    try:
        if COMPLETE in os.environ:
            from banger.cli.completion import answer

            return answer(banger, os.environ[COMPLETE])
        with banger.make_context("banger", sys.argv[1:]) as context:
            banger.invoke(context)
        sys.stdout.flush()
    except BangerError as error:
        return _tell(error)
    except click.exceptions.Exit as ended:
        return ended.exit_code
    except click.ClickException as error:
        error.show()
        return error.exit_code
    except (KeyboardInterrupt, click.Abort):
        # A terminal has just shown ^C.
        click.echo(err=True)
        return _INTERRUPTED
    except BrokenPipeError:
        raise
    except OSError as error:
        return _tell(explain_refusal(error))
    return 0


def _tell(error: BangerError) -> int:
    print_error(error, as_json="--json" in _own_words())
    return 1


def _open_standard_streams() -> None:
    """Those that are closed lead nowhere: otherwise Python has None there, and the next file takes their number."""
    for number in range(3):
        try:
            os.fstat(number)
        except OSError:
            nowhere = os.open(os.devnull, os.O_RDWR)
            os.dup2(nowhere, number)
            if nowhere != number:
                os.close(nowhere)
            os.set_inheritable(number, True)
    for name, mode in (("stdin", "r"), ("stdout", "w"), ("stderr", "w")):
        if getattr(sys, name) is None:
            setattr(sys, name, Path(os.devnull).open(mode))  # noqa: SIM115 - for as long as we live


def _settle_standard_streams() -> None:
    """What cannot be written goes nowhere, so that Python does not fail on it once more at its end."""
    for stream in (sys.stdout, sys.stderr):
        try:
            stream.flush()
        except OSError:
            with contextlib.suppress(OSError):
                os.dup2(os.open(os.devnull, os.O_WRONLY), stream.fileno())


def _interrupt(_number: int, _frame: FrameType | None) -> None:
    """What was begun is undone, a machine with --rm is deleted. Once is enough: a second must not hit the undoing."""
    for each in (signal.SIGINT, signal.SIGTERM, signal.SIGHUP):
        # A function, not SIG_IGN, which children would inherit.
        signal.signal(each, lambda _number, _frame: None)
    raise KeyboardInterrupt


def _own_words() -> list[str]:
    """The command line without the command that is meant for a guest."""
    words = sys.argv[1:]
    return words[: words.index("--")] if "--" in words else words
