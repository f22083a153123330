"""What a registry that behaves gives: the real `docker-registry`, filled by the real `skopeo`."""

from __future__ import annotations

import contextlib
import hashlib
import json
import threading
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from banger.errors import BangerError, Reason
from pipelines.oci import session
from pipelines.oci.blob import open_verified, read_verified
from pipelines.oci.credentials import Challenge, parse_challenges
from pipelines.oci.reference import parse_reference
from pipelines.oci.registry import RegistryOptions, RegistrySource
from pipelines.oci.retry import Patience
from pipelines.oci.source import Descriptor
from tests.oci.registries import (
    PASSWORD,
    USERNAME,
    Authority,
    Quiet,
    Registry,
    make_authority,
    make_layer,
    make_layout,
    serve,
)
from tests.ports import find_free_port

MANIFEST_TYPE = "application/vnd.oci.image.manifest.v1+json"
QUICK = Patience(attempts=4, first_s=0.01, longest_s=0.05)
LAYERS = [make_layer("one", 3_000_000, 1), make_layer("two", 100_000, 2)]


@pytest.fixture(scope="module")
def layout(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return make_layout(tmp_path_factory.mktemp("image") / "layout", LAYERS)


def open_source(
    reference: str, environment: dict[str, str], options: dict[str, RegistryOptions] | None = None
) -> RegistrySource:
    return RegistrySource(parse_reference(reference), options, environment=environment, patience=QUICK)


def layers_of(manifest: bytes) -> list[Descriptor]:
    return [Descriptor(layer["mediaType"], layer["digest"], layer["size"]) for layer in json.loads(manifest)["layers"]]


def read_all(source: RegistrySource) -> list[bytes]:
    """Manifest, then each layer, all verified."""
    _, manifest = source.read_root()
    return [manifest, *(read_verified(source, layer, 1 << 30, QUICK) for layer in layers_of(manifest))]


def failure_of(source: RegistrySource) -> BangerError:
    with pytest.raises(BangerError) as failure:
        source.read_root()
    assert failure.value.message.isprintable()
    return failure.value


def test_an_open_registry_gives_what_was_pushed(open_registry: Registry, layout: Path, nobody: dict[str, str]) -> None:
    reference = open_registry.push(layout, "some/image:1.0")
    source = open_source(reference, nobody)
    root, manifest = source.read_root()
    assert root.media_type == "application/vnd.oci.image.manifest.v1+json"
    assert root.digest == "sha256:" + hashlib.sha256(manifest).hexdigest()
    assert root.size_bytes == len(manifest)
    assert read_all(source)[1:] == LAYERS
    assert source.read_manifest(root) == manifest
    assert source.reference == source.name == reference


def test_a_digest_says_which_image_whatever_the_tag_says(
    open_registry: Registry, layout: Path, nobody: dict[str, str]
) -> None:
    reference = open_registry.push(layout, "digest:1")
    root, manifest = open_source(reference, nobody).read_root()
    for by_digest in (f"{open_registry.host}/digest@{root.digest}", f"{open_registry.host}/digest:moved@{root.digest}"):
        source = open_source(by_digest, nobody)
        assert source.read_root() == (root, manifest)
        assert source.name == by_digest


def test_an_index_leads_to_the_manifests_of_its_platforms(
    open_registry: Registry, tmp_path: Path, nobody: dict[str, str]
) -> None:
    platforms = make_layout(tmp_path / "layout", LAYERS[1:], ["amd64", "arm64"])
    source = open_source(open_registry.push(platforms, "platforms:1", "--all"), nobody)
    root, index = source.read_root()
    assert root.media_type == "application/vnd.oci.image.index.v1+json"
    for child in json.loads(index)["manifests"]:
        content = source.read_manifest(Descriptor(child["mediaType"], child["digest"], child["size"]))
        assert "sha256:" + hashlib.sha256(content).hexdigest() == child["digest"]


def test_dockers_own_manifests_are_read(open_registry: Registry, layout: Path, nobody: dict[str, str]) -> None:
    source = open_source(open_registry.push(layout, "schema2:1", "--format", "v2s2"), nobody)
    root, _ = source.read_root()
    assert root.media_type == "application/vnd.docker.distribution.manifest.v2+json"
    assert read_all(source)[1:] == LAYERS


def test_a_blob_is_read_from_any_offset_on(open_registry: Registry, layout: Path, nobody: dict[str, str]) -> None:
    source = open_source(open_registry.push(layout, "offset:1"), nobody)
    layer = layers_of(source.read_root()[1])[0]
    for offset in (0, 1, 1_000_000, layer.size_bytes - 1):
        with source.open_blob(layer, offset) as blob:
            assert blob.read() == LAYERS[0][offset:]


def test_a_private_registry_with_a_ca_of_its_own(
    locked_registry: Registry, layout: Path, nobody: dict[str, str]
) -> None:
    reference = locked_registry.push(layout, "private:1")
    assert read_all(open_source(reference, nobody, locked_registry.options()))[1:] == LAYERS


def test_a_ca_and_a_password_from_the_environment(
    locked_registry: Registry, layout: Path, nobody: dict[str, str]
) -> None:
    reference = locked_registry.push(layout, "private:1")
    environment = {
        **nobody,
        "BANGER_REGISTRY_CA": str(locked_registry.ca),
        "BANGER_REGISTRY_HOST": locked_registry.host,
        "BANGER_REGISTRY_USERNAME": USERNAME,
        "BANGER_REGISTRY_PASSWORD": PASSWORD,
    }
    assert read_all(open_source(reference, environment))[1:] == LAYERS


def test_a_ca_where_docker_looks_for_it(
    locked_registry: Registry, layout: Path, nobody: dict[str, str], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    reference = locked_registry.push(layout, "private:1")
    folder = tmp_path / "certs.d" / locked_registry.host
    folder.mkdir(parents=True)
    assert locked_registry.ca is not None
    (folder / "ca.crt").write_bytes(locked_registry.ca.read_bytes())
    monkeypatch.setattr(session, "_CERTS_D", (tmp_path / "missing", tmp_path / "certs.d"))
    source = open_source(reference, nobody, locked_registry.options(ca=None))
    assert read_all(source)[1:] == LAYERS


def test_a_private_repository_through_a_credential_helper(
    locked_registry: Registry,
    layout: Path,
    nobody: dict[str, str],
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    reference = locked_registry.push(layout, "private:1")
    program = tmp_path / "docker-credential-test"
    answer = json.dumps({"ServerURL": locked_registry.host, "Username": USERNAME, "Secret": PASSWORD})
    program.write_text(f"#!/bin/sh\nread -r host; [ \"$host\" = {locked_registry.host} ] && echo '{answer}'\n")
    program.chmod(0o755)
    monkeypatch.setenv("PATH", str(tmp_path), prepend=":")
    config = Path(nobody["HOME"]) / ".docker/config.json"
    config.parent.mkdir()
    config.write_text(json.dumps({"credHelpers": {locked_registry.host: "test"}}))
    source = open_source(reference, nobody, locked_registry.options(username="", password=""))
    assert read_all(source)[1:] == LAYERS


def test_a_login_made_by_skopeo_is_found(locked_registry: Registry, layout: Path, nobody: dict[str, str]) -> None:
    from banger.run import run

    reference = locked_registry.push(layout, "private:1")
    login = ["skopeo", "login", "--tls-verify=false", "-u", USERNAME, "-p", PASSWORD, locked_registry.host]
    run(login, env={**nobody, "REGISTRY_AUTH_FILE": str(Path(nobody["HOME"]) / "run/containers/auth.json")})
    source = open_source(reference, nobody, locked_registry.options(username="", password=""))
    assert read_all(source)[1:] == LAYERS


@pytest.mark.parametrize("login", [{"username": "", "password": ""}, {"password": "wrong"}])
def test_without_the_right_password_it_is_unauthorized(
    locked_registry: Registry, layout: Path, nobody: dict[str, str], login: dict[str, str]
) -> None:
    reference = locked_registry.push(layout, "private:1")
    failure = failure_of(open_source(reference, nobody, locked_registry.options(**login)))
    assert failure.reason is Reason.UNAUTHORIZED
    assert failure.hint
    assert "wrong" not in failure.message + failure.hint


def test_a_certificate_that_nobody_vouches_for_is_refused(
    locked_registry: Registry, nobody: dict[str, str], tmp_path: Path
) -> None:
    other = make_authority(tmp_path / "other").ca
    for ca in (None, other):
        source = open_source(f"{locked_registry.host}/private:1", nobody, locked_registry.options(ca=ca))
        assert failure_of(source).reason is Reason.NETWORK


def test_an_insecure_registry_needs_no_ca(locked_registry: Registry, layout: Path, nobody: dict[str, str]) -> None:
    reference = locked_registry.push(layout, "private:1")
    source = open_source(reference, nobody, locked_registry.options(ca=None, insecure=True))
    assert read_all(source)[1:] == LAYERS


def test_a_ca_file_that_is_none_is_named(open_registry: Registry, nobody: dict[str, str], tmp_path: Path) -> None:
    (tmp_path / "ca.crt").write_text("no certificate")
    for path in (tmp_path / "ca.crt", tmp_path / "missing.crt"):
        source = open_source(f"{open_registry.host}/x", {**nobody, "BANGER_REGISTRY_CA": str(path)})
        failure = failure_of(source)
        assert failure.reason is Reason.BAD_INPUT
        assert str(path) in failure.message


def test_a_registry_elsewhere_is_asked_by_https_only(
    nobody: dict[str, str], monkeypatch: pytest.MonkeyPatch, open_registry: Registry
) -> None:
    # The proxy is a registry that would answer by plain http; what it is asked for is a tunnel for TLS.
    methods = []

    class Handler(Quiet):
        def do_GET(self) -> None:
            methods.append("GET")
            self.answer(200, b"{}")

        def do_CONNECT(self) -> None:
            methods.append(f"CONNECT {self.path}")
            self.answer(502)

    with serve(Handler) as host:
        for name in ("HTTP_PROXY", "HTTPS_PROXY", "http_proxy", "https_proxy"):
            monkeypatch.setenv(name, f"http://{host}")
        for name in ("NO_PROXY", "no_proxy"):
            monkeypatch.delenv(name, raising=False)
        options = {"registry.example": RegistryOptions("registry.example", "alice", "secret")}
        assert failure_of(open_source("registry.example/a", nobody, options)).reason is Reason.NETWORK
        assert set(methods) == {"CONNECT registry.example:443"}
        # What is on loopback is not asked through a proxy.
        methods.clear()
        assert failure_of(open_source(f"{open_registry.host}/missing", nobody)).reason is Reason.NOT_FOUND
        assert methods == []


def test_a_netrc_file_and_cookies_play_no_part(nobody: dict[str, str], monkeypatch: pytest.MonkeyPatch) -> None:
    seen = []

    class Handler(Quiet):
        def do_GET(self) -> None:
            seen.append((self.headers.get("Authorization"), self.headers.get("Cookie")))
            self.answer(404, headers={"Set-Cookie": "a=b; Path=/"})

    netrc = Path(nobody["HOME"]) / ".netrc"
    netrc.write_text("machine 127.0.0.1 login alice password secret\n")
    monkeypatch.setenv("NETRC", str(netrc))
    with serve(Handler) as host:
        assert failure_of(open_source(f"{host}/a", nobody)).reason is Reason.NOT_FOUND
    assert seen
    assert set(seen) == {(None, None)}


@pytest.mark.parametrize("name", ["missing:1", "some/image:missing"])
def test_what_is_not_there_is_not_found(
    open_registry: Registry, layout: Path, nobody: dict[str, str], name: str
) -> None:
    open_registry.push(layout, "some/image:1.0")
    failure = failure_of(open_source(f"{open_registry.host}/{name}", nobody))
    assert failure.reason is Reason.NOT_FOUND
    assert name in failure.message


@pytest.mark.parametrize("insecure", [False, True])
def test_where_nobody_listens_is_told_in_a_line(nobody: dict[str, str], insecure: bool) -> None:
    host = f"127.0.0.1:{find_free_port()}"
    failure = failure_of(open_source(f"{host}/a", nobody, {host: RegistryOptions(host, insecure=insecure)}))
    assert failure.reason is Reason.NETWORK
    assert host in failure.message
    assert "0x" not in failure.message


def test_layers_are_downloaded_side_by_side_by_one_source(
    locked_registry: Registry, tmp_path: Path, nobody: dict[str, str]
) -> None:
    layers = [make_layer(f"f{n}", 500_000, n) for n in range(8)]
    reference = locked_registry.push(make_layout(tmp_path / "layout", layers), "many:1")
    source = open_source(reference, nobody, locked_registry.options())
    at_once = threading.Barrier(8)

    def download(layer: Descriptor) -> bytes:
        with open_verified(source, layer, QUICK) as blob:
            start = blob.read(1000)
            at_once.wait(60)
            rest = blob.read()
            blob.finish()
            return start + rest

    with ThreadPoolExecutor(8) as pool:
        assert list(pool.map(download, layers_of(source.read_root()[1]))) == layers


def test_tls_is_spoken_where_only_tls_answers_on_loopback(
    authority: Authority, nobody: dict[str, str], tmp_path: Path
) -> None:
    class Handler(Quiet):
        def do_GET(self) -> None:
            self.answer(404)

    # Python's server drops who speaks plain http; docker-registry (the other tests) answers 400.
    with serve(Handler, authority) as host:
        source = open_source(f"{host}/a", nobody, {host: RegistryOptions(host, ca=authority.ca)})
        assert failure_of(source).reason is Reason.NOT_FOUND


def serve_manifest(nobody: dict[str, str], content: bytes, media_type: str | None) -> tuple[Descriptor, bytes]:
    class Handler(Quiet):
        def do_GET(self) -> None:
            headers = {"Content-Type": media_type} if media_type is not None else {}
            with contextlib.suppress(ConnectionError):
                self.answer(200, content, headers)

    with serve(Handler) as host:
        return RegistrySource(parse_reference(f"{host}/a"), environment=nobody, patience=QUICK).read_root()


@pytest.mark.parametrize(
    ("media_type", "document", "reason"),
    [
        (MANIFEST_TYPE, {"mediaType": "application/vnd.oci.image.index.v1+json"}, Reason.CORRUPT),
        (MANIFEST_TYPE, {"mediaType": ["x"]}, Reason.CORRUPT),
        (MANIFEST_TYPE, [], Reason.CORRUPT),
        ("application/json", {"schemaVersion": 2}, Reason.BAD_INPUT),
        ("text/html", {"mediaType": {"a": 1}}, Reason.BAD_INPUT),
        ("application/vnd.docker.distribution.manifest.v1+prettyjws", {"schemaVersion": 1}, Reason.BAD_INPUT),
        ("application/json", {"schemaVersion": 1}, Reason.BAD_INPUT),
        (MANIFEST_TYPE, "<html>", Reason.CORRUPT),
        (MANIFEST_TYPE, "[" * 100_000, Reason.CORRUPT),
        (MANIFEST_TYPE, "\\xff", Reason.CORRUPT),
        (MANIFEST_TYPE, " " * (4 << 20) + "{}", Reason.TOO_LARGE),
    ],
)
def test_what_is_no_manifest_is_refused(
    nobody: dict[str, str], media_type: str, document: object, reason: Reason
) -> None:
    content = document.encode() if isinstance(document, str) else json.dumps(document).encode()
    with pytest.raises(BangerError) as failure:
        serve_manifest(nobody, content, media_type)
    assert failure.value.reason is reason


@pytest.mark.parametrize("media_type", [MANIFEST_TYPE, f"{MANIFEST_TYPE}; charset=utf-8", "application/json", None])
def test_the_type_of_a_manifest_is_told_by_header_or_document(nobody: dict[str, str], media_type: str | None) -> None:
    content = json.dumps({"schemaVersion": 2, "mediaType": MANIFEST_TYPE}).encode()
    root, read = serve_manifest(nobody, content, media_type)
    assert (root.media_type, read) == (MANIFEST_TYPE, content)


def test_a_manifest_that_is_said_to_be_huge_is_not_asked_for(nobody: dict[str, str]) -> None:
    source = RegistrySource(parse_reference("127.0.0.1:1/a"), environment=nobody, patience=QUICK)
    with pytest.raises(BangerError) as failure:
        source.read_manifest(Descriptor(MANIFEST_TYPE, "sha256:" + "0" * 64, 5 << 20))
    assert failure.value.reason is Reason.TOO_LARGE


@pytest.mark.parametrize(
    ("header", "expected"),
    [
        ('Basic realm="x"', [("basic", {"realm": "x"})]),
        ("Basic", [("basic", {})]),
        (
            'Bearer realm="https://a.io/t?x=1,2",service="s",scope="repository:a/b:pull,push"',
            [("bearer", {"realm": "https://a.io/t?x=1,2", "service": "s", "scope": "repository:a/b:pull,push"})],
        ),
        (
            'BASIC Realm="x" , bearer REALM = "y" , Service=plain',
            [("basic", {"realm": "x"}), ("bearer", {"realm": "y", "service": "plain"})],
        ),
        ('Bearer realm="a \\"b\\" \\\\c"', [("bearer", {"realm": 'a "b" \\c'})]),
        (
            'Negotiate YWJj==, NTLM, Bearer realm="y"',
            [("negotiate", {}), ("ntlm", {}), ("bearer", {"realm": "y"})],
        ),
        ('Bearer realm="first", realm="second"', [("bearer", {"realm": "first"})]),
        ('realm="of nobody"', []),
        ("", []),
    ],
)
def test_what_a_registry_asks_for_is_understood(header: str, expected: list[tuple[str, dict[str, str]]]) -> None:
    assert parse_challenges(header) == [Challenge(scheme, parameters) for scheme, parameters in expected]


@given(st.text() | st.lists(st.sampled_from(["Bearer ", "realm", "=", '"', "\\", ",", " ", "x"])).map("".join))
def test_wild_headers_give_challenges_or_none(header: str) -> None:
    for challenge in parse_challenges(header):
        assert challenge.scheme == challenge.scheme.lower() != ""
    for challenge in parse_challenges(header * 2000):
        assert challenge.scheme
