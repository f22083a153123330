"""What a registry that misbehaves does to us: it is resumed, waited for, or refused; never believed."""

from __future__ import annotations

import contextlib
import datetime
import email.utils
import hashlib
import io
from collections.abc import Iterator
from pathlib import Path
from typing import IO

import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from banger import run
from banger.errors import BangerError, Reason
from pipelines.oci.blob import open_verified, read_verified
from pipelines.oci.reference import parse_reference
from pipelines.oci.registry import RegistryOptions, RegistrySource
from pipelines.oci.retry import Patience, parse_retry_after, pause, persist
from pipelines.oci.source import Descriptor, TemporaryFailure
from tests.oci.registries import Authority, Faults, Quiet, Registry, make_layer, make_layout, run_proxy, serve

QUICK = Patience(attempts=4, first_s=0.005, longest_s=0.02)
LAYER = make_layer("file", 2_000_000)


class Bench:
    """An image behind a proxy, and what the proxy does wrong."""

    def __init__(self, host: str, faults: Faults, environment: dict[str, str]) -> None:
        self.host = host
        self.faults = faults
        self.environment = environment
        self.layer = Descriptor("", "sha256:" + hashlib.sha256(LAYER).hexdigest(), len(LAYER))

    def source(self, name: str = "faulty:1") -> RegistrySource:
        return RegistrySource(parse_reference(f"{self.host}/{name}"), environment=self.environment, patience=QUICK)

    def download(self, layer: Descriptor | None = None) -> bytes:
        return read_verified(self.source(), layer or self.layer, 1 << 30, QUICK)

    def failure(self, layer: Descriptor | None = None) -> BangerError:
        with pytest.raises(BangerError) as failure:
            self.download(layer)
        assert failure.value.message.isprintable()
        return failure.value

    def root_failure(self, name: str = "faulty:1") -> BangerError:
        with pytest.raises(BangerError) as failure:
            self.source(name).read_root()
        assert failure.value.message.isprintable()
        return failure.value


@pytest.fixture
def bench(open_registry: Registry, tmp_path: Path, nobody: dict[str, str]) -> Iterator[Bench]:
    open_registry.push(make_layout(tmp_path / "layout", [LAYER]), "faulty:1")
    faults = Faults()
    with run_proxy(open_registry.host, faults) as proxy:
        yield Bench(proxy.host, faults, nobody)


@pytest.mark.parametrize("reset", [False, True])
def test_a_connection_that_breaks_in_the_middle_is_resumed_where_it_broke(bench: Bench, reset: bool) -> None:
    bench.faults.drop_after = [700_000, 0, 0, 900_000, 5]
    bench.faults.reset = reset
    # What was sent before a reset may be lost on the way, so none of these needs to be progress.
    patience = Patience(attempts=6, first_s=0.005, longest_s=0.02)
    assert read_verified(bench.source(), bench.layer, 1 << 30, patience) == LAYER
    ranges = bench.faults.ranges()
    assert len(ranges) == 6
    starts = [int(told.removeprefix("bytes=").removesuffix("-") or 0) for told in ranges]
    assert starts == sorted(starts)
    if not reset:
        assert starts == [0, 700_000, 700_000, 700_000, 1_600_000, 1_600_005]


def test_a_connection_that_breaks_without_progress_is_given_up(bench: Bench) -> None:
    bench.faults.drop_after = [1000, *[0] * 50]
    assert bench.failure().reason is Reason.NETWORK
    assert bench.faults.ranges() == ["", *["bytes=1000-"] * (QUICK.attempts - 1)]


def test_an_end_that_came_too_early_is_no_end(bench: Bench) -> None:
    bench.faults.headers = {"Content-Length": None}
    bench.faults.drop_after = [500_000, 500_000]
    assert bench.download() == LAYER
    assert bench.faults.ranges() == ["", "bytes=500000-", "bytes=1000000-"]


def test_a_server_that_gives_a_byte_at_a_time_is_given_up(bench: Bench) -> None:
    for headers in ({"Content-Length": None}, {}):
        bench.faults.headers = headers
        bench.faults.drop_after = [1] * 50
        bench.faults.seen.clear()
        assert bench.failure().reason is Reason.NETWORK
        assert len(bench.faults.ranges()) == QUICK.attempts


def test_a_length_that_no_machine_could_hold_is_a_lie(bench: Bench) -> None:
    bench.faults.headers = {"Content-Length": "9" * 5000}
    assert bench.failure().reason in (Reason.CORRUPT, Reason.NETWORK)


