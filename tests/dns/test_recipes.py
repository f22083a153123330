"""The recipes of docs/dns-routing.md, each as it stands there, with the real programs and the C library's own eyes."""

from __future__ import annotations

import re
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.dns.daemons import call, start_network_manager
from tests.dns.lab import Lab, fetch_packages, open_lab, wait_for
from tests.ordinary_user import UID

PAGE = Path(__file__).parents[2] / "docs/dns-routing.md"
# Another server, which has answers of its own for everything, also for what is not its business.
WORLD = "192.0.2.53"
ELSEWHERE = "7.7.7.7"


def recipe(path: str) -> str:
    """What the page says is in a file."""
    found = re.findall(rf"^```\n# {re.escape(path)}\n(.*?)^```$", PAGE.read_text(), re.MULTILINE | re.DOTALL)
    assert len(found) == 1
    return str(found[0])


@pytest.fixture
def lab(tmp_path: Path) -> Iterator[Lab]:
    with open_lab(tmp_path / "lab") as lab:
        lab.write("/etc/nsswitch.conf", "passwd: files\ngroup: files\nhosts: files dns\n")
        lab.run("ip", "addr", "add", f"{WORLD}/32", "dev", "lo")
        own = [f"--listen-address={WORLD}", "--bind-interfaces", "--pid-file=/run/world.pid"]
        answers = [f"--address=/example/{ELSEWHERE}", "--address=/vm/203.0.113.99", "--ptr-record=*.arpa,wrong.example"]
        lab.start("dnsmasq", "-k", "-C", "/dev/null", "--no-resolv", "--no-hosts", *own, *answers)
        wait_for(lambda: _is_served(lab, WORLD))
        yield lab


def _is_served(lab: Lab, address: str) -> bool:
    return f"{address}:53" in lab.run("ss", "-Huln")


def install(lab: Lab, path: str) -> str:
    lab.write(path, recipe(path))
    return path


def assert_names_are_found(lab: Lab) -> None:
    assert lab.hosts("web.vm") == ["172.16.0.2", "web.vm"]
    assert lab.hosts("WEB.vm")[0] == "172.16.0.2"
    assert lab.hosts("api.web.vm")[0] == "172.16.0.2"
    assert lab.hosts("172.16.0.2") == ["172.16.0.2", "web.vm"]
    assert lab.hosts("_gateway.vm") == ["172.16.0.1", "_gateway.vm"]
    assert lab.hosts("nobody.vm") == []
    assert lab.hosts("172.16.0.77") == []


def assert_the_rest_is_found_elsewhere(lab: Lab) -> None:
    assert lab.hosts("other.example") == [ELSEWHERE, "other.example"]


def test_without_a_recipe_the_host_asks_elsewhere(lab: Lab) -> None:
    lab.serve({"web": "172.16.0.2"})
    lab.write("/etc/resolv.conf", f"nameserver {WORLD}\n")
    assert lab.hosts("web.vm") == ["203.0.113.99", "web.vm"]
    assert_the_rest_is_found_elsewhere(lab)


@pytest.mark.parametrize("strict", [[], ["--bogus-priv", "--domain-needed", "--stop-dns-rebind", "--filterwin2k"]])
def test_dnsmasq(lab: Lab, strict: list[str]) -> None:
    lab.serve({"web": "172.16.0.2"})
    install(lab, "/etc/dnsmasq.d/banger.conf")
    lab.write("/etc/resolv.conf", "nameserver 127.0.0.1\n")
    # As Debian's service starts it, and with what else its configuration file has to offer.
    own = ["--conf-file=/dev/null", "--conf-dir=/etc/dnsmasq.d,.dpkg-dist,.dpkg-old,.dpkg-new", "--bind-interfaces"]
    lab.start("dnsmasq", "-k", *own, "--listen-address=127.0.0.1", "--no-resolv", f"--server={WORLD}", *strict)
    wait_for(lambda: _is_served(lab, "127.0.0.1"))
    assert_names_are_found(lab)
    assert_the_rest_is_found_elsewhere(lab)
    assert call(lab, "find") == {"kind": "other", "is_wired": True, "hint": ""}


