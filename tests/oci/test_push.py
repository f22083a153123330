"""Pushing into the real `docker-registry`, read back by the real `oras` and `skopeo`; and what may break on the way."""

from __future__ import annotations

import hashlib
import io
import json
import subprocess
import threading
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import IO, Any

import pytest

from banger.errors import BangerError, Reason
from banger.run import cancel_all, resume
from pipelines.oci.push import Pusher, open_pusher
from pipelines.oci.reference import parse_reference
from pipelines.oci.repository import Waits
from pipelines.oci.retry import Patience
from tests.oci.registries import PASSWORD, USERNAME, Quiet, Registry, TokenServer, make_authority, serve
from tests.oci.trouble import Trouble, trouble_before
from tests.ports import find_free_port

QUICK = Patience(attempts=3, first_s=0.005, longest_s=0.02)
MANIFEST_TYPE = "application/vnd.oci.image.manifest.v1+json"
CONTENT = bytes(range(256)) * 8000


def digest_of(content: bytes) -> str:
    return f"sha256:{hashlib.sha256(content).hexdigest()}"


def make_pusher(registry: Registry, name: str, environment: dict[str, str], **changes: Any) -> Pusher:
    reference = parse_reference(f"{registry.host}/{name}")
    return Pusher(reference, registry.options(**changes), environment=environment, patience=QUICK)


def push(pusher: Pusher, content: bytes) -> bool:
    return pusher.push_blob(digest_of(content), len(content), lambda: io.BytesIO(content))


def make_manifest(*blobs: bytes, **more: Any) -> bytes:
    titles = [{"org.opencontainers.image.title": f"file-{number}"} for number in range(len(blobs))]
    described = [("text/plain", blob, {"annotations": title}) for blob, title in zip(blobs, titles, strict=True)]
    config, *layers = (
        {"mediaType": kind, "digest": digest_of(blob), "size": len(blob), **rest}
        for kind, blob, rest in [("application/vnd.oci.empty.v1+json", b"{}", {}), *described]
    )
    head = {"schemaVersion": 2, "mediaType": MANIFEST_TYPE, "artifactType": "application/vnd.example.test"}
    manifest = {**head, "config": config, "layers": layers, **more}
    # Spaces and an order that no JSON library of ours would write.
    return json.dumps(manifest, indent=3).encode() + b"\n"


def push_artifact(pusher: Pusher, tag: str, *blobs: bytes) -> str:
    for blob in (b"{}", *blobs):
        push(pusher, blob)
    return pusher.push_manifest(make_manifest(*blobs), MANIFEST_TYPE, tag)


def failure_of(action: Callable[[], object]) -> BangerError:
    with pytest.raises(BangerError) as failure:
        action()
    assert failure.value.message.isprintable()
    return failure.value


def test_what_was_pushed_is_what_oras_pulls(open_registry: Registry, nobody: dict[str, str], tmp_path: Path) -> None:
    pusher = make_pusher(open_registry, "push/files", nobody)
    digest = push_artifact(pusher, "v1", CONTENT, b"", b"small")
    reference = f"{open_registry.host}/push/files"
    for wanted in (f"{reference}:v1", f"{reference}@{digest}"):
        argv = ["oras", "pull", "--plain-http", "-o", tmp_path / "out", wanted]
        subprocess.run(argv, check=True, capture_output=True)
        found = [(tmp_path / f"out/file-{number}").read_bytes() for number in range(3)]
        assert found == [CONTENT, b"", b"small"]


def test_a_manifest_arrives_byte_for_byte(open_registry: Registry, nobody: dict[str, str]) -> None:
    pusher = make_pusher(open_registry, "push/bytes", nobody)
    digest = push_artifact(pusher, "v1", b"x")
    assert digest == digest_of(make_manifest(b"x"))
    argv = ["skopeo", "inspect", "--raw", "--tls-verify=false", f"docker://{open_registry.host}/push/bytes:v1"]
    assert subprocess.run(argv, check=True, capture_output=True).stdout == make_manifest(b"x")


def test_what_is_there_is_not_sent_again(open_registry: Registry, nobody: dict[str, str]) -> None:
    pusher = make_pusher(open_registry, "push/twice", nobody)
    assert not pusher.has_manifest("v1")
    digest = push_artifact(pusher, "v1", CONTENT)
    assert (pusher.uploaded_blobs, pusher.uploaded_bytes, pusher.uploaded_manifests) == (2, len(CONTENT) + 2, 1)

    def open_never() -> IO[bytes]:
        raise AssertionError("it is there already")

    again = make_pusher(open_registry, "push/twice", nobody)
    assert not again.push_blob(digest_of(CONTENT), len(CONTENT), open_never)
    assert (again.uploaded_blobs, again.uploaded_bytes) == (0, 0)
    assert again.has_manifest("v1")
    assert again.has_manifest("v1", digest)
    assert again.has_manifest(digest)
    assert not again.has_manifest("v1", digest_of(b"other"))
    assert not again.has_manifest("v2")


