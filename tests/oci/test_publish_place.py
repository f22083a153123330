"""Where things are published to, and what they are called there."""

from __future__ import annotations

import pytest

from banger.errors import BangerError, Reason
from pipelines.oci.reference import parse_reference
from pipelines.publish import format_tag, parse_place, parse_version


@pytest.mark.parametrize(
    "text",
    [
        "",
        "team",
        "registry.example.com",
        "127.0.0.1:5000",
        "registry.example.com/Team",
        "https://registry.example.com/x",
    ]
    + [
        "registry.example.com/team:",
        "registry.example.com/team:a b",
        "owner/team",
        "registry.example.com/team@sha256:1",
    ],
)
def test_what_is_no_folder_of_a_registry_is_no_place(text: str) -> None:
    with pytest.raises(BangerError) as refused:
        parse_place(text)
    assert refused.value.reason is Reason.BAD_INPUT


def test_a_place_names_the_catalog_that_users_configure() -> None:
    assert parse_place("127.0.0.1:5000/team").catalog == "127.0.0.1:5000/team/catalog:stable"
    assert parse_place("registry.example.com/a/b:testing").catalog == "registry.example.com/a/b/catalog:testing"


@pytest.mark.parametrize("text", ["", "a b", "-1", "1/2", "1\n", "ä", "x" * 129])
def test_what_no_tag_could_be_is_no_version(text: str) -> None:
    with pytest.raises(BangerError) as refused:
        parse_version(text)
    assert refused.value.reason is Reason.BAD_INPUT


@pytest.mark.parametrize(
    ("version", "start"), [("6.12~rc6-amd64", "6.12_rc6-amd64"), ("1.2+3", "1.2_3"), ("x" * 128, "x" * 115)]
)
def test_every_version_makes_a_tag(version: str, start: str) -> None:
    tag = format_tag(parse_version(version), "sha256:" + "0123456789ab" * 5 + "0123")
    assert tag == f"{start}-0123456789ab"
    assert parse_reference(f"registry.example.com/x:{tag}").tag == tag
