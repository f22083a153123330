"""Registries that the tests of a run share, and an environment in which nobody is logged in anywhere."""

from __future__ import annotations

import contextlib
import shutil
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from tests.oci.registries import Authority, Registry, TokenServer, make_authority, make_layer, run_registry
from tests.oci.team import Team, make_keys
from tests.oci.user import User


@pytest.fixture(scope="session")
def authority(tmp_path_factory: pytest.TempPathFactory) -> Authority:
    return make_authority(tmp_path_factory.mktemp("authority") / "ca")


@pytest.fixture(scope="session")
def open_registry(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Registry]:
    """Plain http, nobody needs to log in."""
    with run_registry(tmp_path_factory.mktemp("open-registry")) as registry:
        yield registry


@pytest.fixture(scope="session")
def locked_registry(tmp_path_factory: pytest.TempPathFactory, authority: Authority) -> Iterator[Registry]:
    """TLS by the test CA, and a password."""
    with run_registry(tmp_path_factory.mktemp("locked-registry"), authority=authority, with_password=True) as registry:
        yield registry


@pytest.fixture(scope="session")
def token_server(authority: Authority) -> Iterator[TokenServer]:
    with TokenServer(authority).run() as server:
        yield server


@pytest.fixture(scope="session")
def token_registry(tmp_path_factory: pytest.TempPathFactory, token_server: TokenServer) -> Iterator[Registry]:
    """Plain http, and tokens of `token_server`."""
    with run_registry(tmp_path_factory.mktemp("token-registry"), tokens=token_server) as registry:
        yield registry


@pytest.fixture
def nobody(tmp_path: Path) -> dict[str, str]:
    """An environment with a home of its own, where no credentials are."""
    (tmp_path / "home").mkdir()
    return {"HOME": str(tmp_path / "home"), "XDG_RUNTIME_DIR": str(tmp_path / "home/run")}


@pytest.fixture
def make_user(tmp_path: Path) -> Callable[[str], User]:
    return lambda name: User(tmp_path / f"home-{name}")


@pytest.fixture
def layers() -> list[bytes]:
    return [make_layer(f"file-{number}", 200_000, number) for number in range(3)]


@pytest.fixture(scope="session")
def publish_once(tmp_path_factory: pytest.TempPathFactory) -> Callable[[str, str], Path]:
    """A folder with all that a team has which published one image, of that name and version; made when first asked."""
    known: dict[tuple[str, str], Path] = {}

    def publish(name: str, version: str) -> Path:
        if (name, version) not in known:
            folder = known[name, version] = tmp_path_factory.mktemp("team")
            with run_registry(folder / "registry") as registry:
                team = Team(registry, folder)
                team.build(name, b"hello")
                team.publish(name, "--version", version)
        return known[name, version]

    return publish


@pytest.fixture
def make_team(tmp_path: Path, publish_once: Callable[[str, str], Path]) -> Iterator[Callable[[str, str], Team]]:
    """A team that has published an image, with a registry of its own."""
    with contextlib.ExitStack() as stack:

        def make(name: str, version: str) -> Team:
            folder = tmp_path / "team"
            shutil.copytree(publish_once(name, version), folder, symlinks=True)
            return Team(stack.enter_context(run_registry(folder / "registry")), folder)

        yield make


@pytest.fixture(scope="session")
def keys(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with the keys of a team."""
    folder = tmp_path_factory.mktemp("keys")
    make_keys(folder, "team")
    return folder


@pytest.fixture
def team(tmp_path: Path, keys: Path) -> Iterator[Team]:
    """With a registry that no other test has seen."""
    for key in keys.iterdir():
        shutil.copy(key, tmp_path)
    with run_registry(tmp_path / "registry") as registry:
        yield Team(registry, tmp_path)
