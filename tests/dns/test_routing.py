"""What is taken back of the host's resolver; the real one is in test_resolved.py."""

from __future__ import annotations

import pytest

from banger.dns import routing
from banger.network import DEFAULT_SUBNET
from banger.network.resolved import Route, plan_route
from banger.network.subnet import Subnet

LISTEN = ("127.0.0.1", 42069)


@pytest.fixture
def removed(monkeypatch: pytest.MonkeyPatch) -> list[str]:
    """The bridges of which resolved was told to forget all; it asks the server at `LISTEN`."""
    found: list[str] = []

    def remove(subnet: Subnet) -> None:
        found.append(subnet.bridge)

    def route(_bridge: str) -> Route:
        server = routing._find_local_server(LISTEN)
        assert server is not None
        return plan_route(DEFAULT_SUBNET, server)

    monkeypatch.setattr("os.geteuid", lambda: 0)
    monkeypatch.setattr("banger.network.resolved.is_running", lambda: True)
    monkeypatch.setattr("banger.network.resolved.find_route", route)
    monkeypatch.setattr("banger.network.resolved.remove_route", remove)
    return found


@pytest.mark.parametrize("listen", [None, LISTEN, ("0.0.0.0", 42069)])
def test_the_way_to_the_own_server_is_taken_back(removed: list[str], listen: tuple[str, int] | None) -> None:
    routing.unroute(DEFAULT_SUBNET, listen)
    assert removed == [DEFAULT_SUBNET.bridge]


@pytest.mark.parametrize("listen", [("127.0.0.1", 5300), ("127.0.0.2", 42069), ("192.0.2.1", 42069)])
def test_the_way_to_the_server_of_another_user_stays(removed: list[str], listen: tuple[str, int]) -> None:
    routing.unroute(DEFAULT_SUBNET, listen)
    assert removed == []
