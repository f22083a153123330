"""The real systemd-resolved, told by banger to ask the real server."""

from __future__ import annotations

import contextlib
import subprocess
from collections.abc import Iterator
from pathlib import Path

import pytest

from banger.network.privileges import plan_helper
from tests.dns.daemons import call, prepare_resolved, start_network_manager, start_resolved
from tests.dns.lab import Lab, fetch_packages, open_lab, wait_for
from tests.ordinary_user import become_user

pytestmark = pytest.mark.slow

MACHINES = {"web": "172.16.0.2"}


@pytest.fixture(scope="module")
def packages(tmp_path_factory: pytest.TempPathFactory) -> Path:
    # Never installed on the host of the tests: there, it would take over /etc/resolv.conf.
    names = ("systemd-resolved", "network-manager", "dbus-daemon")
    return fetch_packages(tmp_path_factory.mktemp("debian"), *names)


@pytest.fixture
def lab(tmp_path: Path) -> Iterator[Lab]:
    with open_lab(tmp_path / "lab") as lab:
        yield lab


def shown(lab: Lab, verb: str) -> list[str]:
    return lab.run("resolvectl", verb, "banger0").partition("):")[2].split()


def test_names_and_addresses_are_found_once_resolved_was_told(lab: Lab, packages: Path) -> None:
    prepare_resolved(lab, packages)
    lab.make_bridge()
    lab.serve(MACHINES)
    assert lab.hosts("web.vm") == []
    assert call(lab, "ensure") is True
    assert lab.hosts("web.vm") == ["172.16.0.2", "web.vm"]
    assert lab.hosts("api.web.vm") == ["172.16.0.2", "api.web.vm"]
    assert lab.hosts("172.16.0.2") == ["172.16.0.2", "web.vm"]
    assert lab.hosts("nobody.vm") == []
    assert call(lab, "find") == {"kind": "resolved", "is_wired": True, "hint": ""}
    assert call(lab, "unroute") is None
    lab.run("resolvectl", "flush-caches")
    assert lab.hosts("web.vm") == []
    assert call(lab, "find") == {
        "kind": "resolved",
        "is_wired": False,
        "hint": "banger tells systemd-resolved when a machine starts",
    }


def test_nothing_else_takes_the_way_of_the_bridge(lab: Lab, packages: Path) -> None:
    prepare_resolved(lab, packages)
    lab.make_bridge()
    lab.run("resolvectl", "default-route", "banger0", "yes")
    call(lab, "ensure")
    assert shown(lab, "default-route") == ["no"]
    assert sorted(shown(lab, "domain")) == ["~0.16.172.in-addr.arpa", "~vm"]
    assert shown(lab, "dns") == ["127.0.0.1:42069"]


def test_telling_again_changes_nothing_and_another_port_counts(lab: Lab, packages: Path) -> None:
    prepare_resolved(lab, packages)
    lab.make_bridge()
    assert [call(lab, "ensure"), call(lab, "ensure")] == [True, True]
    lab.serve(MACHINES, "127.0.0.1:5300")
    assert lab.hosts("web.vm") == []
    assert call(lab, "ensure", ("0.0.0.0", 5300)) is True
    assert shown(lab, "dns") == ["127.0.0.1:5300"]
    assert lab.hosts("web.vm") == ["172.16.0.2", "web.vm"]


@pytest.mark.parametrize("config", ["DNSSEC=yes", "DNSOverTLS=yes", "DNSSEC=yes\nDNSOverTLS=yes"])
def test_what_is_asked_of_servers_in_general_is_not_asked_of_this_one(lab: Lab, packages: Path, config: str) -> None:
    prepare_resolved(lab, packages, config)
    lab.make_bridge()
    lab.serve(MACHINES)
    call(lab, "ensure")
    assert lab.hosts("web.vm") == ["172.16.0.2", "web.vm"]


