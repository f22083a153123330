"""Tar headers are read as other tools write them, and written so that they read the same."""

from __future__ import annotations

import contextlib
import io
import subprocess
import tarfile
from collections.abc import Iterator
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from banger.errors import BangerError, Reason
from pipelines.oci.stream import Cursor
from pipelines.oci.tar import Entry, Kind, read_entries
from pipelines.oci.tar_writer import END, format_header

KINDS = {
    tarfile.REGTYPE: Kind.FILE,
    tarfile.LNKTYPE: Kind.LINK,
    tarfile.SYMTYPE: Kind.SYMLINK,
    tarfile.CHRTYPE: Kind.CHAR,
    tarfile.BLKTYPE: Kind.BLOCK,
    tarfile.DIRTYPE: Kind.FOLDER,
    tarfile.FIFOTYPE: Kind.FIFO,
}

names = st.text(
    st.characters(codec="utf-8", exclude_characters="\0/", exclude_categories=("Cs",))
    | st.sampled_from("\udc80\udcff"),
    min_size=1,
    max_size=150,
).filter(
    lambda name: (
        name not in (".", "..") and name.encode("utf-8", "surrogateescape").decode("utf-8", "surrogateescape") == name
    )
)
entries = st.builds(
    Entry,
    path=st.lists(names, min_size=1, max_size=3).map("/".join),
    kind=st.sampled_from(Kind),
    mode=st.integers(0, 0o7777),
    uid=st.integers(0, (1 << 32) - 2),
    gid=st.integers(0, (1 << 32) - 2),
    mtime_ns=st.integers(-(1 << 40), 1 << 40).map(lambda seconds: seconds * 1_000_000_000) | st.integers(0, 1 << 63),
    target=names,
    device=st.tuples(st.integers(0, (1 << 12) - 1), st.integers(0, (1 << 20) - 1)),
    xattrs=st.dictionaries(
        st.sampled_from(("user.a", "security.capability", "user.ö")), st.binary(min_size=1, max_size=40)
    ),
)


def read(archive: bytes, chunk: int = 700, *, is_digested: bool = False) -> list[tuple[Entry, bytes]]:
    cursor = Cursor(iter(archive[at : at + chunk] for at in range(0, len(archive), chunk)), "it")
    return list(read_with_content(cursor, is_digested=is_digested))


def read_with_content(cursor: Cursor, *, is_digested: bool = False) -> Iterator[tuple[Entry, bytes]]:
    for entry in read_entries(cursor, is_digested=is_digested):
        length = entry.size if entry.segments is None else sum(size for _offset, size in entry.segments)
        yield entry, cursor.take(length) if entry.kind is Kind.FILE else b""


@given(st.lists(entries, max_size=5), st.integers(1, 2000))
def test_what_is_written_reads_the_same(wanted: list[Entry], chunk: int) -> None:
    archive = b"".join(format_header(entry) for entry in wanted) + END
    found = [entry for entry, _content in read(archive, chunk)]
    for before, after in zip(wanted, found, strict=True):
        assert after.path.rstrip("/") == before.path
        assert (after.mode, after.uid, after.gid) == (before.mode, before.uid, before.gid)
        assert after.mtime_ns == before.mtime_ns or before.mtime_ns < 0
        assert after.mtime_ns // 1_000_000_000 == before.mtime_ns // 1_000_000_000
        assert after.xattrs == before.xattrs
        assert after.kind is before.kind
        assert after.target == (before.target if before.kind in (Kind.LINK, Kind.SYMLINK) else "")
        assert after.device == (before.device if before.kind in (Kind.CHAR, Kind.BLOCK) else (0, 0))


@given(
    st.lists(entries, max_size=5), st.sampled_from((tarfile.GNU_FORMAT, tarfile.PAX_FORMAT)), st.binary(max_size=2000)
)
def test_what_pythons_tarfile_writes_is_understood(wanted: list[Entry], form: int, content: bytes) -> None:
    file = io.BytesIO()
    types = {kind: flag for flag, kind in KINDS.items()}
    with tarfile.open(fileobj=file, mode="w", format=form, encoding="utf-8", errors="surrogateescape") as tar:
        for entry in wanted:
            info = tarfile.TarInfo(entry.path)
            info.type, info.mode, info.uid, info.gid = types[entry.kind], entry.mode, entry.uid, entry.gid
            info.mtime, info.linkname = abs(entry.mtime_ns) // 1_000_000_000, entry.target
            info.devmajor, info.devminor = entry.device
            info.size = len(content) if entry.kind is Kind.FILE else 0
            tar.addfile(info, io.BytesIO(content))
    found = read(file.getvalue())
    for before, (after, data) in zip(wanted, found, strict=True):
        assert after.path.rstrip("/") == before.path
        assert (after.kind, after.mode, after.uid, after.gid) == (before.kind, before.mode, before.uid, before.gid)
        assert after.mtime_ns == abs(before.mtime_ns) // 1_000_000_000 * 1_000_000_000
        assert data == (content if before.kind is Kind.FILE else b"")


