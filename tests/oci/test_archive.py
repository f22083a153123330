import bz2
import contextlib
import gzip
import hashlib
import io
import json
import lzma
import os
import tarfile
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
import zstandard
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from banger.errors import BangerError, Reason
from banger.run import run
from pipelines.oci.archive import ArchiveKind, open_archive
from pipelines.oci.blob import read_verified
from pipelines.oci.config import parse_image_config
from pipelines.oci.layout import LayoutSource
from pipelines.oci.manifest import ResolvedImage, resolve_image
from pipelines.oci.source import Source

LIMIT = 64 << 20


def open_it(path: Path, kind: ArchiveKind | None, tag: str | None = None, limit_bytes: int = LIMIT) -> Source:
    return open_archive(path, kind, tag, scratch=path.parent, limit_bytes=limit_bytes)


def failure(path: Path, kind: ArchiveKind | None, tag: str | None = None, limit_bytes: int = LIMIT) -> BangerError:
    with pytest.raises(BangerError) as caught:
        read_all(open_it(path, kind, tag, limit_bytes))
    return caught.value


def read_all(source: Source) -> tuple[ResolvedImage, list[bytes]]:
    """The image with its layers, all verified against their digests."""
    image = resolve_image(source)
    return image, [read_verified(source, layer.descriptor, LIMIT) for layer in image.layers]


def digest(raw: bytes) -> str:
    return f"sha256:{hashlib.sha256(raw).hexdigest()}"


def gunzipped(raw: bytes) -> bytes:
    return gzip.decompress(raw) if raw.startswith(b"\x1f\x8b") else raw


def make_layer(text: str) -> bytes:
    with io.BytesIO() as buffer:
        with tarfile.open(fileobj=buffer, mode="w") as tar:
            add(tar, "etc/text", text.encode())
        return buffer.getvalue()


def add(tar: tarfile.TarFile, name: str, content: bytes = b"", **more: Any) -> None:
    member = tarfile.TarInfo(name)
    member.size = len(content)
    for key, value in more.items():
        setattr(member, key, value)
    tar.addfile(member, io.BytesIO(content))


def make_config(*layers: bytes) -> bytes:
    diff_ids = [digest(layer) for layer in layers]
    return json.dumps({"os": "linux", "architecture": "amd64", "rootfs": {"diff_ids": diff_ids}}).encode()


@contextlib.contextmanager
def writing(path: Path, manifest: Any = None) -> Iterator[tarfile.TarFile]:
    """A docker archive by hand; manifest.json comes last, as docker writes it."""
    with tarfile.open(path, "w", format=tarfile.PAX_FORMAT) as tar:
        yield tar
        if manifest is not None:
            add(tar, "manifest.json", json.dumps(manifest).encode())


def write_simple(path: Path, *, stored: bytes | None = None, layer_path: str = "1/layer.tar") -> bytes:
    """An archive of one image, `app:one`, of one layer (given back), which is stored as `stored`."""
    layer = make_layer("one")
    with writing(path, [{"Config": "c.json", "RepoTags": ["app:one"], "Layers": [layer_path]}]) as tar:
        add(tar, "c.json", make_config(layer))
        add(tar, "1/layer.tar", layer if stored is None else stored)
    return layer


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """A layout as umoci makes it, of two layers."""
    made = tmp_path / "app"
    run(["umoci", "init", "--layout", str(made)])
    run(["umoci", "new", "--image", f"{made}:one"])
    for name in ("hello", "world"):
        (tmp_path / name).write_text(name * 1000)
        run(["umoci", "insert", "--rootless", "--image", f"{made}:one", str(tmp_path / name), f"/etc/{name}"])
    return made


@pytest.fixture
def oci_archive(folder: Path, tmp_path: Path) -> Path:
    run(["skopeo", "copy", "--insecure-policy", f"oci:{folder}:one", f"oci-archive:{tmp_path}/oci.tar:one"])
    return tmp_path / "oci.tar"


@pytest.fixture
def docker_archive(folder: Path, tmp_path: Path) -> Path:
    run(
        [
            "skopeo",
            "copy",
            "--insecure-policy",
            f"oci:{folder}:one",
            f"docker-archive:{tmp_path}/docker.tar:registry.example/app:one",
        ]
    )
    return tmp_path / "docker.tar"


def test_a_blob_may_be_read_from_its_middle(docker_archive: Path) -> None:
    source = open_it(docker_archive, "docker-archive")
    image, layers = read_all(source)
    with source.open_blob(image.layers[1].descriptor, 1000) as blob:
        assert blob.read() == layers[1][1000:]


