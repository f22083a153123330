"""What somebody may do in a guest's copy, and in what state a host's work tree may be when it is sent."""

from __future__ import annotations

import shutil
from collections.abc import Callable
from pathlib import Path

from tests.workspace.copies import ODD_NAMES, commit, git, write

Edit = Callable[[Path], object]


def edit(repo: Path) -> None:
    write(repo, "README", "".join(f"line {number}\n" for number in (*range(20), 99, *range(20, 40))))


def edit_everything(repo: Path) -> None:
    """The round trip that the issue asks for, and a few steps more."""
    edit(repo)
    write(repo, "new.bin", bytes(range(255, -1, -1)) * 30)
    (repo / "empty").unlink()
    git(repo, "mv", "src/util.c", "src/moved.c")
    (repo / "no end").chmod(0o755)
    commit(repo, "first in the guest")
    write(repo, "src/main.c", "int f(void);\n")
    commit(repo, "second in the guest")
    write(repo, "data.bin", b"\0\xff" * 99)
    git(repo, "add", "data.bin")
    write(repo, "deep/er/still/file", "not staged\n")
    write(repo, "untracked", "untracked\n", 0o755)


def edit_odd_names(repo: Path) -> None:
    for name in ODD_NAMES[::2]:
        write(repo, f"odd/{name}", "changed\n")
    for name in ODD_NAMES[1::2]:
        (repo / "odd" / name).unlink()
        write(repo, f"odd/{name} (1)", "new\n")


def rename_and_edit(repo: Path) -> None:
    content = (repo / "src/util.c").read_text().replace("g30", "other")
    (repo / "src/util.c").unlink()
    write(repo, "lib/util.c", content, 0o755)


def swap_names(repo: Path) -> None:
    (repo / "README").rename(repo / "third")
    (repo / "empty").rename(repo / "README")
    (repo / "third").rename(repo / "empty")


def change_links(repo: Path) -> None:
    (repo / "dangling").unlink()
    (repo / "link").unlink()
    (repo / "link").symlink_to("src/main.c")
    (repo / "outwards").symlink_to("/etc/passwd")
    (repo / "upwards").symlink_to("../../..")
    (repo / "round").symlink_to("round")


def file_to_folder(repo: Path) -> None:
    (repo / "README").unlink()
    write(repo, "README/in/it", "a file below what was a file\n")


def folder_to_file(repo: Path) -> None:
    shutil.rmtree(repo / "deep")
    write(repo, "deep", "a file now\n", 0o755)


def file_to_link(repo: Path) -> None:
    (repo / "README").unlink()
    (repo / "README").symlink_to("src")


def link_to_file(repo: Path) -> None:
    (repo / "link").unlink()
    write(repo, "link", "a file now\n")


def folder_to_link(repo: Path) -> None:
    (repo / "src").rename(repo / "elsewhere")
    (repo / "src").symlink_to("elsewhere")


def link_to_folder(repo: Path) -> None:
    (repo / "link").unlink()
    write(repo, "link/in it", "a file below what was a link\n")


def swap_folder_and_file(repo: Path) -> None:
    (repo / "src").rename(repo / "third")
    (repo / "README").rename(repo / "src")
    (repo / "third").rename(repo / "README")


def delete_everything(repo: Path) -> None:
    for place in repo.iterdir():
        if place.name != ".git":
            shutil.rmtree(place) if place.is_dir() and not place.is_symlink() else place.unlink()


def commit_twice(repo: Path) -> None:
    edit(repo)
    commit(repo, "one")
    write(repo, "two", "two\n")
    commit(repo, "two")


def amend(repo: Path) -> None:
    edit(repo)
    git(repo, "commit", "-q", "-a", "--amend", "-m", "third, otherwise")


def reset(repo: Path) -> None:
    git(repo, "reset", "-q", "--hard", "HEAD~2")
    write(repo, "after", "after the reset\n")


def rebase(repo: Path) -> None:
    git(repo, "checkout", "-q", "-b", "other", "HEAD~2")
    write(repo, "rebased", "rebased\n")
    commit(repo, "to be rebased")
    git(repo, "rebase", "-q", "main")
    git(repo, "rebase", "-q", "--onto", "main~1", "main")


