"""From layers to disks: the merged tree is written in one pass, as a tar stream that becomes an EROFS image.

Folders come first, then everything without content, then the files in the order in which the layers hold them, so
that each layer is read once, from front to back. The order follows from the layers alone: equal layers give equal
bytes. What is below the image's /root is written a second time, to the tar with which every work disk begins.
"""

from __future__ import annotations

import contextlib
import fcntl
import io
import os
import subprocess
import tempfile
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import IO

from banger.run import check, is_cancelled, start
from pipelines.erofs import plan_mkfs_from_stream
from pipelines.job import Job
from pipelines.oci.changeset import Node, find_folder, list_nodes, merge
from pipelines.oci.index import LayerIndex, read_index
from pipelines.oci.limits import Limits
from pipelines.oci.stream import CHUNK_BYTES, Cursor, read_ahead, unpack
from pipelines.oci.tar import BLOCK_BYTES, Entry, Kind
from pipelines.oci.tar_writer import END, format_header
from pipelines.step import Artifact, Step

_VERSION = 1
# fcntl(2), F_SETPIPE_SZ: what an ordinary user may ask for (/proc/sys/fs/pipe-max-size).
_PIPE_BYTES = 1 << 20
_ZEROS = memoryview(bytes(CHUNK_BYTES))
_HOME = "root"


def plan_rootfs(name: str, layers: Sequence[Step], limits: Limits) -> dict[str, Artifact]:
    """`rootfs`, the EROFS image, and `home`, a tar of the image's /root."""
    inputs: dict[str, Artifact] = {}
    for number, layer in enumerate(layers):
        inputs[f"index-{number:03}"] = layer.output("index")
        inputs[f"blob-{number:03}"] = layer.output("blob")
    step = Step(
        name=f"rootfs:{name}",
        kind="oci-rootfs",
        version=_VERSION,
        build=lambda job: _build(job, len(layers), limits),
        outputs=("rootfs", "home"),
        inputs=inputs,
    )
    return {"rootfs": step.output("rootfs"), "home": step.output("home")}


def _build(job: Job, count: int, limits: Limits) -> None:
    paths = [job.input(f"index-{number:03}") for number in range(count)]
    # Of a layer that comes many times there is one index; all of them are in memory at once.
    limits.check_names(sum(path.stat().st_size for path in set(paths)), "the image")
    known = {path: read_index(path) for path in set(paths)}
    indexes = [known[path] for path in paths]
    limits.check_entries(sum(len(index.entries) for index in indexes), "the image")
    job.progress("merging the layers")
    tree = plan_tree(indexes, limits)
    limits.check_size(tree.size_bytes, "the image")
    image = job.directory / "rootfs.erofs"
    with job.create("home") as home, _mkfs_erofs(image) as sink:
        _Writer(job, tree, sink, home, limits).write(indexes)
    job.take("rootfs", image)


@dataclass(frozen=True)
class Inode:
    """A node with all of its names, sorted: paths in the image, and those below /root relative to it."""

    node: Node
    names: list[str]
    home_names: list[str]


@dataclass(frozen=True)
class Plan:
    """What is written, in order: folders, what has no content, and each layer's files by their place in it."""

    folders: list[Inode]
    empty: list[Inode]
    files: dict[int, list[Inode]]
    size_bytes: int


def plan_tree(indexes: Sequence[LayerIndex], limits: Limits) -> Plan:
    root = merge((index.entries for index in indexes), limits)
    inodes: dict[int, Inode] = {id(root): Inode(root, ["."], [])}
    names_bytes = 0
    for path, node in list_nodes(root):
        names_bytes += len(path)
        limits.check_names(names_bytes, "the image")
        inodes.setdefault(id(node), Inode(node, [], [])).names.append(path)
    for path, node in list_home(root):
        inodes[id(node)].home_names.append(path)
    plan = Plan([], [], {}, sum(inode.node.entry.size for inode in inodes.values()))
    for inode in inodes.values():
        if inode.node.is_folder:
            plan.folders.append(inode)
        elif inode.node.entry.kind is not Kind.FILE or inode.node.entry.size == 0:
            plan.empty.append(inode)
        else:
            plan.files.setdefault(inode.node.layer, []).append(inode)
    for files in plan.files.values():
        files.sort(key=lambda inode: inode.node.entry.offset)
    return plan


