"""The image `bare`: busybox and nothing else. Its machines are up in seconds, for tests that ask little of an image."""

from __future__ import annotations

import io
import subprocess
import tarfile
import time

from banger.paths import Paths
from cache import Record, Store, key_of
from tests.boot.host import Home

NAME = "bare"


def register_bare(home: Home) -> str:
    """Give the home the image; gives its name."""
    paths = Paths.from_environment(home.environment)
    store = Store.open(paths.store)
    with store.temporary_dir() as folder:
        image, tar = folder / "rootfs", folder / "tar"
        with tarfile.open(tar, "w") as archive:
            archive.add("/usr/bin/busybox", "bin/busybox")
        subprocess.run(["mkfs.erofs", "-d1", "--tar=f", str(image), str(tar)], check=True, stdout=subprocess.DEVNULL)
        rootfs = store.put_file(image)
    empty = io.BytesIO()
    tarfile.open(fileobj=empty, mode="w").close()
    files = {"rootfs": rootfs, "home": store.put_bytes(empty.getvalue())}
    records = {
        key_of(role, 0, {"test": NAME}, {}): Record(role, 0, {"test": NAME}, {}, {role: made}, time.time(), 0.0)
        for role, made in files.items()
    }
    paths.images.put(NAME, store, files, records, {"kernel": "debian-6.12"})
    return NAME