def test_while_no_machine_runs_resolved_asks_others_and_asks_again_with_the_next(lab: Lab, packages: Path) -> None:
    prepare_resolved(lab, packages)
    lab.make_bridge()
    lab.serve(MACHINES)
    call(lab, "ensure")
    lab.run("ip", "link", "set", "machine0", "down")
    wait_for(lambda: lab.hosts("web.vm") == [])
    assert call(lab, "find") == {"kind": "resolved", "is_wired": True, "hint": ""}
    lab.run("ip", "link", "set", "machine0", "up")
    wait_for(lambda: lab.hosts("web.vm") == ["172.16.0.2", "web.vm"])


def test_networkmanager_beside_resolved_leaves_the_bridge_alone(lab: Lab, packages: Path) -> None:
    prepare_resolved(lab, packages)
    lab.make_bridge()
    lab.serve(MACHINES)
    start_network_manager(lab, "[main]\ndns=systemd-resolved\n")
    wait_for(lambda: "198.51.100.1" in lab.run("resolvectl", "dns", "up0"))
    call(lab, "ensure")
    for change in (["connection", "down", "up"], ["connection", "up", "up"], ["general", "reload"]):
        lab.run("nmcli", *change)
        assert shown(lab, "dns") == ["127.0.0.1:42069"]
    assert lab.hosts("web.vm") == ["172.16.0.2", "web.vm"]


def test_a_resolved_that_starts_again_remembers(lab: Lab, packages: Path) -> None:
    prepare_resolved(lab, packages)
    lab.make_bridge()
    lab.serve(MACHINES)
    call(lab, "ensure")
    lab.run("sh", "-ec", "kill -9 $(pidof systemd-resolved)")
    wait_for(lambda: call(lab, "ensure") is False)
    start_resolved(lab)
    assert lab.hosts("web.vm") == ["172.16.0.2", "web.vm"]


def test_the_words_of_the_page_do_what_it_says(lab: Lab, packages: Path) -> None:
    prepare_resolved(lab, packages)
    lab.make_bridge()
    lab.serve(MACHINES)
    call(lab, "ensure")
    page = (Path(__file__).parents[2] / "docs/dns-routing.md").read_text()
    commands = [
        line.partition("#")[0].split() for line in page.splitlines() if line.startswith(("resolvectl", "sudo res"))
    ]
    status, query, revert = commands
    assert "127.0.0.1:42069" in lab.run(*status)
    assert "172.16.0.2" in lab.run(*query)
    lab.run(*revert)
    assert shown(lab, "dns") == []


def test_a_machine_that_goes_and_comes_is_not_remembered_for_long(lab: Lab, packages: Path) -> None:
    prepare_resolved(lab, packages)
    lab.make_bridge()
    call(lab, "ensure")
    with contextlib.ExitStack() as first:
        Lab(first, lab.pid, lab.folder).serve(MACHINES)
        assert lab.hosts("web.vm") == ["172.16.0.2", "web.vm"]
        assert lab.hosts("new.vm") == []
    lab.serve({"new": "172.16.0.3"})
    wait_for(lambda: lab.hosts("new.vm") == ["172.16.0.3", "new.vm"])
    wait_for(lambda: lab.hosts("web.vm") == [])


def test_a_resolved_that_refuses_a_part_is_told_nothing(lab: Lab, packages: Path) -> None:
    prepare_resolved(lab, packages)
    lab.make_bridge()
    refuse = '#!/bin/sh\n[ "$1" != dns ] || { echo "no such thing" >&2; exit 1; }\nexec /usr/bin/resolvectl "$@"\n'
    lab.write("/run/odd/resolvectl", refuse)
    lab.run("chmod", "755", "/run/odd/resolvectl")
    refused = call(lab, "ensure", by=["env", "PATH=/run/odd:/usr/sbin:/usr/bin"])
    assert isinstance(refused, list)
    assert refused[0] == "command-failed"
    assert "no such thing" in refused[1]
    assert shown(lab, "domain") == []


@pytest.mark.parametrize("listen", [("192.0.2.1", 53), ("172.16.0.1", 42069)])
def test_a_server_elsewhere_is_not_told_of(lab: Lab, packages: Path, listen: tuple[str, int]) -> None:
    prepare_resolved(lab, packages)
    lab.make_bridge()
    assert call(lab, "ensure", listen) is False
    assert shown(lab, "dns") == []
    found = call(lab, "find", listen)
    assert isinstance(found, dict)
    assert (found["kind"], found["is_wired"]) == ("resolved", False)
    assert "loopback" in found["hint"]


