"""`banger cache verify`: everything is read again, and what is bad is told and taken out."""

from __future__ import annotations

import sys
import time
from collections.abc import Sequence
from contextlib import closing
from dataclasses import dataclass
from shlex import quote
from typing import TYPE_CHECKING, Any

import click

from banger.cli.app import App, pass_app
from banger.cli.options import json_option
from banger.cli.output import format_age, print_json
from banger.errors import BangerError
from banger.run import printable
from banger.sizes import format_bytes

if TYPE_CHECKING:
    from banger.paths import Paths
    from cache import Finding, Verification
    from cache.checkpoint import Checkpoint

_STEP = "verify"


@dataclass(frozen=True)
class _Pace:
    """What was read within `seconds`."""

    objects: int
    bytes: int
    seconds: float

    @property
    def mb_per_s(self) -> float:
        return self.bytes / 1e6 / self.seconds if self.seconds > 0 else 0.0


@click.command()
@click.option("--repair", is_flag=True, help="Move bad objects to quarantine, and drop their records and bad ones.")
@click.option("--restart", is_flag=True, help="Begin anew, also where one that was interrupted could be gone on with.")
@json_option
@pass_app
def verify(app: App, repair: bool, restart: bool, as_json: bool) -> None:
    """Read everything again, and tell what is not what its name says.

    Exits with 1 when anything was found, also when it was repaired. Images, kernels and machines that hold a bad object
    are bad with it, and are told with what to do about it. Quarantine is emptied by `cache gc` after 30 days. One that
    was interrupted within the last day is gone on with.
    """
    from banger.garbage import find_owners
    from pipelines.graph import describe_holder

    reporter, say = app.voices(as_json)

    def show(verification: Verification) -> None:
        pace = measure(verification)
        text = f"{verification.fraction:.0%}, {pace.objects} objects, {pace.mb_per_s:.0f} MB/s,"
        reporter.progress(_STEP, text, pace.bytes)

    begin = time.monotonic()

    def measure(verification: Verification) -> _Pace:
        return _Pace(verification.object_count, verification.size_bytes, time.monotonic() - begin)

    verification = app.whole_store.verify(
        find_owners(app.paths),
        repair=repair,
        resume=not restart,
        on_progress=show,
        on_wait=lambda holder: say(f"waiting: {describe_holder(holder)}"),
    )
    if verification.resumed is not None:
        say(_tell_resumed(verification.resumed))
    findings: list[Finding] = []
    reporter.started(_STEP)
    try:
        with closing(iter(verification)) as found:
            for finding in found:
                findings.append(finding)
    finally:
        # What was found is told, also when it is interrupted then. (Nothing may be printed into a live view.)
        reporter.close()
        if not as_json:
            _print_findings(app.paths, findings)
    pace = measure(verification)
    if as_json:
        print_json(_describe(verification, pace, findings))
    else:
        app.say(_summarize(verification, pace, findings))
    if findings:
        sys.exit(1)


def _tell_resumed(checkpoint: Checkpoint) -> str:
    age = format_age(time.time() - checkpoint.saved_at)
    place = checkpoint.done.rpartition("/")[2][:12]
    return (
        f"goes on after {place}, where one was interrupted {age} ago ({checkpoint.fraction:.0%} was read; "
        "--restart begins anew)"
    )


def _print_findings(paths: Paths, findings: Sequence[Finding]) -> None:
    for finding in findings:
        click.echo(printable(f"{finding.problem}: {finding.path}: {finding.detail}"))
        lines = [f"{owner} is damaged with it: {_tell_remedy(paths, owner)}" for owner in finding.owners]
        lines += [f"{user} reads it: do not trust what that makes of it" for user in finding.users]
        for line in lines:
            click.echo(f"  {printable(line)}")


def _tell_remedy(paths: Paths, owner: str) -> str:
    """`owner` as `find_owners` calls it."""
    from catalog.origin import tell_remake

    what, _, name = owner.partition(" ")
    if what == "vm":
        return f"banger vm delete {quote(name)}"
    names = {each.what: each for each in (paths.images, paths.kernels)}.get(what)
    if names is None:
        return "it is nothing of banger's"
    try:
        named = names.find(name)
    except BangerError as error:
        return error.hint
    return tell_remake(what, name, {} if named is None else named.details)


def _summarize(verification: Verification, pace: _Pace, findings: Sequence[Finding]) -> str:
    read = f"{pace.objects} objects, {format_bytes(pace.bytes)}, {pace.mb_per_s:.0f} MB/s"
    if not findings:
        return f"{read}: everything is as it should be"
    repaired = sum(each.repaired for each in findings)
    text = f"{read}: {len(findings)} found, {repaired} repaired, {verification.dropped_records} records dropped"
    if any(each.repaired and each.problem != "bad-record" for each in findings):
        text += "\n  what was taken out is kept for 30 days in the folder `quarantine` of the cache"
    if any(not each.repaired and each.problem != "quarantined" for each in findings):
        text += "\n  banger cache verify --repair takes out what is bad; it is made again when it is needed"
    return text


def _describe(verification: Verification, pace: _Pace, findings: Sequence[Finding]) -> dict[str, Any]:
    return {
        "objects": pace.objects,
        "bytes": pace.bytes,
        "seconds": round(pace.seconds, 3),
        "mb_per_s": round(pace.mb_per_s, 1),
        "resumed_after": None if verification.resumed is None else verification.resumed.done.rpartition("/")[2],
        "records_dropped": verification.dropped_records,
        "findings": [
            {
                "path": str(each.path),
                "digest": each.digest,
                "problem": each.problem,
                "detail": each.detail,
                "owners": list(each.owners),
                "users": list(each.users),
                "repaired": each.repaired,
            }
            for each in findings
        ],
    }