def list_home(root: Node) -> Iterator[tuple[str, Node]]:
    """What is at /root, wherever a link leads it: `.` and the paths below, relative. Nothing where there is none.

    One that leads to the root itself, or above it, is none.
    """
    home = find_folder(root, _HOME)
    if home is not None and home is not root:
        yield ".", home
        yield from list_nodes(home)


@contextlib.contextmanager
def _mkfs_erofs(image: Path) -> Iterator[IO[bytes]]:
    """A file object whose content, a tar, becomes an EROFS image."""
    argv = plan_mkfs_from_stream(image)
    with (
        tempfile.TemporaryFile(dir=image.parent) as said,
        # It spools what it reads: on the store's disk, not in a /tmp that may be memory.
        start(argv, stdin=subprocess.PIPE, stdout=said, stderr=said, env={"TMPDIR": str(image.parent)}) as child,
    ):
        assert child.stdin is not None
        with contextlib.suppress(OSError):
            fcntl.fcntl(child.stdin.fileno(), fcntl.F_SETPIPE_SZ, _PIPE_BYTES)
        try:
            with io.BufferedWriter(io.FileIO(os.dup(child.stdin.fileno()), "w"), CHUNK_BYTES) as sink:
                child.stdin.close()
                yield sink
        except BrokenPipeError:
            # It ended early, and says why itself.
            pass
        status = child.wait()
        said.seek(0)
        check(argv, status, said.read())


class _Writer:
    def __init__(self, job: Job, tree: Plan, sink: IO[bytes], home: IO[bytes], limits: Limits) -> None:
        self._job = job
        self._tree = tree
        self._sink = sink
        self._home = home
        self._limits = limits
        self._done = 0

    def write(self, indexes: Sequence[LayerIndex]) -> None:
        for inode in (*self._tree.folders, *self._tree.empty):
            for sink, names in self._places(inode):
                self._write_names(sink, inode.node.entry, names)
        for number, files in sorted(self._tree.files.items()):
            self._write_layer(number, files, indexes[number])
        self._sink.write(END)
        self._home.write(END)

    def _write_layer(self, number: int, files: list[Inode], index: LayerIndex) -> None:
        what = f"layer {index.diff_id[:19]}"
        with (
            self._job.input(f"blob-{number:03}").open("rb", buffering=0) as packed,
            contextlib.closing(read_ahead(unpack(packed, self._limits, what))) as chunks,
        ):
            cursor = Cursor(chunks, what)
            for inode in files:
                if is_cancelled():
                    raise KeyboardInterrupt
                entry = inode.node.entry
                cursor.skip(entry.offset - cursor.position)
                places = self._places(inode)
                for sink, names in places:
                    sink.write(format_header(replace(entry, path=names[0])))
                self._copy(cursor, entry, [sink for sink, _names in places])
                for sink, names in places:
                    sink.write(bytes(-entry.size % BLOCK_BYTES))
                    self._write_links(sink, entry, names)
                self._done += entry.size
                self._job.progress("writing the root filesystem", self._done, self._tree.size_bytes)

    def _copy(self, cursor: Cursor, entry: Entry, sinks: list[IO[bytes]]) -> None:
        """The content with its holes filled: mkfs.erofs drops entries in a sparse form, and finds zeros itself."""
        if entry.segments is None:
            cursor.copy(entry.size, *sinks)
            return
        at = 0
        for offset, length in [*entry.segments, (entry.size, 0)]:
            _write_zeros(offset - at, sinks)
            cursor.copy(length, *sinks)
            at = offset + length

    def _places(self, inode: Inode) -> list[tuple[IO[bytes], list[str]]]:
        return [(sink, names) for sink, names in ((self._sink, inode.names), (self._home, inode.home_names)) if names]

    def _write_names(self, sink: IO[bytes], entry: Entry, names: list[str]) -> None:
        sink.write(format_header(replace(entry, path=names[0])))
        self._write_links(sink, entry, names)

    def _write_links(self, sink: IO[bytes], entry: Entry, names: list[str]) -> None:
        for name in names[1:]:
            sink.write(format_header(Entry(name, Kind.LINK, entry.mode, entry.uid, entry.gid, target=names[0])))


def _write_zeros(size: int, sinks: list[IO[bytes]]) -> None:
    while size:
        part = _ZEROS[:size]
        for sink in sinks:
            sink.write(part)
        size -= len(part)
        if is_cancelled():
            raise KeyboardInterrupt
