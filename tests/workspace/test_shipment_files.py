"""Files on their way: names, modes and links as they are, nothing followed, nothing more than was listed."""

from __future__ import annotations

import os
import subprocess
import tempfile
from pathlib import Path

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from banger.errors import BangerError
from pipelines.ext4 import make_ext4
from tests.workspace.repositories import Tree, list_objects, make_shipment, make_tree, send, walk

_NAMES = [
    "two words",
    "quo\"te's",
    "new\nline",
    "-dash",
    "--help",
    "ünï ✓",
    "\udcff\udc80",
    "back\\slash",
    "tab\tular",
    "*?[",
    "last ",
    "x" * 255,
    "/".join(["d" * 90] * 4),
]


def _look(root: Path) -> dict[str, tuple[int, bytes]]:
    """Of every file and link its content, and whether it can be run."""
    found = {}
    for name in walk(root):
        place = root / name
        if place.is_symlink():
            found[name] = (0, os.fsencode(place.readlink()))
        else:
            found[name] = (place.stat().st_mode & 0o111, place.read_bytes())
    return found


def _fill(tree: Tree) -> None:
    for name in _NAMES:
        tree.write(name, os.fsencode(name))
    tree.write("run", b"#!/bin/sh\n", 0o755)
    tree.write("empty", b"")
    tree.write("large", os.urandom(3_000_000))
    tree.write("holes", b"\0" * 1_000_000 + b"end")
    tree.link("link", "two words")
    tree.link("absolute", "/etc/passwd")
    tree.link("broken", "nowhere/at/all")
    tree.link("odd", "new\nline\udcff")
    tree.link("long", "t" * 300)
    tree.link("to-folder", "folder")
    tree.write("folder/in/it", b"x")


def test_files_arrive_as_they_are(tmp_path: Path) -> None:
    tree = make_tree(tmp_path / "tree")
    _fill(tree)
    tree.commit("all")
    guest = send(tree.path, tmp_path / "machine")
    assert _look(guest.path) == _look(tree.path)
    assert guest.status() == b""
    assert guest.tree() == guest.workspace.tree
    assert list_objects(guest.machine) == []


def test_the_disk_that_is_made_of_them_holds_the_same(tmp_path: Path) -> None:
    """By the real mke2fs, read by the real debugfs."""
    tree = make_tree(tmp_path / "tree")
    _fill(tree)
    # debugfs takes no such names on its own command line, but `rdump` writes what it finds.
    tree.commit("all")
    tree.write("two words", b"dirty\n")
    tree.write("untracked", b"untracked\n")
    (tmp_path / "machine").mkdir()
    image = tmp_path / "work.ext4"
    with make_shipment(tree.path, include_untracked=True).pack(tmp_path / "machine") as cargo:
        make_ext4(image, 64, cargo.write)
    (tmp_path / "out").mkdir()
    subprocess.run(
        ["/usr/sbin/debugfs", "-R", f"rdump /repo {tmp_path / 'out'}", image], capture_output=True, check=True
    )
    assert subprocess.run(["/usr/sbin/e2fsck", "-fn", image], capture_output=True).returncode == 0
    copy = Tree(tmp_path / "out/repo")
    assert _look(copy.path) == _look(tree.path)
    copy.git("config", "core.attributesFile", "")
    assert copy.status() == tree.status()


def test_times_are_kept_to_the_second(project: Tree, tmp_path: Path) -> None:
    os.utime(project.path / "a.txt", ns=(0, 1_234_567_890_999_999_999))
    os.utime(project.path / "link", ns=(0, 1_234_567_890_000_000_000), follow_symlinks=False)
    guest = send(project.path, tmp_path / "machine")
    assert (guest.path / "a.txt").stat().st_mtime == 1_234_567_890
    assert (guest.path / "link").lstat().st_mtime == 1_234_567_890


def test_a_file_goes_without_special_bits(project: Tree, tmp_path: Path) -> None:
    (project.path / "run.sh").chmod(0o6755)
    (project.path / "a.txt").chmod(0o600)
    guest = send(project.path, tmp_path / "machine")
    assert (guest.path / "run.sh").stat().st_mode & 0o7777 == 0o755
    assert (guest.path / "a.txt").stat().st_mode & 0o7777 == 0o600


def test_two_names_of_one_file_become_two_files(project: Tree, tmp_path: Path) -> None:
    (project.path / "b.txt").unlink()
    (project.path / "b.txt").hardlink_to(project.path / "a.txt")
    project.commit("linked")
    guest = send(project.path, tmp_path / "machine")
    assert (guest.path / "b.txt").read_bytes() == (project.path / "a.txt").read_bytes()
    assert not (guest.path / "b.txt").samefile(guest.path / "a.txt")


