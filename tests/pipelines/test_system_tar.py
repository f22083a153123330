"""What is found in the tar of a Debian system, and what is refused there."""

from __future__ import annotations

import io
import tarfile
from collections.abc import Callable
from pathlib import Path

import pytest

from banger.errors import BangerError, Reason
from pipelines.initramfs import System

Entry = tuple[str, bytes | str]


def _write(path: Path, *entries: Entry) -> Path:
    """Files (bytes) and symbolic links (text) in a tar."""
    with tarfile.open(path, "w", format=tarfile.PAX_FORMAT) as tar:
        for name, content in entries:
            entry = tarfile.TarInfo(name)
            if isinstance(content, str):
                entry.type, entry.linkname = tarfile.SYMTYPE, content
                tar.addfile(entry)
            else:
                entry.size = len(content)
                tar.addfile(entry, io.BytesIO(content))
    return path


@pytest.fixture
def open_system(tmp_path: Path) -> Callable[..., System]:
    def open_one(*entries: Entry) -> System:
        return System(tarfile.open(_write(tmp_path / "system.tar", *entries)))

    return open_one


@pytest.mark.parametrize(
    ("link", "target"),
    [
        ("usr/bin/vi", "vim"),
        ("usr/bin/vi", "./vim"),
        ("usr/sbin/vi", "../bin/vim"),
        ("etc/vi", "/usr/bin/vim"),
        ("etc/vi", "//usr/bin/vim"),
        ("etc/vi", "/etc/../usr/bin/./vim"),
        ("vi", "../../../usr/bin/vim"),
    ],
)
def test_a_link_is_followed_inside_the_system(open_system: Callable[..., System], link: str, target: str) -> None:
    assert open_system(("./usr/bin/vim", b"vim"), (f"./{link}", target)).read(link) == b"vim"


def test_a_link_to_a_link_is_followed(open_system: Callable[..., System]) -> None:
    system = open_system(("./a", "b"), ("./b", "/c"), ("./c", b"content"))
    assert system.read("a") == b"content"


@pytest.mark.parametrize("target", ["a", "b", "/etc/passwd", "../../../../etc/passwd", "", "/"])
def test_a_link_to_nowhere_or_in_a_circle_is_refused(open_system: Callable[..., System], target: str) -> None:
    system = open_system(("./a", target), ("./b", "a"))
    with pytest.raises(BangerError) as caught:
        system.read("a")
    assert caught.value.reason is Reason.CORRUPT


def test_a_library_is_found_in_any_of_the_usual_folders(open_system: Callable[..., System]) -> None:
    system = open_system(
        ("./usr/lib64/ld.so", "../lib/x86_64-linux-gnu/ld-2.so"),
        ("./usr/lib/x86_64-linux-gnu/ld-2.so", b"loader"),
        ("./lib/x86_64-linux-gnu/libc.so.6", b"libc"),
    )
    assert system.read_library("ld.so") == b"loader"
    assert system.read_library("libc.so.6") == b"libc"
    with pytest.raises(BangerError):
        system.read_library("libm.so.6")