@pytest.mark.slow
def test_networkmanager_with_dnsmasq(lab: Lab, tmp_path: Path) -> None:
    lab.serve({"web": "172.16.0.2"})
    lab.install(fetch_packages(tmp_path, "network-manager", "dbus-daemon"))
    install(lab, "/etc/NetworkManager/dnsmasq.d/banger.conf")
    install(lab, "/etc/NetworkManager/conf.d/dnsmasq.conf")
    lab.make_bridge()
    lab.run("rm", "-f", "/etc/resolv.conf")
    start_network_manager(lab)
    wait_for(lambda: "127.0.0.1" in lab.run("cat", "/etc/resolv.conf", check=False))
    wait_for(lambda: _is_served(lab, "127.0.0.1"))
    assert_names_are_found(lab)


@pytest.mark.slow
def test_unbound(lab: Lab, tmp_path: Path) -> None:
    lab.serve({"web": "172.16.0.2"})
    lab.install(fetch_packages(tmp_path, "unbound"))
    # It validates, and cannot: the root is out of reach, so that what it holds for secure stays unanswered.
    anchor = ". DS 20326 8 2 e06d44b80b8f1d39a95c0b0d7c65d08458e880409bbc683457104237c7f8ec8d"
    lab.write(
        "/etc/unbound/unbound.conf.d/root-auto-trust-anchor-file.conf", f'server:\n    trust-anchor: "{anchor}"\n'
    )
    strict = "private-address: 172.16.0.0/12\n    use-caps-for-id: yes\n    log-queries: no\n    use-syslog: no\n"
    lab.write("/etc/unbound/unbound.conf.d/strict.conf", f'server:\n    {strict}    username: ""\n')
    install(lab, "/etc/unbound/unbound.conf.d/banger.conf")
    lab.write("/etc/resolv.conf", "nameserver 127.0.0.1\n")
    lab.run("unbound-checkconf")
    lab.start("unbound", "-d", "-p")
    wait_for(lambda: _is_served(lab, "127.0.0.1"))
    assert_names_are_found(lab)


def test_resolv_conf_with_a_firewall_that_turns_the_port(lab: Lab) -> None:
    lab.serve({"web": "172.16.0.2"})
    install(lab, "/etc/resolv.conf")
    rules = install(lab, "/etc/banger-dns.nft")
    lab.run("nft", "-f", rules)
    lab.run("nft", "-f", rules)
    assert lab.run("nft", "list", "ruleset").count("redirect") == 1
    assert_names_are_found(lab)
    assert_the_rest_is_found_elsewhere(lab)
    assert lab.run("dig", "+short", "+tcp", "@127.0.0.153", "web.vm") == "172.16.0.2\n"


def test_resolv_conf_with_a_port_that_is_free_for_all(lab: Lab) -> None:
    install(lab, "/etc/resolv.conf")
    lab.run("sysctl", "-p", install(lab, "/etc/sysctl.d/50-banger.conf"))
    anybody = ("setpriv", "--reuid", str(UID), "--regid", str(UID), "--clear-groups")
    # Also an interpreter in root's own folders is to be read.
    capabilities = ("--inh-caps", "+dac_read_search", "--ambient-caps", "+dac_read_search")
    lab.serve({"web": "172.16.0.2"}, "127.0.0.153:53", by=(*anybody, *capabilities))
    assert_names_are_found(lab)
    assert_the_rest_is_found_elsewhere(lab)


def test_resolv_conf_while_the_daemon_does_not_run(lab: Lab) -> None:
    install(lab, "/etc/resolv.conf")
    lab.run("nft", "-f", install(lab, "/etc/banger-dns.nft"))
    assert_the_rest_is_found_elsewhere(lab)


def test_every_recipe_of_the_page_is_tried_here() -> None:
    paths = re.findall(r"^```\n# (\S+)\n", PAGE.read_text(), re.MULTILINE)
    tests = Path(__file__).read_text()
    assert paths
    assert all(f'install(lab, "{path}")' in tests for path in paths)
