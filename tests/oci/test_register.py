"""`banger image register`: a folder, a tar or an EROFS image becomes an image, all that it holds as it was."""

from __future__ import annotations

import gzip
import io
import lzma
import os
import shutil
import socket
import struct
import subprocess
import tarfile
from collections.abc import Callable
from pathlib import Path

import pytest
import zstandard

from banger.errors import BangerError, Reason
from catalog.local import Named
from pipelines import register
from pipelines.graph import build
from pipelines.reporter import Silent
from tests.oci.layers import file, folder, layer, symlink
from tests.oci.refusals import Host as OciHost
from tests.oci.register import Host
from tests.oci.tree import Tree, compare, read_erofs, read_tree

needs_root = pytest.mark.skipif(os.geteuid() != 0, reason="mounts, and makes devices")
_CAPABILITY = struct.pack("<5I", 0x02000001, 0x2400, 0, 0, 0)
# acl(5) as linux/posix_acl_xattr.h has it: the owner, user 7, the group, the mask, the others.
_ACL = struct.pack("<I", 2) + b"".join(
    struct.pack("<HHI", tag, rights, who)
    for tag, rights, who in (
        (1, 6, 0xFFFFFFFF),
        (2, 4, 7),
        (4, 4, 0xFFFFFFFF),
        (16, 4, 0xFFFFFFFF),
        (32, 4, 0xFFFFFFFF),
    )
)
_TAR = layer(folder("bin"), file("bin/sh", b"shell", mode=0o755), folder("root"), file("root/note", b"mine"))


@pytest.fixture
def host(tmp_path: Path) -> Host:
    return Host(tmp_path / "host")


def _make_tree(top: Path) -> Path:
    """One of everything that a root filesystem may hold."""
    for name in ("bin", "etc", "dev", "root/deep/er", "tmp", "empty"):
        (top / name).mkdir(parents=True)
    (top / "tmp").chmod(0o1777)
    tool = top / "bin/tool"
    tool.write_bytes(os.urandom(3_000_001))
    tool.chmod(0o4755)
    os.link(tool, top / "bin/other")
    os.link(tool, top / "root/third")
    os.setxattr(tool, "security.capability", _CAPABILITY)
    (top / "etc/passwd").write_text("root:x:0:0::/root:/bin/sh\n")
    os.chown(top / "etc/passwd", 70_000, 2_000_000)
    os.setxattr(top / "etc/passwd", "user.mime", b"text/plain")
    os.setxattr(top / "etc", "trusted.note", b"x")
    os.setxattr(top / "etc/passwd", "system.posix_acl_access", _ACL)
    (top / "link").symlink_to("../../outside")
    os.lchown(top / "link", 5, 6)
    os.mknod(top / "dev/null", 0o20666, os.makedev(1, 3))
    os.mknod(top / "dev/disk", 0o60640, os.makedev(259, 70_000))
    os.mkfifo(top / "dev/fifo", 0o600)
    (top / ("n" * 255)).write_text("long")
    deep = top / "/".join(["d" * 200] * 4)
    deep.mkdir(parents=True)
    (deep / "file").write_text("deep")
    Path(os.fsdecode(os.fsencode(top) + b"/caf\xe9\n")).write_text("not text")
    with (top / "sparse").open("wb") as sparse:
        sparse.seek(5 << 20)
        sparse.write(b"end")
    os.utime(top / "etc/passwd", ns=(0, 1_234_567_890_123_456_789))
    os.utime(top / "link", ns=(0, -5_000_000_000), follow_symlinks=False)
    return top


def _read(made: Named) -> Tree:
    [tree] = read_erofs(made.path("rootfs"))
    return tree


def _without_top(tree: Tree) -> Tree:
    return {path: node for path, node in tree.items() if path != b"."}


@needs_root
def test_a_folder_is_registered_with_all_that_it_holds(host: Host, tmp_path: Path) -> None:
    top = _make_tree(tmp_path / "tree")
    made = host.register(top)
    ours = _read(made)
    assert compare(_without_top(read_tree(top)), _without_top(ours)) == {}
    # The folder only holds it.
    assert (ours[b"."].mode, ours[b"."].uid) == (0o755, 0)
    with tarfile.open(made.path("home")) as home:
        assert sorted(home.getnames()) == [".", "deep", "deep/er", "third"]
    assert made.details == {"kernel": "debian-6.12", "source": "register", "digest": made.details["digest"]}


@needs_root
def test_a_folder_gives_the_same_as_its_tar_by_the_real_program(host: Host, tmp_path: Path) -> None:
    top = _make_tree(tmp_path / "tree")
    options = ["--format=posix", "--xattrs", "--xattrs-include=*", "--sort=name", "--numeric-owner"]
    subprocess.run(["tar", "-C", top, *options, "-cf", tmp_path / "tar", "."], check=True)
    ours, theirs = _read(host.register(top)), _read(host.register(tmp_path / "tar", "other"))
    assert compare(_without_top(theirs), _without_top(ours)) == {}


def test_a_socket_is_left_out(host: Host, tmp_path: Path) -> None:
    (tmp_path / "tree/run").mkdir(parents=True)
    (tmp_path / "tree/run/file").touch()
    with socket.socket(socket.AF_UNIX) as bound:
        bound.bind(os.path.relpath(tmp_path / "tree/run/socket"))
    alone = host.register(tmp_path / "tree")
    (tmp_path / "tree/run/socket").unlink()
    os.utime(tmp_path / "tree/run", ns=(0, 0))
    assert alone.size_bytes > 0
    assert host.register(tmp_path / "tree", "other").size_bytes == alone.size_bytes