def test_a_server_that_ignores_ranges_is_read_from_the_start_again(bench: Bench) -> None:
    bench.faults.drop_after = [1_500_000]
    bench.faults.ignore_range = True
    assert bench.download() == LAYER


@pytest.mark.parametrize("status", [408, 429, 500, 502, 503, 504])
def test_a_busy_server_is_asked_again(bench: Bench, status: int) -> None:
    bench.faults.statuses = [(status, {})] * (QUICK.attempts - 1)
    bench.source().read_root()
    bench.faults.statuses = [(status, {})] * (QUICK.attempts - 1)
    assert bench.download() == LAYER
    bench.faults.statuses = [(status, {})] * QUICK.attempts
    assert bench.root_failure().reason is Reason.NETWORK
    bench.faults.statuses = [(status, {})] * QUICK.attempts
    assert bench.failure().reason is Reason.NETWORK


def test_the_time_that_a_server_asks_for_is_waited(bench: Bench, monkeypatch: pytest.MonkeyPatch) -> None:
    pauses: list[float] = []
    for module in ("blob", "retry"):
        monkeypatch.setattr(f"pipelines.oci.{module}.pause", pauses.append)
    patience = Patience(attempts=3, first_s=0.001, longest_s=60)
    soon = datetime.datetime.now(datetime.UTC) + datetime.timedelta(seconds=40)
    wishes = ["7", email.utils.format_datetime(soon, usegmt=True)]
    bench.faults.statuses = [(429, {"Retry-After": wish}) for wish in wishes]
    source = RegistrySource(parse_reference(f"{bench.host}/faulty:1"), environment=bench.environment, patience=patience)
    source.read_root()
    bench.faults.statuses = [(503, {"Retry-After": wish}) for wish in wishes]
    read_verified(source, bench.layer, 1 << 30, patience)
    assert [round(waited / 10) for waited in pauses] == [1, 4, 1, 4]
    pauses.clear()
    bench.faults.statuses = [(429, {"Retry-After": "86400"})]
    source.read_root()
    assert pauses == [60]


@pytest.mark.parametrize("status", [400, 405, 418])
def test_an_answer_that_will_not_change_is_not_asked_for_again(bench: Bench, status: int) -> None:
    bench.faults.statuses = [(status, {})] * 9
    assert bench.root_failure().reason is Reason.NETWORK
    assert len(bench.faults.statuses) == 8


def test_an_altered_byte_of_a_layer_is_found(bench: Bench) -> None:
    bench.faults.alter_at = 1_234_567
    assert bench.failure().reason is Reason.CORRUPT


def test_an_altered_byte_of_a_manifest_is_found(bench: Bench) -> None:
    root, _ = bench.source().read_root()
    bench.faults.alter_at = 40
    assert bench.root_failure().reason is Reason.CORRUPT
    bench.faults.headers = {"Docker-Content-Digest": None}
    assert bench.root_failure(f"faulty@{root.digest}").reason is Reason.CORRUPT


@pytest.mark.parametrize("told", ["sha256:" + "0" * 64, "sha512:" + "0" * 128, "md5:00", "\x7fnonsense"])
def test_a_wrong_digest_in_the_header_is_refused(bench: Bench, told: str) -> None:
    root, _ = bench.source().read_root()
    bench.faults.headers = {"Docker-Content-Digest": told}
    assert bench.root_failure().reason is Reason.CORRUPT
    assert bench.root_failure(f"faulty@{root.digest}").reason is Reason.CORRUPT


def test_a_registry_that_tells_no_digest_is_believed_by_what_it_sends(bench: Bench) -> None:
    root, content = bench.source().read_root()
    bench.faults.headers = {"Docker-Content-Digest": None}
    assert bench.source().read_root() == (root, content)


@pytest.mark.parametrize("told_bytes", [len(LAYER) - 1, len(LAYER) + 1, 10**18, 0])
def test_a_length_that_is_not_the_manifests_is_refused(bench: Bench, told_bytes: int) -> None:
    bench.faults.headers = {"Content-Length": str(told_bytes)}
    assert bench.failure().reason is Reason.CORRUPT


@pytest.mark.parametrize("size_bytes", [len(LAYER) - 1, len(LAYER) + 1, 0])
def test_a_manifest_that_lies_about_a_size_is_found(bench: Bench, size_bytes: int) -> None:
    bench.faults.headers = {"Content-Length": None}
    assert bench.failure(Descriptor("", bench.layer.digest, size_bytes)).reason is Reason.CORRUPT


