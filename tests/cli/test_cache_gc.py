"""`banger cache gc` as it is typed, and the cache that tidies itself when a build made it too large."""

from __future__ import annotations

import json
import os
import re
import subprocess
import time
from typing import TYPE_CHECKING, Any

import pytest

from banger.paths import Paths
from banger.run import resume
from cache import Object, Store
from tests.oci.layers import file, folder, layer
from tests.pipelines.kernels import give_default_kernel

if TYPE_CHECKING:
    from conftest import Cli

DAY_S = 24 * 3600.0
MIB = 1 << 20


@pytest.fixture
def paths(cli: Cli) -> Paths:
    return Paths.from_environment(cli.variables())


@pytest.fixture
def store(paths: Paths) -> Store:
    return Store.open(paths.store)


def put(store: Store, letter: bytes, *, used_days_ago: float = 10.0, size_bytes: int = MIB) -> Object:
    obj = store.put_bytes(letter * size_bytes)
    used_at = time.time() - used_days_ago * DAY_S
    os.utime(store.path(obj), (used_at, used_at))
    return obj


def succeed(cli: Cli, *words: str) -> subprocess.CompletedProcess[str]:
    done = cli.run(*words)
    assert done.returncode == 0, done.stderr
    return done


def gc(cli: Cli, *options: str) -> dict[str, Any]:
    found: dict[str, Any] = json.loads(succeed(cli, "cache", "gc", "--json", *options).stdout)
    return found


def test_in_a_new_home_there_is_nothing_to_tidy(cli: Cli) -> None:
    done = succeed(cli, "cache", "gc")
    assert "0 B went" in done.stderr
    assert gc(cli, "--all", "--dry-run")["dropped"] == []


@pytest.mark.parametrize(
    ("options", "left"),
    [
        ([], [True, True, True]),
        (["--max-size", "2M"], [False, True, True]),
        (["--max-size", "1M"], [False, False, True]),
        (["--max-size", "100%"], [True, True, True]),
        (["--older-than", "15d"], [False, True, True]),
        (["--older-than", "12h"], [False, False, True]),
        (["--older-than", "1m"], [False, False, False]),
        (["--max-size", "2M", "--older-than", "5d"], [False, False, True]),
        (["--all"], [False, False, False]),
    ],
)
def test_what_goes_is_what_the_options_say(cli: Cli, store: Store, options: list[str], left: list[bool]) -> None:
    ages_days = (20, 10, 5 / 24 / 60)
    objects = [put(store, b"%d" % number, used_days_ago=days) for number, days in enumerate(ages_days)]
    dry = gc(cli, "--dry-run", *options)
    assert all(store.has(each) for each in objects)
    assert gc(cli, *options) == {**dry, "dry_run": False}
    assert [store.has(each) for each in objects] == left
    assert dry["freed_bytes"] == left.count(False) * MIB
    assert dry["own_bytes"] == left.count(True) * MIB


def test_the_limit_of_the_configuration_counts_without_options(cli: Cli, store: Store) -> None:
    cli.configure('[cache]\nmax_size = "1M"\n')
    old, new = put(store, b"o", used_days_ago=9), put(store, b"n", used_days_ago=8)
    assert gc(cli)["max_bytes"] == MIB
    assert (store.has(old), store.has(new)) == (False, True)


def test_all_is_all_whatever_the_clock_said(cli: Cli, store: Store) -> None:
    obj = put(store, b"x", used_days_ago=-0.02)
    succeed(cli, "cache", "gc", "--all")
    assert not store.has(obj)


def test_it_says_what_goes_what_stays_and_why(cli: Cli, store: Store, paths: Paths) -> None:
    held, shared = put(store, b"h"), put(store, b"s")
    for name in ("one", "two", "three", "four", "five"):
        paths.images.put(name, store, {"home": shared}, {}, {})
    paths.images.put("box", store, {"rootfs": held}, {}, {})
    put(store, b"y", used_days_ago=0)
    put(store, b"f")
    put(store, b"o", used_days_ago=40)
    with store.leased("a test") as leased:
        assert leased.has(put(store, b"u"))
        done = succeed(cli, "cache", "gc", "--older-than", "30d", "--dry-run")
    told = [re.split(r" {3,}", line) for line in done.stdout.splitlines()]
    assert [(row[0], row[-1]) for row in told[1:]] == [
        ("would go", "not used for 40 d"),
        ("stays", "held by image box"),
        ("stays", "held by image five, image four, image one and 2 more"),
        ("stays", f"in use by process {os.getpid()} (a test)"),
        ("stays", "used within the hour"),
        ("stays", "within the limits"),
    ]
    assert done.stderr == "1.0 MiB would go, with 0 records; 3.0 MiB held by nobody else would stay\n"


def test_a_program_reads_each_object_and_each_owner(cli: Cli, store: Store, paths: Paths) -> None:
    old, held = put(store, b"o"), put(store, b"h")
    for name in ("one", "two"):
        paths.images.put(name, store, {"home": held}, {}, {})
    before = time.time()
    found = gc(cli, "--all")
    (dropped,) = found.pop("dropped")
    assert abs(before - 10 * DAY_S - dropped.pop("used_at")) < DAY_S
    assert dropped == {"digest": old.digest, "kind": "", "size_bytes": MIB}
    assert found == {
        "dry_run": False,
        "max_bytes": None,
        "freed_bytes": MIB,
        "records": 0,
        "kept": [{"why": "held", "by": ["image one", "image two"], "objects": 1, "size_bytes": MIB}],
        "own_bytes": 0,
    }


