"""A build that fails in the middle leaves nothing under the name, and what the name stood for before as it was (C4)."""

from __future__ import annotations

import hashlib
import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest

from banger.errors import Reason
from cache import Store
from tests.oci.layers import blob_path, compress, file, layer
from tests.oci.refusals import NAME, Host, accept

_RANDOM = os.urandom(3_000_000)
_GOOD = layer(file("a", _RANDOM)), layer(file("b", b"b" * 100_000))
_BANGER = Path(sys.executable).with_name("banger")


@pytest.fixture
def host(tmp_path: Path) -> Host:
    made = Host(tmp_path)
    made.write(*_GOOD)
    return made


def test_a_layer_that_breaks_off_leaves_nothing(host: Host) -> None:
    path = _blob_of(host, number=0)
    path.write_bytes(path.read_bytes()[: len(_RANDOM) // 2])
    assert host.refuse().reason is Reason.CORRUPT
    assert host.names() == []


def test_a_layer_that_is_missing_leaves_nothing(host: Host) -> None:
    _blob_of(host, number=1).unlink()
    host.refuse()
    assert host.names() == []


def test_an_entry_that_is_refused_after_honest_ones_leaves_nothing(host: Host) -> None:
    host.write(*_GOOD, layer(file("honest", _RANDOM[:100_000]), file("../x")))
    assert host.refuse().reason is Reason.BAD_INPUT
    assert host.names() == []


def test_a_name_keeps_what_it_stood_for_when_it_cannot_be_built_anew(host: Host) -> None:
    before = host.build()
    content = before.path("rootfs").read_bytes()
    host.write(*_GOOD, layer(file("../x")))
    host.refuse()
    assert host.images.get(NAME).path("rootfs").read_bytes() == content


def test_what_was_repaired_is_built_as_if_nothing_had_failed(host: Host, tmp_path: Path) -> None:
    path = _blob_of(host, number=1)
    whole = path.read_bytes()
    path.write_bytes(whole[:-5])
    host.refuse()
    path.write_bytes(whole)
    # The layer that was whole is in the store: it is not read again.
    _blob_of(host, number=0).unlink()
    assert host.build().files["rootfs"] == accept(tmp_path / "other", *_GOOD).files["rootfs"]


@pytest.mark.parametrize("script", ["exit 1", "head -c 1000000 >$LAST; exit 1", "head -c 1000000 >$LAST; kill -9 $$"])
def test_a_filesystem_that_cannot_be_made_leaves_nothing(
    script: str, host: Host, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """As when the disk fills up: mkfs.erofs ends half-way, having written something or not."""
    _fake_mkfs(tmp_path, script)
    with monkeypatch.context() as patched:
        patched.setenv("PATH", f"{tmp_path / 'bin'}:{os.environ['PATH']}")
        assert host.refuse().reason is Reason.COMMAND_FAILED
    assert host.names() == []
    assert host.build().name == NAME


def test_a_build_that_is_killed_leaves_nothing(host: Host, tmp_path: Path) -> None:
    """With SIGKILL, while the disk is being written; what it leaves in the store goes when the store is next opened."""
    _fake_mkfs(tmp_path, f"head -c 1000000 >$LAST; touch {tmp_path}/writing; exec sleep 60")
    environment = {
        "HOME": str(tmp_path / "home"),
        "PATH": f"{tmp_path / 'bin'}:{os.environ['PATH']}",
        "LC_ALL": "C.UTF-8",
    }
    argv = [_BANGER, "image", "build", f"oci:{host.layout}:tag", "--name", NAME]
    quiet = subprocess.DEVNULL
    with subprocess.Popen(argv, env=environment, stdin=quiet, stdout=quiet, stderr=quiet) as child:
        try:
            _wait_for(tmp_path / "writing")
        finally:
            child.send_signal(signal.SIGKILL)
    images = tmp_path / "home/.local/state/banger/images"
    assert not [path for path in images.rglob("*") if path.name == NAME or path.is_file()]
    half_done = tmp_path / "home/.cache/banger/tmp"
    assert list(half_done.iterdir())
    store = Store.open(half_done.parent)
    assert list((store.root / "tmp").iterdir()) == []
    assert list(store.verify()) == []


def _blob_of(host: Host, number: int) -> Path:
    packed = compress(_GOOD[number], host.compression[number])
    return blob_path(host.layout, "sha256:" + hashlib.sha256(packed).hexdigest())


def _fake_mkfs(folder: Path, script: str) -> None:
    """A `mkfs.erofs` whose `$LAST` is the image that it is to make."""
    program = folder / "bin/mkfs.erofs"
    program.parent.mkdir()
    image = "for LAST; do case $LAST in *.erofs) break;; esac; done"
    program.write_text(f"#!/bin/sh\n{image}\n{script}\n")
    program.chmod(0o755)


def _wait_for(path: Path) -> None:
    deadline = time.monotonic() + 100
    while not path.exists():
        assert time.monotonic() < deadline, f"{path} never came"
        time.sleep(0.01)
