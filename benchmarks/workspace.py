"""A repository of 20,000 files and 1 GB on the disk of a machine, against `tar | ssh tar` into one that runs.

Ours holds the packing of the history too, and the disk itself; the other only moves the files. Sending again what has
changed is timed as well.
"""

from __future__ import annotations

import json
import os
import subprocess
import sys
import tempfile
import time
from pathlib import Path

from common import describe, describe_machine, host

from banger.machine.lifecycle import Machines
from banger.machine.record import Records
from banger.paths import Paths
from banger.settings import load_settings
from banger.workspace.repository import open_repository
from banger.workspace.shipment import Shipment
from pipelines.ext4 import make_ext4
from tests.boot.host import Host
from tests.boot.sources import git

_FILES = 20_000
_FILE_BYTES = 50_000
_TIMES = int(sys.argv[1]) if len(sys.argv) > 1 else 3


def main() -> None:
    describe_machine()
    with tempfile.TemporaryDirectory(prefix="banger-bench-", dir=os.environ.get("BANGER_BENCH_DIR")) as name:
        folder = Path(name)
        repository = make_repository(folder / "repository")
        mib = _FILES * _FILE_BYTES / 2**20
        ours = [pack(repository, folder / f"machine-{number}") for number in range(_TIMES)]
        middle = describe("onto a work disk, with its history", ours)
        with host() as machine:
            machine.succeed("vm", "run", "--detach", "--name", "bench", "--memory", "2G")
            # Once: under software emulation it takes minutes.
            hand = [send_by_hand(machine, repository)]
            by_ssh = describe("tar | ssh tar, files alone", hand)
            machine.succeed("vm", "workspace", "prepare", "bench", str(repository))
            (repository / "000/00000").write_text("changed\n")
            begin = time.perf_counter()
            machine.succeed("vm", "workspace", "prepare", "bench", "--yes")
            describe("workspace prepare, one file changed", [time.perf_counter() - begin])
            machine.succeed("vm", "delete", "bench")
    print(
        f"{mib / middle:.0f} MiB/s onto the disk, {mib / by_ssh:.0f} MiB/s by tar and ssh: {by_ssh / middle:.1f} times"
    )


def make_repository(root: Path) -> Path:
    """Of which nothing can be compressed."""
    for number in range(_FILES):
        path = root / f"{number // 100:03}" / f"{number:05}"
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(os.urandom(_FILE_BYTES))
    git(root, "init", "-q")
    git(root, "config", "user.email", "bench@example.org")
    git(root, "config", "user.name", "bench")
    git(root, "-c", "core.compression=0", "add", "-A")
    git(root, "commit", "-q", "-m", "all")
    git(root, "-c", "core.compression=0", "repack", "-q", "-a", "-d")
    return root


def pack(repository: Path, machine: Path) -> float:
    machine.mkdir()
    begin = time.perf_counter()
    with Shipment(open_repository(repository)).pack(machine) as cargo:
        make_ext4(machine / "work.ext4", 8192, lambda tar: (_write_root(tar), cargo.write(tar))[0])
    took = time.perf_counter() - begin
    (machine / "work.ext4").unlink()
    return took


def _write_root(tar: object) -> None:
    from banger.machine.identity import TarWriter

    TarWriter(tar).folder(".", 0o700)  # type: ignore[arg-type]


def send_by_hand(machine: Host, repository: Path) -> float:
    paths = Paths.from_environment(machine.home.environment)
    machines = Machines(Records(paths.database), paths, load_settings(paths))
    record = machines.records.get(json.loads(machine.succeed("vm", "show", "bench"))["name"])
    access = machines.access(record)
    ssh = ["ssh", "-F", "none", "-i", str(access.identity), "-o", f"UserKnownHostsFile={access.known_hosts}"]
    ssh += ["-o", "HostKeyAlias=bench", f"root@{record.address}"]
    subprocess.run(["ip", "netns", "exec", machine.namespace, *ssh, "rm -rf /root/hand; mkdir /root/hand"], check=True)
    begin = time.perf_counter()
    with subprocess.Popen(["tar", "-c", "--exclude=.git", "-C", repository, "."], stdout=subprocess.PIPE) as tar:
        there = ["ip", "netns", "exec", machine.namespace, *ssh, "tar -x -C /root/hand"]
        subprocess.run(there, stdin=tar.stdout, check=True)
    return time.perf_counter() - begin


if __name__ == "__main__":
    main()