def test_more_than_the_manifest_says_is_refused_at_the_first_byte_more(bench: Bench) -> None:
    bench.faults.headers = {"Content-Length": None}
    bench.faults.append = b"x"
    with open_verified(bench.source(), bench.layer, QUICK) as blob:
        assert blob.read(len(LAYER)) == LAYER
        with pytest.raises(BangerError) as failure:
            blob.read(1)
    assert failure.value.reason is Reason.CORRUPT


@pytest.mark.parametrize("told", ["bytes 0-9/10", "bytes 700001-1999999/*", "bytes */5", "nonsense", None])
def test_a_range_that_was_not_asked_for_is_refused(bench: Bench, told: str | None) -> None:
    bench.faults.drop_after = [700_000]
    bench.faults.headers = {"Content-Range": told}
    assert bench.failure().reason is Reason.CORRUPT


def test_a_range_past_the_end_is_refused(bench: Bench) -> None:
    longer = Descriptor("", bench.layer.digest, -1)
    with pytest.raises(BangerError) as failure, bench.source().open_blob(longer, len(LAYER) + 1):
        pass
    assert failure.value.reason is Reason.CORRUPT


def test_a_blob_of_unknown_size_is_read_to_its_end(bench: Bench) -> None:
    assert bench.download(Descriptor("", bench.layer.digest, -1)) == LAYER


def test_content_that_is_said_to_be_compressed_comes_as_it_is(bench: Bench) -> None:
    bench.faults.headers = {"Content-Encoding": "gzip"}
    assert bench.download() == LAYER


def test_small_reads_and_large_ones_give_the_same(bench: Bench) -> None:
    with open_verified(bench.source(), bench.layer, QUICK) as blob:
        parts = [blob.read(n) for n in (0, 1, 511, 1_200_000, 10, 10_000_000, 5)]
        blob.finish()
    assert [len(part) for part in parts] == [0, 1, 511, 1_200_000, 10, len(LAYER) - 1_200_522, 0]
    assert b"".join(parts) == LAYER


def test_what_is_too_large_is_not_read(bench: Bench) -> None:
    for size_bytes in (len(LAYER), -1):
        with pytest.raises(BangerError) as failure:
            read_verified(bench.source(), Descriptor("", bench.layer.digest, size_bytes), 1000, QUICK)
        assert failure.value.reason is Reason.TOO_LARGE


def test_a_cancelled_download_ends(bench: Bench) -> None:
    with open_verified(bench.source(), bench.layer, QUICK) as blob:
        blob.read(1000)
        run.cancel_all()
        try:
            with pytest.raises(KeyboardInterrupt):
                blob.read()
            with pytest.raises(KeyboardInterrupt):
                pause(60)
        finally:
            run.resume()


def test_a_redirect_to_another_host_gets_no_password(
    locked_registry: Registry, authority: Authority, open_registry: Registry, tmp_path: Path, nobody: dict[str, str]
) -> None:
    layout = make_layout(tmp_path / "layout", [LAYER])
    open_registry.push(layout, "faulty:1")
    layer = Descriptor("", "sha256:" + hashlib.sha256(LAYER).hexdigest(), len(LAYER))
    logins: list[str | None] = []

    class Handler(Quiet):
        def do_GET(self) -> None:
            logins.append(self.headers.get("Authorization"))
            if logins[-1] is None:
                self.answer(401, headers={"WWW-Authenticate": "Basic"})
            elif self.path.endswith("here"):
                self.answer(307, headers={"Location": f"https://{elsewhere.host}{self.path.removesuffix('here')}"})
            else:
                self.answer(307, headers={"Location": self.path + "here"})

    faults = Faults()
    with run_proxy(open_registry.host, faults, authority) as elsewhere, serve(Handler, authority) as host:
        options = {host: RegistryOptions(host, "alice", "secret", authority.ca)}
        source = RegistrySource(parse_reference(f"{host}/faulty:1"), options, environment=nobody, patience=QUICK)
        assert read_verified(source, layer, 1 << 30, QUICK) == LAYER
        # The registry's own redirect to itself keeps the login; the other host saw none, even when it asks for one.
        assert [login is not None for login in logins[-3:]] == [False, True, True]
        assert ["Authorization" in headers for _, headers in faults.seen] == [False]
        faults.statuses = [(401, {"WWW-Authenticate": "Basic"})]
        with pytest.raises(BangerError) as failure:
            read_verified(source, layer, 1 << 30, QUICK)
        assert failure.value.reason is Reason.NETWORK
        assert not any("Authorization" in headers for _, headers in faults.seen)


