"""The tar of an image's /root that somebody made by hand: what comes of it has plain names, or it is refused."""

from __future__ import annotations

import gzip
import io
import tarfile
from pathlib import Path

import pytest

from banger.errors import BangerError, Reason
from banger.machine.home import WORKSPACE, Home, write_home
from pipelines.ext4 import make_ext4
from pipelines.oci.limits import Limits
from tests.oci.layers import file, folder, hardlink, layer, symlink

_KEY = "ssh-ed25519 AAAA key"


def _write_workspace(tar: tarfile.TarFile) -> None:
    for name in (WORKSPACE, f"{WORKSPACE}/.git"):
        entry = tarfile.TarInfo(name)
        entry.type = tarfile.DIRTYPE
        tar.addfile(entry)


def _make_home(tmp_path: Path, content: bytes) -> Home:
    path = tmp_path / "image-home"
    path.write_bytes(content)
    return Home(_KEY, path, gitconfig="[user]\n", write_workspace=_write_workspace)


def _read(tmp_path: Path, *members: bytes) -> dict[str, bytes]:
    """What stands in the tar that the host's programs get, exactly as it is named there."""
    sink = io.BytesIO()
    with tarfile.open(fileobj=sink, mode="w|", format=tarfile.GNU_FORMAT) as tar:
        write_home(tar, _make_home(tmp_path, layer(*members)))
    sink.seek(0)
    found = {}
    with tarfile.open(fileobj=sink) as tar:
        for member in tar:
            assert member.name not in found
            source = tar.extractfile(member) if member.isreg() else None
            found[member.name] = b"" if source is None else source.read()
    return found


def _refuse(tmp_path: Path, content: bytes) -> BangerError:
    disk = tmp_path / "work.ext4"
    home = _make_home(tmp_path, content)
    with pytest.raises(BangerError) as refused:
        make_ext4(disk, 16, lambda tar: write_home(tar, home))
    assert not disk.exists()
    assert refused.value.message.isprintable()
    assert "the image's /root" in refused.value.message
    return refused.value


@pytest.mark.parametrize(
    "name",
    [
        "./.ssh/authorized_keys",
        ".ssh/./authorized_keys",
        ".//.ssh//authorized_keys",
        "./.gitconfig",
        f"./{WORKSPACE}/.git/config",
        f".//{WORKSPACE}/.git/config",
        f"{WORKSPACE}/./.git/hooks",
    ],
)
def test_no_spelling_of_a_name_takes_the_place_of_what_is_there_already(name: str, tmp_path: Path) -> None:
    found = _read(tmp_path, folder("."), file(name, b"stranger's"), file("./other", b"image's"))
    assert b"stranger's" not in found.values()
    assert found[".ssh/authorized_keys"] == f"{_KEY}\n".encode()
    assert set(found) == {
        ".", ".ssh", ".ssh/authorized_keys", ".gitconfig", WORKSPACE, f"{WORKSPACE}/.git", "other"
    }  # fmt: skip


@pytest.mark.parametrize("target", ["./.ssh/authorized_keys", ".ssh//authorized_keys", f"./{WORKSPACE}/.git/config"])
def test_no_spelling_of_a_link_leads_to_what_is_there_already(target: str, tmp_path: Path) -> None:
    assert "same" not in _read(tmp_path, hardlink("same", target))


def test_links_are_written_as_the_names_are(tmp_path: Path) -> None:
    content = layer(folder("./a"), file("./a//first", b"one"), hardlink("./second", "./a/./first"))
    sink = io.BytesIO()
    with tarfile.open(fileobj=sink, mode="w|", format=tarfile.GNU_FORMAT) as tar:
        write_home(tar, _make_home(tmp_path, content))
    sink.seek(0)
    with tarfile.open(fileobj=sink) as tar:
        assert tar.getmember("second").linkname == "a/first"


@pytest.mark.parametrize(
    "members",
    [
        [file("../../x")],
        [file("a/../../x")],
        [folder("a"), file("a/..")],
        [file("/etc/abs")],
        [symlink("link", "/tmp"), file("link/x")],
        [file("plain"), file("plain/x")],
        [file("nowhere/x")],
        [file("twice"), file("./twice")],
        [symlink("twice", "/tmp"), file("twice")],
        [hardlink("up", "../../../etc/passwd")],
        [hardlink("absolute", "/etc/passwd")],
        [hardlink("later", "x"), file("x")],
        [hardlink("itself", "itself")],
        [folder("a"), hardlink("folder", "a")],
        [hardlink("root", ".")],
        [symlink("empty", "")],
        [symlink("long", "x" * 4096)],
        [file("n" * 256)],
    ],
)
def test_what_leads_out_of_it_or_into_nothing_is_refused(members: list[bytes], tmp_path: Path) -> None:
    assert _refuse(tmp_path, layer(*members)).reason is Reason.BAD_INPUT


@pytest.mark.parametrize(
    "content",
    [
        b"junk",
        b"junk" * 1000,
        layer(file("x", b"x" * 5000))[:2000],
        gzip.compress(layer(file("x"))),
        b"\0" * 100,
    ],
    ids=["short junk", "junk", "cut off", "a tar in a gzip", "less than a block"],
)
def test_what_is_no_tar_is_refused_in_one_line(content: bytes, tmp_path: Path) -> None:
    assert _refuse(tmp_path, content).reason is Reason.CORRUPT


def test_an_empty_one_gives_a_home_without_anything_of_the_image(tmp_path: Path) -> None:
    assert set(_read(tmp_path)) == {".", ".ssh", ".ssh/authorized_keys", ".gitconfig", WORKSPACE, f"{WORKSPACE}/.git"}


def test_a_file_with_holes_is_refused(tmp_path: Path) -> None:
    pax = {"GNU.sparse.major": "1", "GNU.sparse.minor": "0", "GNU.sparse.realsize": str(1 << 40)}
    holes = file("x", b"0\n".ljust(512, b"\0"), pax=pax)
    assert _refuse(tmp_path, layer(holes)).reason is Reason.BAD_INPUT


def test_more_names_than_any_image_has_are_refused(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("banger.machine.home._LIMITS", Limits(max_entries=3))
    assert _refuse(tmp_path, layer(*(file(str(number)) for number in range(4)))).reason is Reason.TOO_LARGE