def start_anew(repo: Path) -> None:
    git(repo, "checkout", "-q", "--orphan", "anew")
    edit(repo)
    commit(repo, "without a past")


def leave_unborn(repo: Path) -> None:
    git(repo, "checkout", "-q", "--orphan", "unborn")
    edit(repo)


def merge(repo: Path) -> None:
    git(repo, "checkout", "-q", "-b", "side", "HEAD~1")
    write(repo, "side", "side\n")
    commit(repo, "on the side")
    git(repo, "checkout", "-q", "main")
    edit(repo)
    commit(repo, "on main")
    git(repo, "merge", "-q", "--no-edit", "side")


def conflict(repo: Path) -> None:
    """A merge that is not finished: markers in the files, three stages in the index."""
    git(repo, "checkout", "-q", "-b", "side")
    write(repo, "README", "theirs\n")
    commit(repo, "theirs")
    git(repo, "checkout", "-q", "main")
    write(repo, "README", "ours\n")
    commit(repo, "ours")
    git(repo, "merge", "side", must_succeed=False)
    assert git(repo, "ls-files", "-u")


def stage_in_part(repo: Path) -> None:
    edit(repo)
    git(repo, "add", "README")
    write(repo, "README", "not what was staged\n")
    write(repo, "staged and gone", "x\n")
    git(repo, "add", "staged and gone")
    (repo / "staged and gone").unlink()


def intend_to_add(repo: Path) -> None:
    write(repo, "intended", "intended\n")
    git(repo, "add", "-N", "intended")


def untrack(repo: Path) -> None:
    """Gone from the index and still there: it stays in the result."""
    git(repo, "rm", "-q", "--cached", "README")


def commit_nothing(repo: Path) -> None:
    git(repo, "commit", "-q", "--allow-empty", "-m", "nothing at all")


def detach(repo: Path) -> None:
    git(repo, "checkout", "-q", "--detach")
    commit_twice(repo)


EDITS: dict[str, Edit] = {
    each.__name__: each
    for each in (
        edit,
        edit_everything,
        edit_odd_names,
        rename_and_edit,
        swap_names,
        change_links,
        file_to_folder,
        folder_to_file,
        file_to_link,
        link_to_file,
        folder_to_link,
        link_to_folder,
        swap_folder_and_file,
        delete_everything,
        commit_twice,
        amend,
        reset,
        rebase,
        start_anew,
        leave_unborn,
        merge,
        conflict,
        stage_in_part,
        intend_to_add,
        untrack,
        commit_nothing,
        detach,
    )
} | {
    "chmod": lambda repo: [(repo / "README").chmod(0o755), (repo / "bin/run").chmod(0o644)],
    "delete": lambda repo: [(repo / "README").unlink(), (repo / "data.bin").unlink()],
    "delete a folder": lambda repo: shutil.rmtree(repo / "deep"),
    "empty a file": lambda repo: write(repo, "README", b""),
    "binary to text": lambda repo: write(repo, "data.bin", "text\n"),
    "line ends": lambda repo: write(repo, "crlf", b"one\r\ntwo\nthree\r"),
    "no line end": lambda repo: write(repo, "no end", "another line\nand no newline"),
    "nothing": lambda repo: None,
}
# Those in which git's own state is the point, not the files.
HISTORY: list[Edit] = [
    amend,
    reset,
    rebase,
    start_anew,
    leave_unborn,
    merge,
    conflict,
    stage_in_part,
    intend_to_add,
    untrack,
    commit_nothing,
    detach,
    edit_everything,
]


def keep_clean(repo: Path) -> None:
    pass


def make_dirty(repo: Path) -> None:
    write(repo, "no end", "changed on the host")
    (repo / "odd/with space").unlink()
    (repo / "odd/-dash").chmod(0o755)


def stage(repo: Path) -> None:
    write(repo, "no end", "staged on the host")
    write(repo, "staged", "new and staged\n")
    git(repo, "rm", "-q", "odd/with space")
    git(repo, "add", "-A")


def stage_and_edit(repo: Path) -> None:
    stage(repo)
    write(repo, "no end", "not what is staged")
    write(repo, "intended", "intended\n")
    git(repo, "add", "-N", "intended")


HOSTS: dict[str, Edit] = {each.__name__: each for each in (keep_clean, make_dirty, stage, stage_and_edit)}
