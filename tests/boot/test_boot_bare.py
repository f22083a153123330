"""An image that has nothing: no init, no libc, no ssh server, no users. The guest runtime brings what it lacks."""

from __future__ import annotations

import io
import subprocess
import tarfile
import time
from pathlib import Path

from banger.paths import Paths
from cache import Record, Store, key_of
from tests.boot.host import Home, Host


def register(home: Home, name: str, tar: Path) -> None:
    """Give a name to a root filesystem made of a tar."""
    paths = Paths.from_environment(home.environment)
    store = Store.open(paths.store)
    with store.temporary_dir() as folder:
        image = folder / "rootfs"
        subprocess.run(["mkfs.erofs", "-d1", "--tar=f", str(image), str(tar)], check=True, stdout=subprocess.DEVNULL)
        rootfs = store.put_file(image)
    empty = io.BytesIO()
    tarfile.open(fileobj=empty, mode="w").close()
    files = {"rootfs": rootfs, "home": store.put_bytes(empty.getvalue())}
    records = {
        key_of(role, 0, {"test": name}, {}): Record(role, 0, {"test": name}, {}, {role: made}, time.time(), 0.0)
        for role, made in files.items()
    }
    paths.images.put(name, store, files, records, {"kernel": "debian-6.12"})


def test_a_root_with_busybox_alone_gives_ssh_and_stops_cleanly(host: Host, clean_home: Home, tmp_path: Path) -> None:
    tar = tmp_path / "bare.tar"
    with tarfile.open(tar, "w") as archive:
        archive.add("/usr/bin/busybox", "bin/busybox")
    register(clean_home, "bare", tar)
    host.succeed("vm", "run", "--detach", "--name", "bare", "--image", "bare", "--memory", "256M", home=clean_home)
    script = "id -un; pwd; echo $((6 * 7)); /bin/busybox cat /etc/hostname; /bin/busybox touch /etc/kept /root/kept"
    assert host.succeed("vm", "exec", "bare", "--", "sh", "-c", script, home=clean_home) == b"root\n/root\n42\nbare\n"
    assert host.banger("vm", "exec", "bare", "--", "sh", "-c", "exit 255", home=clean_home).returncode == 255
    data = bytes(range(256)) * 4096
    assert host.succeed("vm", "exec", "bare", "--", "/bin/busybox", "cat", stdin=data, home=clean_home) == data
    begin = time.monotonic()
    host.succeed("vm", "stop", "bare", home=clean_home)
    assert time.monotonic() - begin < 90, "it was killed, not stopped"
    host.succeed("vm", "start", "bare", home=clean_home)
    host.succeed("vm", "exec", "bare", "--", "/bin/busybox", "ls", "/etc/kept", "/root/kept", home=clean_home)
    host.succeed("vm", "delete", "bare", home=clean_home)
    host.assert_nothing_left(clean_home)
