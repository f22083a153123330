"""What programs do with a store, each thing for itself, so that it can be killed, refused or disturbed at any place.

Each does its work in a world (see `world`) and says what it gave: the same, whoever did how much of it before. What it
reads and writes by itself fails as the store does, so that whatever else fails is a fault of the store's.

    python -m tests.cache.work WORK FOLDER ELSEWHERE
"""

from __future__ import annotations

import io
import json
import sys
from collections.abc import Callable, Mapping
from pathlib import Path

from cache import Policy, Store, parse_record, trace
from cache.failures import explained
from cache.layout import record_path
from cache.trace import Point
from tests.cache.world import DAY_S, Stock, World, content, damage, key, make_world, obj, record

Work = Callable[[World], object]


def open_new(world: World) -> object:
    """Stores that are not there yet."""
    stores = [Store.open(world.folder / name) for name in world.number("another")]
    return [[_read(store.root / name) for name in ("version", "CACHEDIR.TAG")] for store in stores]


def put(world: World) -> object:
    store = world.store()
    found = []
    for i in range(world.times):
        found.append(store.put_bytes(content(f"bytes {i}")).digest)
        # More than the buffer of a writer.
        found.append(store.put_stream(io.BytesIO(content(f"stream {i}") * 8000)).digest)
        with store.temporary_dir() as folder:
            _write(folder / "made", content(f"file {i}"))
            found.append(store.put_file(folder / "made").digest)
    return found


def put_leased(world: World) -> object:
    """What a build does: puts, and reads what was there."""
    store = world.store()
    found: list[str] = []
    for name in world.number("old"):
        with store.leased("a build") as leased:
            found.append(_read(leased.path(obj("kept"))))
            found.append(leased.put_bytes(content(name)).digest)
            made = leased.put_bytes(content(f"leased {name}"))
            found.append(_read(leased.path(made)))
    return found


def put_records(world: World) -> object:
    store = world.store()
    for name in world.number("recorded"):
        store.put_bytes(content(name))
        store.put_record(key(name), record(name))
    texts = [_read(record_path(world.root, key(name))) for name in world.number("recorded")]
    return [
        parse_record(text.encode()) == record(name) for name, text in zip(world.number("recorded"), texts, strict=True)
    ]


def lock(world: World) -> object:
    store = world.store()
    for name in world.number("locked"):
        with store.lock(key(name), name):
            pass
    return world.number("locked")


def link(world: World) -> object:
    """To an owner on the same filesystem; the last one is there already."""
    store = world.store()
    for name in (*world.number("old"), "held"):
        store.link(obj(name), world.owner / obj(name).digest)
    return _list(world.owner)


def copy(world: World) -> object:
    """To an owner on another filesystem."""
    store = world.store()
    for name in world.number("old"):
        store.link(obj(name), world.elsewhere / obj(name).digest)
    return _list(world.elsewhere)


def adopt(world: World) -> object:
    """By link from the same filesystem, by copy from another."""
    store = world.store()
    for i, name in enumerate(world.number("lost")):
        store.adopt((world.elsewhere if i % 2 else world.owner) / obj(name).digest, obj(name))
    return [_read(store.path(obj(name))) for name in world.number("lost")]


def collect(world: World) -> object:
    """gc, one old object more each time, while an owner takes another one that is about to go."""
    store = world.store()
    going = obj("")
    before = trace.on_point

    def take(point: Point) -> None:
        if point is Point.GC_PLANNED and Store(world.root).has(going):
            Store(world.root).link(going, world.owner / going.digest)
        if before is not None:
            before(point)

    trace.on_point = take
    try:
        for old, taken in zip(world.number("old"), world.number("taken"), strict=True):
            going = obj(taken)
            store.collect(Policy(older_than_s=world.age_s(old) - DAY_S / 2), {"an owner": world.owner})
    finally:
        trace.on_point = before
    return [
        [store.has(obj(name)) for name in world.number("old")],
        [_read(world.owner / obj(name).digest) for name in world.number("taken")],
        [store.find_record(key(name)) is None for name in world.number("dead")],
    ]


