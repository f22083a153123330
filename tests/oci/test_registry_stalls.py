"""A registry that takes a connection and says nothing more is given up in time, at each step."""

from __future__ import annotations

import socket
import threading
import time
from collections.abc import Iterator

import pytest

from banger.errors import BangerError, Reason
from pipelines.oci import registry
from pipelines.oci.blob import read_verified
from pipelines.oci.reference import parse_reference
from pipelines.oci.registry import RegistrySource
from pipelines.oci.retry import Patience
from pipelines.oci.source import Descriptor

_QUICK = Patience(attempts=2, first_s=0.005, longest_s=0.02)
_HEAD = b"HTTP/1.1 200 OK\r\nContent-Length: 1000\r\n\r\n"


@pytest.fixture(params=[b"", b"HTTP/1.1 200 OK\r\n", _HEAD, _HEAD + b"some"], ids=["nothing", "half", "head", "part"])
def host(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> Iterator[str]:
    """Says this much to whoever comes, and holds the line."""
    monkeypatch.setattr(registry, "_TIMEOUT_S", (1.0, 0.3))
    with socket.create_server(("127.0.0.1", 0)) as server:
        held: list[socket.socket] = []

        def serve() -> None:
            while True:
                try:
                    connection, _address = server.accept()
                except OSError:
                    return
                held.append(connection)
                connection.sendall(request.param)

        threading.Thread(target=serve, daemon=True).start()
        yield f"127.0.0.1:{server.getsockname()[1]}"
        server.shutdown(socket.SHUT_RDWR)
        for connection in held:
            connection.close()


def test_a_manifest_or_a_blob_that_never_comes_is_given_up(host: str, nobody: dict[str, str]) -> None:
    source = RegistrySource(parse_reference(f"{host}/a"), environment=nobody, patience=_QUICK)
    blob = Descriptor("", "sha256:" + "0" * 64, 1000)
    for ask in (source.read_root, lambda: read_verified(source, blob, 1 << 20, _QUICK)):
        begin = time.monotonic()
        with pytest.raises(BangerError) as failure:
            ask()
        assert failure.value.reason is Reason.NETWORK
        # Much less than it would take without the limits above.
        assert time.monotonic() - begin < 30
