"""Bytes that are not what a digest or a size promises are refused as CORRUPT, wherever in an image they stand (C4)."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from banger.errors import Reason
from tests.oci.layers import blob_path, file, layer
from tests.oci.refusals import NAME, Host

_OTHER = "sha256:" + "0" * 64
_LAYERS = layer(file("a", b"a" * 3000)), layer(file("b", b"b" * 3000))


@pytest.fixture(params=["gzip", "zstd", "none"])
def host(request: pytest.FixtureRequest, tmp_path: Path) -> Host:
    return Host(tmp_path, compression=(request.param,))


def _read(host: Host, digest: str) -> dict[str, object]:
    parsed = json.loads(blob_path(host.layout, digest).read_bytes())
    assert isinstance(parsed, dict)
    return parsed


def _digests(host: Host) -> dict[str, str]:
    """Of each document and layer of the image, by what it is."""
    index = json.loads((host.layout / "index.json").read_bytes())
    manifest = index["manifests"][0]["digest"]
    parsed = _read(host, manifest)
    layers = {f"layer {n}": each["digest"] for n, each in enumerate(parsed["layers"])}  # type: ignore[arg-type, index, var-annotated]
    return {"manifest": manifest, "config": parsed["config"]["digest"], **layers}  # type: ignore[index, call-overload]


def test_an_honest_image_is_built(host: Host) -> None:
    host.write(*_LAYERS)
    assert host.build().name == NAME


@pytest.mark.parametrize("what", ["manifest", "config", "layer 0", "layer 1"])
@pytest.mark.parametrize("where", [0, 30, -1])
def test_a_blob_with_one_bit_turned_is_refused(host: Host, what: str, where: int) -> None:
    host.write(*_LAYERS)
    path = blob_path(host.layout, _digests(host)[what])
    data = bytearray(path.read_bytes())
    data[where] ^= 1
    path.write_bytes(data)
    assert host.refuse().reason is Reason.CORRUPT


@pytest.mark.parametrize("what", ["manifest", "config", "layer 0", "layer 1"])
@pytest.mark.parametrize("change", ["cut", "longer", "empty", "swapped"])
def test_a_blob_of_another_length_is_refused(host: Host, what: str, change: str) -> None:
    host.write(*_LAYERS)
    digests = _digests(host)
    path = blob_path(host.layout, digests[what])
    data = path.read_bytes()
    other = blob_path(host.layout, digests["config" if what == "manifest" else "manifest"]).read_bytes()
    path.write_bytes({"cut": data[:-1], "longer": data + b"\n", "empty": b"", "swapped": other}[change])
    assert host.refuse().reason is Reason.CORRUPT


@pytest.mark.parametrize("number", [0, 1])
@pytest.mark.parametrize("size", [0, 1, 511, 10**6])
def test_a_layer_of_another_size_than_promised_is_refused(host: Host, number: int, size: int) -> None:
    host.write(*_LAYERS, sizes={number: size})
    assert host.refuse().reason is Reason.CORRUPT


@pytest.mark.parametrize("number", [0, 1])
def test_a_layer_that_unpacks_to_another_diff_id_is_refused(host: Host, number: int) -> None:
    host.write(*_LAYERS, diff_ids={number: _OTHER})
    assert host.refuse().reason is Reason.CORRUPT


def test_layers_in_another_order_than_their_diff_ids_are_refused(host: Host) -> None:
    host.write(*_LAYERS)
    config = _read(host, _digests(host)["config"])
    first, second = config["rootfs"]["diff_ids"]  # type: ignore[index, call-overload]
    host.write(*_LAYERS, diff_ids={0: second, 1: first})
    assert host.refuse().reason is Reason.CORRUPT


def test_a_diff_id_is_checked_of_a_layer_that_the_store_has_too(host: Host) -> None:
    """The blob is known and was verified; that it is another layer's is not forgiven."""
    host.write(*_LAYERS)
    host.build()
    host.write(*_LAYERS, diff_ids={1: _OTHER})
    assert host.refuse().reason is Reason.CORRUPT


@pytest.mark.parametrize("after", [b"x", b"\0" * 511 + b"x", b"\x1f\x8b"])
def test_what_stands_after_a_packed_layer_is_not_overlooked(tmp_path: Path, after: bytes) -> None:
    """It is part of the blob, so the digest is right; it is no part of a gzip file."""
    from tests.oci import layers

    host = Host(tmp_path, compression=("gzip",))
    host.write(*_LAYERS)
    digests = _digests(host)
    packed = blob_path(host.layout, digests["layer 0"]).read_bytes() + after
    manifest = _read(host, digests["manifest"])
    manifest["layers"][0] = layers._put_blob(host.layout, packed, manifest["layers"][0]["mediaType"])  # type: ignore[index]
    root = layers._put_blob(host.layout, json.dumps(manifest).encode(), "application/vnd.oci.image.manifest.v1+json")
    root["annotations"] = {"org.opencontainers.image.ref.name": "tag"}
    (host.layout / "index.json").write_text(json.dumps({"schemaVersion": 2, "manifests": [root]}))
    assert host.refuse().reason is Reason.CORRUPT
