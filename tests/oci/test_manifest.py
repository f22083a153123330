import contextlib
import hashlib
import io
import json
from collections.abc import Iterator
from typing import IO, Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from banger.errors import BangerError, Reason
from pipelines.oci.manifest import ResolvedImage, parse_descriptor, resolve_image
from pipelines.oci.source import Descriptor

INDEX = "application/vnd.oci.image.index.v1+json"
LIST = "application/vnd.docker.distribution.manifest.list.v2+json"
MANIFEST = "application/vnd.oci.image.manifest.v1+json"
DOCKER_MANIFEST = "application/vnd.docker.distribution.manifest.v2+json"
CONFIG = "application/vnd.oci.image.config.v1+json"
LAYER = "application/vnd.oci.image.layer.v1.tar+gzip"
DIGEST = "sha256:" + "0" * 64
AMD64 = {"os": "linux", "architecture": "amd64"}
ARM64 = {"os": "linux", "architecture": "arm64"}

json_values = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(st.characters(), max_size=8) | st.just(DIGEST),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=5), inner, max_size=3),
    max_leaves=6,
)


class Memory:
    """A source whose documents are made as they are needed, so that they can be wrong in any way."""

    def __init__(self) -> None:
        self.blobs: dict[str, bytes] = {}
        self.root = Descriptor(MANIFEST, DIGEST, -1)
        self.reads = 0

    reference = "memory"
    name = None

    def put(self, value: object, media_type: str, **more: Any) -> dict[str, Any]:
        raw = value if isinstance(value, bytes) else json.dumps(value).encode()
        digest = f"sha256:{hashlib.sha256(raw).hexdigest()}"
        self.blobs[digest] = raw
        return {"mediaType": media_type, "digest": digest, "size": len(raw), **more}

    def manifest(self, *layers: str, config: Any = None, media_type: str = MANIFEST, **more: Any) -> dict[str, Any]:
        """An image with these media types of layers; `more` goes into its descriptor."""
        if config is None:
            config = {**AMD64, "rootfs": {"diff_ids": [DIGEST] * len(layers)}}
        descriptor = self.put(config, CONFIG)
        found = [{"mediaType": layer, "digest": DIGEST, "size": 1} for layer in layers]
        value = {"schemaVersion": 2, "mediaType": media_type, "config": descriptor, "layers": found}
        return self.put(value, media_type, **more)

    def index(self, *entries: dict[str, Any], media_type: str = INDEX, **more: Any) -> dict[str, Any]:
        return self.put({"schemaVersion": 2, "mediaType": media_type, "manifests": entries}, media_type, **more)

    def read_root(self) -> tuple[Descriptor, bytes]:
        return self.root, self.blobs[self.root.digest]

    def read_manifest(self, descriptor: Descriptor) -> bytes:
        self.reads += 1
        return self.blobs[descriptor.digest]

    @contextlib.contextmanager
    def open_blob(self, descriptor: Descriptor, offset: int = 0) -> Iterator[IO[bytes]]:
        yield io.BytesIO(self.blobs[descriptor.digest][offset:])


def resolve(source: Memory, root: dict[str, Any]) -> ResolvedImage:
    source.root = parse_descriptor(root)
    return resolve_image(source)


def failure(source: Memory, root: dict[str, Any]) -> BangerError:
    with pytest.raises(BangerError) as caught:
        resolve(source, root)
    return caught.value


@pytest.fixture
def source() -> Memory:
    return Memory()


def test_a_manifest_alone_is_the_image(source: Memory) -> None:
    root = source.manifest(LAYER, LAYER)
    found = resolve(source, root)
    assert found.digest == found.manifest_digest == root["digest"]
    assert [layer.descriptor.media_type for layer in found.layers] == [LAYER, LAYER]
    assert [layer.diff_id for layer in found.layers] == [DIGEST, DIGEST]
    assert json.loads(found.config)["architecture"] == "amd64"


