"""The real dig against the real server."""

from __future__ import annotations

import re
import subprocess
from collections.abc import Iterator
from dataclasses import dataclass

import pytest

from tests.dns.questions import MACHINES
from tests.dns.serving import serve

CROWD = {f"machine-{number:03}": "172.16.0.9" for number in range(200)}


@dataclass(frozen=True)
class Said:
    status: str
    flags: list[str]
    text: str

    def section(self, name: str) -> list[str]:
        """The records of a section, each as dig prints it but with single spaces."""
        found = re.search(rf"^;; {name} SECTION:\n(.*?)^$", self.text, re.MULTILINE | re.DOTALL)
        return [" ".join(line.split()) for line in found[1].splitlines()] if found else []


@pytest.fixture(scope="module")
def port() -> Iterator[int]:
    with serve(machines={**MACHINES, **CROWD}) as port:
        yield port


def dig(port: int, *words: str) -> Said:
    argv = ["dig", "@127.0.0.1", "-p", str(port), "+tries=1", "+timeout=30", *words]
    done = subprocess.run(argv, capture_output=True, text=True, timeout=60, check=True)
    head = re.search(r"status: (\w+), id", done.stdout)
    flags = re.search(r"^;; flags: ([a-z ]*);", done.stdout, re.MULTILINE)
    assert head, done.stdout
    assert flags, done.stdout
    assert "malformed" not in done.stdout.lower()
    return Said(head[1], flags[1].split(), done.stdout)


@pytest.mark.parametrize("way", ["+notcp", "+tcp"])
@pytest.mark.parametrize("bufsize", ["+noedns", "+bufsize=512", "+bufsize=1232", "+bufsize=4096"])
def test_a_machines_address_is_found(port: int, way: str, bufsize: str) -> None:
    said = dig(port, way, bufsize, "web.vm")
    assert (said.status, said.flags) == ("NOERROR", ["qr", "aa", "rd"])
    assert said.section("ANSWER") == ["web.vm. 2 IN A 172.16.0.2"]
    assert ("udp: 1232" in said.text) is (bufsize != "+noedns")


def test_a_spelling_comes_back_as_it_went(port: int) -> None:
    said = dig(port, "WeB.vM")
    assert said.section("QUESTION") == [";WeB.vM. IN A"]
    assert said.section("ANSWER") == ["WeB.vM. 2 IN A 172.16.0.2"]


def test_another_type_of_a_machines_name_is_empty_for_a_short_time(port: int) -> None:
    said = dig(port, "web.vm", "AAAA")
    assert (said.status, said.section("ANSWER")) == ("NOERROR", [])
    assert said.section("AUTHORITY") == ["vm. 2 IN SOA vm. nobody.invalid. 1 3600 1200 604800 2"]


def test_a_name_that_nobody_has_does_not_exist(port: int) -> None:
    said = dig(port, "nobody.vm")
    assert (said.status, said.flags) == ("NXDOMAIN", ["qr", "aa", "rd"])
    assert said.section("AUTHORITY") == ["vm. 2 IN SOA vm. nobody.invalid. 1 3600 1200 604800 2"]


@pytest.mark.parametrize("way", ["+notcp", "+tcp"])
def test_any_is_the_address(port: int, way: str) -> None:
    said = dig(port, way, "web.vm", "ANY")
    assert (said.status, said.section("ANSWER")) == ("NOERROR", ["web.vm. 2 IN A 172.16.0.2"])


def test_an_address_leads_back(port: int) -> None:
    assert dig(port, "-x", "172.16.0.5").section("ANSWER") == ["5.0.16.172.in-addr.arpa. 2 IN PTR db.vm."]
    unknown = dig(port, "-x", "172.16.0.77")
    assert unknown.status == "NXDOMAIN"
    assert unknown.section("AUTHORITY")[0].startswith("0.16.172.in-addr.arpa. 2 IN SOA ")


@pytest.mark.parametrize("words", [("example.com",), ("-x", "172.16.1.5"), ("-c", "CH", "version.bind", "TXT"), (".",)])
def test_outside_of_the_zones_is_refused(port: int, words: tuple[str, ...]) -> None:
    said = dig(port, *words)
    assert (said.status, said.flags) == ("REFUSED", ["qr", "rd"])


def test_what_is_no_question_is_not_implemented(port: int) -> None:
    assert dig(port, "+opcode=status", "web.vm").status == "NOTIMP"


def test_a_later_edns_is_answered_in_the_one_that_is_known(port: int) -> None:
    assert dig(port, "+edns=1", "+noednsnegotiation", "web.vm").status == "BADVERS"
    # dig tries again with what the answer says.
    assert dig(port, "+edns=1", "web.vm").section("ANSWER") == ["web.vm. 2 IN A 172.16.0.2"]


def test_cookies_and_other_options_are_no_hindrance(port: int) -> None:
    said = dig(port, "+cookie", "+nsid", "+dnssec", "+subnet=192.0.2.0/24", "web.vm")
    assert said.section("ANSWER") == ["web.vm. 2 IN A 172.16.0.2"]


def test_an_answer_that_does_not_fit_is_fetched_by_tcp(port: int) -> None:
    cut = dig(port, "-x", "172.16.0.9", "+ignore")
    assert "tc" in cut.flags
    assert cut.section("ANSWER") == []
    whole = dig(port, "-x", "172.16.0.9")
    assert "tc" not in whole.flags
    assert "Truncated, retrying in TCP mode" in whole.text
    assert sorted(line.split()[-1] for line in whole.section("ANSWER")) == [f"{name}.vm." for name in CROWD]


def test_several_questions_go_through_one_connection(port: int) -> None:
    argv = ["dig", "@127.0.0.1", "-p", str(port), "+tcp", "+keepopen", "+short", "web.vm", "db.vm", "build-01.vm"]
    done = subprocess.run(argv, capture_output=True, text=True, timeout=60, check=True)
    assert done.stdout.split() == ["172.16.0.2", "172.16.0.5", "172.16.0.254"]


def test_a_transfer_is_refused(port: int) -> None:
    argv = ["dig", "@127.0.0.1", "-p", str(port), "vm", "AXFR"]
    assert "Transfer failed" in subprocess.run(argv, capture_output=True, text=True, timeout=60, check=False).stdout
