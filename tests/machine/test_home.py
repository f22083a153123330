"""What a new machine finds at /root: the key, what the user wants there, the workspace, and of the image the rest."""

from __future__ import annotations

import io
import subprocess
import tarfile
from collections.abc import Callable
from pathlib import Path

import pytest

from banger.machine.file_sync import plan_file_sync
from banger.machine.home import WORKSPACE, Home, write_home
from banger.settings import FileSync
from pipelines.ext4 import make_ext4

_KEY = "ssh-ed25519 AAAA key"
_CAPABILITY = "SCHILY.xattr.security.capability"
_Entries = dict[str, tuple[tarfile.TarInfo, bytes]]


def _entry(name: str, kind: bytes = tarfile.REGTYPE, **values: object) -> tarfile.TarInfo:
    entry = tarfile.TarInfo(name)
    entry.type = kind
    entry.mode = 0o755 if kind == tarfile.DIRTYPE else 0o644
    for key, value in values.items():
        setattr(entry, key, value)
    return entry


def _make_image_home(tmp_path: Path, *entries: tarfile.TarInfo) -> Path:
    path = tmp_path / "image-home"
    with tarfile.open(path, "w", format=tarfile.PAX_FORMAT) as tar:
        for entry in (_entry(".", tarfile.DIRTYPE, mode=0o777), *entries):
            content = b"image's" if entry.isreg() else b""
            entry.size = len(content)
            tar.addfile(entry, io.BytesIO(content))
    return path


def _write(home: Home) -> _Entries:
    """Every entry that was written, by its name: the names are all different."""
    sink = io.BytesIO()
    with tarfile.open(
        fileobj=sink, mode="w|", format=tarfile.GNU_FORMAT, encoding="utf-8", errors="surrogateescape"
    ) as tar:
        write_home(tar, home)
    sink.seek(0)
    found: _Entries = {}
    with tarfile.open(fileobj=sink, encoding="utf-8", errors="surrogateescape") as tar:
        for member in tar:
            assert member.name not in found
            source = tar.extractfile(member) if member.isreg() else None
            found[member.name] = (member, source.read() if source is not None else b"")
    return found


def _write_workspace(*names: str) -> Callable[[tarfile.TarFile], None]:
    def write(tar: tarfile.TarFile) -> None:
        tar.addfile(_entry(WORKSPACE, tarfile.DIRTYPE))
        for name in names:
            entry = _entry(f"{WORKSPACE}/{name}")
            entry.size = len(b"workspace's")
            tar.addfile(entry, io.BytesIO(b"workspace's"))

    return write


def _sync(host: Path, guest: str, content: bytes = b"user's") -> FileSync:
    host.parent.mkdir(parents=True, exist_ok=True)
    host.write_bytes(content)
    return FileSync(host, guest, None)


def test_the_key_is_there_as_sshd_wants_it(tmp_path: Path) -> None:
    found = _write(Home(_KEY, _make_image_home(tmp_path)))
    assert set(found) == {".", ".ssh", ".ssh/authorized_keys"}
    assert found[".ssh/authorized_keys"][1] == f"{_KEY}\n".encode()
    modes = {name: member.mode for name, (member, _content) in found.items()}
    assert modes == {".": 0o700, ".ssh": 0o700, ".ssh/authorized_keys": 0o600}
    assert {(member.uid, member.gid) for member, _content in found.values()} == {(0, 0)}


def test_an_image_s_files_are_there_but_for_its_key(tmp_path: Path) -> None:
    image = _make_image_home(
        tmp_path,
        _entry(".ssh", tarfile.DIRTYPE, mode=0o777),
        _entry(".ssh/authorized_keys"),
        _entry(".ssh/config"),
        _entry("ünï ✓", mode=0o640, uid=5),
        _entry("raw\udcff"),
        _entry("link", tarfile.SYMTYPE, linkname="/etc/passwd"),
    )
    found = _write(Home(_KEY, image))
    assert found[".ssh/authorized_keys"][1] == f"{_KEY}\n".encode()
    assert found[".ssh"][0].mode == 0o700
    assert found[".ssh/config"][1] == found["raw\udcff"][1] == b"image's"
    assert (found["ünï ✓"][0].mode, found["ünï ✓"][0].uid) == (0o640, 5)
    assert found["link"][0].linkname == "/etc/passwd"


def test_what_an_image_links_to_its_own_key_does_not_come(tmp_path: Path) -> None:
    image = _make_image_home(
        tmp_path,
        _entry(".ssh/authorized_keys"),
        _entry("same", tarfile.LNKTYPE, linkname=".ssh/authorized_keys"),
        _entry("other"),
        _entry("other-too", tarfile.LNKTYPE, linkname="other"),
    )
    found = _write(Home(_KEY, image))
    assert "same" not in found
    assert found["other-too"][0].linkname == "other"