@pytest.mark.parametrize(
    "pack", [bytes, gzip.compress, lzma.compress, zstandard.ZstdCompressor().compress], ids=["tar", "gz", "xz", "zst"]
)
def test_a_tar_may_be_packed_and_come_from_anywhere(pack: Callable[[bytes], bytes], host: Host, tmp_path: Path) -> None:
    (tmp_path / "tar").write_bytes(pack(_TAR))
    from_file, from_stdin = host.register(tmp_path / "tar"), host.register(pack(_TAR), "other")
    assert from_file.files == from_stdin.files == host.register(_TAR, "plain").files
    assert from_file.details["digest"] == host.register(_TAR, "plain").details["digest"]
    with tarfile.open(from_file.path("home")) as home:
        assert home.getnames() == [".", "note"]


def test_a_tar_is_what_it_would_be_as_the_layer_of_an_image(host: Host, tmp_path: Path) -> None:
    oci = OciHost(tmp_path / "oci")
    oci.write(_TAR)
    made = host.register(_TAR)
    assert {role: oci.build().files[role] for role in ("rootfs", "home")} == made.files


def test_what_docker_export_writes_is_registered(host: Host, tmp_path: Path) -> None:
    """Its names have no `./`, there is no entry of the root, and `.dockerenv` and `dev/console` are empty files."""
    sink = io.BytesIO()
    with tarfile.open(fileobj=sink, mode="w", format=tarfile.PAX_FORMAT) as tar:
        for name in (".dockerenv", "bin/", "bin/busybox", "dev/", "dev/console", "etc/", "etc/mtab"):
            entry = tarfile.TarInfo(name.rstrip("/"))
            entry.type = tarfile.DIRTYPE if name.endswith("/") else tarfile.REGTYPE
            if name == "etc/mtab":
                entry.type, entry.linkname = tarfile.SYMTYPE, "/proc/mounts"
            tar.addfile(entry)
    made = host.register(sink.getvalue())
    tree = tmp_path / "tree"
    subprocess.run(["fsck.erofs", f"--extract={tree}", made.path("rootfs")], check=True, capture_output=True)
    assert (tree / "etc/mtab").readlink() == Path("/proc/mounts")
    assert (tree / ".dockerenv").read_bytes() == b""


def test_an_erofs_image_is_taken_as_it_is_and_its_home_is_not_looked_at(host: Host, tmp_path: Path) -> None:
    (tmp_path / "tree/root").mkdir(parents=True)
    (tmp_path / "tree/root/note").write_text("hidden")
    image = tmp_path / "image"
    subprocess.run(["mkfs.erofs", "-zlz4hc", image, tmp_path / "tree"], check=True, capture_output=True)
    made = host.register(image)
    assert made.path("rootfs").read_bytes() == image.read_bytes()
    with tarfile.open(made.path("home")) as home:
        assert home.getnames() == []
    assert any("/root" in note for note in host.reporter.notes)
    assert made.details["digest"].startswith("blake3:")


def test_registering_the_same_again_does_nothing_and_something_else_replaces_it(host: Host, tmp_path: Path) -> None:
    (tmp_path / "tree/bin").mkdir(parents=True)
    (tmp_path / "tree/bin/sh").write_text("one")
    first = host.register(tmp_path / "tree", kernel="mine-too")
    host.reporter.started_steps.clear()
    (tmp_path / "tree").rename(tmp_path / "elsewhere")
    assert host.register(tmp_path / "elsewhere") == first
    assert host.reporter.started_steps == []
    assert host.reporter.notes == []
    (tmp_path / "elsewhere/bin/sh").write_text("two")
    second = host.register(tmp_path / "elsewhere")
    assert second.files["rootfs"] != first.files["rootfs"]
    assert second.details["kernel"] == "mine-too"
    assert "another image" in host.reporter.notes[0]


def test_an_image_that_was_registered_works_after_the_store_was_wiped(host: Host) -> None:
    made = host.register(_TAR)
    shutil.rmtree(host.targets.store.root)
    target = host.targets.plan_image("mine")
    build(host.targets.store, [target.naming], Silent())
    assert host.targets.store.has(made.files["rootfs"])
    assert set(target.artifacts) == {"rootfs", "home"}


def test_an_image_that_was_registered_is_not_looked_for_elsewhere(host: Host) -> None:
    host.register(_TAR)
    with pytest.raises(BangerError) as caught:
        host.targets.plan_image("mine", anew=True)
    assert caught.value.reason is Reason.NOT_FOUND


def test_a_folder_that_changes_between_two_looks_is_refused(
    host: Host, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "tree/bin").mkdir(parents=True)
    (tmp_path / "tree/bin/sh").write_text("one")
    look = register.survey_tar

    def look_and_change(*arguments: object) -> object:
        found = look(*arguments)  # type: ignore[arg-type]
        (tmp_path / "tree/bin/sh").write_text("two")
        return found

    monkeypatch.setattr(register, "survey_tar", look_and_change)
    assert host.refuse(tmp_path / "tree").reason is Reason.CORRUPT


def test_a_home_that_a_link_leads_to_is_found(host: Host) -> None:
    tar = layer(symlink("root", "home/root"), folder("home/root"), file("home/root/x", b"linked"), file("bin/sh"))
    with tarfile.open(host.register(tar).path("home")) as home:
        assert home.getnames() == [".", "x"]