@pytest.mark.parametrize(
    "options",
    [
        *(["--max-size", text] for text in ("0", "0%", "101%", "-1", "much", "20K", "")),
        *(["--older-than", text] for text in ("0d", "30", "-1d", "soon", "1.5h", "")),
    ],
    ids=" ".join,
)
def test_a_bad_value_is_refused_in_a_line_and_nothing_goes(cli: Cli, store: Store, options: list[str]) -> None:
    obj = put(store, b"x")
    done = cli.run("cache", "gc", *options)
    assert (done.returncode, done.stdout) == (1, "")
    (line,) = done.stderr.splitlines()
    assert line.startswith(f"banger: {options[0]} {options[1]!r} is not ")
    assert store.has(obj)


@pytest.mark.parametrize(
    "options",
    [
        ["--all", "--max-size", "1G"],
        ["--all", "--older-than", "1d"],
        ["--all", "--max-size", ""],
        ["--max-size"],
        ["--older"],
        ["everything"],
    ],
    ids=" ".join,
)
def test_a_misuse_has_status_two_and_nothing_goes(cli: Cli, store: Store, options: list[str]) -> None:
    obj = put(store, b"x")
    done = cli.run("cache", "gc", *options)
    assert (done.returncode, done.stdout) == (2, "")
    assert store.has(obj)


def test_it_works_beside_records_that_cannot_be_read(cli: Cli, store: Store, paths: Paths) -> None:
    obj = put(store, b"x")
    (paths.machines / "0123456789ab").mkdir(parents=True)
    held = put(store, b"h")
    store.link(held, paths.machines / "0123456789ab" / "root")
    paths.database.write_bytes(b"not a database")
    assert gc(cli, "--all")["kept"][0]["by"] == ["vm 0123456789ab"]
    assert (store.has(obj), store.has(held)) == (False, True)


@pytest.fixture
def root_tar(cli: Cli, store: Store, paths: Paths) -> str:
    """Of a user who has the default kernel, and not much room."""
    resume()
    give_default_kernel(store, paths.kernels)
    cli.configure('[cache]\nmax_size = "1M"\n')
    shell = file("bin/sh", os.urandom(2 * MIB), mode=0o755)
    (cli.home / "root.tar").write_bytes(layer(folder("bin"), shell))
    return "root.tar"


def lines_of_gc(done: subprocess.CompletedProcess[str]) -> list[str]:
    return [line for line in done.stderr.splitlines() if "the cache became too large" in line]


def test_a_build_that_makes_the_cache_too_large_takes_what_nobody_used_for_long(
    cli: Cli, store: Store, paths: Paths, root_tar: str
) -> None:
    old, young = put(store, b"o"), put(store, b"y", used_days_ago=0)
    done = succeed(cli, "image", "register", "box", "--rootfs", root_tar)
    assert done.stdout == "box\n"
    assert lines_of_gc(done) == ["the cache became too large: 1.0 MiB went that nobody used for the longest time"]
    assert (store.has(old), store.has(young)) == (False, True)
    # What has just been built is there to the last, though it is more than the limit.
    assert succeed(cli, "image", "register", "other", "--rootfs", root_tar).stdout == "other\n"
    for name in ("box", "other"):
        for role, made in paths.images.get(name).files.items():
            assert store.has(made), role


def test_what_is_built_again_from_the_cache_tidies_nothing(cli: Cli, store: Store, root_tar: str) -> None:
    succeed(cli, "image", "register", "box", "--rootfs", root_tar)
    counted = (store.root / "growth").read_text()
    old = put(store, b"o")
    # It was noted when it came; as if somebody had counted since.
    (store.root / "growth").write_text(counted)
    done = succeed(cli, "image", "register", "other", "--rootfs", root_tar)
    assert lines_of_gc(done) == []
    assert store.has(old)


def test_a_quiet_build_tidies_without_a_word(cli: Cli, store: Store, root_tar: str) -> None:
    old = put(store, b"o")
    done = succeed(cli, "--quiet", "image", "register", "box", "--rootfs", root_tar)
    assert lines_of_gc(done) == []
    assert not store.has(old)


def test_commands_that_do_not_build_tidy_nothing(cli: Cli, store: Store, root_tar: str) -> None:
    old = put(store, b"o", size_bytes=3 * MIB)
    for words in (["cache", "du"], ["vm", "list"], ["image", "list"], ["kernel", "list"]):
        succeed(cli, *words)
    assert store.has(old)


def test_du_tells_what_gc_can_give_back(cli: Cli, store: Store, paths: Paths) -> None:
    put(store, b"f")
    paths.images.put("box", store, {"rootfs": put(store, b"h")}, {}, {})
    found = json.loads(succeed(cli, "cache", "du", "--json").stdout)
    assert (found["size_bytes"], found["shared_bytes"], found["own_bytes"]) == (2 * MIB, MIB, MIB)
    assert gc(cli, "--all")["freed_bytes"] == found["own_bytes"]
    assert json.loads(succeed(cli, "cache", "du", "--json").stdout)["own_bytes"] == 0
