"""`banger cache verify`: what it prints, how it exits, and that it can be gone on with."""

from __future__ import annotations

import json
import os
import pty
import re
import signal
import subprocess
import sys
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest

from banger.machine.record import Records, Wish
from banger.network import DEFAULT_SUBNET
from banger.paths import Paths
from banger.vmm.process import identify_self
from cache import Object, Store
from cache.layout import gc_path
from cache.locks import hold
from tests.cli.shells import read_rest

if TYPE_CHECKING:
    from conftest import Cli


def _open(cli: Cli) -> Store:
    return Store.open(cli.home / ".cache/banger")


def _damage(store: Store, obj: Object) -> Path:
    path = store.path(obj)
    path.chmod(0o600)
    path.write_bytes(bytes(obj.size_bytes))
    return path


def _verify(cli: Cli, *words: str, status: int = 0) -> dict[str, Any]:
    done = cli.run("cache", "verify", "--json", *words)
    assert done.returncode == status, done.stderr
    found: dict[str, Any] = json.loads(done.stdout)
    return found


def test_a_sound_store_is_said_to_be_so_with_its_size(cli: Cli) -> None:
    found = _verify(cli)
    assert (found["objects"], found["bytes"], found["findings"]) == (0, 0, [])
    store = _open(cli)
    store.put_bytes(b"x" * 2_000_000)
    store.put_bytes(b"y")
    found = _verify(cli)
    assert (found["objects"], found["bytes"], found["findings"]) == (2, 2_000_001, [])
    assert found["seconds"] > 0
    assert found["mb_per_s"] > 0
    assert found["resumed_after"] is None
    done = cli.run("cache", "verify")
    assert (done.returncode, done.stdout) == (0, "")
    assert re.search(r"^2 objects, 1\.9 MiB, \d+ MB/s: everything is as it should be$", done.stderr, re.MULTILINE)


def test_a_damaged_store_is_told_with_status_one(cli: Cli) -> None:
    store = _open(cli)
    obj = store.put_bytes(b"content")
    path = _damage(store, obj)
    [finding] = _verify(cli, status=1)["findings"]
    assert finding == {
        "path": str(path),
        "digest": obj.digest,
        "problem": "wrong-hash",
        "detail": finding["detail"],
        "owners": [],
        "users": [],
        "repaired": False,
    }
    done = cli.run("cache", "verify")
    assert done.returncode == 1
    assert done.stdout.startswith(f"wrong-hash: {path}: ")
    assert "cache verify --repair" in done.stderr


@pytest.mark.parametrize(("words", "status"), [("gc", 0), ("verify --repair", 1), ("verify --repair --json", 1)])
def test_who_waits_is_told_who_holds_the_cache_with_what_and_since_when(cli: Cli, words: str, status: int) -> None:
    store = _open(cli)
    _damage(store, store.put_bytes(b"content"))
    banger = Path(sys.executable).with_name("banger")
    with hold(gc_path(store.root), "cache verify --repair"):
        child = subprocess.Popen(
            [banger, "cache", *words.split()],
            env=cli.variables(),
            stdout=subprocess.DEVNULL,
            stderr=subprocess.PIPE,
            text=True,
        )
        assert child.stderr is not None
        line = next(each for each in child.stderr if "waiting" in each)
    child.communicate(timeout=60)
    assert child.returncode == status
    told = rf"waiting: process {os.getpid()} .*cache verify --repair.*, since \d\d:\d\d:\d\d"
    assert re.search(told, line), line


def test_what_was_repaired_is_found_once(cli: Cli) -> None:
    store = _open(cli)
    _damage(store, store.put_bytes(b"content"))
    done = cli.run("cache", "verify", "--repair")
    assert done.returncode == 1
    assert "1 found, 1 repaired" in done.stderr
    assert "--repair" not in done.stderr
    assert _verify(cli)["findings"] == []
    assert "in quarantine: 4.0 KiB" in cli.run("cache", "du").stderr


def test_quiet_says_what_was_found_and_no_more(cli: Cli) -> None:
    store = _open(cli)
    assert cli.run("-q", "cache", "verify").stderr == ""
    _damage(store, store.put_bytes(b"content"))
    done = cli.run("-q", "cache", "verify")
    assert (done.returncode, done.stderr) == (1, "")
    assert len(done.stdout.splitlines()) == 1


