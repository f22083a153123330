"""Machines that are made for real, on a small network that no host has, from artifacts of a few bytes."""

from __future__ import annotations

import io
import tarfile
import tempfile
from collections.abc import Iterator
from ipaddress import IPv4Network
from pathlib import Path

import pytest

from banger.machine.machines import Machines
from banger.machine.record import Records, Wish
from banger.network import Subnet
from banger.paths import Paths
from banger.settings import parse_settings
from cache import Object, Store

SUBNET = Subnet("bgtest9", IPv4Network("10.213.77.0/29"))


@pytest.fixture
def subnet() -> Subnet:
    """Room for five guests."""
    return SUBNET


@pytest.fixture
def paths(tmp_path: Path) -> Iterator[Paths]:
    # Names of sockets have a limit that pytest's folders may come near.
    with tempfile.TemporaryDirectory(prefix="bg-", dir="/tmp") as runtime:
        yield Paths.from_environment({"HOME": str(tmp_path / "home"), "XDG_RUNTIME_DIR": runtime})


@pytest.fixture
def machines(paths: Paths) -> Machines:
    return Machines(Records(paths.database), paths, parse_settings({}), SUBNET)


@pytest.fixture
def store(paths: Paths) -> Store:
    return Store.open(paths.store)


@pytest.fixture
def wish() -> Wish:
    return Wish("box", "image", "kernel", vcpus=1, memory_mib=256, disk_mib=64, nat=True)


@pytest.fixture
def artifacts(store: Store) -> dict[str, Object]:
    home = io.BytesIO()
    with tarfile.open(fileobj=home, mode="w", format=tarfile.PAX_FORMAT) as tar:
        for name in (".", ".bashrc", "ünï ✓", ".ssh", ".ssh/authorized_keys", ".ssh/config"):
            entry = tarfile.TarInfo(name)
            if name in (".", ".ssh"):
                entry.type, entry.mode = tarfile.DIRTYPE, 0o777
            else:
                entry.size = 5
            tar.addfile(entry, io.BytesIO(b"image") if entry.isreg() else None)
    made = {role: store.put_bytes(role.encode()) for role in ("rootfs", "vmlinux", "modules", "initramfs")}
    return {**made, "home": store.put_bytes(home.getvalue())}