def test_a_docker_archive_of_skopeo_holds_the_same_tree(folder: Path, docker_archive: Path) -> None:
    source = open_it(docker_archive, "docker-archive")
    image, layers = read_all(source)
    wanted, wanted_layers = read_all(LayoutSource(folder, "one"))
    assert [layer.diff_id for layer in image.layers] == [layer.diff_id for layer in wanted.layers]
    assert [gunzipped(layer) for layer in layers] == [gunzipped(layer) for layer in wanted_layers]
    assert parse_image_config(image.config).diff_ids == parse_image_config(wanted.config).diff_ids
    assert (source.reference, source.name) == (f"docker-archive:{docker_archive}", "registry.example/app:one")


@pytest.mark.parametrize("tag", ["registry.example/app:one", None])
def test_a_docker_archive_gives_the_same_digest_each_time(docker_archive: Path, tag: str | None) -> None:
    first, second = (open_it(docker_archive, "docker-archive", tag) for _ in range(2))
    assert resolve_image(first).digest == resolve_image(second).digest


@pytest.mark.parametrize("kind", ["oci", "docker"])
def test_what_comes_on_standard_input_is_detected(oci_archive: Path, docker_archive: Path, kind: str) -> None:
    source = open_it(oci_archive if kind == "oci" else docker_archive, None)
    assert len(read_all(source)[1]) == 2
    assert (source.reference, source.name) == ("-", None if kind == "oci" else "registry.example/app:one")


@pytest.mark.parametrize("compress", [gzip.compress, zstandard.ZstdCompressor().compress, lzma.compress])
def test_a_compressed_archive_that_grows_past_the_limit_is_refused(
    tmp_path: Path, compress: Callable[[bytes], bytes]
) -> None:
    (tmp_path / "bomb.tar").write_bytes(compress(b"\0" * (4 << 20)))
    assert failure(tmp_path / "bomb.tar", None, limit_bytes=1 << 20).reason is Reason.TOO_LARGE


def test_an_archive_cut_anywhere_is_refused_or_had_all_that_counts(docker_archive: Path) -> None:
    raw = docker_archive.read_bytes()
    whole = read_all(open_it(docker_archive, "docker-archive"))
    end = len(raw.rstrip(b"\0"))
    refused = 0
    for size in range(77, end, 512):
        docker_archive.write_bytes(raw[:size])
        assert failure(docker_archive, "docker-archive").reason is Reason.CORRUPT
    for size in range(512, end, 512):
        docker_archive.write_bytes(raw[:size])
        try:
            assert read_all(open_it(docker_archive, "docker-archive")) == whole
        except BangerError:
            refused += 1
    assert refused > end // 512 // 2


@pytest.mark.parametrize(
    ("compress", "media_type"),
    [
        (gzip.compress, "application/vnd.oci.image.layer.v1.tar+gzip"),
        (zstandard.ZstdCompressor().compress, "application/vnd.oci.image.layer.v1.tar+zstd"),
        (bytes, "application/vnd.oci.image.layer.v1.tar"),
    ],
)
def test_a_layer_in_a_docker_archive_may_be_compressed(
    tmp_path: Path, compress: Callable[[bytes], bytes], media_type: str
) -> None:
    stored = compress(make_layer("one"))
    layer = write_simple(tmp_path / "a.tar", stored=stored)
    image, layers = read_all(open_it(tmp_path / "a.tar", "docker-archive"))
    assert layers == [stored]
    assert image.layers[0].descriptor.media_type == media_type
    assert image.layers[0].diff_id == digest(layer)


@pytest.mark.parametrize("link", [tarfile.SYMTYPE, tarfile.LNKTYPE])
def test_a_layer_may_be_a_link_to_another_as_old_docker_wrote_it(tmp_path: Path, link: bytes) -> None:
    layer = make_layer("one")
    target = "../1/layer.tar" if link == tarfile.SYMTYPE else "1/layer.tar"
    layers = ["1/layer.tar", "2/layer.tar"]
    with writing(tmp_path / "a.tar", [{"Config": "c.json", "RepoTags": None, "Layers": layers}]) as tar:
        add(tar, "c.json", make_config(layer, layer))
        add(tar, "1/layer.tar", layer)
        add(tar, "2/layer.tar", type=link, linkname=target)
    source = open_it(tmp_path / "a.tar", "docker-archive")
    assert read_all(source)[1] == [layer, layer]
    assert source.name is None


