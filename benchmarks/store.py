"""What the store costs, all in one run: large and small objects, graphs with nothing to do, gc, and a store of years.

What is compared runs in turns, on the filesystem of BANGER_BENCH_DIR (by default that of temporary files), with files
that were read just before. "Durable" means that the content is on the disk (fsync) before its name is, and the name
before it is used. `store.py graphs scale` runs these parts alone: `large`, `small`, `gc`, `graphs`, `scale`.
"""

from __future__ import annotations

import os
import random
import shlex
import shutil
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from unittest.mock import patch

from blake3 import blake3
from common import describe, describe_machine

from cache import Digest, Object, Policy, Record, Store, format_record, key_of
from cache.layout import object_path, record_path

_LARGE_BYTES = 1 << 30
_SMALL_COUNT = 10_000
_GC_COUNT = 100_000
_GRAPH_SIZES = (10, 100, 1_000)
_OBJECT_COUNT = 200_000
_RECORD_COUNT = 50_000
_LOOKS = 5_000
_LONG_AGO = 1_600_000_000
_BANGER = str(Path(sys.executable).with_name("banger"))

# Makes what is to be measured in an empty folder, and gives what is measured.
Prepare = Callable[[Path], Callable[[], object]]


def main() -> None:
    parts = {"large": large, "small": small, "gc": gc, "graphs": graphs, "scale": scale}
    describe_machine()
    with tempfile.TemporaryDirectory(prefix="banger-store-", dir=os.environ.get("BANGER_BENCH_DIR")) as name:
        print(subprocess.check_output(["df", "--output=fstype,source", name], text=True).splitlines()[1])
        for part in sys.argv[1:] or parts:
            print(f"\n{part}: load {os.getloadavg()[0]:.1f}")
            parts[part](Path(name))


@dataclass(frozen=True)
class Taken:
    """Seconds: the median, and the least, which other work on the machine touches less."""

    middle: float
    least: float

    def __sub__(self, other: Taken) -> Taken:
        return Taken(self.middle - other.middle, self.least - other.least)


def compare(folder: Path, times: int, runs: Mapping[str, Prepare]) -> list[Taken]:
    """In turns, so that what else goes on meets them all."""
    seconds: dict[str, list[float]] = {what: [] for what in runs}
    for _ in range(times):
        for what, prepare in runs.items():
            work = folder / "work"
            work.mkdir()
            run = prepare(work)
            os.sync()
            begin = time.perf_counter()
            run()
            seconds[what].append(time.perf_counter() - begin)
            shutil.rmtree(work)
            os.sync()
    return [Taken(describe(what, taken), min(taken)) for what, taken in seconds.items()]


def tell_ratio(what: str, ours: Taken, theirs: Taken, aim: float) -> None:
    middle, least = ours.middle / theirs.middle, ours.least / theirs.least
    print(f"{what:<58} {middle:8.2f} x   (best to best {least:.2f} x; aim: at most {aim} x)")


def shell(script: str) -> None:
    subprocess.run(["sh", "-ec", script], check=True, stdout=subprocess.DEVNULL)


def without_fsync(run: Callable[[], object]) -> None:
    with patch("os.fsync", lambda _fd: None):
        run()


def large(folder: Path) -> None:
    source = folder / "large"
    with source.open("wb") as file:
        for _ in range(_LARGE_BYTES >> 20):
            file.write(os.urandom(1 << 20))
    quoted = shlex.quote(str(source))

    def put(work: Path) -> Callable[[], object]:
        return partial(_put_stream, Store.open(work / "store"), source)

    def take(work: Path) -> Callable[[], object]:
        store = Store.open(work / "store")
        shutil.copyfile(source, work / "store/tmp/made")
        return lambda: store.put_file(work / "store/tmp/made")

    def take_by_hand(work: Path) -> Callable[[], object]:
        shutil.copyfile(source, work / "made")
        return partial(shell, f"cd {work}; b3sum made; sync made; mv made copy; sync .")

    found = compare(
        folder,
        7,
        {
            "put 1 GiB, durable: cp, b3sum, sync": lambda work: partial(
                shell, f"cd {work}; cp {quoted} copy; b3sum copy; sync copy ."
            ),
            "put 1 GiB, durable: banger": put,
            "put 1 GiB, not durable: cp, b3sum": lambda work: partial(
                shell, f"cd {work}; cp {quoted} copy; b3sum copy"
            ),
            "put 1 GiB, not durable: banger": lambda work: partial(without_fsync, put(work)),
            "take over a file of 1 GiB: b3sum, sync, mv, sync": take_by_hand,
            "take over a file of 1 GiB: banger": take,
        },
    )
    durable, ours, plain, ours_plain, taken, ours_taken = found
    tell_ratio("put, durable", ours, durable, 1.2)
    tell_ratio("put, not durable", ours_plain, plain, 1.2)
    tell_ratio("take over", ours_taken, taken, 1.2)
    _get_large(folder, source)
    source.unlink()


