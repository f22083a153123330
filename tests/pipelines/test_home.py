"""What an image has below /root becomes a tar of its own, with which a work disk begins."""

from __future__ import annotations

import io
import tarfile
from pathlib import Path

from pipelines.image import write_home

_Found = dict[str, tuple[tarfile.TarInfo, bytes | None]]


def _copy(tmp_path: Path, entries: list[tarfile.TarInfo], content: bytes = b"content") -> _Found:
    path = tmp_path / "system.tar"
    with tarfile.open(path, "w", format=tarfile.PAX_FORMAT) as tar:
        for entry in entries:
            if entry.isreg():
                entry.size = len(content)
            tar.addfile(entry, io.BytesIO(content) if entry.isreg() else None)
    sink = io.BytesIO()
    write_home(path, sink)
    sink.seek(0)
    with tarfile.open(fileobj=sink) as home:
        found = {}
        for member in home:
            source = home.extractfile(member) if not member.issym() else None
            found[member.name] = (member, source.read() if source is not None else None)
    return found


def _entry(name: str, kind: bytes = tarfile.REGTYPE, **values: object) -> tarfile.TarInfo:
    entry = tarfile.TarInfo(name)
    entry.type = kind
    for key, value in values.items():
        setattr(entry, key, value)
    return entry


def test_only_what_is_below_root_is_taken(tmp_path: Path) -> None:
    names = ["./", "./root", "./root/.bashrc", "./rooted", "./home/root/x", "./etc/root"]
    found = _copy(
        tmp_path, [_entry(name, tarfile.DIRTYPE if name in ("./", "./root") else tarfile.REGTYPE) for name in names]
    )
    assert set(found) == {".", ".bashrc"}


def test_names_owners_modes_and_links_are_kept(tmp_path: Path) -> None:
    long = "/".join(["d" * 100] * 3)
    found = _copy(
        tmp_path,
        [
            _entry("root", tarfile.DIRTYPE, mode=0o710, uid=5),
            _entry("root/ünï ✓", mode=0o640, uid=70000, gid=3),
            _entry("root/raw\udcff", mode=0o4755),
            _entry("root/link", tarfile.SYMTYPE, linkname="/root/ünï ✓"),
            _entry(f"root/{long}"),
        ],
    )
    assert found["."][0].mode == 0o710
    assert (found["ünï ✓"][0].mode, found["ünï ✓"][0].uid, found["ünï ✓"][0].gid) == (0o640, 70000, 3)
    assert found["raw\udcff"][0].mode == 0o4755
    assert found["link"][0].linkname == "/root/ünï ✓"
    assert found[long][1] == b"content"


def test_two_names_of_one_file_stay_one_file(tmp_path: Path) -> None:
    found = _copy(
        tmp_path, [_entry("./root/a/first"), _entry("./root/second", tarfile.LNKTYPE, linkname="./root/a/first")]
    )
    assert found["second"][0].islnk()
    assert found["second"][0].linkname == "a/first"
    assert found["second"][1] == b"content"


def test_a_file_whose_other_name_is_outside_comes_with_its_content(tmp_path: Path) -> None:
    found = _copy(
        tmp_path, [_entry("./usr/bin/tool"), _entry("./root/tool", tarfile.LNKTYPE, linkname="./usr/bin/tool")]
    )
    assert found["tool"][0].isreg()
    assert found["tool"][1] == b"content"


def test_a_system_without_a_root_folder_gives_an_empty_home(tmp_path: Path) -> None:
    assert _copy(tmp_path, [_entry("./bin/sh")]) == {}