def test_an_image_of_no_layers_is_an_image(source: Memory) -> None:
    assert resolve(source, source.manifest()).layers == ()


@pytest.mark.parametrize("media_type", [INDEX, LIST])
def test_the_image_for_this_platform_is_chosen_from_an_index(source: Memory, media_type: str) -> None:
    wanted = source.manifest(LAYER, platform=AMD64)
    windows = source.manifest(platform={"os": "windows", "architecture": "amd64"})
    root = source.index(source.manifest(LAYER, LAYER, platform=ARM64), windows, wanted, media_type=media_type)
    found = resolve(source, root)
    assert (found.digest, found.manifest_digest) == (root["digest"], wanted["digest"])


def test_indexes_may_be_nested(source: Memory) -> None:
    wanted = source.manifest(LAYER, platform=AMD64)
    other = source.index(source.manifest(platform=ARM64))
    assert resolve(source, source.index(other, source.index(source.index(wanted)))).manifest_digest == wanted["digest"]


@pytest.mark.parametrize(("depth", "fits"), [(8, True), (9, False)])
def test_indexes_are_followed_eight_deep(source: Memory, depth: int, fits: bool) -> None:
    root = source.manifest()
    for _ in range(depth):
        root = source.index(root)
    if fits:
        assert resolve(source, root).layers == ()
    else:
        assert failure(source, root).reason is Reason.CORRUPT


@pytest.mark.parametrize(
    ("variants", "chosen"),
    [
        (["v3", "", "v2"], ""),
        (["v2", "v1"], "v1"),
        (["v4", "v2", "v3"], "v2"),
        (["strange", "v3"], "v3"),
        (["strange"], "strange"),
    ],
)
def test_the_variant_that_most_processors_run_is_chosen(source: Memory, variants: list[str], chosen: str) -> None:
    entries = {
        each: source.manifest(*[LAYER] * at, platform={**AMD64, "variant": each}) for at, each in enumerate(variants)
    }
    assert resolve(source, source.index(*entries.values())).manifest_digest == entries[chosen]["digest"]


def test_an_entry_without_a_platform_is_looked_into(source: Memory) -> None:
    wrong = source.manifest(config=ARM64)
    wanted = source.manifest(LAYER)
    assert resolve(source, source.index(wrong, wanted)).manifest_digest == wanted["digest"]


def test_attestations_are_passed_over_even_when_they_claim_the_platform(source: Memory) -> None:
    note = {"vnd.docker.reference.type": "attestation-manifest"}
    unknown = {"os": "unknown", "architecture": "unknown"}
    wanted = source.manifest(LAYER, platform=AMD64)
    entries = (
        source.manifest(platform=unknown, annotations=note),
        source.manifest(platform=unknown),
        source.manifest(platform=AMD64, annotations=note),
        source.manifest(annotations=note),
    )
    assert resolve(source, source.index(*entries, wanted)).manifest_digest == wanted["digest"]
    error = failure(source, source.index(*entries))
    assert error.reason is Reason.NOT_FOUND
    assert "unknown" not in error.message


def test_an_artifact_in_an_index_is_passed_over(source: Memory) -> None:
    wanted = source.manifest(LAYER)
    signature = {"config": source.put({}, "application/vnd.dev.sigstore+json"), "layers": []}
    assert resolve(source, source.index(source.put(signature, MANIFEST), wanted)).manifest_digest == wanted["digest"]


def test_the_platforms_there_are_are_named_when_none_fits(source: Memory) -> None:
    strange = {"os": "li\x1b[31mnux", "architecture": "arm", "variant": "v7"}
    error = failure(source, source.index(source.manifest(platform=ARM64), source.manifest(platform=strange)))
    assert error.reason is Reason.NOT_FOUND
    assert "linux/arm64" in error.message
    assert "arm/v7" in error.message
    assert "\x1b" not in error.message


