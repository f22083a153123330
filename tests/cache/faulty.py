"""A process of its own whose n-th system call of some kind fails: real code on a real kernel, nothing else changed."""

from __future__ import annotations

import ctypes
import json
import os
import signal
import socket
import subprocess
import tempfile
import traceback
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from banger.errors import BangerError

_DEADLINE_S = 60
# <linux/prctl.h>; where Yama allows a debugger its descendants only, the process has to say that it may be attached.
_PR_SET_PTRACER, _PR_SET_PTRACER_ANY = 0x59616D61, ctypes.c_ulong(-1)


@dataclass(frozen=True)
class Outcome:
    """`gave` is what was returned, None after an error. `injected` says whether the fault was met at all."""

    gave: object
    error: BangerError | None
    injected: bool


def run_faulty(action: Callable[[], object], calls: str, error: str, when: str) -> Outcome:
    """Run `action` in a fork; the `when`-th of the system calls `calls` of each of its threads fails with `error`.

    "3" is the third one, "3+" all from that on.
    AssertionError when it ends in another way than by returning or with a BangerError.
    """
    ours, theirs = socket.socketpair()
    with ours, theirs, tempfile.NamedTemporaryFile() as log:
        ours.settimeout(_DEADLINE_S)
        pid = os.fork()
        if pid == 0:
            _run(action, theirs)
        theirs.close()
        tracer = subprocess.Popen(
            ["strace", "-f", "-o", log.name, "-e", f"trace={calls}"]
            + ["-e", f"inject={calls}:error={error}:when={when}", "-p", str(pid)],
            stderr=subprocess.PIPE,
            text=True,
        )
        try:
            assert tracer.stderr is not None
            attached = tracer.stderr.readline()
            assert "attached" in attached, attached
            ours.sendall(b"go")
            told = _receive(ours)
        finally:
            os.kill(pid, signal.SIGKILL)
            os.waitpid(pid, 0)
            tracer.communicate(timeout=_DEADLINE_S)
        injected = b"(INJECTED)" in Path(log.name).read_bytes()
    assert "crash" not in told, told["crash"]
    failed = BangerError(**told["error"]) if "error" in told else None
    return Outcome(told.get("gave"), failed, injected)


def _run(action: Callable[[], object], theirs: socket.socket) -> None:
    """In the fork. What it tells goes by `sendto`, which nobody injects faults into."""
    try:
        ctypes.CDLL(None).prctl(_PR_SET_PTRACER, _PR_SET_PTRACER_ANY, 0, 0, 0)
        if theirs.recv(2) == b"go":
            theirs.sendall(json.dumps(_try(action)).encode())
    finally:
        os._exit(0)


def _try(action: Callable[[], object]) -> dict[str, object]:
    try:
        return {"gave": action()}
    except BangerError as error:
        return {"error": {"message": error.message, "reason": error.reason, "hint": error.hint}}
    except BaseException:  # noqa: BLE001 - told to the test
        return {"crash": traceback.format_exc()}


def _receive(ours: socket.socket) -> dict[str, Any]:
    text = b""
    while data := ours.recv(1 << 16):
        text += data
    found = json.loads(text)
    assert isinstance(found, dict)
    return found
