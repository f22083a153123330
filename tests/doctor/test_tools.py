"""Programs that are missing, too old, or not able to do what is asked of them."""

from __future__ import annotations

import shutil
from pathlib import Path
from typing import TYPE_CHECKING

import pytest

from banger.run import find_program

if TYPE_CHECKING:
    from conftest import Lab


def _find(name: str) -> Path:
    found = find_program(name)
    assert found is not None
    return Path(found).resolve()


@pytest.mark.parametrize(
    ("name", "status", "package"),
    [
        ("setpriv", "FAIL", "util-linux"),
        ("unshare", "FAIL", "util-linux"),
        ("mmdebstrap", "FAIL", "mmdebstrap"),
        ("apt-get", "FAIL", "apt"),
        ("depmod", "FAIL", "kmod"),
        ("mkfs.erofs", "FAIL", "erofs-utils"),
        ("mke2fs", "FAIL", "e2fsprogs"),
        ("nft", "FAIL", "nftables"),
        ("ssh", "FAIL", "openssh-client"),
        ("ssh-keygen", "FAIL", "openssh-client"),
        ("git", "WARN", "git"),
        ("ip", "WARN", "iproute2"),
    ],
)
def test_a_missing_program_is_told_with_its_package(lab: Lab, name: str, status: str, package: str) -> None:
    lab.hide(_find(name))
    rows = lab.examine()
    assert rows[name][0] == status
    assert rows[name][1].startswith("missing: ")
    assert rows[name][2].endswith(f"apt-get install {package}")


def test_versions_and_places_are_told(lab: Lab) -> None:
    rows = lab.examine()
    assert rows["mke2fs"][1].startswith("1.")
    assert rows["ssh"][1].split(", ")[1] == shutil.which("ssh")
    assert "QEMU 1" in rows["monitor"][1]


def test_a_program_that_tells_no_version_is_told_all_the_same(lab: Lab) -> None:
    _replace(lab, "git", "echo nothing; exit 3")
    assert lab.examine()["git"][:2] == ("PASS", f"of unknown version, {lab.home}/bin/git")


def test_a_mke2fs_that_reads_no_tar_is_slower_but_will_do(lab: Lab) -> None:
    libraries = list(Path("/usr/lib/x86_64-linux-gnu").glob("libarchive.so.13*"))
    assert libraries
    for library in libraries:
        lab.hide(library.resolve())
    status, detail, fix = lab.examine()["ext4"]
    assert status == "WARN"
    assert "mke2fs reads no tar" in detail
    assert fix == "sudo apt-get install libarchive13"


def test_an_old_mke2fs_is_told_as_such(lab: Lab) -> None:
    """It says what 1.46 says."""
    _replace(
        lab,
        "mke2fs",
        '[ "$1" = -V ] && { echo "mke2fs 1.46.5 (30-Dec-2021)" >&2; exit 0; }; cat >/dev/null\n'
        'echo "__populate_fs: No such file or directory while populating file system" >&2; exit 1',
    )
    assert lab.examine()["ext4"][::2] == ("WARN", "sudo apt-get install e2fsprogs  # 1.47.1 or later")


def test_without_the_means_of_the_second_path_no_disk_can_be_made(lab: Lab) -> None:
    for library in Path("/usr/lib/x86_64-linux-gnu").glob("libarchive.so.13*"):
        lab.hide(library.resolve())
    lab.hide(_find("debugfs"))
    status, detail, fix = lab.examine()["ext4"]
    assert (status, fix) == ("FAIL", "install it: sudo apt-get install e2fsprogs")
    assert "debugfs" in detail


def test_an_old_mkfs_erofs_is_told_as_such(lab: Lab) -> None:
    _replace(
        lab,
        "mkfs.erofs",
        '[ "$1" = -V ] && { echo "mkfs.erofs 1.5"; exit 0; }\necho "unrecognized option" >&2; exit 1',
    )
    status, detail, fix = lab.examine()["erofs"]
    assert status == "FAIL"
    assert "mkfs.erofs 1.5 makes no root filesystem of a tar" in detail
    assert fix.startswith("sudo apt-get install erofs-utils  # 1.8")


def test_packages_cannot_be_verified_without_debian_s_keyring(lab: Lab) -> None:
    lab.prepare.append("mount -t tmpfs none /usr/share/keyrings")
    status, _, fix = lab.examine()["packages"]
    assert (status, fix) == ("FAIL", "install it: sudo apt-get install debian-archive-keyring")


def test_an_apt_that_knows_no_mirror_is_told_unless_one_is_set(lab: Lab) -> None:
    lab.prepare.append("mount -t tmpfs none /var/lib/apt/lists")
    assert lab.examine()["packages"][::2] == ("WARN", "sudo apt-get update, or set debian_mirror")
    lab.configure('debian_mirror = "http://me:hush@mirror.invalid/debian"\n')
    status, detail, _ = lab.examine()["packages"]
    assert status == "PASS"
    assert "hush" not in detail


def _replace(lab: Lab, name: str, script: str) -> None:
    """Another program of that name comes first on the PATH."""
    program = lab.home / "bin" / name
    program.parent.mkdir()
    program.write_text(f"#!/bin/sh\n{script}\n")
    program.chmod(0o755)
    lab.environment["PATH"] = f"{program.parent}:{lab.variables()['PATH']}"