@pytest.mark.parametrize("target", ["/etc/passwd", "../../../../etc/passwd", "layer.tar", "missing", "../2/layer.tar"])
@pytest.mark.parametrize("link", [tarfile.SYMTYPE, tarfile.LNKTYPE])
def test_a_link_leads_nowhere_outside_of_the_archive(tmp_path: Path, target: str, link: bytes) -> None:
    layers = ["1/layer.tar"]
    with writing(tmp_path / "a.tar", [{"Config": "c.json", "RepoTags": [], "Layers": layers}]) as tar:
        add(tar, "c.json", make_config(Path("/etc/passwd").read_bytes()))
        add(tar, "1/layer.tar", type=link, linkname=target)
        add(tar, "2/layer.tar", type=link, linkname="../1/layer.tar")
    assert failure(tmp_path / "a.tar", "docker-archive").reason is Reason.CORRUPT


@pytest.mark.parametrize("path", ["/etc/passwd", "../../etc/passwd", "", ".", "1", "missing", "x" * 5000])
def test_a_manifest_that_names_what_is_not_in_the_archive_is_corrupt(tmp_path: Path, path: str) -> None:
    write_simple(tmp_path / "a.tar", layer_path=path)
    assert failure(tmp_path / "a.tar", "docker-archive").reason is Reason.CORRUPT


def test_of_a_member_that_comes_twice_the_last_counts(tmp_path: Path) -> None:
    layer = make_layer("one")
    with writing(tmp_path / "a.tar", [{"Config": "c.json", "RepoTags": [], "Layers": ["./l.tar"]}]) as tar:
        add(tar, "./c.json", make_config(layer))
        add(tar, "l.tar", b"something else")
        add(tar, "./l.tar", layer)
        add(tar, "../../l.tar", b"outside")
    assert read_all(open_it(tmp_path / "a.tar", "docker-archive"))[1] == [layer]


def test_among_several_images_one_must_be_named(tmp_path: Path) -> None:
    one, two = make_layer("one"), make_layer("two")
    images = [
        {"Config": "1.json", "RepoTags": ["app:one", "app:latest"], "Layers": ["1.tar"]},
        {"Config": "2.json", "RepoTags": ["docker.io/library/app:two"], "Layers": ["2.tar"]},
    ]
    with writing(tmp_path / "a.tar", images) as tar:
        for name, layer in (("1", one), ("2", two)):
            add(tar, f"{name}.json", make_config(layer))
            add(tar, f"{name}.tar", layer)
    error = failure(tmp_path / "a.tar", "docker-archive")
    assert error.reason is Reason.BAD_INPUT
    assert "app:one" in error.hint
    for tag, layer, name in (("app:one", one, "app:one"), ("app", one, "app:latest"), ("app:two", two, "app:two")):
        source = open_it(tmp_path / "a.tar", "docker-archive", tag)
        assert (read_all(source)[1], source.name) == ([layer], name)
    for tag in ("app:three", "NO REFERENCE", ""):
        assert failure(tmp_path / "a.tar", "docker-archive", tag).reason is Reason.NOT_FOUND


def test_an_archive_of_both_forms_is_read_as_it_is_named(folder: Path, tmp_path: Path) -> None:
    layout = LayoutSource(folder, "one")
    image, layers = read_all(layout)
    paths = ["blobs/" + layer.descriptor.digest.replace(":", "/") for layer in image.layers]
    config = "blobs/sha256/" + hashlib.sha256(image.config).hexdigest()
    both = tmp_path / "both.tar"
    with writing(both, [{"Config": config, "RepoTags": ["app:one"], "Layers": paths}]) as tar:
        tar.add(folder, ".")
    saved, saved_layers = read_all(open_it(both, "docker-archive"))
    assert (saved.config, saved_layers) == (image.config, layers)
    assert read_all(open_it(both, "oci-archive")) == (image, layers)
    assert read_all(open_it(both, None))[0] == saved


def test_one_kind_of_archive_is_not_the_other(oci_archive: Path, docker_archive: Path) -> None:
    assert failure(oci_archive, "docker-archive").reason is Reason.BAD_INPUT
    assert failure(docker_archive, "oci-archive").reason is Reason.BAD_INPUT


def test_an_altered_layer_is_corrupt(tmp_path: Path) -> None:
    write_simple(tmp_path / "a.tar", stored=make_layer("two"))
    assert failure(tmp_path / "a.tar", "docker-archive").reason is Reason.CORRUPT


@pytest.mark.parametrize(
    "manifest",
    [
        {},
        7,
        [7],
        [{"Config": 7}],
        [{"Config": "c.json", "Layers": [7]}],
        [{"Config": "c.json", "Layers": []}],
        [{"Config": "c.json", "RepoTags": "app", "Layers": ["1/layer.tar"]}],
        [{"Config": "c.json", "Layers": ["1/layer.tar"] * 2}],
        [{"Layers": ["1/layer.tar"]}],
    ],
    ids=str,
)
def test_a_manifest_json_that_is_none_is_corrupt(tmp_path: Path, manifest: object) -> None:
    layer = make_layer("one")
    with writing(tmp_path / "a.tar", manifest) as tar:
        add(tar, "c.json", make_config(layer))
        add(tar, "1/layer.tar", layer)

    def use(source: Source) -> None:
        read_all(source)
        assert source.name is None

    with pytest.raises(BangerError) as caught:
        use(open_it(tmp_path / "a.tar", "docker-archive"))
    assert caught.value.reason is Reason.CORRUPT