def _get_large(folder: Path, source: Path) -> None:
    """Where an owner has another filesystem, it gets a copy that was compared with the digest; else a link."""
    store = Store.open(folder / "large-store")
    made = _put_stream(store, source)
    with tempfile.TemporaryDirectory(prefix="banger-store-", dir="/dev/shm") as name:
        elsewhere = Path(name)
        path = shlex.quote(str(store.path(made)))
        found = compare(
            elsewhere,
            7,
            {
                "get 1 GiB onto /dev/shm: cp, b3sum": lambda work: partial(
                    shell, f"cd {work}; cp {path} copy; b3sum copy"
                ),
                "get 1 GiB onto /dev/shm: banger": lambda work: lambda: store.link(made, work / "copy"),
            },
        )
    plain, ours = found
    tell_ratio("get", ours, plain, 1.2)
    compare(folder, 7, {"get 1 GiB, same filesystem (a link)": lambda work: lambda: store.link(made, work / "copy")})
    shutil.rmtree(store.root)


def _put_stream(store: Store, source: Path) -> Object:
    with source.open("rb", buffering=0) as file:
        return store.put_stream(file)


def small(folder: Path) -> None:
    contents = [random.Random(number).randbytes(200 + number % 3_000) for number in range(_SMALL_COUNT)]
    names = [blake3(content).hexdigest() for content in contents]

    def write_plain(work: Path) -> Callable[[], object]:
        for number in range(256):
            (work / f"{number:02x}").mkdir()
        return partial(_write_plain, work, names, contents)

    def put(work: Path) -> Callable[[], object]:
        store = Store.open(work / "store")
        return lambda: [store.put_bytes(content) for content in contents]

    found = compare(
        folder,
        3,
        {
            "put 10,000 small: plain files, renamed, both synced": write_plain,
            "put 10,000 small: banger": put,
            "put 10,000 small, without fsync: plain files": lambda work: partial(without_fsync, write_plain(work)),
            "put 10,000 small, without fsync: banger": lambda work: partial(without_fsync, put(work)),
        },
    )
    plain, ours, _, _ = found
    tell_ratio("put 10,000 small, durable", ours, plain, 1.2)
    store = Store.open(folder / "small-store")
    for content in contents:
        fill_object(store, content)
    objects = [Object(Digest(name), len(content)) for name, content in zip(names, contents, strict=True)]
    paths = [object_path(store.root, each.digest) for each in objects]
    compare(
        folder,
        7,
        {
            "get 10,000 small: open and read": lambda _work: lambda: [path.read_bytes() for path in paths],
            "get 10,000 small: banger": lambda _work: lambda: [store.path(each).read_bytes() for each in objects],
        },
    )
    shutil.rmtree(store.root)


def _write_plain(folder: Path, names: list[str], contents: list[bytes]) -> None:
    for name, content in zip(names, contents, strict=True):
        temporary = folder / name
        fd = os.open(temporary, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o400)
        os.write(fd, content)
        os.fsync(fd)
        os.close(fd)
        shelf = folder / name[:2]
        temporary.rename(shelf / name)
        fd = os.open(shelf, os.O_RDONLY | os.O_DIRECTORY)
        os.fsync(fd)
        os.close(fd)


def fill_object(store: Store, content: bytes) -> Object:
    """Straight into its place and not synced, since a hundred thousand are wanted; not used for a long time."""
    made = Object(Digest(blake3(content).hexdigest()), len(content))
    path = object_path(store.root, made.digest)
    path.parent.mkdir(exist_ok=True)
    path.write_bytes(content)
    path.chmod(0o400)
    os.utime(path, (_LONG_AGO, _LONG_AGO))
    return made


def gc(folder: Path) -> None:
    def fill(work: Path) -> Store:
        store = Store.open(work / "store")
        for number in range(_GC_COUNT):
            fill_object(store, b"object %d" % number)
        return store

    def remove_plain(work: Path) -> Callable[[], object]:
        return partial(shell, f"rm -r {fill(work).root}/objects/*")

    def collect(work: Path, *, dry_run: bool) -> Callable[[], object]:
        store = fill(work)
        return lambda: store.collect(Policy(older_than_s=0, young_s=0), {}, dry_run=dry_run)

    compare(
        folder,
        3,
        {
            "100,000 objects: rm -r": remove_plain,
            "100,000 objects: gc, dry run": partial(collect, dry_run=True),
            "100,000 objects: gc of all": partial(collect, dry_run=False),
        },
    )


_GRAPH = """
import sys
from pathlib import Path
from cache import Store
from pipelines.graph import build
from pipelines.reporter import Silent
from pipelines.step import Step

def make(job):
    with job.create("out") as sink:
        sink.write(job.step.name.encode())

steps = []
for line in Path(sys.argv[2]).read_text().splitlines():
    name, *needs = line.split()
    inputs = {need: steps[int(need)].output("out") for need in needs}
    steps.append(Step(name, "step", 1, make, ("out",), {"number": name}, inputs))
if sys.argv[3:] != ["imports"]:
    with Store.open(Path(sys.argv[1])).leased("benchmark") as store:
        build(store, steps[-1:], Silent())
"""


