"""`banger cache why`: what a thing is made from, what of it is here, and what changed."""

from __future__ import annotations

import json
import os
import re
import sys
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

import click

from banger.cli import candidates
from banger.cli.app import App, pass_app
from banger.cli.options import json_option
from banger.cli.output import print_json
from banger.run import printable

if TYPE_CHECKING:
    from click.shell_completion import CompletionItem

    from cache import JSON
    from pipelines.changes import Change
    from pipelines.why import Explanation

_SHORT = 12
_LONGEST_VALUE = 60
_MOST_CHANGES = 12
_DIGEST = re.compile(r"(?:sha256:|sha512:)?([0-9a-f]{64,128})")
_COLOURS = {"hit": "green", "miss": "yellow", "not-needed": "cyan"}


def _offer_targets(context: click.Context, parameter: click.Parameter, begin: str) -> list[CompletionItem]:
    found = [*candidates.known_images(context, parameter, begin), *candidates.known_kernels(context, parameter, begin)]
    return list({each.value: each for each in found}.values())


@click.command()
@click.argument("target", shell_complete=_offer_targets)
@json_option
@pass_app
def why(app: App, target: str, as_json: bool) -> None:
    """The steps that make TARGET, which of them would run if it were built now, and what changed since the last time.

    TARGET is an image or a kernel, the path of a recipe, or a step as progress shows it (rootfs:debian-bookworm).
    Nothing is asked of the network: what a suite, a tag or a package is now, only building tells.
    """
    from pipelines.read_only import ReadOnlyStore
    from pipelines.recorded import RecordedTargets
    from pipelines.why import explain

    paths = app.paths
    store = ReadOnlyStore.open(paths.store)
    targets = RecordedTargets(store, paths.images, paths.kernels, app.settings.debian_mirror)
    trees = [explain(targets, found) for found in targets.find(target)]
    if as_json:
        print_json([_describe(step) for tree in trees for step in tree])
        return
    for tree in trees:
        _print_tree(tree)


def _describe(step: Explanation) -> dict[str, object]:
    return {
        "name": step.name,
        "kind": step.kind,
        "key": step.key,
        "state": step.state,
        "why": step.why,
        "changes": [{"what": change.what, "old": change.old, "new": change.new} for change in step.changes],
        "inputs": dict(step.inputs),
    }


@dataclass(frozen=True)
class _Line:
    """A step in its place. `below` is what lines of its own begin with; one that was shown before is only named."""

    begin: str
    below: str
    step: Explanation
    is_again: bool


def _print_tree(steps: Sequence[Explanation]) -> None:
    lines = list(_draw({step.name: step for step in steps}, steps[0].name, "", "", set()))
    width = max(len(line.begin) + len(printable(line.step.name)) for line in lines)
    for line in lines:
        step = line.step
        name = line.begin + printable(step.name)
        if line.is_again:
            click.echo(f"{name} (see above)")
            continue
        state = _paint(step.state.replace("-", " ").ljust(10), _COLOURS[step.state])
        why = f"  {_format_why(step)}" if step.why else ""
        click.echo(f"{name.ljust(width)}  {(step.key or '')[:_SHORT].ljust(_SHORT)}  {state}{why}".rstrip())
        for change in step.changes[:_MOST_CHANGES]:
            click.echo(f"{line.below}{_format_change(change)}")
        if len(step.changes) > _MOST_CHANGES:
            click.echo(f"{line.below}and {len(step.changes) - _MOST_CHANGES} more")


def _draw(steps: Mapping[str, Explanation], name: str, begin: str, below: str, seen: set[str]) -> Iterator[_Line]:
    needed = list(dict.fromkeys(steps[name].inputs.values()))
    is_again = name in seen
    seen.add(name)
    inner = [] if is_again else needed
    yield _Line(begin, below + ("│    " if inner else "     "), steps[name], is_again)
    for number, each in enumerate(inner, 1):
        is_last = number == len(inner)
        yield from _draw(
            steps, each, below + ("└─ " if is_last else "├─ "), below + ("   " if is_last else "│  "), seen
        )


def _format_why(step: Explanation) -> str:
    return printable(step.why + ":" if step.changes else step.why)


def _format_change(change: Change) -> str:
    return printable(f"{change.what}: {_format_value(change.old)} → {_format_value(change.new)}")


def _format_value(value: JSON) -> str:
    """Compact; of digests the beginning."""
    if value is None:
        return "(none)"
    digest = _DIGEST.fullmatch(value) if isinstance(value, str) else None
    if digest is not None:
        return digest[1][:_SHORT]
    text = json.dumps(value, ensure_ascii=False, separators=(",", ":"), sort_keys=True)
    return text if len(text) <= _LONGEST_VALUE else f"{text[: _LONGEST_VALUE - 1]}…"


def _paint(text: str, colour: str) -> str:
    is_wanted = sys.stdout.isatty() and not os.environ.get("NO_COLOR") and os.environ.get("TERM") != "dumb"
    return click.style(text, fg=colour) if is_wanted else text
