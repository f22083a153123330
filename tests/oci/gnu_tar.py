"""Layers that the real GNU tar writes: the same tree in each format, and sparse files in each form."""

from __future__ import annotations

import os
import socket
import subprocess
from pathlib import Path


def make_program_cases(folder: Path) -> dict[str, tuple[bytes, ...]]:
    """Name -> layers, as in `corpus.CASES`; `folder` is where the files are made."""
    tree = folder / "tree"
    (tree / "sub").mkdir(parents=True)
    (tree / "sub" / "file").write_bytes(b"content")
    os.link(tree / "sub" / "file", tree / "sub" / "link")
    (tree / "symlink").symlink_to("sub/file")
    os.mkfifo(tree / "fifo")
    os.setxattr(tree / "sub" / "file", "user.mime", b"text/plain")
    with socket.socket(socket.AF_UNIX) as ignored:
        ignored.bind(os.path.relpath(tree / "socket"))
    sparse = folder / "sparse"
    sparse.mkdir()
    _write_sparse(sparse / "some", [(70_000, b"a" * 5000), (300_000, b"b")], 1 << 20)
    _write_sparse(sparse / "many", [(n * 16_384, b"%03d" % n * 300) for n in range(60)], 60 * 16_384)
    _write_sparse(sparse / "ends in data", [(1 << 20, b"end")], (1 << 20) + 3)
    _write_sparse(sparse / "nothing but hole", [], 1 << 20)
    (sparse / "dense").write_bytes(b"dense" * 1000)
    formats = {name: ["--format", name] for name in ("v7", "oldgnu", "gnu", "ustar")}
    formats["v7"] += ["--exclude=./fifo"]
    formats["pax"] = ["--format", "posix", "--xattrs"]
    holes = {
        f"sparse {version}": ["--format", "posix", f"--sparse-version={version}"] for version in ("0.0", "0.1", "1.0")
    }
    holes["sparse old"] = ["--format", "gnu"]
    cases = {f"GNU tar, {name}": (_tar(tree, *options),) for name, options in formats.items()}
    cases |= {f"GNU tar, {name}": (_tar(sparse, "--hole-detection=seek", *options),) for name, options in holes.items()}
    return cases


def _write_sparse(path: Path, pieces: list[tuple[int, bytes]], size: int) -> None:
    with path.open("wb") as stream:
        for at, data in pieces:
            stream.seek(at)
            stream.write(data)
        stream.truncate(size)


def _tar(tree: Path, *options: str) -> bytes:
    common = ["--sort=name", "--mtime=@1400000000", "--warning=no-file-ignored"]
    done = subprocess.run(["tar", "-c", "-C", str(tree), *common, *options, "."], stdout=subprocess.PIPE, check=True)
    return done.stdout
