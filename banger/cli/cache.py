"""`banger cache …`: the store of what was built."""

from __future__ import annotations

import time
from collections import defaultdict
from collections.abc import Callable
from dataclasses import asdict
from typing import TYPE_CHECKING, Any, TypeVar

import click

from banger.cli.app import App, pass_app
from banger.cli.cache_push import push
from banger.cli.cache_verify import verify
from banger.cli.cache_why import why
from banger.cli.options import Nouns, json_option
from banger.cli.output import format_age, print_json, print_table, say
from banger.errors import BangerError, Reason
from banger.sizes import format_bytes

if TYPE_CHECKING:
    from cache import Collection, Dropped, KindUsage

_T = TypeVar("_T")


@click.group(cls=Nouns)
def cache() -> None:
    """The store: what was built is kept here and found again by its inputs."""


cache.add_command(push)
cache.add_command(verify)
cache.add_command(why)


@cache.command()
@json_option
@pass_app
def du(app: App, as_json: bool) -> None:
    """How much there is, by kind of step.

    SHARED is held by images, kernels and machines as well, and stays with them when the cache goes; removing the rest
    gives OWN back.
    """
    usage = app.whole_store.usage()
    if as_json:
        print_json(
            {
                "path": str(app.paths.store),
                **_describe_usage(usage.all),
                "kinds": [{"kind": each.kind, **_describe_usage(each)} for each in usage.kinds],
                "records": usage.record_count,
                "unfinished_bytes": usage.unfinished_bytes,
                "quarantine_bytes": usage.quarantine_bytes,
            }
        )
        return
    rows = [
        (name, str(each.object_count), *map(format_bytes, (each.size_bytes, each.shared_bytes, each.own_bytes)))
        for name, each in (*((each.kind or "(no record)", each) for each in usage.kinds), ("all", usage.all))
    ]
    print_table(("KIND", "OBJECTS", "SIZE", "SHARED", "OWN"), rows)
    for what, size_bytes in (("being written", usage.unfinished_bytes), ("in quarantine", usage.quarantine_bytes)):
        if size_bytes:
            app.say(f"{what}: {format_bytes(size_bytes)}")


def _describe_usage(usage: KindUsage) -> dict[str, int]:
    return {
        "objects": usage.object_count,
        "size_bytes": usage.size_bytes,
        "shared_objects": usage.shared_count,
        "shared_bytes": usage.shared_bytes,
        "own_bytes": usage.own_bytes,
    }


@cache.command()
@click.option("--max-size", metavar="SIZE", help='Leave no more than this, such as "20G" or "10%" of the filesystem.')
@click.option("--older-than", metavar="AGE", help='What was not used for so long goes, such as "30d" or "12h".')
@click.option("--all", "everything", is_flag=True, help="All that nobody holds goes.")
@click.option("--dry-run", is_flag=True, help="Only say what would go.")
@json_option
@pass_app
def gc(app: App, max_size: str | None, older_than: str | None, everything: bool, dry_run: bool, as_json: bool) -> None:
    """Remove what nobody holds, least recently used first. It is made again when it is needed.

    Without --max-size, --older-than or --all, down to `cache.max_size` of the configuration. What images, kernels and
    machines hold stays, and so does what a running banger uses. What was used within the hour stays, too, but for --all
    and a shorter --older-than.
    """
    from banger.garbage import find_owners, get_limit_bytes
    from banger.settings import values
    from cache import YOUNG_S, Policy
    from pipelines.graph import describe_holder

    if everything and not (max_size is None and older_than is None):
        raise click.UsageError("--all leaves nothing for --max-size or --older-than to say.")
    max_bytes: int | None = None
    older_than_s: float | None = None
    young_s = YOUNG_S
    if max_size is not None or (older_than is None and not everything):
        size = app.settings.cache_max_size
        if max_size is not None:
            size = _parse("--max-size", max_size, values.parse_cache_size, 'a size such as "20G", or "10%"')
        max_bytes = get_limit_bytes(app.whole_store.root, size)
    if older_than is not None:
        allowed = 'a time such as "30d" or "12h"'
        older_than_s = float(_parse("--older-than", older_than, values.parse_duration, allowed))
        young_s = min(young_s, older_than_s)
    if everything:
        older_than_s = young_s = 0.0
    collected = app.whole_store.collect(
        Policy(max_bytes=max_bytes, older_than_s=older_than_s, young_s=young_s),
        find_owners(app.paths),
        dry_run=dry_run,
        on_wait=lambda holder: app.say(f"waiting: {describe_holder(holder)}"),
    )
    if as_json:
        print_json({"dry_run": dry_run, "max_bytes": max_bytes, **_describe_collection(collected)})
        return
    _print_collection(collected, dry_run=dry_run)


def _parse(option: str, text: str, parse: Callable[[object], _T], allowed: str) -> _T:
    from banger.settings.entry import Unfit

    try:
        return parse(text)
    except Unfit as error:
        raise BangerError(f"{option} {text!r} is not {allowed}", reason=Reason.BAD_INPUT) from error


_WORDS = {
    "held": "held by",
    "in-use": "in use by",
    "young": "used within the hour",
    "fits": "within the limits",
}
# Who holds or uses something, when that is not known.
_SOMEBODY = {"held": "somebody outside", "in-use": "a running program"}
# A kernel may be held by every machine.
_MOST_NAMES = 3


def _describe_collection(collected: Collection) -> dict[str, Any]:
    return {
        "dropped": [asdict(each) for each in collected.dropped],
        "freed_bytes": collected.freed_bytes,
        "records": collected.record_count,
        "kept": [
            {"why": each.why, "by": list(each.by), "objects": each.count, "size_bytes": each.size_bytes}
            for each in collected.kept
        ],
        "own_bytes": collected.own_bytes,
    }


def _name_some(names: tuple[str, ...]) -> str:
    rest = len(names) - _MOST_NAMES
    return ", ".join(names[:_MOST_NAMES]) + (f" and {rest} more" if rest > 0 else "")


def _print_collection(collected: Collection, *, dry_run: bool) -> None:
    goes = "would go" if dry_run else "went"
    now = time.time()
    kinds: dict[str, list[Dropped]] = defaultdict(list)
    for dropped in collected.dropped:
        kinds[dropped.kind].append(dropped)
    rows = [
        (
            goes,
            kind or "(no record)",
            str(len(each)),
            format_bytes(sum(one.size_bytes for one in each)),
            f"not used for {format_age(now - max(one.used_at for one in each))}",
        )
        for kind, each in sorted(kinds.items())
    ]
    rows += [
        (
            "stays",
            "",
            str(each.count),
            format_bytes(each.size_bytes),
            f"{_WORDS[each.why]} {_name_some(each.by) or _SOMEBODY.get(each.why, '')}".rstrip(),
        )
        for each in collected.kept
    ]
    print_table(("", "KIND", "OBJECTS", "SIZE", "WHY"), rows)
    say(
        f"{format_bytes(collected.freed_bytes)} {goes}, with {collected.record_count} records; "
        f"{format_bytes(collected.own_bytes)} held by nobody else {'would stay' if dry_run else 'stay'}"
    )
