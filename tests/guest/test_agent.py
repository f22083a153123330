"""A conversation with the guest agent, over real sockets with a peer that speaks the agent's protocol."""

from __future__ import annotations

import base64
import contextlib
import json
import socket
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import ExitStack
from typing import Any

import pytest

from banger.errors import BangerError, Reason
from banger.guest.agent import Agent, connect


class Peer:
    """The guest's end: a thread that answers requests as the QEMU guest agent does."""

    def __init__(self, connection: socket.socket, answers: Callable[[str, dict[str, Any]], Any]) -> None:
        self.connection = connection
        self.asked: list[tuple[str, dict[str, Any]]] = []
        self._answers = answers
        self._thread = threading.Thread(target=self._serve, daemon=True)
        self._thread.start()

    def send(self, data: bytes) -> None:
        self.connection.sendall(data)

    def close(self) -> None:
        self.connection.close()

    def _serve(self) -> None:
        try:
            for line in self.connection.makefile("rb"):
                request = json.loads(line.rpartition(b"\xff")[2])
                command, arguments = request["execute"], request.get("arguments", {})
                if command == "guest-sync-delimited":
                    self.send(b"\xff" + json.dumps({"return": arguments["id"]}).encode() + b"\n")
                    continue
                self.asked.append((command, arguments))
                answer = self._answers(command, arguments)
                if isinstance(answer, tuple):
                    for piece in answer:
                        self.send(piece)
                        time.sleep(0.05)
                else:
                    self.send(answer if isinstance(answer, bytes) else json.dumps(answer).encode() + b"\n")
        except OSError:
            return


@pytest.fixture
def talk() -> Iterator[Callable[..., tuple[Agent, Peer]]]:
    """A conversation with a peer that gives these answers, each a value or the bytes themselves, or pieces of them."""
    with ExitStack() as stack:

        def begin(*answers: Any) -> tuple[Agent, Peer]:
            left = iter(answers)
            ours, theirs = socket.socketpair()
            stack.callback(theirs.close)
            peer = Peer(theirs, lambda _command, _arguments: next(left))
            return stack.enter_context(connect(lambda _left: ours, 30)), peer

        yield begin


def _refused(act: Callable[[], object]) -> BangerError:
    with pytest.raises(BangerError) as caught:
        act()
    assert caught.value.reason is Reason.GUEST
    return caught.value


def test_a_question_is_answered(talk: Callable[..., tuple[Agent, Peer]]) -> None:
    agent, peer = talk({"return": {"version": "9"}})
    assert agent.ask("guest-info", some_thing=1) == {"version": "9"}
    assert peer.asked == [("guest-info", {"some-thing": 1})]


def test_a_file_of_the_guest_is_read_and_closed(talk: Callable[..., tuple[Agent, Peer]]) -> None:
    content = base64.b64encode(b"some\n").decode()
    agent, peer = talk({"return": 3}, {"return": {"count": 5, "buf-b64": content, "eof": True}}, {"return": {}})
    assert agent.read_file("/etc/x") == b"some\n"
    assert [command for command, _ in peer.asked] == ["guest-file-open", "guest-file-read", "guest-file-close"]
    assert peer.asked[2] == ("guest-file-close", {"handle": 3})


_TCP = """  sl  local_address rem_address   st tx_queue
   0: 00000000:0016 00000000:0000 0A 00000000:00000000
   1: 0100007F:0050 0100007F:9999 01 00000000:00000000
"""


@pytest.mark.parametrize(("port", "listens"), [(22, True), (80, False), (0x9999, False), (23, False)])
def test_only_a_listening_socket_is_one(talk: Callable[..., tuple[Agent, Peer]], port: int, listens: bool) -> None:
    table = {"return": {"buf-b64": base64.b64encode(_TCP.encode()).decode()}}
    empty = {"return": {"buf-b64": ""}}
    agent, _ = talk({"return": 1}, table, {"return": {}}, {"return": 2}, empty, {"return": {}})
    assert agent.listens(port) is listens


def test_an_answer_in_pieces_is_put_together(talk: Callable[..., tuple[Agent, Peer]]) -> None:
    agent, _ = talk((b'{"ret', b'urn": "a', b'b"}\n'))
    assert agent.ask("guest-ping") == "ab"


def test_two_answers_in_one_piece_are_taken_apart(talk: Callable[..., tuple[Agent, Peer]]) -> None:
    agent, _ = talk(b'{"return": 1}\n{"return": 2}\n', b"")
    assert agent.ask("guest-ping") == 1
    assert agent.ask("guest-ping") == 2


def test_a_large_answer_is_taken(talk: Callable[..., tuple[Agent, Peer]]) -> None:
    agent, _ = talk({"return": "x" * 3_000_000})
    assert len(agent.ask("guest-ping")) == 3_000_000


def test_a_silent_agent_is_given_up(talk: Callable[..., tuple[Agent, Peer]]) -> None:
    agent, _ = talk(b"")
    begin = time.monotonic()
    _refused(lambda: agent.ask("guest-ping", timeout_s=0.2))
    # Without that it would be ten.
    assert time.monotonic() - begin < 9


def test_an_agent_that_drips_for_ever_is_given_up(talk: Callable[..., tuple[Agent, Peer]]) -> None:
    agent, peer = talk(b"")
    stop = threading.Event()

    def drip() -> None:
        try:
            while not stop.wait(0.0001):
                peer.send(b"x")
        except OSError:
            return

    dripping = threading.Thread(target=drip)
    dripping.start()
    try:
        begin = time.monotonic()
        _refused(lambda: agent.ask("guest-ping", timeout_s=0.3))
        assert time.monotonic() - begin < 30
    finally:
        stop.set()
        dripping.join()


