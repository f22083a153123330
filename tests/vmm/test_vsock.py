"""The way to the guest agent: Firecracker's handshake, in all the ways it can be cut, refused and delayed."""

from __future__ import annotations

import contextlib
import socket
import tempfile
import threading
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from banger.errors import BangerError, Reason
from banger.vmm import vsock
from banger.vmm.vsock import connect_guest, read_acknowledgement


@pytest.fixture
def path() -> Iterator[Path]:
    with tempfile.TemporaryDirectory(prefix="fc-") as folder:
        yield Path(folder) / "vsock.sock"


@contextlib.contextmanager
def served(path: Path, *answers: Callable[[socket.socket], None]) -> Iterator[list[bytes]]:
    """Firecracker's end of the socket: each connection gets the next answer, the last one again and again."""
    heard: list[bytes] = []
    listener = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
    listener.bind(str(path))
    listener.listen()

    def serve() -> None:
        number = 0
        while True:
            try:
                connection, _ = listener.accept()
            except OSError:
                return
            with connection, contextlib.suppress(OSError):
                heard.append(connection.recv(100))
                answers[min(number, len(answers) - 1)](connection)
            number += 1

    thread = threading.Thread(target=serve, daemon=True)
    thread.start()
    try:
        yield heard
    finally:
        listener.shutdown(socket.SHUT_RDWR)
        listener.close()
        thread.join(30)


def says(*packets: bytes) -> Callable[[socket.socket], None]:
    def answer(connection: socket.socket) -> None:
        for packet in packets:
            connection.sendall(packet)
            time.sleep(0.01)

    return answer


def everything(channel: socket.socket) -> bytes:
    with channel, channel.makefile("rb") as file:
        return file.read()


def test_the_port_is_asked_for_in_firecrackers_words(path) -> None:
    with served(path, says(b"OK 1073741824\n")) as heard:
        connect_guest(path, 1024, 30).close()
    assert heard == [b"CONNECT 1024\n"]


def test_an_acknowledgement_in_pieces_is_understood(path) -> None:
    with served(path, says(b"O", b"K 10", b"73741824", b"\n", b"agent")):
        assert everything(connect_guest(path, 1024, 30)) == b"agent"


def test_bytes_of_the_agent_in_the_same_packet_are_not_swallowed(path) -> None:
    with served(path, says(b"OK 1073741824\n\n\xff{}OK 5\n")):
        assert everything(connect_guest(path, 1024, 30)) == b"\n\xff{}OK 5\n"


@pytest.mark.parametrize("dropped", [says(), says(b"OK 10")])
def test_a_guest_that_does_not_listen_yet_is_tried_again(path, dropped) -> None:
    with served(path, dropped, dropped, dropped, says(b"OK 7\n", b"hello")) as heard:
        assert everything(connect_guest(path, 1024, 30)) == b"hello"
    assert len(heard) == 4


def test_a_connection_that_is_left_hanging_is_made_again(path, monkeypatch) -> None:
    monkeypatch.setattr(vsock, "_ATTEMPT_S", 0.1)
    with served(path, lambda _: time.sleep(0.3), says(b"OK 7\n", b"hello")):
        assert everything(connect_guest(path, 1024, 30)) == b"hello"


def test_the_connection_that_is_handed_out_has_no_time_limit_left(path) -> None:
    with served(path, says(b"OK 7\n")), connect_guest(path, 1024, 30) as channel:
        assert channel.gettimeout() is None


@pytest.mark.parametrize("garbage", [b"NO 5\n", b"OK\n", b"OK x\n", b"\n", b"OK 5 \n", b"\x1b[2J" * 1000])
def test_an_answer_that_is_no_acknowledgement_is_refused_at_once(path, garbage) -> None:
    with served(path, says(garbage)) as heard, pytest.raises(BangerError) as caught:
        connect_guest(path, 1024, 30)
    assert caught.value.reason is Reason.UNAVAILABLE
    assert caught.value.message.isprintable()
    assert len(heard) == 1


@pytest.mark.parametrize("answer", [says(), lambda connection: connection.recv(1)])
def test_a_guest_that_never_listens_is_given_up_in_time(path, answer) -> None:
    begin = time.monotonic()
    with served(path, answer), pytest.raises(BangerError) as caught:
        connect_guest(path, 1024, 0.4)
    assert caught.value.reason is Reason.TIMEOUT
    assert 0.4 <= time.monotonic() - begin < 20


def test_a_trickle_of_bytes_does_not_stretch_the_time(path) -> None:
    def trickle(connection: socket.socket) -> None:
        for byte in b"OK 1073741":
            connection.sendall(bytes([byte]))
            time.sleep(1.0)

    with served(path, trickle):
        begin = time.monotonic()
        with pytest.raises(BangerError) as caught:
            connect_guest(path, 1024, 0.4)
        # All of them take ten seconds.
        assert time.monotonic() - begin < 8
    assert caught.value.reason is Reason.TIMEOUT


def test_a_full_queue_of_connections_is_waited_for(path) -> None:
    with socket.socket(socket.AF_UNIX, socket.SOCK_STREAM) as listener, contextlib.ExitStack() as waiting:
        listener.bind(str(path))
        listener.listen(0)
        first = waiting.enter_context(socket.socket(socket.AF_UNIX, socket.SOCK_STREAM))
        first.connect(str(path))
        with pytest.raises(BangerError) as caught:
            connect_guest(path, 1024, 0.3)
    assert caught.value.reason is Reason.TIMEOUT


@pytest.mark.parametrize("left", ["a socket", "nothing"])
def test_a_monitor_that_has_ended_is_noticed_at_once(path, left) -> None:
    if left == "a socket":
        with socket.socket(socket.AF_UNIX, socket.SOCK_STREAM) as listener:
            listener.bind(str(path))
    begin = time.monotonic()
    with pytest.raises(BangerError) as caught:
        connect_guest(path, 1024, 30)
    assert caught.value.reason is Reason.MONITOR_DIED
    assert time.monotonic() - begin < 20


@given(port=st.integers(0, 2**32 - 1), after=st.binary(max_size=40))
def test_exactly_the_acknowledgement_is_read_whatever_follows(port, after) -> None:
    stream = Stream(b"OK %d\n" % port + after)
    assert read_acknowledgement(stream.receive) == port
    assert stream.rest == after


@given(st.binary(max_size=40))
def test_any_bytes_are_an_acknowledgement_or_an_end_or_refused(content) -> None:
    stream = Stream(content)
    port = refusal = None
    try:
        port = read_acknowledgement(stream.receive)
    except BangerError as error:
        refusal = error
    taken = content[: len(content) - len(stream.rest)]
    assert len(taken) <= len(b"OK 4294967295\n")
    if refusal is not None:
        assert refusal.reason is Reason.UNAVAILABLE
        assert refusal.message.isprintable()
    elif port is None:
        assert taken == content
        assert b"\n" not in content
    else:
        assert int(taken.removeprefix(b"OK ").removesuffix(b"\n")) == port


class Stream:
    """What a socket would give, and what would still be in it."""

    def __init__(self, content: bytes) -> None:
        self.rest = content

    def receive(self, size: int) -> bytes:
        taken, self.rest = self.rest[:size], self.rest[size:]
        return taken