@pytest.mark.parametrize("target", ["http://127.0.0.1:1/x", "file:///etc/passwd", "ftp://127.0.0.1/x", "http://[x"])
def test_a_redirect_from_tls_to_what_is_not_is_refused(
    authority: Authority, nobody: dict[str, str], target: str
) -> None:
    class Handler(Quiet):
        def do_GET(self) -> None:
            self.answer(307, headers={"Location": target})

    with serve(Handler, authority) as host:
        options = {host: RegistryOptions(host, ca=authority.ca)}
        source = RegistrySource(parse_reference(f"{host}/a"), options, environment=nobody, patience=QUICK)
        with pytest.raises(BangerError) as failure:
            source.read_root()
    assert failure.value.reason is Reason.NETWORK
    assert not isinstance(failure.value, TemporaryFailure)


def test_the_body_of_a_redirect_is_not_waited_for(bench: Bench) -> None:
    class Handler(Quiet):
        def do_GET(self) -> None:
            self.close_connection = True
            self.answer(307, headers={"Location": f"http://{bench.host}{self.path}", "Content-Length": str(10**15)})

    with serve(Handler) as host:
        source = RegistrySource(parse_reference(f"{host}/faulty:1"), environment=bench.environment, patience=QUICK)
        assert read_verified(source, bench.layer, 1 << 30, QUICK) == LAYER


def test_a_redirect_in_a_circle_ends(bench: Bench) -> None:
    bench.faults.redirect_to = f"http://{bench.host}"
    assert bench.failure().reason is Reason.NETWORK
    assert len(bench.faults.ranges()) < 10


@example("Mon, 01 Jan 99999999999 00:00:00 GMT")
@given(st.text(max_size=40) | st.integers().map(str) | st.datetimes().map(email.utils.format_datetime))
def test_a_wild_retry_after_is_seconds_or_nothing(text: str) -> None:
    seconds = parse_retry_after(text)
    assert seconds is None or seconds >= 0


def test_a_pause_grows_and_has_a_limit() -> None:
    patience = Patience(attempts=9, first_s=1, longest_s=5)
    for failures, most in ((1, 1), (2, 2), (3, 4), (4, 5), (50, 5)):
        assert most / 2 <= patience.delay_s(failures) <= most
    assert 3 <= patience.delay_s(1, 3) <= 4
    assert patience.delay_s(1, 100) == 5


def test_the_last_failure_is_told_and_others_are_not_tried_again() -> None:
    tries: list[int] = []

    def fail(error: BangerError) -> None:
        tries.append(1)
        raise error

    with pytest.raises(TemporaryFailure):
        persist(lambda: fail(TemporaryFailure("broken")), QUICK)
    assert len(tries) == QUICK.attempts
    with pytest.raises(BangerError):
        persist(lambda: fail(BangerError("wrong", reason=Reason.CORRUPT)), QUICK)
    assert len(tries) == QUICK.attempts + 1


class Flaky:
    """A source of one blob that gives it in pieces, as long as they last; a piece of None is a broken connection."""

    reference = name = "flaky"

    def __init__(self, content: bytes, pieces: list[int | None]) -> None:
        self.content = content
        self.pieces = pieces

    def read_root(self) -> tuple[Descriptor, bytes]:
        raise NotImplementedError

    def read_manifest(self, descriptor: Descriptor) -> bytes:
        raise NotImplementedError

    @contextlib.contextmanager
    def open_blob(self, descriptor: Descriptor, offset: int = 0) -> Iterator[IO[bytes]]:
        source, stream = self, io.BytesIO(self.content)
        stream.seek(offset)

        class Stream(io.BytesIO):
            def read(self, size: int | None = -1, /) -> bytes:
                piece = source.pieces.pop(0) if source.pieces else size
                if piece is None:
                    raise TemporaryFailure("broken")
                return stream.read(min(size or 0, piece or 1))

        yield Stream()


@given(
    st.binary(max_size=200),
    st.lists(st.none() | st.integers(1, 50), max_size=30),
    st.lists(st.integers(0, 60), max_size=20),
    st.booleans(),
)
def test_however_a_connection_breaks_the_bytes_are_the_blobs(
    content: bytes, pieces: list[int | None], reads: list[int], known: bool
) -> None:
    patience = Patience(attempts=32, first_s=0, longest_s=0)
    digest = "sha256:" + hashlib.sha256(content).hexdigest()
    descriptor = Descriptor("", digest, len(content) if known else -1)
    got = b""
    with open_verified(Flaky(content, pieces), descriptor, patience) as blob:
        for n in reads:
            part = blob.read(n)
            assert len(part) == min(n, len(content) - len(got))
            got += part
        got += blob.read()
        blob.finish()
    assert got == content
