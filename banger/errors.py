"""The ground: one error type for everything a user can do something about.

Programming errors stay assertions or plain exceptions; they are bugs and should look like bugs.
"""

from __future__ import annotations

from enum import StrEnum


class Reason(StrEnum):
    """Why it failed, in a word that tests and `--json` readers may rely on; the wording of messages may change."""

    BAD_INPUT = "bad-input"
    NOT_FOUND = "not-found"
    ALREADY_EXISTS = "already-exists"
    WRONG_STATE = "wrong-state"
    MISSING_PROGRAM = "missing-program"
    COMMAND_FAILED = "command-failed"
    NO_SPACE = "no-space"
    IO = "io"
    CORRUPT = "corrupt"
    TIMEOUT = "timeout"
    NO_PERMISSION = "no-permission"
    UNAVAILABLE = "unavailable"
    MONITOR_DIED = "monitor-died"
    GUEST = "guest"
    CHANGED = "changed"
    NETWORK = "network"
    UNAUTHORIZED = "unauthorized"
    TOO_LARGE = "too-large"
    IN_USE = "in-use"
    UNTRUSTED = "untrusted"


class BangerError(Exception):
    """A refusal or failure: one clear line, a hint what to do about it, and a reason."""

    def __init__(self, message: str, *, reason: Reason, hint: str = "") -> None:
        super().__init__(message)
        self.message = message
        self.hint = hint
        self.reason = reason

    def __str__(self) -> str:
        return self.message
