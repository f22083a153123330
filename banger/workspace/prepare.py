"""A workspace sent again into a running machine: what is different there, or everything.

An update brings the guest's copy to what the host has now: files that differ by content or mode are sent, files that
the host no longer has go, files that only the guest made stay. The branch and the index follow the host's. The commits
that a guest made on its branch are left to ORIG_HEAD. Nothing is touched there before all of it has arrived.
"""

from __future__ import annotations

import subprocess
import tarfile
import tempfile
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from shlex import quote

from banger.errors import BangerError, Reason
from banger.guest import ssh
from banger.guest.command import format_for_any_shell
from banger.run import start
from banger.workspace.changes import list_changes
from banger.workspace.collect import GuestState
from banger.workspace.git import find_git, join_names, run_git
from banger.workspace.history import Checkout, list_staged, make_history
from banger.workspace.record import Workspace
from banger.workspace.repository import Repository
from banger.workspace.selection import File, Selection
from banger.workspace.shipment import write_files, write_tree
from banger.workspace.snapshot import Snapshot
from pipelines.ext4 import write_tar

_COMPLETE = tarfile.TarInfo("complete")
_REFUSALS = {
    90: "/root in it is full, or cannot be written",
    91: "it did not arrive whole, or there is no room for it",
    92: "git in it does not take what was sent",
    93: "/root/repo in it cannot be made read-only",
}
# $1: bytes of the list of names that comes before the tar (files to be removed, then folders, the deepest first),
# $2: whether everything is replaced, $3: whether it becomes read-only, $4: commit, $5: branch.
_SCRIPT = """\
PATH=$PATH:/usr/local/bin:/usr/bin:/bin
busybox=/run/banger/bin/busybox
incoming=/root/.banger-incoming
$busybox rm -rf $incoming && $busybox mkdir $incoming && cd $incoming || exit 90
trap '$busybox rm -rf $incoming' EXIT
trap 'exit 1' HUP INT PIPE TERM
[ "$1" = 0 ] || $busybox dd bs="$1" count=1 iflag=fullblock of=gone 2>/dev/null || exit 91
$busybox tar -x -f - && [ -f complete ] || exit 91
# All of it is here: whoever sent it is not needed any more.
trap "" HUP INT PIPE TERM
cd /root || exit 90
while $busybox grep -q " /root/repo " /proc/self/mounts; do $busybox umount -l /root/repo || exit 90; done
if [ "$2" = yes ]; then
	$busybox rm -rf repo && $busybox mv $incoming/repo repo || exit 90
fi
if [ "$1" != 0 ]; then
	cd repo || exit 90
	$busybox xargs -0 $busybox rm -f -- <$incoming/gone 2>/dev/null
	$busybox xargs -0 -n 1 $busybox rmdir -- <$incoming/gone 2>/dev/null
	cd ..
fi
# tar puts a file in the place of whatever is there; cp would go through a link.
[ ! -d $incoming/repo ] || $busybox tar -c -C $incoming/repo . | $busybox tar -x -C repo || exit 90
if [ -d $incoming/git ]; then
	cd repo || exit 90
	for pack in $incoming/git/objects/pack/*.pack; do
		[ ! -f "$pack" ] || git index-pack --stdin --fix-thin <"$pack" >/dev/null || exit 92
	done
	if [ -f $incoming/git/shallow ]; then
		shallow=$(git rev-parse --git-path shallow)
		[ -f "$shallow" ] || : >"$shallow"
		$busybox sort -u "$shallow" $incoming/git/shallow >$incoming/shallow || exit 92
		$busybox cp $incoming/shallow "$shallow" || exit 92
	fi
	if [ -n "$4" ]; then
		head=$(git rev-parse -q --verify "HEAD^{commit}") && [ "$head" != "$4" ] && git update-ref ORIG_HEAD "$head"
		if [ -n "$5" ]; then
			git update-ref "refs/heads/$5" "$4" && git symbolic-ref HEAD "refs/heads/$5" || exit 92
		else
			git update-ref --no-deref HEAD "$4" || exit 92
		fi
	fi
	[ ! -f $incoming/git/index ] || $busybox cp $incoming/git/index "$(git rev-parse --git-path index)" || exit 92
	cd ..
fi
[ "$3" = no ] || { $busybox mount -o bind repo repo && $busybox mount -o remount,ro,bind repo; } || exit 93
"""