@settings(max_examples=300)
@given(st.lists(entries, max_size=3), st.data())
def test_damaged_archives_are_refused_and_nothing_else_happens(wanted: list[Entry], data: st.DataObject) -> None:
    archive = bytearray(b"".join(format_header(entry) for entry in wanted) + END)
    for _ in range(data.draw(st.integers(1, 4))):
        archive[data.draw(st.integers(0, len(archive) - 1))] = data.draw(st.integers(0, 255))
    del archive[data.draw(st.integers(0, len(archive))) :]
    with contextlib.suppress(BangerError):
        read(bytes(archive))


@pytest.mark.parametrize("padding", [0, 1, 311, 312, 312 + len(END)])
def test_where_a_digest_tells_that_all_is_there_the_last_content_may_end_it(padding: int) -> None:
    archive = format_header(Entry("a", Kind.FILE, size=200)) + bytes(range(200))
    [(entry, content)] = read(archive + bytes(padding), is_digested=True)
    assert (entry.path, content) == ("a", bytes(range(200)))
    with pytest.raises(BangerError) as refused:
        read(archive[:-1], is_digested=True)
    assert refused.value.reason is Reason.CORRUPT
    if padding < 312:
        with pytest.raises(BangerError) as refused:
            read(archive + bytes(padding))
        assert refused.value.reason is Reason.CORRUPT


@given(st.binary(min_size=512, max_size=2048).filter(lambda data: any(data[:512])))
def test_what_is_no_tar_is_corrupt(data: bytes) -> None:
    with pytest.raises(BangerError) as refused:
        read(data)
    assert refused.value.reason is Reason.CORRUPT


def test_one_flipped_bit_in_a_header_is_found() -> None:
    archive = bytearray(format_header(Entry("a", Kind.FILE, size=0)) + END)
    for bit in range(8):
        archive[3] ^= 1 << bit
        with pytest.raises(BangerError) as refused:
            read(bytes(archive))
        assert refused.value.reason is Reason.CORRUPT
        archive[3] ^= 1 << bit


@pytest.mark.parametrize(
    "form", ["--format=gnu", "--sparse-version=0.0", "--sparse-version=0.1", "--sparse-version=1.0"]
)
@pytest.mark.parametrize("holes", [1, 3, 40])
def test_gnu_tars_sparse_files_have_their_holes(tmp_path: Path, form: str, holes: int) -> None:
    sparse = tmp_path / "sparse"
    with sparse.open("wb") as file:
        for number in range(holes):
            file.seek((number * 2 + 1) * 65536)
            file.write(b"%05d" % number)
        file.truncate((holes * 2 + 5) * 65536)
    extra = [] if form == "--format=gnu" else ["--format=posix"]
    argv = [
        "tar",
        "--create",
        "--sparse",
        "--hole-detection=seek",
        *extra,
        form,
        "--directory",
        str(tmp_path),
        "sparse",
    ]
    archive = subprocess.run(argv, check=True, capture_output=True).stdout
    assert len(archive) < sparse.stat().st_size / 2 or holes == 1
    [(entry, content)] = read(archive)
    assert entry.path == "sparse"
    assert entry.size == sparse.stat().st_size
    assert entry.segments is not None
    whole = bytearray(entry.size)
    for offset, length in entry.segments:
        whole[offset : offset + length], content = content[:length], content[length:]
    assert bytes(whole) == sparse.read_bytes()


def test_a_v7_header_says_folder_by_a_slash() -> None:
    block = bytearray(512)
    block[0:4] = b"dir/"
    block[100:148] = b"0000755\x000000000\x000000000\x0000000000000\x0000000000000\x00"
    block[148:156] = b" " * 8
    block[148:156] = b"%06o\0 " % sum(block)
    [(entry, _content)] = read(bytes(block) + END)
    assert entry.kind is Kind.FOLDER


def test_a_pax_header_of_many_megabytes_is_refused_before_it_is_read() -> None:
    header = bytearray(format_header(Entry("x", Kind.FILE, size=4 << 30)))
    header[156] = ord("x")
    header[148:156] = b" " * 8
    header[148:156] = b"%06o\0 " % sum(header)
    with pytest.raises(BangerError) as refused:
        read(bytes(header))
    assert refused.value.reason is Reason.TOO_LARGE