def test_without_a_bridge_there_is_nothing_to_tell(lab: Lab, packages: Path) -> None:
    prepare_resolved(lab, packages)
    assert call(lab, "ensure") is False
    assert call(lab, "unroute") is None


def test_the_bridge_of_somebody_else_is_left_alone(lab: Lab, packages: Path) -> None:
    prepare_resolved(lab, packages)
    lab.run("ip", "link", "add", "banger0", "type", "bridge")
    lab.run("ip", "link", "set", "banger0", "up")
    lab.run("resolvectl", "dns", "banger0", "192.0.2.1")
    refused = call(lab, "ensure")
    assert isinstance(refused, list)
    assert refused[0] == "not-found"
    call(lab, "unroute")
    assert shown(lab, "dns") == ["192.0.2.1"]


def test_an_ordinary_user_tells_resolved_by_the_helper_alone(lab: Lab, packages: Path, tmp_path: Path) -> None:
    prepare_resolved(lab, packages)
    lab.make_bridge()
    lab.serve(MACHINES)
    (tmp_path / "user").mkdir()
    rule = f"lab ALL=(root) NOPASSWD: {' '.join(plan_helper())} *"
    user = become_user(tmp_path / "user", sudoers=rule)
    # Each time in a mount namespace of its own, like every other command of that user.
    by = ["unshare", "--mount", *user]
    assert call(lab, "ensure", by=by) is True
    assert lab.hosts("web.vm") == ["172.16.0.2", "web.vm"]
    assert call(lab, "find", by=by) == {"kind": "resolved", "is_wired": True, "hint": ""}
    assert call(lab, "unroute", by=by) is None
    assert shown(lab, "dns") == []


def test_when_it_is_told_already_no_rights_are_needed(lab: Lab, packages: Path, tmp_path: Path) -> None:
    prepare_resolved(lab, packages)
    lab.make_bridge()
    (tmp_path / "user").mkdir()
    by = ["unshare", "--mount", *become_user(tmp_path / "user", sudoers="")]
    refused = call(lab, "ensure", by=by)
    assert isinstance(refused, list)
    assert refused[0] == "no-permission"
    call(lab, "ensure")
    assert call(lab, "ensure", by=by) is True


def test_where_resolved_does_not_run_nothing_is_done_or_said(lab: Lab, packages: Path) -> None:
    lab.make_bridge()
    assert call(lab, "ensure") is False
    assert call(lab, "unroute") is None
    found = call(lab, "find")
    assert isinstance(found, dict)
    assert (found["kind"], found["is_wired"]) == ("none", False)
    assert "docs/dns-routing.md" in found["hint"]


def test_a_resolved_that_nobody_asks_is_told_and_the_user_too(lab: Lab, packages: Path) -> None:
    prepare_resolved(lab, packages, is_asked=False)
    lab.make_bridge()
    assert call(lab, "ensure") is True
    found = call(lab, "find")
    assert isinstance(found, dict)
    assert (found["kind"], found["is_wired"]) == ("none", False)
    assert "/etc/resolv.conf" in found["hint"]


def test_the_resolved_of_another_network_namespace_is_left_alone(lab: Lab, packages: Path) -> None:
    prepare_resolved(lab, packages)
    lab.make_bridge()
    # There, the bridge's number is that of another interface here.
    there = ["unshare", "--net", "sh", "-ec"]
    make = 'ip link add banger0 address 06:00:ac:10:00:01 type bridge; ip link set banger0 up; exec "$@"'
    assert call(lab, "ensure", by=[*there, make, "sh"]) is False
    assert shown(lab, "dns") == []
    # It can be reached, and would have done as it is told.
    subprocess.run(
        lab.argv(*there, f"{make}", "sh", "resolvectl", "dns", "banger0", "192.0.2.1"), check=True, timeout=60
    )
    assert shown(lab, "dns") == ["192.0.2.1"]