def test_a_capability_of_an_image_s_program_is_kept(tmp_path: Path) -> None:
    image = _make_image_home(
        tmp_path, _entry("ping", pax_headers={_CAPABILITY: "\x01\x00", "SCHILY.xattr.user.x": "y"}), _entry("plain")
    )
    found = _write(Home(_KEY, image))
    assert found["ping"][0].pax_headers[_CAPABILITY] == "\x01\x00"
    assert "SCHILY.xattr.user.x" not in found["ping"][0].pax_headers
    assert found["plain"][0].pax_headers == {}


def test_the_user_s_files_take_the_place_of_the_image_s(tmp_path: Path) -> None:
    image = _make_image_home(
        tmp_path,
        _entry(".bashrc"),
        _entry(".config", tarfile.DIRTYPE),
        _entry(".config/tool"),
        _entry(".config/other"),
        _entry("was-folder", tarfile.DIRTYPE),
        _entry("was-folder/inside"),
    )
    synced = plan_file_sync(
        [
            _sync(tmp_path / "host/bashrc", ".bashrc"),
            _sync(tmp_path / "host/tool", ".config/tool"),
            _sync(tmp_path / "host/was", "was-folder"),
        ],
        pytest.fail,
    )
    found = _write(Home(_KEY, image, synced=synced))
    assert found[".bashrc"][1] == found[".config/tool"][1] == found["was-folder"][1] == b"user's"
    assert found[".config/other"][1] == b"image's"
    assert "was-folder/inside" not in found


def test_who_the_user_is_to_git_is_told_unless_they_send_a_configuration_of_their_own(tmp_path: Path) -> None:
    image = _make_image_home(tmp_path, _entry(".gitconfig"))
    text = '[user]\n\tname = "Ünï"\n'
    assert _write(Home(_KEY, image))[".gitconfig"][1] == b"image's"
    found = _write(Home(_KEY, image, gitconfig=text))
    assert (found[".gitconfig"][1], found[".gitconfig"][0].mode) == (text.encode(), 0o644)
    synced = plan_file_sync([_sync(tmp_path / "host/gitconfig", ".gitconfig")], pytest.fail)
    assert _write(Home(_KEY, image, gitconfig=text, synced=synced))[".gitconfig"][1] == b"user's"


def test_a_name_that_is_not_utf_8_is_no_reason_to_fail(tmp_path: Path) -> None:
    found = _write(Home(_KEY, _make_image_home(tmp_path), gitconfig='[user]\n\tname = "L\udce4tin"\n'))
    assert found[".gitconfig"][1] == b'[user]\n\tname = "L\xe4tin"\n'


def test_a_workspace_is_all_there_is_in_its_folder(tmp_path: Path) -> None:
    image = _make_image_home(
        tmp_path,
        _entry("repo", tarfile.DIRTYPE),
        _entry("repo/README"),
        _entry("repo-too"),
        _entry("same", tarfile.LNKTYPE, linkname="repo/README"),
    )
    found = _write(Home(_KEY, image, write_workspace=_write_workspace("file")))
    assert {name for name in found if name.startswith("repo")} == {"repo", "repo/file", "repo-too"}
    assert found["repo/file"][1] == b"workspace's"
    assert "same" not in found
    without = _write(Home(_KEY, image))
    assert without["repo/README"][1] == b"image's"


def test_a_file_of_the_image_in_the_workspace_s_place_makes_way(tmp_path: Path) -> None:
    found = _write(Home(_KEY, _make_image_home(tmp_path, _entry("repo")), write_workspace=_write_workspace()))
    assert found["repo"][0].isdir()


def test_all_of_it_makes_a_disk(tmp_path: Path) -> None:
    image = _make_image_home(
        tmp_path,
        _entry("repo", tarfile.DIRTYPE),
        _entry("repo/README"),
        _entry("ünï ✓", pax_headers={_CAPABILITY: "\x01\x00\x00\x02" + "\x00" * 16}),
        _entry("raw\udcff"),
    )
    synced = plan_file_sync([_sync(tmp_path / "b", "deep/b")], pytest.fail)
    home = Home(_KEY, image, "[user]\n", synced, _write_workspace("file", "ünï", "raw\udcff"))
    disk = tmp_path / "work.ext4"
    make_ext4(disk, 64, lambda tar: write_home(tar, home))
    out = tmp_path / "out"
    out.mkdir()
    subprocess.run(["/usr/sbin/debugfs", "-R", f"rdump / {out}", disk], capture_output=True, check=True)
    assert (out / "repo/file").read_bytes() == b"workspace's"
    assert (out / "deep/b").read_bytes() == b"user's"
    assert (out / "raw\udcff").read_bytes() == b"image's"
    assert {place.name for place in (out / "repo").iterdir()} == {"file", "ünï", "raw\udcff"}