def test_a_manifest_alone_for_another_machine_says_for_which(source: Memory) -> None:
    error = failure(source, source.manifest(config=ARM64))
    assert error.reason is Reason.NOT_FOUND
    assert "linux/arm64" in error.message


@pytest.mark.parametrize("entry", [{"platform": AMD64}, {}])
def test_an_index_counts_for_the_platform_when_it_names_one(source: Memory, entry: dict[str, Any]) -> None:
    root = source.index(source.manifest(config=ARM64, **entry))
    if entry:
        assert resolve(source, root).layers == ()
    else:
        assert failure(source, root).reason is Reason.NOT_FOUND


@pytest.mark.parametrize("media_type", [MANIFEST, "application/vnd.docker.distribution.manifest.v1+prettyjws"])
def test_schema_1_is_refused_with_a_way_out(source: Memory, media_type: str) -> None:
    error = failure(source, source.put({"schemaVersion": 1, "fsLayers": []}, media_type))
    assert error.reason is Reason.BAD_INPUT
    assert error.hint


@pytest.mark.parametrize("told", [{"artifactType": "application/vnd.example.sbom"}, {}])
def test_an_artifact_is_no_image(source: Memory, told: dict[str, str]) -> None:
    config = source.put({}, CONFIG if told else "application/vnd.cncf.helm.config.v1+json")
    error = failure(source, source.put({"config": config, "layers": [], **told}, MANIFEST))
    assert error.reason is Reason.BAD_INPUT
    assert ("example.sbom" if told else "helm") in error.message


@pytest.mark.parametrize(
    "media_type",
    [
        "application/vnd.oci.image.layer.v1.tar",
        "application/vnd.oci.image.layer.v1.tar+gzip",
        "application/vnd.oci.image.layer.v1.tar+zstd",
        "application/vnd.oci.image.layer.nondistributable.v1.tar+gzip",
        "application/vnd.docker.image.rootfs.diff.tar.gzip",
        "application/vnd.docker.image.rootfs.foreign.diff.tar.gzip",
    ],
)
def test_layers_of_every_registered_type_are_taken(source: Memory, media_type: str) -> None:
    root = source.manifest(media_type, media_type=DOCKER_MANIFEST)
    assert [layer.descriptor.media_type for layer in resolve(source, root).layers] == [media_type]


@pytest.mark.parametrize(
    "media_type", ["application/vnd.oci.image.layer.v1.tar+gzip+encrypted", "text/plain", LAYER + "x"]
)
def test_layers_that_cannot_be_read_are_refused(source: Memory, media_type: str) -> None:
    assert failure(source, source.manifest(media_type)).reason is Reason.BAD_INPUT


def test_layers_and_diff_ids_must_be_of_one_number(source: Memory) -> None:
    root = source.manifest(LAYER, config={**AMD64, "rootfs": {"diff_ids": [DIGEST] * 2}})
    assert failure(source, root).reason is Reason.CORRUPT


@pytest.mark.parametrize(("count", "reason"), [(500, None), (501, Reason.TOO_LARGE)])
def test_an_image_has_at_most_500_layers(source: Memory, count: int, reason: Reason | None) -> None:
    root = source.manifest(*[LAYER] * count)
    if reason is None:
        assert len(resolve(source, root).layers) == count
    else:
        assert failure(source, root).reason is reason


def test_what_could_be_an_index_or_a_manifest_is_refused(source: Memory) -> None:
    config = source.put(AMD64, CONFIG)
    both = {"config": config, "layers": [], "manifests": [source.manifest(platform=AMD64)]}
    for media_type in (MANIFEST, INDEX, "application/json"):
        assert failure(source, source.put(both, media_type)).reason is Reason.CORRUPT
    assert failure(source, {**source.index(source.manifest()), "mediaType": MANIFEST}).reason is Reason.CORRUPT
    assert failure(source, {**source.manifest(), "mediaType": LIST}).reason is Reason.CORRUPT


