"""Signatures in a registry: the real cosign accepts ours, we accept its, and each lie is refused for its own reason."""

from __future__ import annotations

import hashlib
import io
import json
import os
import subprocess
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

import pytest

from banger.errors import BangerError, Reason
from catalog.signatures import PrivateKey, PublicKey, make_payload, sign
from pipelines.oci.push import Pusher
from pipelines.oci.reference import parse_reference
from pipelines.oci.registry import RegistrySource
from pipelines.oci.retry import Patience
from pipelines.oci.signatures import (
    format_signature_tag,
    load_public_key,
    load_signing_key,
    push_signature,
    verify_signature,
)
from tests.oci.registries import Faults, Registry, run_proxy

MANIFEST_TYPE = "application/vnd.oci.image.manifest.v1+json"
PAYLOAD_TYPE = "application/vnd.dev.cosign.simplesigning.v1+json"
ANNOTATION = "dev.cosignproject.cosign/signature"


@dataclass
class Bench:
    """A repository, and a folder where cosign has made key pairs: `a.key`, `a.pub`, `b.key`, `b.pub`."""

    registry: Registry
    name: str
    folder: Path
    pusher: Pusher

    @property
    def repository(self) -> str:
        return f"{self.registry.host}/{self.name}"

    def source(self) -> RegistrySource:
        """As somebody else opens it."""
        return RegistrySource(parse_reference(f"{self.repository}:v1"), environment={"HOME": str(self.folder)})

    def push(self, *contents: bytes, tag: str = "v1", **more: Any) -> str:
        """An artifact; gives its digest."""
        config, *layers = (self.put(content) for content in (b"{}", *contents))
        manifest = {"schemaVersion": 2, "mediaType": MANIFEST_TYPE, "config": config, "layers": layers, **more}
        return self.pusher.push_manifest(json.dumps(manifest).encode(), MANIFEST_TYPE, tag)

    def put(self, content: bytes, media_type: str = "application/vnd.oci.image.config.v1+json") -> dict[str, Any]:
        digest = f"sha256:{hashlib.sha256(content).hexdigest()}"
        self.pusher.push_blob(digest, len(content), partial(io.BytesIO, content))
        return {"mediaType": media_type, "digest": digest, "size": len(content)}

    def push_raw(self, digest: str, *signed: tuple[bytes, str]) -> None:
        """An image of signatures for `digest` with these payloads and signatures, whatever they are."""
        layers = [{**self.put(payload, PAYLOAD_TYPE), "annotations": {ANNOTATION: text}} for payload, text in signed]
        self.push(tag=format_signature_tag(digest), layers=layers)

    def private(self, name: str) -> PrivateKey:
        key = load_signing_key({"COSIGN_PASSWORD": "sesame"}, self.folder / f"{name}.key")
        assert key is not None
        return key

    def public(self, name: str) -> PublicKey:
        return load_public_key(self.folder / f"{name}.pub")

    def cosign(self, verb: str, *words: str) -> subprocess.CompletedProcess[bytes]:
        environment = {"PATH": os.environ["PATH"], "HOME": str(self.folder), "COSIGN_PASSWORD": "sesame"}
        argv = ["cosign", verb, "--allow-http-registry", *words]
        return subprocess.run(argv, cwd=self.folder, env=environment, capture_output=True)

    def cosign_sign(self, name: str, digest: str) -> None:
        done = self.cosign(
            "sign", "--key", f"{name}.key", "--tlog-upload=false", "--yes", f"{self.repository}@{digest}"
        )
        assert done.returncode == 0, done.stderr.decode()

    def cosign_accepts(self, name: str, digest: str) -> bool:
        done = self.cosign(
            "verify", "--key", f"{name}.pub", "--insecure-ignore-tlog=true", f"{self.repository}@{digest}"
        )
        return done.returncode == 0

    def refusal(self, digest: str, name: str = "a") -> tuple[Reason, str]:
        with pytest.raises(BangerError) as refused:
            verify_signature(self.source(), f"{self.repository}:v1", digest, self.public(name))
        assert refused.value.message.isprintable()
        return refused.value.reason, refused.value.message

    def accepts(self, digest: str, name: str = "a") -> None:
        verify_signature(self.source(), f"{self.repository}:v1", digest, self.public(name))


