import gzip
import json
import lzma
import os
import threading
import zlib
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import pytest
import zstandard

from banger.errors import BangerError, Reason
from banger.run import run
from pipelines.oci.archive import open_archive
from pipelines.oci.blob import open_verified, read_verified
from pipelines.oci.config import parse_image_config
from pipelines.oci.layout import LayoutSource
from pipelines.oci.manifest import ResolvedImage, resolve_image
from pipelines.oci.source import Source

LIMIT = 64 << 20
TAG = "org.opencontainers.image.ref.name"


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """A layout as umoci makes it: one image, `app:one`, of one layer."""
    made, content = tmp_path / "app", tmp_path / "hello"
    content.write_text("hello\n" * 1000)
    image = f"{made}:one"
    run(["umoci", "init", "--layout", str(made)])
    run(["umoci", "new", "--image", image])
    run(["umoci", "insert", "--rootless", "--image", image, str(content), "/etc/hello"])
    run(["umoci", "config", "--image", image, "--config.env", "A=b", "--config.user", "me", "--config.cmd", "run"])
    return made


def failure(source: LayoutSource) -> BangerError:
    with pytest.raises(BangerError) as caught:
        resolve_image(source)
    return caught.value


def edit(folder: Path, **change: Any) -> None:
    path = folder / "index.json"
    path.write_text(json.dumps({**json.loads(path.read_text()), **change}))


def entries(folder: Path) -> list[Any]:
    found: list[Any] = json.loads((folder / "index.json").read_text())["manifests"]
    return found


def blob(folder: Path, digest: str) -> Path:
    return folder / "blobs" / digest.replace(":", "/")


def test_an_image_made_by_umoci_is_found_by_its_tag(folder: Path) -> None:
    source = LayoutSource(folder, "one")
    image = resolve_image(source)
    config = parse_image_config(image.config)
    assert image.digest == image.manifest_digest == entries(folder)[0]["digest"]
    assert (config.env[-1], config.user, config.cmd) == (("A", "b"), "me", ("run",))
    assert [layer.diff_id for layer in image.layers] == list(config.diff_ids)
    assert (source.reference, source.name) == (f"oci:{folder}:one", "app:one")


def test_the_only_image_needs_no_tag(folder: Path) -> None:
    source = LayoutSource(folder, None)
    assert resolve_image(source) == resolve_image(LayoutSource(folder, "one"))
    assert (source.reference, source.name) == (f"oci:{folder}", "app:one")


