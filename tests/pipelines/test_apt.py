"""What apt says is read, and what it should never say is refused."""

from __future__ import annotations

import json
from pathlib import Path
from typing import TYPE_CHECKING

import pytest
from hypothesis import given
from hypothesis import strategies as st

from banger.errors import BangerError, Reason
from pipelines.apt import (
    Mirrors,
    _parse_uri_line,
    _release_date,
    _without_credentials,
    find_mirrors,
    format_sources,
    plan_mirrors,
)

if TYPE_CHECKING:
    from conftest import Bench

_HASH = "a" * 64


@pytest.mark.parametrize(
    ("file", "name", "version", "architecture"),
    [
        ("jq_1.6-2.1_amd64.deb", "jq", "1.6-2.1", "amd64"),
        ("git_1%3a2.39.5-0+deb12u2_amd64.deb", "git", "1:2.39.5-0+deb12u2", "amd64"),
        ("g++_4%3a12.2.0-3_amd64.deb", "g++", "4:12.2.0-3", "amd64"),
        ("tzdata_2025b-0+deb12u1_all.deb", "tzdata", "2025b-0+deb12u1", "all"),
        ("libc6_2.36-9~rc1_amd64.deb", "libc6", "2.36-9~rc1", "amd64"),
    ],
)
def test_a_package_is_read_from_the_name_of_its_file(file: str, name: str, version: str, architecture: str) -> None:
    line = f"'http://mirror.invalid/debian/pool/x/{file}' {file} 1234 SHA256:{_HASH}"
    assert _parse_uri_line(line) == {
        "name": name,
        "version": version,
        "architecture": architecture,
        "sha256": _HASH,
        "size_bytes": 1234,
    }


@pytest.mark.parametrize(
    "line",
    [
        "'http://mirror.invalid/x.deb' x.deb 1 SHA256:" + _HASH,
        "'http://mirror.invalid/x_1_amd64.deb' x_1_amd64.deb 1 MD5Sum:" + "a" * 32,
        "'http://mirror.invalid/x_1_amd64.deb' x_1_amd64.deb 1",
        "'http://mirror.invalid/x_1_amd64.deb' x_1_amd64.deb -1 SHA256:" + _HASH,
        "'http://mirror.invalid/x_1_amd64.deb x_1_amd64.deb 1 SHA256:" + _HASH,
        "'http://mirror.invalid/x_1_2_amd64.deb' x_1_2_amd64.deb 1 SHA256:" + _HASH,
        "''",
        "'",
    ],
)
def test_an_unknown_line_is_refused(line: str) -> None:
    with pytest.raises(BangerError) as caught:
        _parse_uri_line(line)
    assert caught.value.reason is Reason.COMMAND_FAILED


@pytest.mark.parametrize(
    ("configured", "debian", "security"),
    [
        ("http://m.invalid/debian", "http://m.invalid/debian", "http://m.invalid/debian-security"),
        ("http://m.invalid/debian/", "http://m.invalid/debian", "http://m.invalid/debian-security"),
        ("https://m.invalid/a/debian", "https://m.invalid/a/debian", "https://m.invalid/a/debian-security"),
        ("http://m.invalid/cache", "http://m.invalid/cache", "http://m.invalid/cache/debian-security"),
    ],
)
def test_a_configured_mirror_serves_security_too(configured: str, debian: str, security: str) -> None:
    assert find_mirrors(configured) == Mirrors(debian, security)


def test_the_sources_of_a_suite_have_updates_and_security() -> None:
    lines = format_sources("bookworm", Mirrors("http://m.invalid/debian", "http://m.invalid/security"))
    assert [line.partition("] ")[2] for line in lines] == [
        "http://m.invalid/debian bookworm main",
        "http://m.invalid/debian bookworm-updates main",
        "http://m.invalid/security bookworm-security main",
    ]
    assert all("signed-by=/usr/share/keyrings/" in line for line in lines)


@pytest.mark.parametrize(
    ("uri", "clean"),
    [
        ("http://user:secret@m.invalid:8080/debian", "http://m.invalid:8080/debian"),
        ("https://token@m.invalid/debian", "https://m.invalid/debian"),
        ("http://m.invalid/a@b", "http://m.invalid/a@b"),
    ],
)
def test_a_password_for_the_mirror_goes_no_further(uri: str, clean: str) -> None:
    assert _without_credentials(uri) == clean


@given(st.from_regex(r"[a-z0-9]{1,8}", fullmatch=True), st.from_regex(r"[a-z0-9@:]{0,12}", fullmatch=True))
def test_no_address_keeps_what_stands_before_its_host(host: str, secret: str) -> None:
    assert _without_credentials(f"http://{secret}@{host}.invalid/debian") == f"http://{host}.invalid/debian"


def test_the_date_of_a_release_is_that_of_its_file(tmp_path: Path) -> None:
    release = tmp_path / "m.invalid_debian_dists_bookworm_InRelease"
    release.write_text("Origin: Debian\nDate: Sat, 06 Sep 2025 09:17:05 UTC\n")
    (tmp_path / "m.invalid_debian_dists_bookworm-updates_InRelease").write_text("Date: Sun, 07 Sep 2025 09:17:05 UTC\n")
    assert _release_date(tmp_path, "bookworm") == 1757150225
    with pytest.raises(BangerError) as caught:
        _release_date(tmp_path, "trixie")
    assert caught.value.reason is Reason.NOT_FOUND


def test_a_host_without_apt_has_no_mirrors_for_an_image_that_was_built_elsewhere(
    bench: Bench, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("PATH", str(tmp_path))
    step = plan_mirrors(None)
    bench.build(step)
    record = bench.graph(step).record(step)
    assert record is not None
    assert json.loads(bench.store.path(record.outputs["mirrors"]).read_bytes()) == {}
    assert [text for verb, text in bench.reporter.told if verb == "note"] == [
        "the program 'apt-get' is missing: the machine gets no sources of packages"
    ]
