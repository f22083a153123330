"""`cache push`, and what a second home then downloads instead of building: real commands, a real registry."""

from __future__ import annotations

import http.client
import json
import os
import shutil
import subprocess
from collections.abc import Callable, Iterator
from contextlib import ExitStack, closing, contextmanager
from dataclasses import dataclass
from pathlib import Path

import pytest

from banger.errors import Reason
from tests.oci.layers import file, layer, write_layout
from tests.oci.registries import PASSWORD, USERNAME, Quiet, Registry, run_registry, serve
from tests.oci.user import BIN, User

LARGE_BYTES = 300_000


@dataclass
class Town:
    """An image in one registry, the cache in another (which `stop` stops), and homes that know the cache."""

    image: str
    cache: Registry
    stop: Callable[[], None]
    folder: Path
    make_user: Callable[[str], User]

    @property
    def repository(self) -> str:
        return f"{self.cache.host}/team/cache"

    def user(self, name: str, **environment: str) -> User:
        user = self.make_user(name)
        user.environment |= {"BANGER_CACHE_REMOTE": self.repository, **environment}
        return user

    def keys(self, name: str) -> Path:
        """A pair of cosign's: NAME.key and NAME.pub."""
        environment = {"PATH": os.environ["PATH"], "HOME": str(self.folder), "COSIGN_PASSWORD": "sesame"}
        argv = ["cosign", "generate-key-pair", "--output-key-prefix", name]
        subprocess.run(argv, cwd=self.folder, env=environment, check=True, capture_output=True)
        return self.folder / name


@pytest.fixture
def town(open_registry: Registry, tmp_path: Path, make_user: Callable[[str], User]) -> Iterator[Town]:
    members = [layer(file(f"file-{number}", os.urandom(LARGE_BYTES))) for number in range(3)]
    write_layout(tmp_path / "image", {"it": members})
    image = open_registry.push(Path(f"{tmp_path}/image:it"), "team/app:v1")
    with ExitStack() as stack:
        cache = stack.enter_context(run_registry(tmp_path / "cache"))
        yield Town(image, cache, stack.close, tmp_path, make_user)


@dataclass
class Told:
    """What a build with --json told: steps that ran, that were fetched, and notes."""

    ran: list[str]
    fetched: list[str]
    notes: list[str]


def build(user: User, image: str) -> Told:
    user.banger("image", "build", image, "--json")
    events = [json.loads(line) for line in user.said.splitlines()]

    def steps(event: str) -> list[str]:
        """By kind; giving the name is no step."""
        kinds = [each["step"].partition(":")[0] for each in events if each["event"] == event]
        return sorted(kind for kind in kinds if kind != "image")

    assert steps("started") == steps("finished")
    return Told(steps("finished"), steps("fetched"), [each["text"] for each in events if each["event"] == "note"])


def push(user: User, *names: str) -> dict[str, int]:
    found: dict[str, int] = json.loads(user.banger("cache", "push", *names, "--json"))
    return found


ALL = ["config", "layer", "layer", "layer", "resolve", "rootfs"]


def test_a_second_home_downloads_what_the_first_one_built(town: Town) -> None:
    a, b = town.user("a"), town.user("b")
    assert build(a, town.image) == Told(ALL, [], [])
    pushed = push(a)
    assert (pushed["steps"], pushed["sent_steps"]) == (6, 6)
    assert pushed["blobs"] > 6
    told = build(b, town.image)
    assert told == Told([], ["resolve", "rootfs"], [])
    assert b.show(town.image)["objects"] == a.show(town.image)["objects"]
    assert json.loads(b.banger("cache", "verify", "--json"))["findings"] == []
    # The layers led to it, and nobody needed them.
    assert not any(path.stat().st_size == LARGE_BYTES for path in (b.paths.store / "objects").rglob("*"))


def test_pushing_again_uploads_nothing(town: Town) -> None:
    a = town.user("a")
    build(a, town.image)
    push(a)
    again = push(a, town.image)
    assert [again[name] for name in ("steps", "sent_steps", "blobs", "bytes")] == [6, 0, 0, 0]
    assert "0 of 6 steps sent" in a.banger("cache", "push", town.image)