def test_an_archive_of_no_images_says_so(tmp_path: Path) -> None:
    with writing(tmp_path / "a.tar", []):
        pass
    assert failure(tmp_path / "a.tar", "docker-archive").reason is Reason.NOT_FOUND


@pytest.mark.parametrize(
    "raw",
    [b"", b"text", b"\0" * 10240, b"x" * 4096, bz2.compress(b"x"), b"\x1f\x8b rest", b"\xfd7zXZ\0 rest"],
    ids=lambda raw: repr(raw[:6]),
)
def test_what_is_no_archive_is_refused(tmp_path: Path, raw: bytes) -> None:
    (tmp_path / "a.tar").write_bytes(raw)
    assert failure(tmp_path / "a.tar", None).reason in (Reason.CORRUPT, Reason.BAD_INPUT)


def test_only_a_file_is_an_archive(tmp_path: Path) -> None:
    os.mkfifo(tmp_path / "fifo")
    assert failure(tmp_path / "fifo", "oci-archive").reason is Reason.BAD_INPUT
    assert failure(tmp_path, "oci-archive").reason is Reason.BAD_INPUT
    assert failure(tmp_path / "missing", "oci-archive").reason is Reason.NOT_FOUND


@pytest.mark.parametrize("size", [1 << 40, 2 << 20])
def test_a_huge_header_is_refused_before_it_is_read(tmp_path: Path, size: int) -> None:
    member = tarfile.TarInfo("x")
    member.type, member.size = tarfile.XHDTYPE, size
    with (tmp_path / "a.tar").open("wb") as file:
        file.write(member.tobuf(tarfile.GNU_FORMAT))
        file.truncate(size + 4096 if size < LIMIT else 1 << 30)
    assert failure(tmp_path / "a.tar", None).reason is Reason.TOO_LARGE


def test_a_sparse_file_of_a_terabyte_is_not_walked_through(tmp_path: Path) -> None:
    layer = write_simple(tmp_path / "a.tar")
    with tarfile.open(tmp_path / "a.tar", "a", format=tarfile.GNU_FORMAT) as tar:
        member = tarfile.TarInfo("huge")
        member.size = 1 << 40
        header = member.tobuf(tarfile.GNU_FORMAT)
        offset = tar.offset
    with (tmp_path / "a.tar").open("r+b") as file:
        file.seek(offset)
        file.write(header)
        file.truncate(offset + 512 + member.size)
    assert read_all(open_it(tmp_path / "a.tar", "docker-archive"))[1] == [layer]


def test_a_layer_stored_with_holes_is_no_blob(tmp_path: Path) -> None:
    (tmp_path / "1").mkdir()
    with (tmp_path / "1" / "layer.tar").open("wb") as file:
        file.write(b"x" * 4096)
        file.truncate(1 << 20)
    write_simple(tmp_path / "a.tar")
    run(["tar", "--sparse", "-C", str(tmp_path), "-rf", str(tmp_path / "a.tar"), "1/layer.tar"])
    assert failure(tmp_path / "a.tar", "docker-archive").reason is Reason.CORRUPT


def test_a_small_compressed_archive_is_whole(tmp_path: Path) -> None:
    path = tmp_path / "a.tar"
    write_simple(path, stored=gzip.compress(make_layer("one")))
    size = len(path.read_bytes().rstrip(b"\0"))
    path.write_bytes(gzip.compress(path.read_bytes()[: size + -size % 512]))
    assert len(read_all(open_it(path, "docker-archive"))[1]) == 1


def test_an_archive_of_too_many_members_is_refused(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("pipelines.oci.archive._MAX_MEMBERS", 100)
    with writing(tmp_path / "a.tar") as tar:
        for number in range(101):
            add(tar, str(number))
    assert failure(tmp_path / "a.tar", None).reason is Reason.TOO_LARGE


@settings(suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(st.data())
def test_an_archive_with_any_byte_changed_is_read_or_refused(tmp_path: Path, data: st.DataObject) -> None:
    path = tmp_path / "a.tar"
    write_simple(path)
    raw = bytearray(path.read_bytes())
    for _ in range(data.draw(st.integers(1, 3))):
        raw[data.draw(st.integers(0, len(raw) - 1))] = data.draw(st.integers(0, 255))
    path.write_bytes(raw)
    with contextlib.suppress(BangerError):
        read_all(open_it(path, None))