@dataclass(frozen=True)
class Update:
    """`files` are sent, `gone` is removed; `overwritten` of both are paths that the guest changed."""

    files: list[File]
    gone: list[str]
    overwritten: list[str]
    moves_head: bool

    @property
    def size_bytes(self) -> int:
        return sum(file.size_bytes for file in self.files)


def plan_update(state: GuestState, workspace: Workspace, selection: Selection, tree: str) -> Update:
    """`tree` is the host's, now."""
    differing, _skipped = list_changes(state.git, state.tree, tree)
    changed, _skipped = list_changes(state.git, workspace.tree, state.tree)
    own = {change.path for change in changed if change.before is None}
    wanted = {change.path for change in differing if change.after is not None}
    gone = [change.path for change in differing if change.after is None and change.path not in own]
    touched = {change.path for change in changed}
    return Update(
        files=[file for file in selection.files if file.path in wanted],
        gone=gone,
        overwritten=sorted(touched & {*wanted, *gone}),
        moves_head=state.head != workspace.commit,
    )


def make_update_history(
    repository: Repository, snapshot: Snapshot, checkout: Checkout, old: str | None, place: Path
) -> None:
    """What the guest's repository lacks, in `place`: packs, the index, and where its history is cut off."""
    known = checkout.commit is not None and old is not None
    if known and find_git(["merge-base", "--is-ancestor", str(old), str(checkout.commit)], repository.root) is not None:
        (place / "objects/pack").mkdir(parents=True)
        wanted = [
            *([] if old == checkout.commit else [str(checkout.commit)]),
            *sorted(list_staged(repository, snapshot)),
        ]
        if wanted:
            lines = "".join(f"{each}\n" for each in [*wanted, f"^{old}"])
            with (place / "objects/pack/new.pack").open("wb") as pack:
                words = ["pack-objects", "-q", "--revs", "--stdout", "--thin", "--delta-base-offset"]
                run_git(words, repository.root, stdin=lines.encode(), stdout=pack)
        if snapshot.index is not None:
            (place / "index").write_bytes(snapshot.index.read_bytes())
    else:
        make_history(repository, snapshot, checkout, place)


def send_update(
    access: ssh.Access, repository: Repository, update: Update, git: Path, checkout: Checkout, *, readonly: bool
) -> None:
    def write(tar: tarfile.TarFile) -> None:
        write_tree(tar, git, "git")
        write_files(tar, repository.root, update.files)

    _send(access, update.gone, write, ["no", _yes(readonly), checkout.commit or "", checkout.branch or ""])


def send_all(access: ssh.Access, write: Callable[[tarfile.TarFile], None], *, readonly: bool) -> None:
    """In the place of whatever is in /root/repo; `write` gives all of `repo`."""
    _send(access, [], write, ["yes", _yes(readonly), "", ""])


def _send(
    access: ssh.Access, gone: Sequence[str], write: Callable[[tarfile.TarFile], None], arguments: Sequence[str]
) -> None:
    def write_all(tar: tarfile.TarFile) -> None:
        write(tar)
        tar.addfile(_COMPLETE)

    names = join_names([*gone, *_list_folders(gone)])
    line = f"set -- {len(names)} {' '.join(map(quote, arguments))}\n{_SCRIPT}"
    argv = ssh.plan_ssh(access, format_for_any_shell(line), tty=False)
    with tempfile.TemporaryFile() as said, start(argv, stdin=subprocess.PIPE, stderr=said) as child:
        assert child.stdin is not None
        try:
            child.stdin.write(names)
            write_tar(child.stdin, write_all)
            child.stdin.close()
        except BrokenPipeError:
            # It ended early, and its status says why.
            pass
        status = child.wait()
    if status != 0:
        why = _REFUSALS.get(status, f"the connection broke, or the machine ran out of something (status {status})")
        raise BangerError(
            f"the workspace was not sent, or not as a whole: {why}",
            reason=Reason.GUEST,
            hint="send it again: banger vm workspace prepare --mode full_copy",
        )


def _list_folders(paths: Sequence[str]) -> list[str]:
    """Those that the paths are in, the deepest first: they go too if nothing is left in them."""
    found = {"/".join(parts[:count]) for path in paths for parts in [path.split("/")] for count in range(1, len(parts))}
    return sorted(found, key=lambda folder: -folder.count("/"))


def _yes(wanted: bool) -> str:
    return "yes" if wanted else "no"
