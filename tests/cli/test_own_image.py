"""`image build --recipe` and `image promote`: what is refused before anything is built, in one clear line."""

from __future__ import annotations

import json
from typing import TYPE_CHECKING

import pytest

if TYPE_CHECKING:
    from conftest import Cli


@pytest.mark.parametrize("words", [[], ["debian:12", "--recipe", "."], ["--name", "x"]])
def test_either_a_reference_or_a_recipe_is_needed(cli: Cli, words: list[str]) -> None:
    done = cli.run("image", "build", *words)
    assert (done.returncode, done.stdout) == (2, "")
    assert "Name either what to build, or a --recipe of yours." in done.stderr


@pytest.mark.parametrize(
    ("text", "reason", "said"),
    [
        (None, "not-found", "there is no recipe"),
        ("bsae = 'x'", "bad-input", "did you mean 'base'?"),
        ("base = 'debian-bokworm'", "not-found", "did you mean 'debian-bookworm'?"),
        ("base = 'debian-bookworm'\nkernel = 'mine'", "not-found", "there is no kernel 'mine'"),
        ("base = 'debian-bookworm'\nname = 'debian-bookworm'", "bad-input", "the place of its own base"),
        ("base = 'debian-bookworm'\n[[file]]\nsource = 'gone'\ntarget = '/x'", "not-found", "no file 'gone'"),
        ("base = 'oci:nowhere'", "not-found", "nowhere"),
    ],
)
def test_a_recipe_that_cannot_be_is_refused(cli: Cli, text: str | None, reason: str, said: str) -> None:
    folder = cli.home / "team-tools"
    folder.mkdir()
    if text is not None:
        (folder / "recipe.toml").write_text(text)
    done = cli.run("image", "build", "--recipe", "team-tools", "--json")
    assert (done.returncode, done.stdout) == (1, "")
    error = json.loads(done.stderr.splitlines()[-1])["error"]
    assert error["reason"] == reason
    assert said in f"{error['message']} {error['hint']}"
    assert cli.left() <= {"vms"}


def test_a_machine_that_is_not_there_cannot_be_promoted(cli: Cli) -> None:
    done = cli.run("image", "promote", "nobody", "golden", "--json")
    assert (done.returncode, done.stdout) == (1, "")
    assert json.loads(done.stderr.splitlines()[-1])["error"]["reason"] == "not-found"
