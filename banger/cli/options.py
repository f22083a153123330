"""What several commands share on the command line."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, TypeVar

import click

_Function = TypeVar("_Function", bound=Callable[..., Any])

# The options of `machine_options`.
ORDER = ("name", "image", "kernel", "vcpu", "memory", "disk_size", "nat")
json_option = click.option("--json", "as_json", is_flag=True, help="Print data as JSON.")
user_option = click.option(
    "--user", type=click.Choice(["image", "root"]), help="Who runs it: root, or the user that the image names."
)


class Nouns(click.Group):
    """A group whose commands know -h."""

    def __init__(self, *args: Any, **kwargs: Any) -> None:
        kwargs.setdefault("context_settings", {"help_option_names": ["-h", "--help"]})
        super().__init__(*args, **kwargs)


class CommandAfterDashes(click.Command):
    """A command line that may end in `-- COMMAND ARG…`: what comes after the dashes is passed on untouched."""

    def parse_args(self, ctx: click.Context, args: list[str]) -> list[str]:
        command: tuple[str, ...] = ()
        if "--" in args:
            at = args.index("--")
            command = tuple(args[at + 1 :])
            args = args[:at]
            if not command:
                raise click.UsageError("There is no command after '--'.", ctx)
        rest = super().parse_args(ctx, args)
        ctx.params["command"] = command
        return rest

    def collect_usage_pieces(self, ctx: click.Context) -> list[str]:
        return [*super().collect_usage_pieces(ctx), "[-- COMMAND [ARG]...]"]


def machine_options(function: _Function) -> _Function:
    """What a new machine is to be like. Values are checked by the app, so that a bad one is refused with status 1."""
    for option in reversed(
        (
            click.option("--name", metavar="NAME", help="1 to 63 of a-z, 0-9 and -; made up when omitted."),
            click.option("--image", metavar="NAME", help="What it is made from."),
            click.option("--kernel", metavar="NAME", help="What it boots; the image's own choice when omitted."),
            click.option("--vcpu", metavar="N", help="Number of virtual processors."),
            click.option("--memory", metavar="SIZE", help='Such as "4G", "512M"; a bare number is MiB.'),
            click.option("--disk-size", metavar="SIZE", help="Of its system disk and of /root, each. Sparse."),
            click.option("--nat/--no-nat", default=True, help="Whether it reaches the outside.", show_default=True),
        )
    ):
        function = option(function)
    return function