def graphs(folder: Path) -> None:
    for size in _GRAPH_SIZES:
        work = folder / f"graph-{size}"
        work.mkdir()
        lines = _describe_graph(size)
        (work / "graph").write_text("\n".join(lines))
        (work / "build.ninja").write_text(_format_ninja(lines))
        ninja = ["ninja", "--quiet", "-C", str(work)]
        ours = [sys.executable, "-c", _GRAPH, str(work / "store"), str(work / "graph")]
        subprocess.run(ninja, check=True)
        subprocess.run(ours, check=True)
        runs = {
            f"{size} steps, nothing to do: ninja": ninja,
            f"{size} steps, nothing to do: banger, whole process": ours,
            f"{size} steps: python, our imports, the steps described": [*ours, "imports"],
            "python -c pass": [sys.executable, "-c", "pass"],
        }
        found = compare(
            work, 21, {what: lambda _work, argv=argv: partial(_run_quietly, argv) for what, argv in runs.items()}
        )
        theirs, whole, imports, start = found
        tell_ratio(f"{size} steps, beyond interpreter start", whole - start, theirs, 2)
        tell_ratio(f"{size} steps, beyond imports as well", whole - imports, theirs, 2)
        shutil.rmtree(work)


def _run_quietly(argv: list[str]) -> None:
    environment = {**os.environ, "PYTHONPATH": str(Path(__file__).parents[1])}
    subprocess.run(argv, check=True, stdout=subprocess.DEVNULL, env=environment)


def _describe_graph(size: int) -> list[str]:
    """A line for each step: its number, and those of up to three earlier ones. The last needs them all."""
    chance = random.Random(size)
    needs = [chance.sample(range(number), min(number, 3)) for number in range(size - 1)]
    ends = set(range(size - 1)) - {each for some in needs for each in some}
    return [" ".join(map(str, (number, *some))) for number, some in enumerate([*needs, sorted(ends)])]


def _format_ninja(lines: list[str]) -> str:
    rules = ["rule step", "  command = touch $out"]
    for line in lines:
        name, *needs = line.split()
        rules.append(f"build {name}.out: step {' '.join(f'{need}.out' for need in needs)}")
    return "\n".join(rules) + "\n"


def scale(folder: Path) -> None:
    home = folder / "home"
    store = Store.open(home / ".cache/banger")
    objects = [fill_object(store, b"%d " % number * (1 + number % 200)) for number in range(_OBJECT_COUNT)]
    keys = [_fill_record(store, number, objects) for number in range(_RECORD_COUNT)]
    os.sync()
    compare(
        folder,
        7,
        {
            "an empty store: open 1,000 times": lambda work: partial(_open, Store.open(work / "store").root),
            "200,000 objects, 50,000 records: open 1,000 times": lambda _work: partial(_open, store.root),
            "the same: find 5,000 records, look for an output of each": lambda _work: partial(_look, store, keys),
            "the same with a lease, and a path for each": lambda _work: partial(_lease, store, keys),
        },
    )
    own = {name: value for name, value in os.environ.items() if not name.startswith(("XDG_", "BANGER_"))}
    du = partial(
        subprocess.run, [_BANGER, "cache", "du"], env={**own, "HOME": str(home)}, check=True, stdout=subprocess.DEVNULL
    )
    policy = Policy(max_bytes=0, young_s=0)
    compare(
        folder,
        5,
        {
            "the same: usage": lambda _work: store.usage,
            "the same: banger cache du": lambda _work: du,
            "the same: gc, dry run": lambda _work: partial(store.collect, policy, {}, dry_run=True),
        },
    )
    compare(folder, 2, {"the same: verify": lambda _work: partial(_verify, store)})


def _fill_record(store: Store, number: int, objects: list[Object]) -> Digest:
    """Four objects for each, in a chain of a hundred."""
    outputs = dict(zip(("a", "b", "c", "d"), objects[number * 4 : number * 4 + 4], strict=True))
    inputs = {"before": objects[(number - 1) * 4].digest} if number % 100 else {}
    kind, parameters = f"kind-{number % 12}", {"number": number, "suite": "trixie", "packages": ["systemd", "udev"]}
    key = key_of(kind, 1, parameters, inputs)
    path = record_path(store.root, key)
    path.parent.mkdir(exist_ok=True)
    path.write_bytes(format_record(Record(kind, 1, parameters, inputs, outputs, float(_LONG_AGO), 1.0)))
    return key


def _open(root: Path) -> None:
    for _ in range(1_000):
        Store.open(root)


def _look(store: Store, keys: list[Digest]) -> None:
    for key in keys[:: len(keys) // _LOOKS]:
        record = store.find_record(key)
        assert record is not None
        assert store.has(record.outputs["a"])


def _lease(store: Store, keys: list[Digest]) -> None:
    with store.leased("benchmark") as leased:
        for key in keys[:: len(keys) // _LOOKS]:
            record = leased.find_record(key)
            assert record is not None
            leased.path(record.outputs["a"])


def _verify(store: Store) -> None:
    assert not list(store.verify()), "the benchmark made a store that is not right"


if __name__ == "__main__":
    main()
