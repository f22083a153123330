"""A Firecracker that can be started: `fake_firecracker.py` behind a wrapper that looks like the real program."""

from __future__ import annotations

import contextlib
import json
import os
import shlex
import signal
import sys
import tempfile
from collections.abc import Iterator
from dataclasses import dataclass, replace
from pathlib import Path

import pytest

from banger.vmm.firecracker import Firecracker
from banger.vmm.spec import Drive, MachineSpec, Nic

_HERE = Path(__file__).parent
_DESCRIPTION = _HERE.parents[2] / "shared" / "firecracker" / "firecracker-api.yaml"


@dataclass(frozen=True)
class Stage:
    """A folder with everything that one machine needs, and the fake program."""

    folder: Path
    spec: MachineSpec

    def firecracker(
        self, faults: dict[str, str] | None = None, schema: Path | None = None, timeout_s: float = 60
    ) -> Firecracker:
        """A driver whose program misbehaves as `faults` say; with a `schema` it also judges every body."""
        settings = self.folder / "settings.json"
        settings.write_text(
            json.dumps(
                {
                    "faults": faults or {},
                    "schema": None if schema is None else str(schema),
                    "requests": str(self.folder / "requests"),
                }
            )
        )
        program = self.folder / "firecracker"
        words = shlex.join([sys.executable, "-I", str(_HERE / "fake_firecracker.py"), str(settings)])
        program.write_text(f'#!/bin/sh\necho $$ >{shlex.quote(str(self._pid_file))}\nexec {words} "$@"\n')
        program.chmod(0o755)
        return Firecracker(str(program), timeout_s=timeout_s)

    @property
    def _pid_file(self) -> Path:
        return self.folder / "pid"

    def requests(self) -> list[tuple[str, object]]:
        lines = (self.folder / "requests").read_text().splitlines()
        return [(note["path"], note["body"]) for note in map(json.loads, lines)]

    def with_spec(self, **changes: object) -> Stage:
        return replace(self, spec=replace(self.spec, **changes))

    def leftovers(self) -> list[str]:
        """What a failed start has left behind: sockets, and the process, dead or alive."""
        left = [path.name for path in self.spec.runtime_dir.iterdir()]
        if self._pid_file.exists() and Path(f"/proc/{self._pid_file.read_text().strip()}").exists():
            left.append("the process")
        return left

    def end(self) -> None:
        if not self._pid_file.exists():
            return
        pid = int(self._pid_file.read_text())
        with contextlib.suppress(FileNotFoundError, ProcessLookupError, ChildProcessError):
            # The number may belong to another process by now.
            if str(self.folder).encode() in Path(f"/proc/{pid}/cmdline").read_bytes():
                os.kill(pid, signal.SIGKILL)
            os.waitpid(pid, 0)


@pytest.fixture
def stage() -> Iterator[Stage]:
    # Not tmp_path: a Unix socket's path must stay under 108 bytes.
    with tempfile.TemporaryDirectory(prefix="fc-") as name:
        folder = Path(name)
        files = {word: folder / word for word in ("vmlinux", "initramfs", "root.erofs", "work.ext4")}
        for path in files.values():
            path.touch()
        (folder / "run").mkdir(mode=0o700)
        spec = MachineSpec(
            name="box",
            kernel=files["vmlinux"],
            initramfs=files["initramfs"],
            command_line=("console=ttyS0", "reboot=k"),
            vcpus=2,
            memory_mib=512,
            drives=(Drive("root", files["root.erofs"], True), Drive("work", files["work.ext4"], False)),
            nic=Nic("tap-box", "02:00:00:00:00:05"),
            runtime_dir=folder / "run",
            log=folder / "log",
        )
        stage = Stage(folder, spec)
        yield stage
        stage.end()


@pytest.fixture(scope="session")
def api_schema(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Firecracker's API description as JSON, which the fake reads faster than YAML."""
    if not _DESCRIPTION.exists():
        pytest.skip(f"Firecracker's API description is not at {_DESCRIPTION}")
    import yaml

    path = tmp_path_factory.mktemp("api") / "schema.json"
    path.write_text(json.dumps(yaml.safe_load(_DESCRIPTION.read_text())))
    return path