@pytest.mark.parametrize(
    "answer",
    [
        b"\n",
        b"nonsense\n",
        b"\xff\xfe\x00\n",
        b"null\n",
        b"[]\n",
        b"3\n",
        b"{}\n",
        b'{"error": "x"}\n',
        b'{"error": ["x"]}\n',
        b'{"error": {}}\n',
        b'{"error": {"class": "GenericError", "desc": "no such command"}}\n',
        b"[" * 200_000 + b"\n",
        b'{"return": ' + b"1" * 100_000 + b"}\n",
        b"x" * (5 << 20),
    ],
    ids=lambda answer: repr(answer[:20]),
)
def test_nonsense_from_a_guest_is_a_refusal(talk: Callable[..., tuple[Agent, Peer]], answer: bytes) -> None:
    agent, _ = talk(answer)
    _refused(lambda: agent.ask("guest-ping"))


def test_the_words_of_a_refusal_reach_no_terminal_as_they_are(talk: Callable[..., tuple[Agent, Peer]]) -> None:
    agent, _ = talk({"error": {"desc": "\x1b[31m" + "x" * 10_000}})
    error = _refused(lambda: agent.ask("guest-ping"))
    assert "\x1b" not in error.message
    assert len(error.message) < 1000


@pytest.mark.parametrize("read", [None, 7, [], {"buf-b64": 5}, {"buf-b64": "x"}, {"buf-b64": "ünï"}])
def test_a_content_that_makes_no_sense_is_a_refusal(talk: Callable[..., tuple[Agent, Peer]], read: Any) -> None:
    agent, _ = talk({"return": 1}, {"return": read}, {"return": {}})
    _refused(lambda: agent.read_file("/etc/x"))


def test_a_flood_of_lines_does_not_outlast_the_deadline() -> None:
    ours, theirs = socket.socketpair()
    stop = threading.Event()

    def flood() -> None:
        with contextlib.suppress(OSError):
            while not stop.is_set():
                theirs.sendall(b"x\n" * 1000)

    threading.Thread(target=flood, daemon=True).start()
    begin = time.monotonic()
    assert not Agent(ours).synchronise(0.5)
    assert time.monotonic() - begin < 30
    stop.set()
    ours.close()
    theirs.close()


def test_a_connection_that_ends_is_a_refusal(talk: Callable[..., tuple[Agent, Peer]]) -> None:
    agent, peer = talk()
    peer.connection.shutdown(socket.SHUT_RDWR)
    _refused(lambda: agent.ask("guest-ping"))


_STALE = [
    b'{"return": "left over"}\n',
    b'{"return": "half',
    b"\xff\xff\xff",
    b'\xff{"return": 12345}\n',
    b'\xff{"return": [1]}\n\xff{"return": {}}\n\xff[]\n\xffnull\n\xff{"error": 1}\n',
    b"\xff" + b"[" * 100_000 + b"\n",
    bytes(range(256)) * 100 + b"\n",
]


@pytest.mark.parametrize("stale", _STALE, ids=lambda stale: repr(stale[:20]))
def test_what_an_earlier_conversation_left_is_skipped(stale: bytes) -> None:
    ours, theirs = socket.socketpair()
    theirs.sendall(stale)
    peer = Peer(theirs, lambda _command, _arguments: {"return": "mine"})
    with connect(lambda _left: ours, 30) as agent:
        assert agent.ask("guest-ping") == "mine"
    peer.close()


def test_an_agent_that_comes_up_late_is_waited_for() -> None:
    attempts = []

    def open_channel(_left: float) -> socket.socket:
        attempts.append(1)
        if len(attempts) < 3:
            raise ConnectionRefusedError
        ours, theirs = socket.socketpair()
        Peer(theirs, lambda _command, _arguments: {"return": "late"})
        return ours

    with connect(open_channel, 60) as agent:
        assert agent.ask("guest-ping") == "late"


def test_an_agent_that_misses_the_first_requests_is_asked_again() -> None:
    ours, theirs = socket.socketpair()

    def come_up() -> None:
        time.sleep(0.4)
        # What was sent to nobody is lost.
        theirs.recv(1 << 16)
        Peer(theirs, lambda _command, _arguments: {"return": "here"})

    threading.Thread(target=come_up).start()
    with connect(lambda _left: ours, 60) as agent:
        assert agent.ask("guest-ping") == "here"


def test_an_agent_that_never_answers_is_given_up_in_time() -> None:
    ours, _theirs = socket.socketpair()
    begin = time.monotonic()
    with pytest.raises(BangerError) as caught, connect(lambda _left: ours, 0.5):
        raise AssertionError("nobody answered")
    assert caught.value.reason is Reason.TIMEOUT
    assert time.monotonic() - begin < 30


def test_a_machine_that_ended_is_not_waited_for() -> None:
    def refuse(_left: float) -> socket.socket:
        raise ConnectionRefusedError

    begin = time.monotonic()
    with pytest.raises(BangerError) as caught, connect(refuse, 60, lambda: False):
        raise AssertionError("nobody answered")
    assert caught.value.reason is Reason.MONITOR_DIED
    assert time.monotonic() - begin < 30
