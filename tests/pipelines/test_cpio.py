"""Initramfs archives, read by the real `cpio`."""

from __future__ import annotations

import io
import shutil
import subprocess
from pathlib import Path

import pytest

from pipelines.cpio import CpioWriter

pytestmark = pytest.mark.skipif(shutil.which("cpio") is None, reason="cpio is not installed")


def _write() -> bytes:
    sink = io.BytesIO()
    archive = CpioWriter(sink)
    archive.add_folder("bin")
    for size in range(6):
        archive.add_file(f"bin/{'x' * size}file", b"0123456789"[:size], executable=size % 2 == 0)
    archive.add_file("ünï ✓", bytes(range(256)) * 300, executable=False)
    archive.close()
    return sink.getvalue()


def test_an_archive_is_unpacked_as_it_was_written(tmp_path: Path) -> None:
    subprocess.run(["cpio", "-id", "--quiet"], input=_write(), cwd=tmp_path, check=True)
    found = {str(path.relative_to(tmp_path)) for path in tmp_path.rglob("*")}
    assert found == {"bin", *(f"bin/{'x' * size}file" for size in range(6)), "ünï ✓"}
    for size in range(6):
        path = tmp_path / "bin" / f"{'x' * size}file"
        assert path.read_bytes() == b"0123456789"[:size]
        assert path.stat().st_mode & 0o777 == (0o755 if size % 2 == 0 else 0o644)
    assert (tmp_path / "ünï ✓").read_bytes() == bytes(range(256)) * 300


def test_everything_belongs_to_root_and_has_no_time() -> None:
    listed = subprocess.run(
        ["cpio", "-itv", "--numeric-uid-gid", "--quiet"],
        input=_write(),
        capture_output=True,
        check=True,
        env={"TZ": "UTC", "LC_ALL": "C"},
    )
    lines = listed.stdout.decode("utf-8", "replace").splitlines()
    assert len(lines) == 8
    assert all(line.split()[2:4] == ["0", "0"] and "Jan  1  1970" in line for line in lines)


def test_equal_content_gives_equal_bytes() -> None:
    assert _write() == _write()
