"""A small store with owners beside it: made the same each time, disturbed by a test, and looked at afterwards.

    store/          the store
    owner/          files by digest, hard links to what is in the store
    images/         names (`catalog.local`)
    ELSEWHERE/      an owner on another filesystem, which gets copies

What is in it, `i` counting to `times`: "held" is an owner's, "kept" and its record a hit, "old-i" what gc is to drop,
"taken-i" what gc is to drop and an owner takes in that moment, "lost-i" what an owner has and the store lacks. When it
is damaged on purpose, "damaged-i" has other bytes than its name and record say, and "torn-i" is a record cut short.
"""

from __future__ import annotations

import os
import time
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path

from blake3 import blake3

from cache import Digest, Object, Record, Store, key_of
from cache.layout import lock_path, object_path, record_path
from catalog.local import Names

DAY_S = 24 * 3600.0


def content(name: str) -> bytes:
    return f"the content of {name}\n".encode() * 9


def obj(name: str) -> Object:
    return Object(Digest(blake3(content(name)).hexdigest()), len(content(name)))


def key(name: str) -> Digest:
    return key_of("step", 1, {"name": name}, {})


def record(name: str) -> Record:
    return Record("step", 1, {"name": name}, {}, {"out": obj(name)}, 1.0, 1.0)


@dataclass(frozen=True)
class World:
    """`times` is how often each thing is done, each time to other objects."""

    folder: Path
    elsewhere: Path
    times: int = 3

    @property
    def root(self) -> Path:
        return self.folder / "store"

    @property
    def owner(self) -> Path:
        return self.folder / "owner"

    @property
    def images(self) -> Names:
        return Names(self.folder / "images", "image")

    def store(self) -> Store:
        return Store.open(self.root)

    def number(self, name: str) -> list[str]:
        return [f"{name}-{i}" for i in range(self.times)]

    def age_s(self, name: str) -> float:
        """The last use of the first of the old ones was longest ago."""
        return (self.times + 1 - int(name.partition("-")[2])) * DAY_S


@dataclass(frozen=True)
class Stock:
    """What is in a world that has to stay: the objects of the store, the records that are hits, the owners' files."""

    objects: dict[Digest, int]
    hits: frozenset[Digest]
    owned: dict[Path, bytes]


def make_world(world: World) -> Stock:
    """Fill an empty one."""
    store = world.store()
    world.owner.mkdir()
    for name in ("held", "kept", *world.number("old"), *world.number("taken"), *world.number("lost")):
        store.put_bytes(content(name))
    store.link(obj("held"), world.owner / obj("held").digest)
    store.put_record(key("kept"), record("kept"))
    world.images.put("known", store, {"rootfs": obj("held")}, {}, {})
    for name in world.number("lost"):
        store.link(obj(name), world.owner / obj(name).digest)
        store.link(obj(name), world.elsewhere / obj(name).digest)
        object_path(world.root, obj(name).digest).unlink()
    for name in (*world.number("old"), *world.number("taken")):
        _make_old(object_path(world.root, obj(name).digest), world.age_s(name))
    for name in world.number("dead"):
        store.put_record(key(name), record(name))
        _make_old(record_path(world.root, key(name)), world.age_s(name))
        lock_path(world.root, key(name)).touch(mode=0o600)
    return take_stock(world)


def take_stock(world: World) -> Stock:
    store = Store(world.root)
    objects = {Digest(path.name): path.stat().st_size for path in (world.root / "objects").glob("*/*")}
    keys = [Digest(path.name) for path in (world.root / "actions").glob("*/*")]
    records = {each: store.find_record(each) for each in keys}
    hits = frozenset(each for each, found in records.items() if found is not None and store.has_outputs(found))
    owned = {path: path.read_bytes() for folder in (world.owner, world.elsewhere) for path in _list_whole(folder)}
    return Stock(objects, hits, owned)


def damage(world: World) -> Stock:
    store = world.store()
    for name in world.number("damaged"):
        path = store.path(store.put_bytes(content(name)))
        store.put_record(key(name), record(name))
        path.chmod(0o600)
        path.write_bytes(content(name)[::-1])
    for name in world.number("torn"):
        store.put_record(key(name), record(name))
        record_path(world.root, key(name)).write_bytes(b'{"step":')
    return take_stock(world)


def check_world(world: World, before: Stock, going: Iterable[str] = (), damaged: Iterable[str] = ()) -> None:
    """What holds after whatever happened to a program: all that was there, nothing wrong, nothing half-done.

    Of `going`, objects and records, somebody was to remove any or all; `damaged` may not have been found yet.
    """
    gone = {digest for name in going for digest in (obj(name).digest, key(name))}
    bad = {digest for name in damaged for digest in (obj(name).digest, key(name))}
    store = world.store()
    assert [str(finding) for finding in store.verify() if finding.digest not in bad] == []
    for unfinished in (world.root / "tmp", world.root / "leases"):
        assert not unfinished.exists() or list(unfinished.iterdir()) == []
    now = take_stock(world)
    assert {each: size for each, size in before.objects.items() if each not in gone}.items() <= now.objects.items()
    assert before.hits - gone <= now.hits
    assert before.owned.items() <= now.owned.items()
    for path in now.owned:
        assert blake3(now.owned[path]).hexdigest() == path.name, f"{path} is not whole"
    for named in world.images.list():
        for role, made in named.files.items():
            assert blake3(named.path(role).read_bytes()).hexdigest() == made.digest, f"{named.name} is not whole"
    assert "known" in {named.name for named in world.images.list()}


def _list_whole(folder: Path) -> list[Path]:
    """Without the hidden parts of copies that a dead program left, which are promised to be no more than that."""
    return [path for path in folder.iterdir() if not path.name.startswith(".")]


def _make_old(path: Path, age_s: float) -> None:
    used_at = time.time() - age_s
    os.utime(path, (used_at, used_at))
