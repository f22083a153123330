"""`git status` says in the copy exactly what it says on the host, whatever state the host's work tree is in.

And the tree that is remembered as sent is the tree that is there: else a change of the host's would come back as one of
the guest's.
"""

from __future__ import annotations

from pathlib import Path

import pytest

from tests.workspace.repositories import Tree, read_all, send
from tests.workspace.states import STATES


@pytest.mark.parametrize("name", STATES)
def test_the_copy_says_of_tracked_files_what_the_host_says(project: Tree, tmp_path: Path, name: str) -> None:
    STATES[name](project)
    project.write("never-added.txt")
    before = read_all(project.path)
    guest = send(project.path, tmp_path / "machine")
    assert read_all(project.path) == before
    assert guest.status("--untracked-files=no") == project.status("--untracked-files=no")
    assert guest.tree() == guest.workspace.tree
    guest.git("fsck", "--strict")
    if not guest.git("ls-files", "--unmerged"):
        guest.git("commit", "-q", "--allow-empty", "-m", "made there")
        guest.git("fsck", "--strict")


@pytest.mark.parametrize(
    "name", ["clean", "dirty", "staged", "intent_to_add", "renamed", "file_to_folder", "folder_to_link", "in_conflict"]
)
def test_with_untracked_files_the_copy_says_all_that_the_host_says(project: Tree, tmp_path: Path, name: str) -> None:
    STATES[name](project)
    project.write("never-added.txt")
    project.write("ignored.log")
    guest = send(project.path, tmp_path / "machine", include_untracked=True)
    assert guest.status("--untracked-files=all") == project.status("--untracked-files=all")
    assert guest.tree() == guest.workspace.tree
    assert not (guest.path / "ignored.log").exists()
