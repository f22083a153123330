"""A file tree as data that can be compared: of a folder, or of an EROFS image as the kernel shows it.

What is left out, since the host's filesystem makes it up and no image says it: sizes and link counts of directories,
inode numbers, access and change times, the parts of a second. Run as a program it mounts images and tells their trees,
in a mount namespace of its own, so that it uses nothing but the standard library.
"""

from __future__ import annotations

import ctypes
import hashlib
import os
import pickle
import stat
import subprocess
import sys
import tempfile
from collections.abc import Sequence
from dataclasses import dataclass, fields
from pathlib import Path

_MS_RDONLY = 1
_READ_BYTES = 1 << 20


@dataclass(frozen=True)
class Node:
    """`group` is all names of the inode; `size_bytes`, `sha256`, `target`, `rdev` are None where they mean nothing."""

    kind: str
    mode: int
    uid: int
    gid: int
    mtime_s: int
    xattrs: tuple[tuple[str, bytes], ...]
    size_bytes: int | None = None
    sha256: str | None = None
    target: bytes | None = None
    rdev: tuple[int, int] | None = None
    link_count: int | None = None
    group: tuple[bytes, ...] = ()


Tree = dict[bytes, Node]
# path -> what differs: field -> (theirs, ours); the field "there" says in which trees the path is.
Difference = dict[bytes, dict[str, tuple[object, object]]]

_KINDS = {
    stat.S_IFREG: "file",
    stat.S_IFDIR: "directory",
    stat.S_IFLNK: "symlink",
    stat.S_IFCHR: "character device",
    stat.S_IFBLK: "block device",
    stat.S_IFIFO: "fifo",
    stat.S_IFSOCK: "socket",
}


def read_tree(root: Path) -> Tree:
    """Paths are relative to `root`, which is b"." itself."""
    top = os.fsencode(root)
    nodes: Tree = {}
    inodes: dict[int, list[bytes]] = {}
    device = os.lstat(top).st_dev
    pending = [b"."]
    while pending:
        path = pending.pop()
        full = os.path.join(top, path)  # noqa: PTH118 - a name need not be text, so no Path
        found = os.lstat(full)
        assert found.st_dev == device, f"something is mounted at {path!r}"
        if stat.S_ISDIR(found.st_mode):
            pending += [name if path == b"." else path + b"/" + name for name in os.listdir(full)]  # noqa: PTH208
        else:
            inodes.setdefault(found.st_ino, []).append(path)
        nodes[path] = _read_node(full, found)
    for names in inodes.values():
        for name in names:
            nodes[name] = Node(**{**_as_dict(nodes[name]), "group": tuple(sorted(names))})  # type: ignore[arg-type]
    return nodes


def _read_node(full: bytes, found: os.stat_result) -> Node:
    kind = _KINDS[stat.S_IFMT(found.st_mode)]
    names = sorted(os.listxattr(full, follow_symlinks=False))
    return Node(
        kind=kind,
        mode=stat.S_IMODE(found.st_mode),
        uid=found.st_uid,
        gid=found.st_gid,
        mtime_s=found.st_mtime_ns // 10**9,
        xattrs=tuple((name, os.getxattr(full, name, follow_symlinks=False)) for name in names),
        size_bytes=found.st_size if kind == "file" else None,
        sha256=_hash(full) if kind == "file" else None,
        target=os.readlink(full) if kind == "symlink" else None,  # noqa: PTH115
        rdev=(os.major(found.st_rdev), os.minor(found.st_rdev)) if kind.endswith("device") else None,
        link_count=None if kind == "directory" else found.st_nlink,
    )


def compare(theirs: Tree, ours: Tree) -> Difference:
    """Empty when they are equal."""
    different: Difference = {}
    for path in sorted(theirs.keys() | ours.keys()):
        if path not in theirs or path not in ours:
            different[path] = {"there": (path in theirs, path in ours)}
        elif theirs[path] != ours[path]:
            before, after = _as_dict(theirs[path]), _as_dict(ours[path])
            different[path] = {key: (before[key], after[key]) for key in before if before[key] != after[key]}
    return different


def read_erofs(*images: Path) -> list[Tree]:
    """The trees of EROFS images as this kernel shows them. Needs root."""
    argv = ["unshare", "--mount", sys.executable, "-I", __file__, *map(str, images)]
    done = subprocess.run(argv, stdout=subprocess.PIPE, check=True)
    trees = pickle.loads(done.stdout)
    # What the child calls Node is a class of its `__main__`.
    return [{path: Node(**values) for path, values in tree.items()} for tree in trees]


def _main(images: Sequence[str]) -> None:
    trees = []
    with tempfile.TemporaryDirectory() as folder:
        for image in images:
            _mount(image, folder)
            try:
                trees.append({path: _as_dict(node) for path, node in read_tree(Path(folder)).items()})
            finally:
                subprocess.run(["umount", folder], check=True)
    pickle.dump(trees, sys.stdout.buffer)


def _mount(image: str, folder: str) -> None:
    """Straight from the file where the kernel can (Linux 6.12), else through a loop device, which takes longer."""
    libc = ctypes.CDLL(None, use_errno=True)
    if libc.mount(os.fsencode(image), os.fsencode(folder), b"erofs", _MS_RDONLY, None) != 0:
        subprocess.run(["mount", "-t", "erofs", "-o", "ro,loop", image, folder], check=True)


def _as_dict(node: Node) -> dict[str, object]:
    return {each.name: getattr(node, each.name) for each in fields(node)}


def _hash(full: bytes) -> str:
    digest = hashlib.sha256()
    with open(full, "rb") as stream:  # noqa: PTH123
        while block := stream.read(_READ_BYTES):
            digest.update(block)
    return digest.hexdigest()


if __name__ == "__main__":
    _main(sys.argv[1:])