def test_progress_is_told_up_to_the_end(open_registry: Registry, nobody: dict[str, str]) -> None:
    told: list[int] = []
    content = CONTENT + b"progress"
    pusher = make_pusher(open_registry, "push/progress", nobody)
    pusher.push_blob(digest_of(content), len(content), lambda: io.BytesIO(content), told.append)
    assert told == sorted(told)
    assert told[-1] == len(content)


@pytest.mark.parametrize("kind", ["locked_registry", "token_registry"])
def test_a_registry_that_wants_to_know_who_it_is(
    kind: str, request: pytest.FixtureRequest, nobody: dict[str, str]
) -> None:
    registry: Registry = request.getfixturevalue(kind)
    push_artifact(make_pusher(registry, "private/files", nobody), "v1", CONTENT)
    assert make_pusher(registry, "private/files", nobody).has_manifest("v1")
    for login in ({"username": "", "password": ""}, {"password": "swordfish"}):
        stranger = make_pusher(registry, "private/files", nobody, **login)
        failure = failure_of(lambda stranger=stranger: push(stranger, b"more"))  # type: ignore[misc]
        assert failure.reason is Reason.UNAUTHORIZED
        assert "swordfish" not in failure.message + failure.hint


def test_who_may_only_pull_cannot_push(token_registry: Registry, nobody: dict[str, str]) -> None:
    stranger = make_pusher(token_registry, "public/files", nobody, username="", password="")
    assert failure_of(lambda: push(stranger, b"x")).reason is Reason.UNAUTHORIZED


def test_one_token_will_do_for_all_that_is_pushed(
    token_registry: Registry, token_server: TokenServer, nobody: dict[str, str]
) -> None:
    token_server.asked.clear()
    push_artifact(make_pusher(token_registry, "private/token", nobody), "v1", b"one", b"two")
    [(_method, query, _login)] = token_server.asked
    assert query["scope"] == ["repository:private/token:pull,push"]


def test_a_token_that_expires_meanwhile_is_renewed(
    token_registry: Registry, token_server: TokenServer, nobody: dict[str, str], monkeypatch: pytest.MonkeyPatch
) -> None:
    pusher = make_pusher(token_registry, "private/renewed", nobody)
    push(pusher, b"one")
    # What it has is refused from now on, as after its time.
    monkeypatch.setattr(pusher._access, "_header", "Bearer expired")
    assert push_artifact(pusher, "v1", b"two")


def test_credentials_are_found_where_pulling_finds_them(locked_registry: Registry, nobody: dict[str, str]) -> None:
    environment = {
        **nobody,
        "BANGER_REGISTRY_CA": str(locked_registry.ca),
        "BANGER_REGISTRY_HOST": locked_registry.host,
        "BANGER_REGISTRY_USERNAME": USERNAME,
        "BANGER_REGISTRY_PASSWORD": PASSWORD,
    }
    pusher = Pusher(parse_reference(f"{locked_registry.host}/env"), {}, environment=environment, patience=QUICK)
    push_artifact(pusher, "v1", b"x")


def test_several_threads_push_with_one_pusher(locked_registry: Registry, nobody: dict[str, str]) -> None:
    pusher = make_pusher(locked_registry, "push/threads", nobody)
    contents = [bytes([number]) * 300_000 for number in range(8)]
    with ThreadPoolExecutor(8) as pool:
        assert all(pool.map(lambda content: push(pusher, content), contents))
    assert (pusher.uploaded_blobs, pusher.uploaded_bytes) == (8, 8 * 300_000)
    assert not any(push(pusher, content) for content in contents)


@pytest.mark.parametrize("wrong", [CONTENT[:-1], CONTENT + b"x", CONTENT[:-1] + b"x", b""])
def test_content_that_is_not_what_its_digest_says_never_arrives(
    open_registry: Registry, nobody: dict[str, str], wrong: bytes
) -> None:
    content = CONTENT + b"wrong"
    digest = digest_of(content)
    pusher = make_pusher(open_registry, "push/wrong", nobody)
    failure = failure_of(lambda: pusher.push_blob(digest, len(content), lambda: io.BytesIO(wrong)))
    assert failure.reason is Reason.CORRUPT
    assert not pusher.has_blob(digest, len(content))
    assert pusher.uploaded_blobs == 0


