from __future__ import annotations

import base64
import dataclasses
import json
import os
import time
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import pytest

from banger.errors import BangerError, Reason
from pipelines.oci.blob import read_verified
from pipelines.oci.credentials import Credentials, find_credentials
from pipelines.oci.reference import parse_reference
from pipelines.oci.registry import RegistryOptions, RegistrySource
from pipelines.oci.retry import Patience
from pipelines.oci.source import Descriptor
from tests.oci.registries import Quiet, Registry, TokenServer, make_layer, make_layout, serve

HUB = "https://index.docker.io/v1/"


def auth(username: str, password: str = "secret") -> dict[str, str]:
    return {"auth": base64.b64encode(f"{username}:{password}".encode()).decode()}


def write(path: Path, content: object) -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(content if isinstance(content, str) else json.dumps(content))
    return path


def docker_config(nobody: dict[str, str], content: object) -> Path:
    return write(Path(nobody["HOME"]) / ".docker/config.json", content)


def username(found: Credentials | None) -> str | None:
    return None if found is None else found.username


@pytest.fixture
def helper(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A credential helper named `fake` on PATH: knows r.io and docker's own registry, and keeps what it was asked."""
    program = tmp_path / "bin/docker-credential-fake"
    script = f"""#!/bin/sh
        read -r server; echo "$*|$server" >>{tmp_path}/asked
        case $server in
        r.io|{HUB}) echo '{{"ServerURL": "r.io", "Username": "helped", "Secret": "s3cret"}}';;
        token.io) echo '{{"Username": "<token>", "Secret": "identity"}}';;
        broken.io) echo "the keyring is locked"; exit 1;;
        wild.io) echo '{{"Username": "helped", "Secret": ["s3cret"]}}';;
        *) echo "credentials not found in native keychain"; exit 1;;
        esac
        """
    write(program, script)
    program.chmod(0o755)
    monkeypatch.setenv("PATH", f"{program.parent}:{os.environ['PATH']}")
    return tmp_path / "asked"


def test_without_a_login_nothing_is_found(nobody: dict[str, str]) -> None:
    assert find_credentials("r.io", nobody) is None


def test_places_are_asked_from_options_to_dockers_own_file(nobody: dict[str, str], tmp_path: Path) -> None:
    home = Path(nobody["HOME"])
    environment = {
        **nobody,
        "BANGER_REGISTRY_HOST": "r.io",
        "BANGER_REGISTRY_USERNAME": "variable",
        "BANGER_REGISTRY_PASSWORD": "secret",
        "REGISTRY_AUTH_FILE": str(tmp_path / "named.json"),
    }
    places = ["named", "runtime", "config", "docker"]
    files = [tmp_path / "named.json", home / "run/containers/auth.json", home / ".config/containers/auth.json"]
    files.append(home / ".docker/config.json")
    for name, path in zip(places, files, strict=True):
        write(path, {"auths": {"r.io": auth(name)}})
    options = RegistryOptions("r.io", "option", "secret")
    found = [username(find_credentials("r.io", environment, options=options))]
    found.append(username(find_credentials("r.io", environment)))
    del environment["BANGER_REGISTRY_HOST"], environment["BANGER_REGISTRY_USERNAME"]
    del environment["BANGER_REGISTRY_PASSWORD"]
    for path in files:
        found.append(username(find_credentials("r.io", environment)))
        path.unlink()
    assert found == ["option", "variable", *places]
    assert find_credentials("r.io", environment) is None


def test_docker_config_names_the_folder_of_config_json(nobody: dict[str, str], tmp_path: Path) -> None:
    write(tmp_path / "elsewhere/config.json", {"auths": {"r.io": auth("alice", "a:b:c")}})
    found = find_credentials("r.io", {**nobody, "DOCKER_CONFIG": str(tmp_path / "elsewhere")})
    assert found is not None
    assert (found.username, found.password) == ("alice", "a:b:c")


def test_a_password_from_the_environment_is_for_the_named_registry_only(nobody: dict[str, str]) -> None:
    environment = {**nobody, "BANGER_REGISTRY_HOST": "r.io", "BANGER_REGISTRY_USERNAME": "alice"}
    environment["BANGER_REGISTRY_PASSWORD"] = "secret"
    assert username(find_credentials("r.io", environment)) == "alice"
    assert find_credentials("evil.io", environment) is None
    assert find_credentials("r.io:5000", environment) is None


@pytest.mark.parametrize("missing", ["HOST", "USERNAME", "PASSWORD"])
def test_half_set_variables_are_refused(nobody: dict[str, str], missing: str) -> None:
    names = {"HOST", "USERNAME", "PASSWORD"} - {missing}
    with pytest.raises(BangerError) as failure:
        find_credentials("r.io", {**nobody, **{f"BANGER_REGISTRY_{name}": "r.io" for name in names}})
    assert failure.value.reason is Reason.BAD_INPUT


@pytest.mark.parametrize("half", [{"username": "alice"}, {"password": "secret"}])
def test_a_half_set_entry_of_the_configuration_is_refused(nobody: dict[str, str], half: dict[str, Any]) -> None:
    options = dataclasses.replace(RegistryOptions("r.io"), **half)
    with pytest.raises(BangerError) as failure:
        find_credentials("r.io", nobody, options=options)
    assert failure.value.reason is Reason.BAD_INPUT


@pytest.mark.parametrize("key", [HUB, "https://index.docker.io/v1", "docker.io", "index.docker.io"])
def test_dockers_own_registry_is_found_under_all_its_names(nobody: dict[str, str], key: str) -> None:
    docker_config(nobody, {"auths": {key: auth("alice")}})
    assert username(find_credentials("docker.io", nobody, repository="library/debian")) == "alice"
    assert find_credentials("r.io", nobody) is None


@pytest.mark.parametrize("key", ["r.io:5000", "https://r.io:5000", "https://r.io:5000/v2/", "http://r.io:5000/v1/"])
def test_a_registry_is_found_under_its_url(nobody: dict[str, str], key: str) -> None:
    docker_config(nobody, {"auths": {key: auth("alice")}})
    assert username(find_credentials("r.io:5000", nobody)) == "alice"
    assert find_credentials("r.io", nobody) is None


def test_the_most_specific_entry_wins(nobody: dict[str, str]) -> None:
    entries = {"r.io": auth("host"), "r.io/a": auth("space"), "r.io/a/b": auth("repository")}
    docker_config(nobody, {"auths": entries})
    for repository, expected in [("a/b", "repository"), ("a/c", "space"), ("a", "space"), ("ab", "host"), ("", "host")]:
        assert username(find_credentials("r.io", nobody, repository=repository)) == expected


def test_an_identity_token_goes_before_the_password(nobody: dict[str, str]) -> None:
    docker_config(nobody, {"auths": {"r.io": {**auth("alice", ""), "identitytoken": "opaque"}}})
    found = find_credentials("r.io", nobody)
    assert found is not None
    assert found.identity_token == "opaque"


def test_an_empty_entry_is_no_login(nobody: dict[str, str]) -> None:
    docker_config(nobody, {"auths": {"r.io": {}}})
    assert find_credentials("r.io", nobody) is None


def test_secrets_are_not_part_of_what_is_printed() -> None:
    assert "s3cret" not in repr(Credentials("alice", "s3cret", "s3cret"))
    assert "s3cret" not in repr(RegistryOptions("r.io", "alice", "s3cret"))


@pytest.mark.parametrize(
    "content",
    [
        "{",
        "[]",
        "[" * 100_000,
        {"auths": []},
        {"auths": {"r.io": "x"}},
        {"auths": {"r.io": {"auth": 1}}},
        {"auths": {"r.io": {"auth": "~~~"}}},
        {"auths": {"r.io": {"auth": base64.b64encode(b"no colon").decode()}}},
        {"auths": {"r.io": {"auth": base64.b64encode(b"\xff:\xff").decode()}}},
        {"credHelpers": ["x"]},
        {"credHelpers": {"r.io": "../../bin/sh"}},
        {"credsStore": "fake get;"},
        {"credsStore": 7},
    ],
)
def test_a_damaged_file_is_an_error_that_names_it(nobody: dict[str, str], content: object) -> None:
    path = docker_config(nobody, content)
    with pytest.raises(BangerError) as failure:
        find_credentials("r.io", nobody)
    assert failure.value.reason is Reason.CORRUPT
    assert str(path) in failure.value.message


def test_a_helper_is_asked_for_its_registry(nobody: dict[str, str], helper: Path) -> None:
    docker_config(nobody, {"credHelpers": {"r.io": "fake", "token.io": "fake"}})
    found = find_credentials("r.io", nobody, repository="a/b")
    assert found == Credentials("helped", "s3cret", origin="docker-credential-fake")
    token = find_credentials("token.io", nobody)
    assert token is not None
    assert (token.username, token.identity_token) == ("", "identity")
    assert find_credentials("other.io", nobody) is None
    assert helper.read_text() == "get|r.io\nget|token.io\n"


def test_the_store_is_asked_for_any_registry_and_may_know_none(nobody: dict[str, str], helper: Path) -> None:
    docker_config(nobody, {"credsStore": "fake", "auths": {"plain.io": auth("alice")}})
    assert username(find_credentials("docker.io", nobody)) == "helped"
    assert helper.read_text() == f"get|{HUB}\n"
    assert find_credentials("unknown.io", nobody) is None
    assert username(find_credentials("plain.io", nobody)) == "alice"


@pytest.mark.parametrize("host", ["broken.io", "wild.io"])
def test_a_helper_that_fails_is_named_and_its_secret_is_not_told(
    nobody: dict[str, str], helper: Path, host: str
) -> None:
    docker_config(nobody, {"credsStore": "fake"})
    with pytest.raises(BangerError) as failure:
        find_credentials(host, nobody)
    assert failure.value.reason is Reason.COMMAND_FAILED
    assert "docker-credential-fake" in failure.value.message
    assert "s3cret" not in failure.value.message


def test_a_helper_that_is_not_installed_is_named(nobody: dict[str, str]) -> None:
    docker_config(nobody, {"credsStore": "nowhere"})
    with pytest.raises(BangerError) as failure:
        find_credentials("r.io", nobody)
    assert failure.value.reason is Reason.MISSING_PROGRAM
    assert "docker-credential-nowhere" in failure.value.message


QUICK = Patience(attempts=4, first_s=0.01, longest_s=0.05)
LAYER = make_layer("file", 1000)


def open_source(
    reference: str, environment: dict[str, str], options: dict[str, RegistryOptions] | None = None
) -> RegistrySource:
    return RegistrySource(parse_reference(reference), options, environment=environment, patience=QUICK)


def pull(source: RegistrySource) -> bytes:
    """The layer of an image that has one."""
    layer = json.loads(source.read_root()[1])["layers"][0]
    return read_verified(source, Descriptor("", layer["digest"], layer["size"]), 1 << 20, QUICK)


def failure_of(source: RegistrySource) -> BangerError:
    with pytest.raises(BangerError) as failure:
        source.read_root()
    return failure.value


@pytest.fixture(scope="module")
def layout(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return make_layout(tmp_path_factory.mktemp("image") / "layout", [LAYER])


def test_a_public_repository_needs_an_anonymous_token(
    token_registry: Registry, token_server: TokenServer, layout: Path, nobody: dict[str, str]
) -> None:
    reference = token_registry.push(layout, "public/image:1")
    token_server.asked.clear()
    assert pull(open_source(reference, nobody)) == LAYER
    # Once: the token serves the blobs too.
    assert [(method, query["scope"], login) for method, query, login in token_server.asked] == [
        ("GET", ["repository:public/image:pull"], "")
    ]


def test_a_private_repository_needs_a_token_for_a_password(
    token_registry: Registry, token_server: TokenServer, layout: Path, nobody: dict[str, str]
) -> None:
    reference = token_registry.push(layout, "private/image:1")
    assert pull(open_source(reference, nobody, token_registry.options())) == LAYER
    for options in ({}, token_registry.options(password="wrong")):
        assert failure_of(open_source(reference, nobody, options)).reason is Reason.UNAUTHORIZED


def test_an_identity_token_is_exchanged(
    token_registry: Registry, token_server: TokenServer, layout: Path, nobody: dict[str, str]
) -> None:
    reference = token_registry.push(layout, "private/image:1")
    config = Path(nobody["HOME"]) / ".docker/config.json"
    config.parent.mkdir()
    token_server.asked.clear()
    for token, works in ((token_server.refresh_token, True), ("revoked", False)):
        login = {"auth": base64.b64encode(b"alice:").decode(), "identitytoken": token}
        config.write_text(json.dumps({"auths": {token_registry.host: login}}))
        source = open_source(reference, nobody)
        if works:
            assert pull(source) == LAYER
        else:
            assert failure_of(source).reason is Reason.UNAUTHORIZED
    assert {method for method, _, _ in token_server.asked} == {"POST"}


def test_a_token_is_renewed_before_it_expires(
    token_registry: Registry,
    token_server: TokenServer,
    layout: Path,
    nobody: dict[str, str],
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    source = open_source(token_registry.push(layout, "public/image:1"), nobody)
    token_server.asked.clear()
    source.read_root()
    source.read_root()
    assert len(token_server.asked) == 1
    real = time.monotonic
    monkeypatch.setattr(time, "monotonic", lambda: real() + token_server.lifetime_s - 5)
    source.read_root()
    assert len(token_server.asked) == 2


def test_a_token_that_is_refused_in_the_middle_is_replaced(nobody: dict[str, str]) -> None:
    manifest = json.dumps({"schemaVersion": 2, "mediaType": "application/vnd.oci.image.manifest.v1+json"}).encode()
    valid, given = {"t0"}, list[str]()

    class Handler(Quiet):
        def do_GET(self) -> None:
            if self.path.startswith("/token"):
                given.append(f"t{len(given)}")
                self.answer(200, json.dumps({"token": given[-1], "expires_in": 3600}).encode())
            elif self.headers.get("Authorization", "").removeprefix("Bearer ") in valid:
                self.answer(200, manifest, {"Content-Type": "application/vnd.oci.image.manifest.v1+json"})
            else:
                realm = f'Bearer realm="http://{self.headers["Host"]}/token",service="s"'
                self.answer(401, headers={"WWW-Authenticate": realm})

    with serve(Handler) as host:
        source = open_source(f"{host}/a", nobody)
        source.read_root()
        valid = {"t1"}
        # Several threads find the old one refused; one new one is enough for all.
        with ThreadPoolExecutor(4) as pool:
            assert [made.result()[1] for made in [pool.submit(source.read_root) for _ in range(8)]] == [manifest] * 8
    assert given == ["t0", "t1"]


def test_a_password_is_not_sent_to_a_token_server_in_the_clear(nobody: dict[str, str]) -> None:
    asked = []

    class Handler(Quiet):
        def do_GET(self) -> None:
            asked.append((self.path, self.headers.get("Authorization")))
            self.answer(401, headers={"WWW-Authenticate": 'Bearer realm="http://tokens.example/t",service="s"'})

    with serve(Handler) as host:
        options = {host: RegistryOptions(host, "alice", "secret")}
        assert failure_of(open_source(f"{host}/a", nobody, options)).reason is Reason.UNAUTHORIZED
    assert [login for _, login in asked] == [None] * len(asked)


@pytest.mark.parametrize(
    "answer",
    [
        b"",
        b"[]",
        b"{}",
        b'{"token": 7}',
        b'{"token": "a\\r\\nX-Evil: 1"}',
        b'{"token": "t", "expires_in": "soon"}',
        b'{"token": "t", "expires_in": 1' + b"0" * 400 + b"}",
        b"[" * 100_000,
    ],
)
def test_a_token_server_that_gives_no_token_is_told(nobody: dict[str, str], answer: bytes) -> None:
    class Handler(Quiet):
        def do_GET(self) -> None:
            if self.path.startswith("/token"):
                self.answer(200, answer)
            else:
                realm = f'Bearer realm="http://{self.headers["Host"]}/token"'
                self.answer(401, headers={"WWW-Authenticate": realm})

    with serve(Handler) as host, pytest.raises(BangerError) as failure:
        RegistrySource(parse_reference(f"{host}/a"), environment=nobody, patience=QUICK).read_root()
    assert failure.value.reason is Reason.NETWORK
