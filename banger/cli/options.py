"""What several commands share on the command line."""

from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING, Any, TypeVar

import click

from banger.cli import candidates

if TYPE_CHECKING:
    from click.shell_completion import CompletionItem

    from banger.machine.image_config import RunAs

_Function = TypeVar("_Function", bound=Callable[..., Any])

# The options of `machine_options`.
ORDER = ("name", "image", "kernel", "vcpu", "memory", "disk_size", "nat", "no_pull", "no_build")
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


class CommandAfterName(click.Command):
    """A command line that goes on, after the name of a machine, with what is run there: Tab has no say in that."""

    def shell_complete(self, ctx: click.Context, incomplete: str) -> list[CompletionItem]:
        return [] if ctx.params.get("name") else super().shell_complete(ctx, incomplete)


def machine_options(function: _Function) -> _Function:
    """What a new machine is to be like. Values are checked by the app, so that a bad one is refused with status 1."""
    for option in reversed(
        (
            click.option("--name", metavar="NAME", help="1 to 63 of a-z, 0-9 and -; made up when omitted."),
            click.option(
                "--image", metavar="NAME", help="What it is made from.", shell_complete=candidates.known_images
            ),
            click.option(
                "--kernel",
                metavar="NAME",
                help="What it boots; the image's own choice when omitted.",
                shell_complete=candidates.known_kernels,
            ),
            click.option("--vcpu", metavar="N", help="Number of virtual processors."),
            click.option("--memory", metavar="SIZE", help='Such as "4G", "512M"; a bare number is MiB.'),
            click.option("--disk-size", metavar="SIZE", help="Of its system disk and of /root, each. Sparse."),
            click.option("--nat/--no-nat", default=True, help="Whether it reaches the outside.", show_default=True),
            click.option("--no-pull", is_flag=True, help="Ask neither catalogs nor registries."),
            click.option(
                "--no-build", is_flag=True, help="Take what is here or in a catalog; build no image or kernel."
            ),
        )
    ):
        function = option(function)
    return function


def parse_run_as(user: str | None) -> RunAs | None:
    from banger.machine.image_config import RunAs

    return None if user is None else RunAs(user)
