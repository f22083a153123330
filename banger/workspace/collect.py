"""The state of the guest's copy, taken without changing it, and read as the untrusted thing it is.

The guest packs its work tree as a commit, with the commits that led to it, by means of an index and a folder of objects
of their own. On the host the pack goes into a repository apart, bounded in size and checked object by object (fsck)
with all that it leads to. Everything after that is the host's git looking at trees: no path, patch or name that a guest
wrote is interpreted by anything but git and the checks here.
"""

from __future__ import annotations

import contextlib
import os
import re
import shutil
import subprocess
import tempfile
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from shlex import quote
from typing import IO

from banger.errors import BangerError, Reason
from banger.guest import ssh
from banger.guest.command import format_for_any_shell
from banger.run import printable, run, start
from banger.workspace.git import ask_git, find_git, format_alternate, plan_environment, plan_git, run_git
from banger.workspace.record import OBJECTS, Workspace
from banger.workspace.repository import Repository, find_place
from banger.workspace.scratch import scratch_folder

_MAX_PACK_BYTES = 4 << 30
# What git may hold in memory at once of an object that comes as a difference; a whole file streams. A little more than
# the largest file that is taken, since a few bytes may claim to stand for any number of them.
_MAX_OBJECT_BYTES = 1025 << 20
_MAX_HEADER_BYTES = 200
_HEADER = re.compile(rb"banger 1 (-|[0-9a-f]{40}|[0-9a-f]{64}) ([0-9a-f]{40}|[0-9a-f]{64})\n")
_UNREADABLE = 94
# In its own words, since what a guest says is not for a terminal.
_REFUSALS = {
    90: "there is no /root/repo in it any more",
    91: "its image has no git",
    92: "there is no room in its /tmp",
    93: "/root/repo in it is no git repository any more",
    _UNREADABLE: "git in it cannot read /root/repo",
}
_SCRIPT = """\
PATH=$PATH:/usr/local/bin:/usr/bin:/bin
cd "$2" 2>/dev/null || exit 90
busybox=$3
command -v git >/dev/null || exit 91
[ -e .git ] || exit 93
for name in $(git rev-parse --local-env-vars); do unset "$name"; done
export GIT_OPTIONAL_LOCKS=0 GIT_AUTHOR_NAME=banger GIT_AUTHOR_EMAIL=banger
export GIT_COMMITTER_NAME=banger GIT_COMMITTER_EMAIL=banger
git() {
	command git -c core.hooksPath=/dev/null -c core.fsmonitor=false -c core.safecrlf=false -c gc.auto=0 "$@"
}
head=$(git rev-parse -q --verify "HEAD^{commit}") || head=
index=$(git rev-parse --git-path index) || exit 93
objects=$($busybox readlink -f "$(git rev-parse --git-path objects)")
scratch=$($busybox mktemp -d /tmp/banger-XXXXXX) || exit 92
trap '$busybox rm -rf "$scratch"' EXIT
trap 'exit 1' HUP INT PIPE TERM
$busybox mkdir "$scratch/objects"
[ ! -f "$index" ] || $busybox cp -p "$index" "$scratch/index" || exit 92
export GIT_INDEX_FILE=$scratch/index GIT_OBJECT_DIRECTORY=$scratch/objects GIT_ALTERNATE_OBJECT_DIRECTORIES=$objects
git add -A . || exit 94
tree=$(git write-tree) && last=$(git commit-tree ${head:+-p $head} -m "work tree" $tree) || exit 94
known=
[ -z "$1" ] || ! git cat-file -e "$1^{commit}" 2>/dev/null || known=^$1
echo "banger 1 ${head:--} $last"
printf "%s\\n" $last $known | git pack-objects -q --revs --stdout --delta-base-offset
"""


@dataclass(frozen=True)
class GuestState:
    """`git` is a bare repository that holds it all, for as long as it is looked at.

    `head` is the commit that is checked out there (None before the first), `last` one with the whole work tree over it.
    """

    git: Path
    head: str | None
    last: str
    tree: str


@contextlib.contextmanager
def collect(access: ssh.Access, workspace: Workspace, repository: Repository, machine: Path) -> Iterator[GuestState]:
    """Raises GUEST for a copy that cannot be read, CORRUPT for one that lies, TOO_LARGE for a pack past 4 GiB."""
    with scratch_folder(machine) as scratch:
        git = scratch / "git"
        make_quarantine(repository, machine, git)
        head, last = _receive(access, workspace, git)
        yield check_state(git, workspace, repository, head, last)


def make_quarantine(repository: Repository, machine: Path, git: Path) -> None:
    """A repository of its own that can read what the host's has, and what was sent."""
    run_git(["init", "-q", "--bare", "--template=", f"--object-format={repository.object_format}", str(git)], machine)
    (git / "objects/info").mkdir(exist_ok=True)
    alternates = [repository.objects.resolve(), (machine / OBJECTS).resolve()]
    (git / "objects/info/alternates").write_bytes(
        b"".join(os.fsencode(format_alternate(each)) + b"\n" for each in alternates)
    )
    shallow = find_place(repository.root, "shallow")
    if shallow.exists():
        shutil.copyfile(shallow, git / "shallow")


