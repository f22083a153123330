"""What is said over the daemon's socket: one JSON object a line, one answer for each, in order (docs/daemon.md).

A request names what it wants in `do`; an answer has `ok` with the result, or `error` with message, hint and reason.
Pure: no socket is touched here.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from typing import Any

from banger.errors import BangerError, Reason

PROTOCOL_VERSION = 1
# Of a request, and of an answer.
MAX_LINE_BYTES = 1 << 20


def format_request(do: str, **arguments: object) -> bytes:
    return json.dumps({"do": do, **arguments}).encode() + b"\n"


def parse_request(line: bytes) -> tuple[str, Mapping[str, Any]]:
    """What is wanted, and the arguments. Raises BAD_INPUT for everything else."""
    found = _parse(line)
    if not isinstance(found, dict) or not isinstance(found.get("do"), str):
        raise BangerError(
            "a request is a JSON object with a text under 'do'", reason=Reason.BAD_INPUT, hint="see docs/daemon.md"
        )
    return found.pop("do"), found


def format_result(result: object) -> bytes:
    return json.dumps({"ok": result}).encode() + b"\n"


def format_refusal(error: BangerError) -> bytes:
    told = {"message": error.message, "hint": error.hint, "reason": error.reason}
    return json.dumps({"error": told}).encode() + b"\n"


def parse_answer(line: bytes) -> Any:
    """The result; an error is raised as it was there. Raises UNAVAILABLE for what is no answer."""
    found = _parse(line)
    match found:
        case {"ok": result}:
            return result
        case {"error": {"message": str(message), "hint": str(hint), "reason": str(reason)}} if reason in list(Reason):
            raise BangerError(message, hint=hint, reason=Reason(reason))
        case _:
            raise BangerError("bangerd gave no answer that makes sense", reason=Reason.UNAVAILABLE)


def _parse(line: bytes) -> Any:
    try:
        return json.loads(line)
    except (ValueError, RecursionError):
        return None