def test_blobs_are_read_from_any_place_by_several_at_once(folder: Path) -> None:
    source = LayoutSource(folder, None)
    layer = resolve_image(source).layers[0].descriptor
    whole = blob(folder, layer.digest).read_bytes()
    with source.open_blob(layer) as first, source.open_blob(layer, 10) as second:
        assert (first.read(4), second.read(4), first.read()) == (whole[:4], whole[10:14], whole[4:])
    got: list[bytes] = []
    threads = [threading.Thread(target=lambda: got.append(read_verified(source, layer, 1 << 20))) for _ in range(8)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert got == [whole] * 8


def test_among_several_images_one_must_be_named(folder: Path) -> None:
    run(["umoci", "tag", "--image", f"{folder}:one", "two"])
    run(["umoci", "config", "--image", f"{folder}:two", "--config.user", "other"])
    error = failure(LayoutSource(folder, None))
    assert error.reason is Reason.BAD_INPUT
    assert "one" in error.hint
    assert "two" in error.hint
    users = {tag: parse_image_config(resolve_image(LayoutSource(folder, tag)).config).user for tag in ("one", "two")}
    assert users == {"one": "me", "two": "other"}


def test_an_image_may_be_named_by_its_digest(folder: Path) -> None:
    digest = entries(folder)[0]["digest"]
    assert resolve_image(LayoutSource(folder, "@" + digest)).digest == digest


@pytest.mark.parametrize("tag", ["other", "@sha256:" + "0" * 64, "@nonsense", ""])
def test_a_tag_that_is_not_there_is_not_found(folder: Path, tag: str) -> None:
    error = failure(LayoutSource(folder, tag))
    assert error.reason is Reason.NOT_FOUND
    assert "one" in error.hint


def test_a_tag_that_two_images_have_is_not_guessed(folder: Path) -> None:
    run(["umoci", "tag", "--image", f"{folder}:one", "two"])
    run(["umoci", "config", "--image", f"{folder}:two", "--config.user", "other"])
    edit(folder, manifests=[{**entry, "annotations": {TAG: "same"}} for entry in entries(folder)])
    assert failure(LayoutSource(folder, "same")).reason is Reason.BAD_INPUT
    assert resolve_image(LayoutSource(folder, "@" + entries(folder)[0]["digest"])).layers


def test_a_layout_of_no_images_says_so(tmp_path: Path) -> None:
    run(["umoci", "init", "--layout", str(tmp_path / "empty")])
    assert failure(LayoutSource(tmp_path / "empty", None)).reason is Reason.NOT_FOUND


@pytest.mark.parametrize(
    ("annotations", "name"),
    [
        ({TAG: "docker.io/library/debian:12"}, "debian:12"),
        ({TAG: "12", "io.containerd.image.name": "ghcr.io/a/b:12"}, "ghcr.io/a/b:12"),
        ({TAG: "no tag!"}, None),
    ],
)
def test_a_layout_that_says_what_its_image_is_called_is_believed(
    folder: Path, annotations: dict[str, str], name: str | None
) -> None:
    edit(folder, manifests=[{**entries(folder)[0], "annotations": annotations}])
    assert LayoutSource(folder, None).name == name


def test_a_folder_whose_name_no_image_could_have_gives_none(folder: Path) -> None:
    assert LayoutSource(folder.rename(folder.with_name("My App")), "one").name is None


def test_a_folder_that_is_no_layout_is_refused(tmp_path: Path, folder: Path) -> None:
    assert failure(LayoutSource(tmp_path / "missing", None)).reason is Reason.NOT_FOUND
    assert failure(LayoutSource(tmp_path, None)).reason is Reason.NOT_FOUND
    assert failure(LayoutSource(tmp_path / "hello", None)).reason is Reason.BAD_INPUT
    (folder / "oci-layout").write_text('{"imageLayoutVersion": "2.0.0"}')
    assert failure(LayoutSource(folder, None)).reason is Reason.BAD_INPUT


def test_a_missing_blob_is_not_found(folder: Path) -> None:
    blob(folder, entries(folder)[0]["digest"]).unlink()
    assert failure(LayoutSource(folder, None)).reason is Reason.NOT_FOUND


def test_an_altered_manifest_is_corrupt(folder: Path) -> None:
    path = blob(folder, entries(folder)[0]["digest"])
    path.write_bytes(path.read_bytes()[:-1] + b" ")
    assert failure(LayoutSource(folder, None)).reason is Reason.CORRUPT


@pytest.mark.parametrize("what", ["symlink", "fifo", "folder"])
def test_a_blob_that_is_no_regular_file_is_refused(folder: Path, what: str) -> None:
    path = blob(folder, entries(folder)[0]["digest"])
    moved = path.rename(folder.parent / "moved")
    if what == "symlink":
        path.symlink_to(moved)
    elif what == "fifo":
        os.mkfifo(path)
    else:
        path.mkdir()
    assert failure(LayoutSource(folder, None)).reason is Reason.BAD_INPUT


@pytest.mark.parametrize("name", ["oci-layout", "index.json", "blobs", "blobs/sha256"])
def test_no_symlink_in_a_layout_is_followed(folder: Path, name: str) -> None:
    (folder / name).rename(folder.parent / "moved")
    (folder / name).symlink_to(folder.parent / "moved")
    assert failure(LayoutSource(folder, None)).reason is Reason.BAD_INPUT


def test_a_folder_that_is_itself_a_symlink_is_what_the_user_named(folder: Path) -> None:
    (folder.parent / "link").symlink_to(folder)
    assert resolve_image(LayoutSource(folder.parent / "link", None)).layers


@pytest.mark.parametrize(
    "raw", ["", "[]", '{"manifests": 7}', '{"manifests": [7]}', "[" * 100_000, '{"manifests": [{}]}']
)
def test_an_index_that_is_none_is_corrupt(folder: Path, raw: str) -> None:
    (folder / "index.json").write_text(raw)
    assert failure(LayoutSource(folder, None)).reason is Reason.CORRUPT


def test_an_index_past_4_mib_is_refused(folder: Path) -> None:
    (folder / "index.json").write_text(" " * (5 << 20))
    assert failure(LayoutSource(folder, None)).reason is Reason.TOO_LARGE


def test_a_digest_cannot_lead_out_of_the_folder(folder: Path) -> None:
    edit(folder, manifests=[{**entries(folder)[0], "digest": "sha256:../../index.json"}])
    assert failure(LayoutSource(folder, None)).reason is Reason.CORRUPT


def test_what_was_altered_is_found_while_a_layer_is_read(folder: Path) -> None:
    source = LayoutSource(folder, None)
    layer = resolve_image(source).layers[0].descriptor
    path = blob(folder, layer.digest)
    path.chmod(0o644)
    path.write_bytes(path.read_bytes()[:-1] + b"?")
    with pytest.raises(BangerError) as caught, open_verified(source, layer) as stream:
        stream.finish()
    assert caught.value.reason is Reason.CORRUPT


@pytest.fixture
def oci_archive(folder: Path, tmp_path: Path) -> Path:
    """The same layout as skopeo puts it into a tar."""
    run(["skopeo", "copy", "--insecure-policy", f"oci:{folder}:one", f"oci-archive:{tmp_path}/oci.tar:one"])
    return tmp_path / "oci.tar"


def open_tar(path: Path, tag: str | None = None) -> Source:
    return open_archive(path, "oci-archive", tag, scratch=path.parent, limit_bytes=LIMIT)


def read_all(source: Source) -> tuple[ResolvedImage, list[bytes]]:
    """The image with its layers, all verified against their digests."""
    image = resolve_image(source)
    return image, [read_verified(source, layer.descriptor, LIMIT) for layer in image.layers]


def test_an_oci_archive_of_skopeo_holds_what_its_layout_held(folder: Path, oci_archive: Path) -> None:
    source = open_tar(oci_archive, "one")
    assert read_all(source) == read_all(LayoutSource(folder, "one"))
    assert (source.reference, source.name) == (f"oci-archive:{oci_archive}:one", "oci:one")


def test_several_read_one_archive_at_once(oci_archive: Path) -> None:
    source = open_tar(oci_archive)
    image, layers = read_all(source)
    with ThreadPoolExecutor(8) as pool:
        jobs = [pool.submit(read_verified, source, layer.descriptor, LIMIT) for layer in image.layers * 16]
    assert [job.result() for job in jobs] == layers * 16


@pytest.mark.parametrize(
    "compress",
    [
        gzip.compress,
        zstandard.ZstdCompressor().compress,
        lzma.compress,
        lambda raw: lzma.compress(raw[:1000]) + b"\0" * 8 + lzma.compress(raw[1000:]),
        lambda raw: gzip.compress(raw[:1000]) + gzip.compress(raw[1000:]),
    ],
    ids=["gzip", "zstd", "xz", "xz of two streams", "gzip of two members"],
)
def test_an_archive_may_be_compressed_as_a_whole(oci_archive: Path, compress: Callable[[bytes], bytes]) -> None:
    packed = oci_archive.with_suffix(".packed")
    packed.write_bytes(compress(oci_archive.read_bytes()))
    before = set(oci_archive.parent.iterdir())
    source = open_tar(packed)
    assert set(oci_archive.parent.iterdir()) == before
    packed.unlink()
    assert read_all(source) == read_all(open_tar(oci_archive))


@pytest.mark.parametrize("compress", [gzip.compress, zstandard.ZstdCompressor().compress, lzma.compress])
@pytest.mark.parametrize("left", [0.01, 0.5, 0.9])
def test_a_truncated_compressed_archive_is_corrupt(
    oci_archive: Path, compress: Callable[[bytes], bytes], left: float
) -> None:
    packed = compress(oci_archive.read_bytes())
    oci_archive.write_bytes(packed[: max(6, int(len(packed) * left))])
    with pytest.raises(BangerError) as caught:
        read_all(open_tar(oci_archive))
    assert caught.value.reason in (Reason.CORRUPT, Reason.BAD_INPUT)


def test_an_archive_cannot_ask_for_gigabytes_of_memory_to_unpack_it(oci_archive: Path) -> None:
    packed = bytearray(lzma.compress(oci_archive.read_bytes()))
    # The .xz File Format, 3.1 and 5.3.1: a dictionary of 4 GiB, in a block header whose checksum is right.
    assert packed[12:16] == b"\x02\x00\x21\x01"
    packed[16] = 40
    packed[20:24] = zlib.crc32(packed[12:20]).to_bytes(4, "little")
    oci_archive.write_bytes(packed)
    with pytest.raises(BangerError) as caught:
        open_tar(oci_archive)
    assert caught.value.reason is Reason.CORRUPT
