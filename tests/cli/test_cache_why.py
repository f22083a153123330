"""`banger cache why`, as it is printed, in a home where small things were built under real names."""

from __future__ import annotations

import json
import os
import pty
import subprocess
import sys
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest

from banger.paths import Paths
from banger.run import resume
from cache import Digest, Store
from cache.layout import record_path
from pipelines.graph import build
from pipelines.job import Job
from pipelines.naming import plan_named
from pipelines.reporter import Silent
from pipelines.step import Step
from tests.cli.shells import read_rest
from tests.oci.layers import file, layer, write_layout
from tests.oci.registries import Registry, run_registry

if TYPE_CHECKING:
    from conftest import Cli


def _make(job: Job) -> None:
    for output in job.step.outputs:
        with job.create(output) as sink:
            sink.write(f"{job.step.kind} {output} {sorted(job.parameters.items())}".encode())


def _paths(cli: Cli) -> Paths:
    return Paths.from_environment(cli.variables())


def _own_recipe(cli: Cli, packages: str = '"jq"') -> None:
    """In the folder `own`; its first steps are a lock and a system."""
    folder = cli.home / "own"
    folder.mkdir(exist_ok=True)
    (folder / "recipe.toml").write_text(f'suite = "trixie"\npackages = [{packages}]\n')


def _resolve_own(cli: Cli, *packages: str) -> None:
    """Have the recipe's lock recorded as if the archive had been asked."""
    resume()
    parameters = {
        "suite": "trixie",
        "packages": ["apt", "debian-archive-keyring", *packages],
        "selection": "?essential",
    }
    build(Store.open(_paths(cli).store), [Step("lock", "apt-lock", 1, _make, ("lock",), parameters)], Silent())


@pytest.fixture
def filled(cli: Cli) -> Cli:
    """An image that was imported: two steps without inputs, of which one gives two files."""
    resume()
    paths = _paths(cli)
    store = Store.open(paths.store)
    rootfs = Step("r", "rootfs", 2, _make, ("rootfs", "extra"), {"content": "a"})
    home = Step("h", "home", 1, _make, ("home",))
    artifacts = {"rootfs": rootfs.output("rootfs"), "home": home.output("home")}
    details = {"kernel": "debian-6.12", "source": "register"}
    build(store, [plan_named(store, paths.images, "mine", artifacts, details).naming], Silent())
    return cli


def _json(cli: Cli, target: str) -> list[dict[str, Any]]:
    done = cli.run("cache", "why", target, "--json")
    assert done.returncode == 0, done.stderr
    found: list[dict[str, Any]] = json.loads(done.stdout)
    return found


def test_a_tree_of_hits_is_printed_with_the_beginning_of_each_key(filled: Cli) -> None:
    done = filled.run("cache", "why", "mine")
    assert (done.returncode, done.stderr) == (0, "")
    keys = {each["name"]: each["key"] for each in _json(filled, "mine")}
    root, *steps = [line.split() for line in done.stdout.splitlines()]
    assert root == ["image:mine", "hit"]
    assert [line[0] for line in steps] == ["├─", "└─"]
    assert {line[1]: line[2:] for line in steps} == {
        name: [keys[name][:12], "hit"] for name in ("rootfs:mine", "home:mine")
    }


def test_json_has_whole_keys_and_says_where_inputs_come_from(filled: Cli) -> None:
    root, *steps = _json(filled, "mine")
    assert root["name"] == "image:mine"
    assert root["key"] is None
    assert root["inputs"] == {"rootfs": "rootfs:mine", "home": "home:mine"}
    for each in steps:
        assert set(each) == {"name", "kind", "key", "state", "why", "changes", "inputs"}
        assert (each["state"], each["why"], each["changes"]) == ("hit", "", [])
        assert record_path(_paths(filled).store, Digest(each["key"])).is_file()


def test_a_step_that_comes_again_is_shown_once_in_full(cli: Cli) -> None:
    done = cli.run("cache", "why", "debian-6.12")
    lines = [line for line in done.stdout.splitlines() if "packages:debian-6.12" in line and "waits for" not in line]
    assert [line.endswith("packages:debian-6.12 (see above)") for line in lines] == [True, True]
    [first] = [line for line in done.stdout.splitlines() if line.split()[1:4] == ["└─", "packages:debian-6.12", "miss"]]
    assert first.endswith("waits for lock:kernel-debian-6.12")


def test_what_changed_is_printed_below_its_step_old_and_new(cli: Cli) -> None:
    _own_recipe(cli, '"jq", "htop"')
    _resolve_own(cli, "jq")
    done = cli.run("cache", "why", "own")
    [lock] = [each for each in _json(cli, "own") if each["name"] == "lock:recipe-own"]
    assert lock["changes"] == [{"what": "parameter packages[2]", "old": None, "new": "htop"}]
    lines = done.stdout.splitlines()
    at = next(number for number, line in enumerate(lines) if " lock:recipe-own " in line and lock["key"][:12] in line)
    assert lines[at + 1].endswith(' parameter packages[2]: (none) → "htop"')


def test_long_values_and_long_lists_of_changes_are_cut(cli: Cli) -> None:
    names = ", ".join(f'"p{number:02}"' for number in range(40))
    _own_recipe(cli, f'"{"x" * 200}", {names}')
    _resolve_own(cli)
    lines = cli.run("cache", "why", "own").stdout.splitlines()
    assert any(line.endswith("and 29 more") for line in lines)
    assert not any("x" * 61 in line for line in lines)