def test_people_are_told_how_much_came_from_there(town: Town) -> None:
    build(town.user("a"), town.image)
    a = town.user("other-a")
    a.banger("image", "build", town.image)
    assert "6 of 6 steps sent" in a.banger("cache", "push")
    b = town.user("b")
    b.banger("image", "build", town.image)
    lines = b.said.splitlines()
    assert sum(line.startswith("fetched") for line in lines) == 2
    assert "2 steps came from the remote cache" in lines[-1]


def test_doit_downloads_too(town: Town) -> None:
    a, b = town.user("a"), town.user("b")
    build(a, town.image)
    push(a)
    done = b.run(str(BIN / "doit"), f"image:{town.image}")
    assert done.returncode == 0, done.stderr
    assert b.show(town.image)["objects"] == a.show(town.image)["objects"]
    assert b"layer" not in b"".join(line for line in done.stdout.splitlines() if line.startswith(b"."))


def test_asking_anew_asks_the_registry_of_the_image(town: Town, open_registry: Registry, tmp_path: Path) -> None:
    """A home that has an answer already wants another when it builds again."""
    a, b = town.user("a"), town.user("b")
    build(a, town.image)
    push(a)
    build(b, town.image)
    write_layout(tmp_path / "newer", {"it": [layer(file("new", os.urandom(1000)))]})
    open_registry.push(Path(f"{tmp_path}/newer:it"), "team/app:v1")
    assert build(b, town.image).ran == ["config", "layer", "resolve", "rootfs"]


@contextmanager
def before(town: Town, on_large: Callable[[], None]) -> Iterator[Registry]:
    """The cache's registry, which calls `on_large` when a large blob is asked for."""

    class Handler(Quiet):
        def do_GET(self) -> None:
            with closing(http.client.HTTPConnection(town.cache.host, timeout=20)) as connection:
                connection.request("GET", self.path, headers=dict(self.headers))
                answer = connection.getresponse()
                body = answer.read()
            if len(body) > LARGE_BYTES:
                on_large()
                self.close_connection = True
                return
            headers = {name: value for name, value in answer.headers.items() if name != "Transfer-Encoding"}
            self.answer(answer.status, body, headers)

    with serve(Handler) as host:
        yield Registry(host)


def test_a_registry_that_dies_in_the_middle_costs_one_warning(town: Town) -> None:
    a = town.user("a")
    build(a, town.image)
    push(a)
    with before(town, town.stop) as proxy:
        b = town.user("b", BANGER_CACHE_REMOTE=f"{proxy.host}/team/cache")
        told = build(b, town.image)
    assert told.ran == ["layer", "layer", "layer", "rootfs"]
    assert told.fetched == ["resolve"]
    assert len(told.notes) == 1
    assert b.show(town.image)["objects"] == a.show(town.image)["objects"]


def test_a_registry_that_is_down_costs_one_warning(town: Town) -> None:
    b = town.user("b")
    town.stop()
    told = build(b, town.image)
    assert told.ran == ALL
    [note] = told.notes
    assert town.repository in note