@pytest.mark.parametrize("manifest", [b"", b"{", b"[]", b"{}", b'{"schemaVersion": 2, "manifests": []}', b"\xff"])
def test_what_is_no_manifest_is_not_sent(open_registry: Registry, nobody: dict[str, str], manifest: bytes) -> None:
    pusher = make_pusher(open_registry, "push/none", nobody)
    assert failure_of(lambda: pusher.push_manifest(manifest, MANIFEST_TYPE, "v1")).reason is Reason.BAD_INPUT
    large = make_manifest(annotations={"x": "x" * (4 << 20)})
    assert failure_of(lambda: pusher.push_manifest(large, MANIFEST_TYPE, "v1")).reason is Reason.TOO_LARGE
    assert not pusher.has_manifest("v1")


def test_a_manifest_whose_blobs_are_missing_is_refused(open_registry: Registry, nobody: dict[str, str]) -> None:
    pusher = make_pusher(open_registry, "push/missing", nobody)
    failure = failure_of(lambda: pusher.push_manifest(make_manifest(b"nowhere"), MANIFEST_TYPE, "v1"))
    assert failure.reason is Reason.NETWORK
    assert "unknown" in failure.message
    assert not pusher.has_manifest("v1")


def test_where_nothing_can_be_pushed_is_told_in_a_line(nobody: dict[str, str]) -> None:
    nowhere = Registry(f"127.0.0.1:{find_free_port()}")
    assert failure_of(lambda: push(make_pusher(nowhere, "x", nobody), b"x")).reason is Reason.NETWORK
    assert failure_of(lambda: open_pusher("Not A Reference", {})).reason is Reason.BAD_INPUT


def test_a_cancelled_upload_ends(open_registry: Registry, nobody: dict[str, str]) -> None:
    pusher = make_pusher(open_registry, "push/cancelled", nobody)
    content = CONTENT + b"cancelled"
    with pytest.raises(KeyboardInterrupt):
        pusher.push_blob(digest_of(content), len(content), lambda: io.BytesIO(content), lambda _done: cancel_all())
    resume()
    assert not pusher.has_blob(digest_of(content), len(content))


@pytest.fixture
def trouble() -> Trouble:
    return Trouble()


@pytest.fixture
def pusher(open_registry: Registry, trouble: Trouble, nobody: dict[str, str], request: Any) -> Iterator[Pusher]:
    with trouble_before(open_registry.host, trouble) as proxy:
        # A repository of its own: a blob that another test pushed would be there.
        name = f"trouble/{hashlib.sha256(request.node.name.encode()).hexdigest()[:12]}"
        yield make_pusher(proxy, name, nobody)


def test_an_upload_that_breaks_is_sent_again_from_its_start(pusher: Pusher, trouble: Trouble) -> None:
    trouble.drop_after = [100_000, 0]
    assert push(pusher, CONTENT)
    assert (trouble.seen.count("PUT"), pusher.uploaded_blobs, pusher.uploaded_bytes) == (3, 1, len(CONTENT))


def test_an_upload_that_breaks_every_time_is_given_up(pusher: Pusher, trouble: Trouble) -> None:
    trouble.drop_after = [1000] * 50
    assert failure_of(lambda: push(pusher, CONTENT)).reason is Reason.NETWORK
    assert trouble.seen.count("PUT") == QUICK.attempts
    assert pusher.uploaded_blobs == 0


def test_a_truncated_upload_is_refused_by_the_registry_and_told(pusher: Pusher, trouble: Trouble) -> None:
    trouble.cut_to = [len(CONTENT) - 1]
    assert failure_of(lambda: push(pusher, CONTENT)).reason is Reason.CORRUPT
    assert not pusher.has_blob(digest_of(CONTENT), len(CONTENT))


def test_a_blob_whose_confirmation_was_lost_is_not_sent_twice(pusher: Pusher, trouble: Trouble) -> None:
    trouble.lose_answer = 1
    assert push(pusher, CONTENT)
    assert trouble.seen.count("PUT") == 1


@pytest.mark.parametrize("method", ["HEAD", "POST", "PUT"])
def test_a_busy_registry_is_asked_again(pusher: Pusher, trouble: Trouble, method: str) -> None:
    trouble.statuses = [(method, 503), (method, 429)]
    assert push_artifact(pusher, "v1", b"content")


@pytest.mark.parametrize(("method", "status"), [("POST", 405), ("PUT", 413), ("POST", 404)])
def test_an_answer_that_will_not_change_is_not_asked_for_again(
    pusher: Pusher, trouble: Trouble, method: str, status: int
) -> None:
    trouble.statuses = [(method, status)] * 9
    failure = failure_of(lambda: push(pusher, CONTENT))
    assert (failure.reason, len(trouble.statuses)) == (Reason.NETWORK, 8)
    assert "a fault" in failure.message