def test_a_digest_is_printed_by_its_beginning(filled: Cli) -> None:
    paths = _paths(filled)
    _own_recipe(filled)
    motd = filled.home / "own/motd"
    (filled.home / "own/recipe.toml").write_text(
        'base = "mine"\n[[file]]\nsource = "motd"\ntarget = "/motd"\n[[run]]\ncommand = "true"\n'
    )
    motd.write_text("new")
    # What the recipe's files were the last time, and what was run on top of them.
    step = Step("files", "recipe-files", 1, _make, ("blob", "index"), {"files": "ab" * 32})
    run = Step("run", "oci-rootfs", 1, _make, ("rootfs", "home"), {}, {"index-001": step.output("index")})
    details = {"kernel": "debian-6.12", "source": "recipe-file", "path": str(filled.home / "own/recipe.toml")}
    store = Store.open(paths.store)
    artifacts = {"rootfs": run.output("rootfs"), "home": run.output("home")}
    build(store, [plan_named(store, paths.images, "own", artifacts, details).naming], Silent())
    assert "parameter files: abababababab → " in filled.run("cache", "why", "own").stdout
    [files] = [each for each in _json(filled, "own") if each["name"] == "files:own"]
    assert files["changes"][0]["old"] == "ab" * 32


def test_an_unknown_name_is_one_clear_error_with_the_nearest(cli: Cli) -> None:
    done = cli.run("cache", "why", "debian-bokworm", "--json")
    assert (done.returncode, done.stdout) == (1, "")
    error = json.loads(done.stderr)["error"]
    assert error["reason"] == "not-found"
    assert "'debian-bookworm'" in error["hint"]


def test_nothing_is_written_not_even_a_cache(cli: Cli) -> None:
    assert cli.run("cache", "why", "debian-bookworm").returncode == 0
    assert list(cli.home.iterdir()) == []


def test_records_of_others_are_not_read_while_nothing_is_missing(filled: Cli) -> None:
    trap = record_path(_paths(filled).store, Digest("ab" * 32))
    trap.parent.mkdir(exist_ok=True)
    # Whoever opens it waits for ever.
    os.mkfifo(trap)
    assert filled.run("cache", "why", "mine").returncode == 0


def test_colours_are_for_terminals_and_not_for_those_who_want_none(filled: Cli) -> None:
    assert "\x1b[32m" in _on_terminal(filled, {})
    assert "\x1b[" not in _on_terminal(filled, {"NO_COLOR": "1"})
    assert "\x1b" not in filled.run("cache", "why", "mine").stdout


def _on_terminal(cli: Cli, changes: dict[str, str]) -> str:
    leader, follower = pty.openpty()
    subprocess.run(
        [Path(sys.executable).with_name("banger"), "cache", "why", "mine"],
        env={**cli.variables(), "TERM": "xterm", **changes},
        stdout=follower,
        stderr=subprocess.DEVNULL,
        check=True,
        timeout=60,
    )
    os.close(follower)
    return read_rest(leader).decode()


def test_what_comes_from_outside_moves_no_cursor(cli: Cli) -> None:
    folder = cli.home / "own"
    folder.mkdir()
    (folder / "recipe.toml").write_text('base = "debian-bookworm"\n[[run]]\ncommand = "new"\n')
    resume()
    store = Store.open(_paths(cli).store)
    parameters = {
        "suite": "trixie",
        "packages": ["apt", "debian-archive-keyring", "\x1b[2J\nevil"],
        "selection": "?essential",
    }
    build(store, [Step("lock", "apt-lock", 1, _make, ("lock",), parameters)], Silent())
    _own_recipe(cli)
    said = cli.run("cache", "why", "own").stdout
    assert "evil" in said
    assert not any(each in said for each in ("\x1b", "\u202e", "\nevil"))


def test_an_image_of_a_registry_that_is_gone_shows_its_tree(cli: Cli, tmp_path_factory: pytest.TempPathFactory) -> None:
    place = tmp_path_factory.mktemp("registry")
    write_layout(place / "x", {"it": [layer(file("one", b"1")), layer(file("two", b"2"))]})
    with run_registry(place / "data") as registry:
        reference = _push(registry, place)
        built = cli.run("image", "build", reference)
        assert built.returncode == 0, built.stderr
    found = _json(cli, reference)
    assert [each["name"] for each in found][:2] == [f"image:{reference}", f"rootfs:{reference}"]
    assert {each["state"] for each in found} == {"hit"}
    assert sum(each["kind"] == "layer" for each in found) == 2
    # Also when only the answer is left, and with a step for a root.
    assert cli.run("image", "rm", reference).returncode == 0
    assert [each["state"] for each in _json(cli, reference)] == ["miss", *["hit"] * (len(found) - 1)]


def _push(registry: Registry, place: Path) -> str:
    return registry.push(Path(f"{place}/x:it"), "app:1")


def test_tab_offers_images_and_kernels(filled: Cli) -> None:
    filled.environment = {"_BANGER_COMPLETE": "bash_complete", "COMP_WORDS": "banger cache why ", "COMP_CWORD": "3"}
    offered = filled.run().stdout
    for name in ("mine", "debian-bookworm", "debian-6.12"):
        assert name in offered