def test_who_holds_a_bad_object_is_named_with_what_to_do(cli: Cli) -> None:
    store, paths = _open(cli), Paths.from_environment(cli.variables())
    obj = store.put_bytes(b"content")
    files, records = {"rootfs": obj}, {}
    paths.images.put("debian:12", store, files, records, {"source": "oci", "reference": "debian:12"})
    paths.images.put("team-tool", store, files, records, {"source": "catalog"})
    paths.images.put("good", store, {"rootfs": store.put_bytes(b"another")}, records, {})
    paths.kernels.put("mine", store, files, records, {"source": "import"})
    wish = Wish("box", "debian:12", "mine", vcpus=1, memory_mib=512, disk_mib=64, nat=True)
    machine = Records(paths.database).add(wish, DEFAULT_SUBNET, identify_self())
    (paths.machines / machine.id).mkdir(parents=True)
    store.link(obj, paths.machines / machine.id / "rootfs")
    (paths.images.folder / "team-tool/manifest.json").write_bytes(b"{")
    _damage(store, obj)
    expected = {
        "image debian:12 is damaged with it: banger image build debian:12",
        f"image team-tool is damaged with it: remove {paths.images.folder / 'team-tool'} and build it again",
        "kernel mine is damaged with it: import it again: banger kernel import mine FILE",
        "vm box is damaged with it: banger vm delete box",
    }
    with store.leased("a long build") as leased:
        assert leased.has(obj)
        done = cli.run("cache", "verify", "--repair")
        assert f"  process {os.getpid()} (a long build) reads it: do not trust what that makes of it" in done.stdout
    assert expected <= {line.strip() for line in done.stdout.splitlines()}
    assert "good" not in done.stdout
    # Nothing was done about these yet.
    [finding] = _verify(cli, status=1)["findings"]
    assert (finding["problem"], finding["repaired"]) == ("quarantined", False)
    assert finding["owners"] == ["image debian:12", "image team-tool", "kernel mine", "vm box"]
    assert "--repair" not in cli.run("cache", "verify").stderr


def _interrupt(cli: Cli, place: str) -> None:
    """End one at a place. It notes each second what it did, and this one as if a second went by with each object."""
    program = "import sys; from cache import verify; verify._SAVE_S = 0.0; from banger.cli import main; main()"
    done = subprocess.run(
        [sys.executable, "-I", "-c", program, "cache", "verify"],
        env={**cli.variables(), "BANGER_KILL_AT": place},
        capture_output=True,
        timeout=60,
    )
    assert done.returncode == -signal.SIGKILL, done.stderr


def test_an_interrupted_one_is_gone_on_with_unless_one_begins_anew(cli: Cli) -> None:
    store = _open(cli)
    made = sorted(store.put_bytes(b"%d" % number).digest for number in range(10))
    _interrupt(cli, "verify-checked:4")
    found = _verify(cli)
    assert (found["objects"], found["resumed_after"]) == (6, made[3])
    assert _verify(cli)["objects"] == 10
    _interrupt(cli, "verify-checked:4")
    done = cli.run("cache", "verify")
    assert re.search(
        rf"^goes on after {made[3][:12]}, where one was interrupted \d+ s ago \(\d+% was read",
        done.stderr,
        re.MULTILINE,
    )
    assert "6 objects" in done.stderr
    _interrupt(cli, "verify-checked:4")
    found = _verify(cli, "--restart")
    assert (found["objects"], found["resumed_after"]) == (10, None)


def test_ctrl_c_tells_what_was_found_and_keeps_the_place(cli: Cli) -> None:
    """In the middle of an object that would be read for hours."""
    folder = _open(cli).root / "objects"
    for digit, size_bytes in (("0", 1), ("1", 1), ("2", 4 << 40)):
        (folder / (digit * 2)).mkdir()
        (folder / (digit * 2) / (digit * 64)).touch()
        os.truncate(folder / (digit * 2) / (digit * 64), size_bytes)
    program = """
import os, signal
from cache import trace
checked = []
def on(point):
    if point is trace.Point.VERIFY_CHECKED:
        checked.append(point)
        if len(checked) == 2:
            os.kill(os.getpid(), signal.SIGINT)
trace.on_point = on
from banger.cli import main
main()
"""
    words = [sys.executable, "-I", "-c", program, "cache", "verify"]
    done = subprocess.run(words, env=cli.variables(), capture_output=True, text=True, timeout=60)
    assert done.returncode == 130, done.stderr
    assert done.stdout.startswith(f"wrong-hash: {folder / '00' / ('0' * 64)}: ")
    os.truncate(folder / "22" / ("2" * 64), 1)
    found = _verify(cli, status=1)
    assert found["resumed_after"] == "1" * 64
    assert [each["digest"] for each in found["findings"]] == [digit * 64 for digit in "012"]


@pytest.mark.parametrize("term", ["xterm-256color", "dumb"])
def test_on_a_terminal_the_end_is_the_same(cli: Cli, term: str) -> None:
    store = _open(cli)
    _damage(store, store.put_bytes(b"content"))
    cli.environment = {"TERM": term}
    ours, theirs = pty.openpty()
    banger = Path(sys.executable).with_name("banger")
    done = subprocess.run(
        [banger, "cache", "verify"], env=cli.variables(), stdin=theirs, stdout=theirs, stderr=theirs, timeout=60
    )
    os.close(theirs)
    assert done.returncode == 1
    said = read_rest(ours)
    assert re.search(rb"wrong-hash: .*\n.*1 objects, 7 B, \d+ MB/s: 1 found, 0 repaired", said)