def test_behind_a_symlink_in_the_place_of_a_folder_nothing_is_read(project: Tree, tmp_path: Path) -> None:
    outside = tmp_path / "outside"
    outside.mkdir()
    (outside / "c.txt").write_text("SECRET")
    subprocess.run(["rm", "-r", project.path / "dir"], check=True)
    project.link("dir", str(outside))
    for include_untracked in (False, True):
        guest = send(project.path, tmp_path / f"machine-{include_untracked}", include_untracked=include_untracked)
        assert "dir/c.txt" not in guest.names()
        assert b"SECRET" not in (guest.machine.parent / "home.tar").read_bytes()
        assert (guest.path / "dir").is_symlink() == include_untracked
        assert guest.tree() == guest.workspace.tree


def test_a_folder_that_becomes_a_symlink_after_the_listing_is_not_followed(project: Tree, tmp_path: Path) -> None:
    outside = tmp_path / "outside"
    (outside / "deep").mkdir(parents=True)
    for name in ("c.txt", "deep/d.txt"):
        (outside / name).write_text("SECRET")
    (tmp_path / "machine").mkdir()
    with make_shipment(project.path).pack(tmp_path / "machine") as cargo:
        subprocess.run(["mv", project.path / "dir", tmp_path / "was"], check=True)
        project.link("dir", str(outside))
        with pytest.raises(BangerError) as caught:
            make_ext4(tmp_path / "work.ext4", 64, cargo.write)
    assert caught.value.reason == "changed"
    assert "dir/c.txt" in caught.value.message
    assert not (tmp_path / "work.ext4").exists()


def test_a_secret_that_is_ignored_never_goes(project: Tree, tmp_path: Path) -> None:
    project.write(".env.ignored", b"TOKEN=SECRET\n")
    guest = send(project.path, tmp_path / "machine", include_untracked=True)
    assert ".env.ignored" not in guest.names()
    assert b"SECRET" not in (guest.machine.parent / "home.tar").read_bytes()


def test_an_untracked_secret_goes_only_when_asked_for(project: Tree, tmp_path: Path) -> None:
    project.write(".env", b"TOKEN=SECRET\n")
    without = send(project.path, tmp_path / "without")
    assert ".env" not in without.names()
    assert b"SECRET" not in (without.machine.parent / "home.tar").read_bytes()
    assert not without.workspace.include_untracked
    with_it = send(project.path, tmp_path / "with", include_untracked=True)
    assert (with_it.path / ".env").read_bytes() == b"TOKEN=SECRET\n"
    assert with_it.workspace.include_untracked


def test_what_is_in_no_commit_is_kept_beside_the_machine_and_not_in_the_repository(
    project: Tree, tmp_path: Path
) -> None:
    project.write("a.txt", b"dirty\n")
    guest = send(project.path, tmp_path / "machine")
    assert len(list_objects(guest.machine)) == 2
    environment = {"GIT_ALTERNATE_OBJECT_DIRECTORIES": str(guest.machine / "workspace.git")}
    tree = guest.workspace.tree
    assert project.git("cat-file", "blob", f"{tree}:a.txt", environment=environment) == b"dirty\n"
    assert subprocess.run(["git", "-C", project.path, "cat-file", "-e", tree], capture_output=True).returncode != 0


def test_nothing_temporary_is_left_beside_the_machine(project: Tree, tmp_path: Path) -> None:
    guest = send(project.path, tmp_path / "machine")
    assert {place.name for place in guest.machine.iterdir()} == {"workspace.git", "workspace.json", ".scratch"}
    assert list((guest.machine / ".scratch").iterdir()) == []


_part = st.binary(min_size=1, max_size=12).map(lambda raw: os.fsdecode(raw.replace(b"\0", b"0").replace(b"/", b"1")))
_name = _part.filter(lambda name: name not in (".", "..") and name.lower() != ".git")


@settings(max_examples=8, suppress_health_check=[HealthCheck.function_scoped_fixture, HealthCheck.too_slow])
@given(
    folders=st.dictionaries(_name, st.dictionaries(_name, st.binary(max_size=50), max_size=4), min_size=1, max_size=4),
    staged=st.sets(_name, max_size=3),
)
def test_trees_of_any_names_arrive(folders: dict[str, dict[str, bytes]], staged: set[str]) -> None:
    with tempfile.TemporaryDirectory() as name:
        tree = make_tree(Path(name) / "tree")
        for folder, files in folders.items():
            for file, content in files.items():
                tree.write(f"{folder}/{file}", content)
        tree.commit("all")
        for each in staged - set(folders):
            tree.write(each, b"staged")
        tree.git("add", "-A")
        guest = send(tree.path, Path(name) / "machine")
        assert _look(guest.path) == _look(tree.path)
        assert guest.status() == tree.status()
        assert guest.tree() == guest.workspace.tree
