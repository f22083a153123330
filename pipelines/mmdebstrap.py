"""Debian systems as tar streams, made by mmdebstrap exactly as a lock says.

Every package of the lock is asked for with its version, so that the archive either gives what was resolved or the
step fails as "changed". The same lock gives the same bytes, for root and for an ordinary user.
"""

from __future__ import annotations

import re
import subprocess
import threading
from collections.abc import Sequence
from typing import IO

from banger.errors import BangerError, Reason
from banger.run import check, printable, start
from pipelines.apt import ARCHITECTURE, Mirrors, format_sources
from pipelines.job import Job
from pipelines.lock import read_lock
from pipelines.namespace import plan_namespace

_VERSION_GONE = re.compile(rb"Version '[^']*' for '[^']*' was not found|Unable to locate package|404 +Not Found")
_KEEP_STDERR_BYTES = 64 * 1024


def make_system(job: Job, output: str, mirrors: Mirrors, variant: str, hooks: Sequence[str] = ()) -> None:
    """Run mmdebstrap for the job's input `lock` and keep its tar stream as `output`.

    `hooks` are further mmdebstrap arguments (`--customize-hook=…`).
    """
    lock = read_lock(job)
    scratch = job.directory / "mmdebstrap"
    scratch.mkdir()
    argv = plan_namespace(
        [
            "mmdebstrap",
            "--mode=root",
            f"--variant={variant}",
            "--format=tar",
            f"--architectures={ARCHITECTURE}",
            '--aptopt=APT::Install-Recommends "false"',
            '--aptopt=Acquire::Retries "3"',
            f"--include={','.join(lock.pins)}",
            *hooks,
            lock.suite,
            "-",
            *format_sources(lock.suite, mirrors),
        ],
        scratch,
    )
    with (
        job.create(output) as sink,
        start(
            argv,
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            env={"SOURCE_DATE_EPOCH": str(lock.epoch), "LC_ALL": "C.UTF-8"},
        ) as child,
    ):
        assert child.stdout is not None
        assert child.stderr is not None
        said = _Said(job, child.stderr)
        said.start()
        job.copy(child.stdout, sink, "writing the system")
        status = child.wait()
        said.join()
        if status != 0 and _VERSION_GONE.search(said.text):
            raise BangerError(f"the archive of {lock.suite} has changed", reason=Reason.CHANGED)
        check(["mmdebstrap", lock.suite], status, bytes(said.text))


class _Said(threading.Thread):
    """Reads mmdebstrap's stderr: its stages (`I: …`) become progress, its end is kept for the error."""

    def __init__(self, job: Job, stream: IO[bytes]) -> None:
        super().__init__(daemon=True)
        self.text = bytearray()
        self._job = job
        self._stream = stream

    def run(self) -> None:
        for line in self._stream:
            self.text += line
            del self.text[:-_KEEP_STDERR_BYTES]
            if line.startswith(b"I: ") and line.endswith(b"...\n"):
                self._job.progress(printable(line[3:-4].decode("utf-8", "replace")))