def test_another_digest_in_the_answer_is_an_error(pusher: Pusher, trouble: Trouble) -> None:
    trouble.headers = {"Docker-Content-Digest": digest_of(b"other")}
    assert failure_of(lambda: push(pusher, CONTENT)).reason is Reason.CORRUPT
    trouble.headers = {}
    push_artifact(pusher, "v1", b"x")
    trouble.headers = {"Docker-Content-Digest": digest_of(b"other")}
    failure = failure_of(lambda: pusher.push_manifest(make_manifest(b"x"), MANIFEST_TYPE, "v1"))
    assert failure.reason is Reason.CORRUPT


@pytest.mark.parametrize("told", [None, "", f"sha512:{hashlib.sha512(make_manifest(b'x')).hexdigest()}"])
def test_a_manifest_whose_digest_is_not_told_is_read(pusher: Pusher, trouble: Trouble, told: str | None) -> None:
    digest = push_artifact(pusher, "v1", b"x")
    trouble.headers = {"Docker-Content-Digest": told}
    assert pusher.has_manifest("v1", digest)
    assert pusher.has_manifest(digest, digest)
    assert not pusher.has_manifest("v1", digest_of(b"other"))
    assert not pusher.has_manifest("v2", digest)
    # Nobody asked which one it is.
    trouble.seen.clear()
    assert pusher.has_manifest("v1")
    assert trouble.seen == ["HEAD"]


def test_a_manifest_that_is_gone_before_it_is_read_is_not_there(pusher: Pusher, trouble: Trouble) -> None:
    digest = push_artifact(pusher, "v1", b"x")
    trouble.headers = {"Docker-Content-Digest": None}
    trouble.statuses = [("GET", 404)]
    assert not pusher.has_manifest("v1", digest)


@pytest.mark.parametrize("place", ["", "http://[", "http://127.0.0.2:1/x", "ftp://host/x", "file:///etc/passwd"])
def test_a_blob_goes_nowhere_that_is_not_safe(pusher: Pusher, trouble: Trouble, place: str) -> None:
    trouble.headers = {"Location": place}
    assert failure_of(lambda: push(pusher, CONTENT)).reason is Reason.NETWORK
    assert "PUT" not in trouble.seen


def test_a_password_goes_to_the_registry_and_nowhere_else(locked_registry: Registry, nobody: dict[str, str]) -> None:
    """An upload may be sent elsewhere, but who is sending is not told there."""
    seen: list[tuple[str, str | None]] = []

    class Elsewhere(Quiet):
        def do_PUT(self) -> None:
            self.rfile.read(int(self.headers["Content-Length"]))
            seen.append((self.command, self.headers.get("Authorization")))
            self.answer(201)

    class Front(Quiet):
        def do_HEAD(self) -> None:
            self.answer(404 if self.headers.get("Authorization") else 401, headers={"WWW-Authenticate": "Basic"})

        do_GET = do_HEAD

        def do_POST(self) -> None:
            seen.append((self.command, self.headers.get("Authorization")))
            self.answer(202, headers={"Location": f"https://{elsewhere}/place"})

    authority = make_authority(Path(nobody["HOME"]) / "authority")
    with serve(Elsewhere, authority) as elsewhere, serve(Front) as front:
        registry = Registry(front, authority.ca, USERNAME, PASSWORD)
        assert push(make_pusher(registry, "x", nobody), b"content")
    assert [method for method, _ in seen] == ["POST", "PUT"]
    assert seen[0][1] is not None
    assert seen[1][1] is None


def test_a_registry_that_takes_a_blob_and_says_nothing_is_given_up(nobody: dict[str, str]) -> None:
    is_over = threading.Event()

    class Silent(Quiet):
        def do_HEAD(self) -> None:
            self.answer(404)

        do_GET = do_HEAD

        def do_POST(self) -> None:
            self.answer(202, headers={"Location": "/place"})

        def do_PUT(self) -> None:
            self.rfile.read(int(self.headers["Content-Length"]))
            is_over.wait(60)

    with serve(Silent) as host:
        waits = Waits(connect_s=1.0, read_s=1.0, upload_s=0.3)
        pusher = Pusher(parse_reference(f"{host}/x"), {}, environment=nobody, patience=QUICK, waits=waits)
        failure = failure_of(lambda: push(pusher, b"content"))
        is_over.set()
    assert failure.reason is Reason.NETWORK
    assert "in time" in failure.message