def format_script(commit: str | None, folder: str = "/root/repo", busybox: str = "/run/banger/bin/busybox") -> str:
    """Lines for a POSIX shell that write the state of `folder` on standard output: what `receive` reads."""
    return f"set -- {commit or quote('')} {quote(folder)} {quote(busybox)}\n{_SCRIPT}"


def _receive(access: ssh.Access, workspace: Workspace, git: Path) -> tuple[str | None, str]:
    argv = ssh.plan_ssh(access, format_for_any_shell(format_script(workspace.commit)), tty=False)
    with tempfile.TemporaryFile() as said, start(argv, stdout=subprocess.PIPE, stderr=said) as child:
        assert child.stdout is not None
        try:
            heads = receive(child.stdout, git)
        except BangerError as error:
            # What ends too early has a reason there; all else is a lie, or lack of room here, and nobody is waited for.
            if error.reason is not Reason.GUEST:
                raise
            heads = None
        child.stdout.close()
        status = child.wait()
        if heads is None or status != 0:
            said.seek(0)
            raise _refuse(status, said.read())
    return heads


def receive(stream: IO[bytes], git: Path) -> tuple[str | None, str]:
    """Read a header and a pack into the repository `git`; gives what the header names: HEAD and the last commit.

    Raises GUEST for a stream that ends too early, CORRUPT, TOO_LARGE, NO_SPACE.
    """
    header = _read_header(stream)
    match = _HEADER.fullmatch(header)
    if match is None:
        raise (
            _lie("it does not begin as it should")
            if header.endswith(b"\n") or len(header) >= _MAX_HEADER_BYTES
            else _cut()
        )
    words = ["index-pack", "--stdin", "--strict", f"--max-input-size={_MAX_PACK_BYTES}"]
    with tempfile.TemporaryFile() as result:
        taken = run(
            plan_git(["-c", "core.bigFileThreshold=16m", "-c", "pack.threads=1", *words], git),
            env={**plan_environment(), "GIT_ALLOC_LIMIT": str(_MAX_OBJECT_BYTES)},
            stdin=stream,
            stdout=result,
            must_succeed=False,
        )
    if taken.returncode != 0:
        raise _explain(taken.stderr.decode("utf-8", "replace"))
    head = match[1].decode()
    return None if head == "-" else head, match[2].decode()


def _read_header(stream: IO[bytes]) -> bytes:
    """Byte by byte: what follows is not ours to read. As much as there is of it."""
    header = bytearray()
    while len(header) < _MAX_HEADER_BYTES and not header.endswith(b"\n"):
        byte = os.read(stream.fileno(), 1)
        if not byte:
            break
        header += byte
    return bytes(header)


def check_state(git: Path, workspace: Workspace, repository: Repository, head: str | None, last: str) -> GuestState:
    """Everything that the last commit leads to is there, and is what it says to be."""
    known = [each for each in (workspace.commit, repository.head) if each is not None]
    reachable = find_git(["rev-list", "--objects", "--quiet", last, "--not", *known], git)
    tree = find_git(["rev-parse", "-q", "--verify", f"{last}^{{tree}}"], git)
    parents = find_git(["rev-list", "--parents", "--max-count=1", last], git)
    if reachable is None or tree is None or parents is None:
        raise _lie("some of it is missing")
    if parents.split(" ")[1:] != ([] if head is None else [head]):
        raise _lie("its work tree does not follow its commits")
    return GuestState(git, head, last, tree)


def get_base(state_git: Path, workspace: Workspace) -> str:
    """The tree of the commit that was sent; an empty one before the first commit."""
    if workspace.commit is None:
        return ask_git(["hash-object", "-t", "tree", "-w", "--stdin"], state_git)
    return ask_git(["rev-parse", f"{workspace.commit}^{{tree}}"], state_git)


def _refuse(status: int, said: bytes) -> BangerError:
    lines = said.decode("utf-8", "replace").strip().split("\n")
    # Of what git says the first such line is why.
    told = printable(next((line for line in lines if line.startswith(("error:", "fatal:"))), lines[-1]))[:200]
    why = _REFUSALS.get(status)
    if why is None:
        why = f"the connection broke, or git failed there ({told or f'status {status}'})"
    elif status == _UNREADABLE and told:
        why = f"{why} ({told})"
    return BangerError(f"the workspace cannot be read from the machine: {why}", reason=Reason.GUEST)


def _explain(said: str) -> BangerError:
    if "exceeds maximum allowed size" in said:
        return BangerError(
            "the machine sends more than 4 GiB of changes", reason=Reason.TOO_LARGE, hint="copy large files with scp"
        )
    if "over limit" in said:
        return BangerError(
            "the machine sends a file that is too large", reason=Reason.TOO_LARGE, hint="copy large files with scp"
        )
    if "early EOF" in said:
        return _cut()
    if "no space left" in said.lower():
        return BangerError("there is no room for what the machine sends", reason=Reason.NO_SPACE)
    lines = [line for line in said.splitlines() if line.startswith(("fatal:", "error:"))]
    return _lie(printable(lines[0].partition(": ")[2])[:200] if lines else "it cannot be read")


def _lie(why: str) -> BangerError:
    return BangerError(
        f"what the machine sends is refused: {why}",
        reason=Reason.CORRUPT,
        hint="nothing of it was taken",
    )


def _cut() -> BangerError:
    return BangerError("what the machine sends ends too early", reason=Reason.GUEST, hint="nothing of it was taken")