def repair(world: World) -> object:
    """verify, in a world that was damaged."""
    store = world.store()
    for _ in store.verify({"an owner": world.owner}, repair=True):
        pass
    return [
        _list(world.root / "quarantine"),
        [store.has(obj(name)) for name in world.number("damaged")],
        [store.find_record(key(name)) is None for name in (*world.number("damaged"), *world.number("torn"))],
    ]


def name(world: World) -> object:
    """New names, and one that moves to other objects."""
    store = world.store()
    for i, each in enumerate((*world.number("new"), "known")):
        files = {"rootfs": obj("held"), "home": obj("kept"), "extra": store.put_bytes(content(f"extra {i}"))}
        world.images.put(each, store, files, {key("kept"): record("kept")}, {"number": i})
    with explained("list the images", world.folder):
        named = list(world.images.list())
    return [[each.name, {role: made.digest for role, made in each.files.items()}] for each in named]


def build(world: World, more: int = 1) -> object:
    """A graph of a step more than `times`, and a name for what they gave. `more` makes the artifacts so much larger."""
    from pipelines.graph import build as build_graph
    from pipelines.job import Job
    from pipelines.reporter import Silent
    from pipelines.step import Effect, Result, Step

    def make(job: Job) -> None:
        with job.create("out") as sink:
            sink.write(f"made by {job.step.name}\n".encode() * 50 * more)
            for each in job.step.inputs:
                sink.write(_read(job.input(each)).encode())

    def make_with_a_program(job: Job) -> None:
        text = "".join(_read(job.input(each)) for each in job.step.inputs)
        _write(job.directory / "made", text.upper().encode())
        job.take("out", job.directory / "made")

    def give_name(results: Mapping[str, Result]) -> None:
        files = {role: result.made for role, result in results.items()}
        world.images.put("built", leased, files, {each.key: each.record for each in results.values()}, {})

    with world.store().leased("a build") as leased:
        first = Step("first", "first", 1, make, ("out",))
        sides = [
            Step(each, "side", 1, make, ("out",), {"name": each}, {"first": first.output("out")})
            for each in world.number("side")
        ]
        inputs = {side.name: side.output("out") for side in sides}
        last = Step("last", "last", 1, make_with_a_program, ("out",), {}, inputs)
        build_graph(leased, [Effect("name", {"rootfs": last.output("out"), **inputs}, give_name)], Silent())
    named = world.images.get("built")
    return {role: [made.digest, _read(named.path(role))] for role, made in named.files.items()}


def _read(path: Path) -> str:
    with explained("read", path):
        return path.read_text()


def _write(path: Path, data: bytes) -> None:
    with explained("write", path):
        path.write_bytes(data)


def _list(folder: Path) -> list[str]:
    """Without the hidden parts of copies."""
    with explained("list", folder):
        return sorted(path.name for path in folder.iterdir() if not path.name.startswith("."))


WORKS: dict[str, Work] = {
    work.__name__: work
    for work in (open_new, put, put_leased, put_records, lock, link, copy, adopt, collect, repair, name, build)
}


def prepare(work: Work, world: World) -> Stock:
    stock = make_world(world)
    return damage(world) if work is repair else stock


def list_damaged(work: Work, world: World) -> list[str]:
    """What is bad before the work was done, and not afterwards."""
    return [*world.number("damaged"), *world.number("torn")] if work is repair else []


def list_going(work: Work, world: World) -> list[str]:
    """What may be missing while the work is done. Of this "taken-i" is back when it has been done, if links count."""
    if work is collect:
        return [*world.number("old"), *world.number("taken")]
    return list_damaged(work, world)


def list_gone(work: Work, world: World) -> list[str]:
    return world.number("old") if work is collect else list_damaged(work, world)


if __name__ == "__main__":
    _, _name, _folder, _elsewhere = sys.argv
    print(json.dumps(WORKS[_name](World(Path(_folder), Path(_elsewhere)))))
