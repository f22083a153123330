"""An image of about 1 GB in 8 gzip layers, from a registry on loopback to a root filesystem, against plain tools.

(a) `skopeo copy`, `umoci raw unpack`, `mkfs.erofs -zlz4`; (b) `skopeo copy`, `gzip -dc | tar -x` for each layer, then
the same. All start from nothing. The image is made of what the host has below /usr. Memory is the most that all
processes of a run hold at one moment (PSS); bytes written are what they wrote to files, kept or not.
"""

from __future__ import annotations

import json
import os
import resource
import shutil
import subprocess
import sys
import tempfile
import threading
import time
from collections.abc import Callable
from pathlib import Path

from common import describe, describe_machine

from tests.oci.registries import run_registry

_TIMES = int(sys.argv[1]) if len(sys.argv) > 1 else 3
_LAYERS = 8
_TOTAL_BYTES = 1 << 30
_BANGER = str(Path(sys.executable).parent / "banger")
_UNPACK = 'for layer in $(cat layers); do gzip -dc "$layer" | tar -x --numeric-owner -C root; done'


def main() -> None:
    describe_machine()
    with tempfile.TemporaryDirectory(prefix="banger-bench-", dir=os.environ.get("BANGER_BENCH_DIR")) as name:
        folder = Path(name)
        layout = make_image(folder)
        with run_registry(folder / "registry") as registry:
            reference = registry.push(Path(f"{layout}:x"), "big:1")
            shutil.rmtree(layout)
            compare(folder, reference)


def compare(folder: Path, reference: str) -> None:
    runs: dict[str, Callable[[Path], list[str]]] = {
        "(a) skopeo, umoci raw unpack, mkfs.erofs": lambda work: _by_hand(
            work, reference, "umoci raw unpack --image oci:x root"
        ),
        "(b) skopeo, gzip | tar, mkfs.erofs": lambda work: _by_hand(work, reference, f"mkdir root; {_UNPACK}"),
        "banger image build": lambda _work: [_BANGER, "-q", "image", "build", reference],
    }
    seconds: dict[str, list[float]] = {what: [] for what in runs}
    notes = {}
    work = folder / "work"
    for _ in range(_TIMES):
        for what, plan in runs.items():
            shutil.rmtree(work, ignore_errors=True)
            work.mkdir()
            os.sync()
            took, memory, written = measure(plan(work), work)
            seconds[what].append(took)
            notes[what] = f"at most {memory >> 20} MiB of memory, {written >> 20} MiB written"
    again = [measure([_BANGER, "-q", "image", "build", reference], work)[0] for _ in range(5)]
    middles = {what: describe(what, times) for what, times in seconds.items()}
    describe("banger image build, everything cached", again)
    for what, note in notes.items():
        print(f"{what}: {note}")
    (by_umoci, by_tar, ours) = middles.values()
    print(f"banger / (a) = {ours / by_umoci:.2f}, banger / (b) = {ours / by_tar:.2f}")


def _by_hand(work: Path, reference: str, unpack: str) -> list[str]:
    """Whatever is between: the layers in order, and then a filesystem."""
    read = "import json; m = json.load(open('oci/index.json'))['manifests'][0]['digest'][7:]; "
    read += (
        "print(*('oci/blobs/sha256/' + l['digest'][7:] for l in json.load(open('oci/blobs/sha256/' + m))['layers']))"
    )
    script = f"""
        set -e
        cd {work}
        skopeo --insecure-policy copy -q --src-tls-verify=false docker://{reference} oci:oci:x
        {sys.executable} -c "{read}" >layers
        {unpack}
        mkfs.erofs -d0 --quiet -zlz4 rootfs.erofs root >/dev/null
    """
    return ["sh", "-c", script]


def measure(argv: list[str], work: Path) -> tuple[float, int, int]:
    """Seconds, bytes of memory at most, bytes written."""
    environment = {**os.environ, "XDG_CACHE_HOME": str(work / "cache"), "XDG_STATE_HOME": str(work / "state")}
    before = resource.getrusage(resource.RUSAGE_CHILDREN).ru_oublock
    begin = time.perf_counter()
    with subprocess.Popen(argv, env=environment, stdout=subprocess.DEVNULL) as process:
        watch = _Watch(process.pid)
        watch.start()
        status = process.wait()
        took = time.perf_counter() - begin
        watch.is_over.set()
        watch.join()
    assert status == 0, f"{argv} ended with {status}"
    # getrusage(2) counts blocks of 512 bytes, of all descendants that were waited for.
    return took, watch.most_bytes, (resource.getrusage(resource.RUSAGE_CHILDREN).ru_oublock - before) * 512


class _Watch(threading.Thread):
    """Adds up the memory of a process and its descendants, again and again."""

    def __init__(self, pid: int) -> None:
        super().__init__(daemon=True)
        self.is_over = threading.Event()
        self.most_bytes = 0
        self._pid = pid

    def run(self) -> None:
        while not self.is_over.wait(0.1):
            self.most_bytes = max(self.most_bytes, sum(map(_memory, self._family())))

    def _family(self) -> list[int]:
        found, todo = [], [self._pid]
        while todo:
            pid = todo.pop()
            found.append(pid)
            for path in Path(f"/proc/{pid}/task").glob("*/children"):
                try:
                    todo += map(int, path.read_text().split())
                except OSError:
                    continue
        return found


def _memory(pid: int) -> int:
    try:
        lines = Path(f"/proc/{pid}/smaps_rollup").read_text().splitlines()
    except OSError:
        return 0
    return sum(int(line.split()[1]) << 10 for line in lines if line.startswith("Pss:"))


def make_image(folder: Path) -> Path:
    """An OCI layout of files of the host, dealt out to the layers in turn."""
    names: list[list[str]] = [[] for _ in range(_LAYERS)]
    total = 0
    for number, path in enumerate(sorted(Path("/usr").rglob("*"))):
        if total >= _TOTAL_BYTES:
            break
        if path.is_symlink() or path.is_file():
            total += path.lstat().st_size
            names[number % _LAYERS].append(str(path))
    layout = folder / "layout"
    subprocess.run(["umoci", "init", "--layout", str(layout)], check=True)
    subprocess.run(["umoci", "new", "--image", f"{layout}:x"], check=True)
    for number, paths in enumerate(names):
        tar = folder / f"{number}.tar"
        listed = folder / f"{number}.list"
        listed.write_bytes(b"".join(os.fsencode(path) + b"\0" for path in paths))
        argv = ["tar", "-c", "--no-recursion", "--null", f"--files-from={listed}", f"--file={tar}"]
        subprocess.run(argv, check=True, stderr=subprocess.DEVNULL)
        subprocess.run(["umoci", "raw", "add-layer", "--image", f"{layout}:x", str(tar)], check=True)
        tar.unlink()
    subprocess.run(["umoci", "gc", "--layout", str(layout)], check=True)
    described = json.loads((layout / "index.json").read_bytes())
    assert described["manifests"], "umoci made no image"
    return layout


if __name__ == "__main__":
    main()
