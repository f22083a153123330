"""A kernel and a root filesystem of a user's own, imported and registered, boot as a machine."""

from __future__ import annotations

import gzip
import os
import shutil
import subprocess
import tarfile
from pathlib import Path

from banger.paths import Paths
from cache import Store
from cache.layout import iterate_records
from tests.boot.host import Home, Host


def read_bzimage(home: Home, target: Path) -> None:
    """The kernel as it is in the package that the default kernel was made from."""
    store = Store.open(Paths.from_environment(home.environment).store)
    keys = [Path(entry.path).name for entry in iterate_records(store.root)]
    records = [record for key in keys if (record := store.find_record(key)) is not None]  # type: ignore[arg-type]
    systems = [record.outputs["system"] for record in records if record.step == "debian-packages"]
    with tarfile.open(next(store.path(system) for system in systems if store.has(system))) as tar:
        member = next(each for each in tar if each.name.startswith("./boot/vmlinuz-"))
        image = tar.extractfile(member)
        assert image is not None
        with target.open("wb") as sink:
            shutil.copyfileobj(image, sink)


def test_a_kernel_and_a_root_filesystem_of_ones_own_boot(host: Host, clean_home: Home, tmp_path: Path) -> None:
    default = clean_home.state / "kernels/debian-6.12"
    release = find_release(default / "vmlinux")
    modules = tmp_path / f"tree/lib/modules/{release}"
    modules.parent.mkdir(parents=True)
    subprocess.run(["fsck.erofs", f"--extract={modules}", default / "modules"], check=True, capture_output=True)
    bzimage = tmp_path / "bzImage"
    read_bzimage(clean_home, bzimage)
    initrd = make_initrd(tmp_path)
    parts = ("--modules", str(tmp_path / "tree"), "--initrd", str(initrd))
    host.succeed("kernel", "import", "mine", str(bzimage), *parts, home=clean_home)
    made = clean_home.manifest("kernels", "mine")
    assert made["details"]["version"] == release
    assert made["files"]["vmlinux"] == clean_home.manifest("kernels", "debian-6.12")["files"]["vmlinux"]

    root = tmp_path / "root"
    for folder in ("bin", "etc", "root"):
        (root / folder).mkdir(parents=True)
    shutil.copy("/usr/bin/busybox", root / "bin/busybox")
    for name in ("sh", "uname", "stat", "ls", "wc"):
        (root / "bin" / name).symlink_to("busybox")
    os.link(root / "bin/busybox", root / "bin/cat")
    (root / "root/note").write_text("of the image\n")
    host.succeed("image", "register", "small", "--rootfs", str(root), "--kernel", "mine", home=clean_home)
    words = ("vm", "run", "--rm", "--image", "small", "--memory", "256M", "--")
    script = "uname -r; cat /root/note; stat -c %h /bin/cat; ls /lib/modules/*/kernel | wc -l"
    printed = host.succeed(*words, "sh", "-c", script, home=clean_home).decode().splitlines()
    assert printed[:3] == [release, "of the image", "2"]
    assert int(printed[3]) > 0
    host.assert_nothing_left(clean_home)


def make_initrd(folder: Path) -> Path:
    """As distributions make them: an archive as it is, a packed one behind it, an /init, and folders that are links."""
    tree = folder / "initrd-tree"
    (tree / "usr/bin").mkdir(parents=True)
    (tree / "bin").symlink_to("usr/bin")
    (tree / "init").write_text("#!/bin/sh\nexec poweroff -f\n")
    (tree / "init").chmod(0o755)
    files = b"\n".join([b"init", b"bin", b"usr", b"usr/bin"])
    archive = subprocess.run(
        ["cpio", "-o", "-H", "newc"], input=files, cwd=tree, check=True, capture_output=True
    ).stdout
    initrd = folder / "initrd"
    initrd.write_bytes(archive + gzip.compress(archive) + b"\0")
    return initrd


def find_release(vmlinux: Path) -> str:
    """By other means than ours."""
    found = subprocess.run(
        ["grep", "-aom1", "Linux version [^ ]*", vmlinux], check=True, capture_output=True, text=True
    )
    return found.stdout.split()[2]