@pytest.mark.parametrize("level", ["root", "entry"])
@pytest.mark.parametrize("wrong", [{"size": 1}, {"digest": DIGEST}])
def test_a_document_that_is_not_what_its_descriptor_says_is_refused(
    source: Memory, level: str, wrong: dict[str, Any]
) -> None:
    entry = source.manifest(platform=AMD64)
    source.blobs[DIGEST] = source.blobs[entry["digest"]]
    root = {**entry, **wrong} if level == "root" else source.index({**entry, **wrong})
    assert failure(source, root).reason is Reason.CORRUPT


def test_a_config_that_is_not_what_its_descriptor_says_is_refused(source: Memory) -> None:
    root = source.manifest()
    digest = json.loads(source.blobs[root["digest"]])["config"]["digest"]
    source.blobs[digest] = source.blobs[digest].replace(b"amd64", b"amd46")
    assert failure(source, root).reason is Reason.CORRUPT


def test_documents_past_a_limit_are_refused_before_they_are_read(source: Memory) -> None:
    big = {**source.manifest(platform=AMD64), "size": (4 << 20) + 1}
    assert failure(source, source.index(big)).reason is Reason.TOO_LARGE
    assert source.reads == 0
    assert failure(source, source.put(b" " * ((4 << 20) + 1), MANIFEST)).reason is Reason.TOO_LARGE
    config = {**source.put({}, CONFIG), "size": (16 << 20) + 1}
    assert failure(source, source.put({"config": config, "layers": []}, MANIFEST)).reason is Reason.TOO_LARGE


def test_an_index_cannot_make_us_read_thousands_of_manifests(source: Memory) -> None:
    entries = [source.manifest(*[LAYER] * at, config={**ARM64, "at": at}) for at in range(100)]
    assert failure(source, source.index(*entries)).reason is Reason.TOO_LARGE
    assert source.reads <= 64


@pytest.mark.parametrize(
    "change",
    [
        {"mediaType": None},
        {"mediaType": 7},
        {"digest": "sha256:abc"},
        {"digest": "md5:" + "0" * 32},
        {"digest": None},
        {"size": -1},
        {"size": True},
        {"size": 1.0},
        {"size": "1"},
        {"size": None},
        {"platform": []},
        {"annotations": {"a": 1}},
        {"annotations": ["a"]},
    ],
    ids=str,
)
def test_a_descriptor_with_a_wrong_part_is_corrupt(change: dict[str, Any]) -> None:
    with pytest.raises(BangerError) as caught:
        parse_descriptor({"mediaType": "a/b", "digest": DIGEST, "size": 1, **change})
    assert caught.value.reason is Reason.CORRUPT


def test_a_descriptor_is_read_whole() -> None:
    value = {
        "mediaType": "a/b",
        "digest": DIGEST,
        "size": 0,
        "platform": AMD64,
        "annotations": {"a": "b"},
        "urls": None,
    }
    assert parse_descriptor(value) == Descriptor("a/b", DIGEST, 0, AMD64, {"a": "b"})


@given(json_values)
def test_wild_descriptors_are_read_or_corrupt(value: object) -> None:
    with contextlib.suppress(BangerError):
        parse_descriptor(value)


@given(
    st.dictionaries(
        st.sampled_from(("manifests", "layers", "config", "mediaType", "schemaVersion", "artifactType")), json_values
    ),
    st.fixed_dictionaries({}, optional=dict.fromkeys(("mediaType", "platform", "annotations", "size"), json_values)),
    st.booleans(),
)
def test_wild_documents_are_never_an_image(document: dict[str, Any], entry: dict[str, Any], nested: bool) -> None:
    source = Memory()
    root = source.put(document, MANIFEST)
    if nested:
        root = source.index({**root, **entry})
    with pytest.raises(BangerError):
        resolve(source, root)