@pytest.fixture(scope="module")
def keys(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("keys")
    environment = {"PATH": os.environ["PATH"], "HOME": str(folder), "COSIGN_PASSWORD": "sesame"}
    for name in ("a", "b"):
        argv = ["cosign", "generate-key-pair", "--output-key-prefix", name]
        subprocess.run(argv, cwd=folder, env=environment, check=True, capture_output=True)
    return folder


@pytest.fixture
def bench(open_registry: Registry, keys: Path, nobody: dict[str, str], request: pytest.FixtureRequest) -> Bench:
    # A repository of its own for each test: equal manifests have equal digests.
    name = f"signed/{hashlib.sha256(request.node.name.encode()).hexdigest()[:12]}"
    reference = parse_reference(f"{open_registry.host}/{name}")
    return Bench(open_registry, name, keys, Pusher(reference, {}, environment=nobody))


def test_cosign_accepts_what_we_sign(bench: Bench) -> None:
    digest = bench.push(b"content")
    assert not bench.cosign_accepts("a", digest)
    assert push_signature(bench.pusher, f"{bench.repository}:v1", digest, bench.private("a"))
    assert bench.cosign_accepts("a", digest)
    assert not bench.cosign_accepts("b", digest)
    bench.accepts(digest)


def test_we_accept_what_cosign_signs(bench: Bench) -> None:
    digest = bench.push(b"content")
    bench.cosign_sign("a", digest)
    bench.accepts(digest)
    assert bench.refusal(digest, "b")[0] is Reason.UNTRUSTED


@pytest.mark.parametrize("first", ["ours", "cosigns"])
def test_signatures_of_two_keys_stand_side_by_side(bench: Bench, first: str) -> None:
    digest = bench.push(b"content")
    if first == "ours":
        push_signature(bench.pusher, bench.repository, digest, bench.private("a"))
        bench.cosign_sign("b", digest)
    else:
        bench.cosign_sign("b", digest)
        push_signature(bench.pusher, bench.repository, digest, bench.private("a"))
    for name in ("a", "b"):
        assert bench.cosign_accepts(name, digest)
        bench.accepts(digest, name)


@pytest.mark.parametrize("first", ["ours", "cosigns"])
def test_what_a_key_has_signed_it_does_not_sign_again(bench: Bench, first: str) -> None:
    digest = bench.push(b"content")
    if first == "ours":
        assert push_signature(bench.pusher, bench.repository, digest, bench.private("a"))
    else:
        bench.cosign_sign("a", digest)
    before = (bench.pusher.uploaded_blobs, bench.pusher.uploaded_manifests)
    assert not push_signature(bench.pusher, bench.repository, digest, bench.private("a"))
    assert (bench.pusher.uploaded_blobs, bench.pusher.uploaded_manifests) == before


def test_what_is_not_signed_is_refused(bench: Bench) -> None:
    digest = bench.push(b"content")
    reason, message = bench.refusal(digest)
    assert reason is Reason.UNTRUSTED
    assert "not signed" in message
    bench.push_raw(digest)
    assert bench.refusal(digest) == (reason, message)


def test_a_signature_of_another_key_is_refused(bench: Bench) -> None:
    digest = bench.push(b"content")
    push_signature(bench.pusher, bench.repository, digest, bench.private("b"))
    reason, message = bench.refusal(digest)
    assert reason is Reason.UNTRUSTED
    assert "not with the key" in message


def test_a_good_signature_of_another_manifest_is_refused_and_said_to_be_that(bench: Bench) -> None:
    digest, other = bench.push(b"content"), bench.push(b"other", tag="v2")
    payload = make_payload(bench.repository, other)
    bench.push_raw(digest, (payload, sign(payload, bench.private("a"))))
    reason, message = bench.refusal(digest)
    assert reason is Reason.UNTRUSTED
    assert other[:19] in message
    assert not bench.cosign_accepts("a", digest)
    # The right one beside it counts.
    assert push_signature(bench.pusher, bench.repository, digest, bench.private("a"))
    bench.accepts(digest)
    assert bench.cosign_accepts("a", digest)


def test_another_manifest_under_the_same_tag_has_no_signature(bench: Bench) -> None:
    digest = bench.push(b"content")
    push_signature(bench.pusher, bench.repository, digest, bench.private("a"))
    assert bench.refusal(bench.push(b"altered"))[0] is Reason.UNTRUSTED


def test_a_signed_text_that_is_no_payload_is_refused(bench: Bench) -> None:
    digest = bench.push(b"content")
    for payload in (b"{}", b"\xff", b"x" * 100):
        bench.push_raw(digest, (payload, sign(payload, bench.private("a"))))
        assert bench.refusal(digest)[0] is Reason.CORRUPT


@pytest.mark.parametrize("wrong", ["", "AAAA", "not base64", "x" * 100_000])
def test_what_only_claims_to_be_a_signature_is_none(bench: Bench, wrong: str) -> None:
    digest = bench.push(b"content")
    bench.push_raw(digest, (make_payload(bench.repository, digest), wrong))
    assert bench.refusal(digest)[0] is Reason.UNTRUSTED


def test_payloads_without_end_are_not_read(bench: Bench) -> None:
    digest = bench.push(b"content")
    payload = make_payload(bench.repository, digest).ljust(1 << 17)
    bench.push_raw(digest, (payload, sign(payload, bench.private("a"))))
    assert bench.refusal(digest)[0] is Reason.TOO_LARGE
    payload = make_payload(bench.repository, digest)
    bench.push_raw(digest, *([(payload, "AAAA")] * 101))
    assert bench.refusal(digest)[0] is Reason.TOO_LARGE


@pytest.mark.parametrize("media_type", ["text/plain", PAYLOAD_TYPE])
def test_what_lies_in_the_place_of_a_signature_and_is_none_is_refused(bench: Bench, media_type: str) -> None:
    digest = bench.push(b"content")
    bench.push(tag=format_signature_tag(digest), layers=[bench.put(b"no signature", media_type)])
    assert bench.refusal(digest)[0] is Reason.CORRUPT
    # Ours is put beside it.
    assert push_signature(bench.pusher, bench.repository, digest, bench.private("a"))
    bench.accepts(digest)


def test_a_registry_that_fails_is_not_taken_for_one_without_signatures(bench: Bench) -> None:
    digest = bench.push(b"content")
    push_signature(bench.pusher, bench.repository, digest, bench.private("a"))
    with run_proxy(bench.registry.host, Faults(statuses=[(503, {})] * 9)) as proxy:
        reference = parse_reference(f"{proxy.host}/{bench.name}:v1")
        source = RegistrySource(reference, patience=Patience(attempts=2, first_s=0.01))
        with pytest.raises(BangerError) as failure:
            verify_signature(source, "x", digest, bench.public("a"))
        assert failure.value.reason is Reason.NETWORK


def test_a_key_comes_from_a_file_or_the_environment(keys: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    wanted = load_public_key(keys / "a.pub")
    pem = (keys / "a.key").read_text()
    for told in (str(keys / "a.key"), pem, f"{keys}/a.key\n", "~/a.key"):
        monkeypatch.setenv("HOME", str(keys))
        key = load_signing_key({"BANGER_SIGNING_KEY": told, "COSIGN_PASSWORD": "sesame"})
        assert key is not None
        assert key.public == wanted
    # What is said aloud counts.
    key = load_signing_key({"BANGER_SIGNING_KEY": pem, "COSIGN_PASSWORD": "sesame"}, keys / "b.key")
    assert key is not None
    assert key.public == load_public_key(keys / "b.pub")
    assert load_signing_key({}) is None
    assert load_signing_key({"BANGER_SIGNING_KEY": " "}) is None


@pytest.mark.parametrize(
    ("told", "reason"),
    [
        ("/missing/key", Reason.NOT_FOUND),
        ("/", Reason.BAD_INPUT),
        ("/dev/zero", Reason.BAD_INPUT),
        ("c2VjcmV0" * 40, Reason.BAD_INPUT),
        ("-----BEGIN PRIVATE KEY-----\nc2VjcmV0\n-----END PRIVATE KEY-----", Reason.BAD_INPUT),
    ],
)
def test_what_is_no_key_is_refused_and_not_shown(told: str, reason: Reason) -> None:
    with pytest.raises(BangerError) as refused:
        load_signing_key({"BANGER_SIGNING_KEY": told})
    assert refused.value.reason is reason
    assert "c2VjcmV0" not in refused.value.message + refused.value.hint