def test_flipped_bytes_under_the_registry_are_noticed(town: Town) -> None:
    a, b = town.user("a"), town.user("b")
    build(a, town.image)
    push(a)
    for blob in (town.folder / "cache/data").rglob("data"):
        if blob.stat().st_size > LARGE_BYTES:
            content = bytearray(blob.read_bytes())
            content[len(content) // 2] ^= 1
            blob.write_bytes(content)
    told = build(b, town.image)
    assert told.ran == ["layer", "layer", "layer", "rootfs"]
    assert len(told.notes) == 1
    assert b.show(town.image)["objects"] == a.show(town.image)["objects"]
    assert json.loads(b.banger("cache", "verify", "--json"))["findings"] == []


def test_with_a_key_only_what_is_signed_with_it_is_used(town: Town) -> None:
    right, wrong = town.keys("right"), town.keys("wrong")
    a = town.user("a")
    build(a, town.image)
    assert push(a)["signatures"] == 0
    told = build(town.user("b", BANGER_CACHE_REMOTE_KEY=f"{right}.pub"), town.image)
    assert told.ran == ALL
    assert "not signed" in told.notes[0]
    assert len(told.notes) == 1

    a.environment |= {"BANGER_SIGNING_KEY": f"{wrong}.key", "COSIGN_PASSWORD": "sesame"}
    assert push(a)["signatures"] == 6
    told = build(town.user("c", BANGER_CACHE_REMOTE_KEY=f"{right}.pub"), town.image)
    assert told.ran == ALL
    assert "not with the key" in told.notes[0]

    a.environment |= {"BANGER_SIGNING_KEY": Path(f"{right}.key").read_text()}
    pushed = push(a)
    assert (pushed["sent_steps"], pushed["signatures"]) == (0, 6)
    assert build(town.user("d", BANGER_CACHE_REMOTE_KEY=f"{right}.pub"), town.image).ran == []
    assert push(a)["blobs"] == 0


def test_what_readers_would_refuse_is_not_pushed(town: Town) -> None:
    right, wrong = town.keys("right"), town.keys("wrong")
    a = town.user("a", BANGER_CACHE_REMOTE_KEY=f"{right}.pub")
    a.environment.pop("BANGER_CACHE_REMOTE_KEY")
    build(a, town.image)
    a.environment["BANGER_CACHE_REMOTE_KEY"] = f"{right}.pub"
    assert a.refusal("cache", "push")["reason"] == Reason.BAD_INPUT
    a.environment |= {"BANGER_SIGNING_KEY": f"{wrong}.key", "COSIGN_PASSWORD": "sesame"}
    assert a.refusal("cache", "push")["reason"] == Reason.BAD_INPUT
    a.environment |= {"BANGER_SIGNING_KEY": f"{right}.key", "COSIGN_PASSWORD": "open"}
    assert "password" in a.refusal("cache", "push")["message"]
    assert list((town.folder / "cache").glob("data/docker/registry/v2/repositories/team/*")) == []


def test_a_push_that_cannot_be_is_an_error_of_one_line(town: Town) -> None:
    a = town.user("a")
    assert a.refusal("cache", "push", "nothing")["reason"] == Reason.NOT_FOUND
    build(a, town.image)
    town.stop()
    assert a.refusal("cache", "push")["reason"] == Reason.NETWORK
    del a.environment["BANGER_CACHE_REMOTE"]
    assert a.refusal("cache", "push")["reason"] == Reason.BAD_INPUT


def test_a_folder_of_this_host_is_not_what_the_same_path_is_elsewhere(town: Town) -> None:
    a, b = town.user("a"), town.user("b")
    place = town.folder / "place"
    for user, content in ((a, b"theirs"), (b, b"ours")):
        shutil.rmtree(place, ignore_errors=True)
        write_layout(place, {"it": [layer(file("x", content))]})
        told = build(user, f"oci:{place}:it")
        assert told.ran == ["config", "layer", "resolve", "rootfs"]
        push(user)
    assert a.show("place:it")["objects"]["rootfs"] != b.show("place:it")["objects"]["rootfs"]


def test_a_private_cache_wants_to_know_who_it_is(town: Town, locked_registry: Registry) -> None:
    login = {
        "BANGER_CACHE_REMOTE": f"{locked_registry.host}/team/cache",
        "BANGER_REGISTRY_CA": str(locked_registry.ca),
        "BANGER_REGISTRY_HOST": locked_registry.host,
        "BANGER_REGISTRY_USERNAME": USERNAME,
        "BANGER_REGISTRY_PASSWORD": PASSWORD,
    }
    a, b = town.user("a", **login), town.user("b", **login)
    build(a, town.image)
    push(a)
    assert build(b, town.image).ran == []
    stranger = town.user("c", **{**login, "BANGER_REGISTRY_PASSWORD": "swordfish"})
    told = build(stranger, town.image)
    assert told.ran == ALL
    assert len(told.notes) == 1
    assert "swordfish" not in stranger.said
    assert stranger.refusal("cache", "push")["reason"] == Reason.UNAUTHORIZED


def test_oras_reads_what_was_pushed(town: Town, tmp_path: Path) -> None:
    a = town.user("a")
    build(a, town.image)
    push(a)
    listed = subprocess.run(
        ["oras", "repo", "tags", "--plain-http", town.repository], check=True, capture_output=True, text=True
    )
    for tag in listed.stdout.split():
        argv = ["oras", "pull", "--plain-http", "-o", tmp_path / tag, f"{town.repository}:{tag}"]
        subprocess.run(argv, check=True, capture_output=True)
    names = {path.name for path in tmp_path.glob("*/*") if len(path.parent.name) == 64}
    assert {"rootfs", "home", "blob", "index", "answer", "config"} <= names
