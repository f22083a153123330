"""A repository in a machine: each shape of `vm run` with one, its way back, and a guest that means no good."""

from __future__ import annotations

import hashlib
import json
import os
import signal
import subprocess
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.boot.host import Home, Host
from tests.boot.sources import fetch_sources, git, make_repository

_ODD = ["a b", "quote'\"s", "new\nline", "-dash", "ünï ✓", "tab\tin", "back\\slash", "$(id)"]
_STATUS = ("status", "--porcelain=v2", "--untracked-files=no")


@pytest.fixture(scope="module")
def archives(built: Home) -> dict[str, Path]:
    return fetch_sources(built.root / "sources", "git", "figlet")


@pytest.fixture(scope="module")
def repository(archives: dict[str, Path], tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A linked work tree of thousands of files, with a submodule, odd names, and changes of all kinds."""
    place = tmp_path_factory.mktemp("repositories")
    whole = make_repository(archives["git"], place / "whole")
    figlet = make_repository(archives["figlet"], place / "figlet")
    git(whole, "-c", "protocol.file.allow=always", "submodule", "add", "-q", str(figlet), "vendor/figlet")
    git(whole, "remote", "add", "origin", "https://ada:secret@git.invalid/whole.git")
    (whole / "odd").mkdir()
    for name in _ODD:
        (whole / "odd" / name).write_text(f"{name}\n")
    (whole / "binary").write_bytes(bytes(range(256)) * 40)
    (whole / "leads out").symlink_to("/etc/passwd")
    (whole / ".gitignore").write_text(".env\n*.o\n")
    (whole / "mise.toml").write_text('[env]\nGREETING = "from mise"\n')
    git(whole, "add", "-A")
    git(whole, "commit", "-q", "-m", "More")
    git(whole, "worktree", "add", "-q", "-b", "work", str(place / "tree"))
    tree = place / "tree"
    git(tree, "-c", "protocol.file.allow=always", "submodule", "update", "-q", "--init")
    assert len(git(tree, "ls-files").splitlines()) > 2000
    (tree / ".env").write_text("SECRET\n")
    (tree / "notes").write_text("untracked\n")
    # Dirty, staged, both, deleted, of another mode.
    (tree / "README.md").write_text("changed\n")
    (tree / "COPYING").write_text("staged\n")
    git(tree, "add", "COPYING")
    (tree / "Makefile").write_text("staged\n")
    git(tree, "add", "Makefile")
    (tree / "Makefile").write_text("and changed again\n")
    git(tree, "rm", "-q", "INSTALL")
    (tree / "sigchain.c").unlink()
    (tree / "dir.c").chmod(0o755)
    git(tree, "mv", "strbuf.c", "odd/strbuf moved.c")
    return tree


@pytest.fixture(scope="module")
def machine(host: Host, repository: Path) -> Iterator[str]:
    """Made by an interactive session that was left again."""
    said = b"pwd\ngit status --porcelain=v2\nexit 7\n"
    done = host.banger("vm", "run", "--name", "work", str(repository / "Documentation"), stdin=said)
    assert done.returncode == 7, done.stderr
    told = done.stdout.decode("utf-8", "surrogateescape")
    assert told.partition("\n")[0] == "/root/repo"
    assert told.partition("\n")[2] == git(repository, *_STATUS)
    assert b"banger vm stop work" in done.stderr
    assert b"tools of mise.toml: being installed (log: /root/.cache/banger/vm-run-tooling-tree.log)" in done.stderr
    yield "work"
    host.succeed("vm", "delete", "work")
    host.assert_nothing_left()


def ask(host: Host, *words: str, stdin: bytes | None = None) -> str:
    return host.succeed("vm", "exec", "work", "--", *words, stdin=stdin).decode("utf-8", "surrogateescape")


def digest_tree(root: Path) -> dict[str, tuple[str, str]]:
    """Content and mode of every file that git would look at, and of the index."""
    names = git(root, "ls-files", "-z", "--cached", "--others", "--exclude-standard").split("\0")
    found = {}
    for name in {*names} - {""}:
        path = root / name
        if path.is_symlink():
            found[name] = ("link", str(path.readlink()))
        elif path.is_file():
            mode = "x" if os.access(path, os.X_OK) and path.stat().st_mode & 0o100 else "-"
            found[name] = (mode, hashlib.sha256(path.read_bytes()).hexdigest())
    return found


def test_what_git_says_in_the_machine_is_what_it_says_on_the_host(host: Host, repository: Path, machine: str) -> None:
    assert ask(host, "git", *_STATUS) == git(repository, *_STATUS)
    assert ask(host, "git", "log", "-3", "--format=%H %an %s") == git(repository, "log", "-3", "--format=%H %an %s")
    assert ask(host, "git", "branch", "--show-current") == "work\n"
    assert ask(host, "git", "remote", "get-url", "origin") == "https://git.invalid/whole.git\n"
    assert ask(host, "git", "config", "--global", "user.name") == "Ada Löw\n"
    assert ask(host, "sh", "-c", "ls -a | grep -c -e '^.env$' -e '^notes$'; exit 0") == "0\n"
    listed = "cd odd; for name in *; do printf '%s|' \"$name\"; done"
    wanted = sorted([*_ODD, "strbuf moved.c"], key=str.encode)
    assert ask(host, "env", "LC_ALL=C", "sh", "-c", listed).split("|")[:-1] == wanted
    assert ask(host, "readlink", "leads out") == "/etc/passwd\n"
    assert ask(host, "sh", "-c", "ls vendor/figlet/fonts | wc -l").strip() == str(
        len(list((repository / "vendor/figlet/fonts").iterdir()))
    )
    assert ask(host, "mise", "exec", "--", "sh", "-c", "echo $GREETING; test -f ~/.cache/banger/vm-run-*.log") == (
        "from mise\n"
    )
    assert json.loads(host.succeed("vm", "show", machine))["workspace"]["root"] == str(repository)


def test_what_is_changed_in_the_machine_comes_back(host: Host, repository: Path, machine: str, tmp_path: Path) -> None:
    before = digest_tree(repository), (git(repository, "rev-parse", "HEAD"), git(repository, *_STATUS))
    script = """set -e
        printf 'one\\ntwo' >README.md; head -c 100000 /dev/urandom >new.bin
        git rm -q --cached pkt-line.c; rm pkt-line.c
        git mv -f git-zlib.c 'odd/z lib.c'; chmod -x dir.c; chmod +x cache-tree.c
        git add -A . && git commit -q --author 'Guest <g@example.org>' -m 'First'
        echo more >>new.bin; git commit -q -am 'Second'
        echo unstaged >>binary; echo staged >staged; git add staged; ln -s nowhere 'odd/link'; echo no >x.o
        rm -r t/perf; mkdir t/perf.new && echo x >t/perf.new/y
        git rev-parse HEAD; sha256sum .git/index; git count-objects -v | head -2"""
    made = ask(host, "sh", "-c", script)
    patch, summary = tmp_path / "it.patch", host.succeed("vm", "workspace", "export", machine, "--stat").decode()
    host.succeed("vm", "workspace", "export", machine, "--output", str(patch))
    assert ask(host, "sh", "-c", "git rev-parse HEAD; sha256sum .git/index; git count-objects -v | head -2") == made
    assert ask(host, "sh", "-c", "ls -d /tmp/banger-* 2>/dev/null | wc -l") == "0\n"
    assert 'rename git-zlib.c => "odd/z lib.c"' in summary or "z lib.c" in summary
    assert patch.read_bytes() == host.succeed("vm", "workspace", "export", machine)
    assert (digest_tree(repository), before[1]) == (before[0], before[1])
    # In a clean copy of the commit, the patch gives the guest's tree.
    fresh = tmp_path / "fresh"
    git(repository, "worktree", "add", "-q", "--detach", str(fresh), "HEAD")
    subprocess.run(["git", "-C", fresh, "apply", "--index", "--binary", patch], check=True)
    tree = git(fresh, "write-tree")
    git(repository, "worktree", "remove", "--force", str(fresh))
    host.succeed("vm", "workspace", "export", machine, "--branch", "from-guest")
    assert git(repository, "rev-parse", "from-guest^{tree}") == tree
    said = git(repository, "log", "-3", "--format=%an|%s", "from-guest").splitlines()
    assert said == ["Ada Löw|Work tree of work", "Ada Löw|Second", "Guest|First"]
    assert digest_tree(repository) == before[0]
    # And so it is in the work tree, over what was not committed there.
    host.succeed("vm", "workspace", "export", machine, "--apply", "--yes")
    assert git(repository, "stash", "create", "-q") != ""
    after = digest_tree(repository)
    guest = ask(
        host, "sh", "-c", "git ls-files -z -co --exclude-standard | sort -z | xargs -0 sha256sum -z 2>/dev/null || :"
    )
    theirs = {line[66:]: line[:64] for line in guest.split("\0") if line and not line.startswith("\\")}
    for name, digest in theirs.items():
        if name in after and after[name][0] != "link":
            assert after[name][1] == digest, name
    assert {name for name in after if after[name][0] != "link"} - {"notes"} == {
        name for name in theirs if name in after and after[name][0] != "link"
    }
    assert after["cache-tree.c"][0] == "x"
    assert after["dir.c"][0] == "-"
    assert not (repository / "t/perf").exists()
    assert b"has it all already" in host.banger("vm", "workspace", "export", machine, "--apply", "--yes").stderr


def test_a_file_that_the_host_changed_meanwhile_is_named_and_nothing_is_applied(
    host: Host, repository: Path, machine: str
) -> None:
    ask(host, "sh", "-c", "echo guest >>advice.c; echo guest >>alias.c")
    (repository / "advice.c").write_text("mine\n")
    before = digest_tree(repository)
    done = host.banger("vm", "workspace", "export", machine, "--apply", "--yes")
    assert done.returncode == 1
    assert b"advice.c" in done.stderr
    assert digest_tree(repository) == before
    # Sent again, the host's word counts, once that is said.
    refused = host.banger("vm", "workspace", "prepare", machine)
    assert refused.returncode == 1
    assert b"advice.c" in refused.stderr
    host.succeed("vm", "workspace", "prepare", machine, "--yes")
    assert ask(host, "cat", "advice.c") == "mine\n"
    assert ask(host, "git", *_STATUS) == git(repository, *_STATUS)


def test_a_ctrl_c_while_changes_are_taken_out_changes_nothing(host: Host, repository: Path, machine: str) -> None:
    ask(host, "sh", "-c", "echo again >>alias.c; git rev-parse HEAD >/root/head; sha256sum .git/index >/root/index")
    before = digest_tree(repository)
    for seconds in (0.3, 0.8, 1.3):
        child = host.start("vm", "workspace", "export", machine, "--apply", "--yes")
        time.sleep(seconds)
        child.send_signal(signal.SIGINT)
        _out, said = child.communicate(timeout=60)
        if child.returncode == 0:
            continue
        # The second is Python's own, before banger's code has begun.
        assert child.returncode in (130, -signal.SIGINT), said
        assert digest_tree(repository) == before
    deadline = time.monotonic() + 60
    while ask(host, "sh", "-c", "ls -d /tmp/banger-* 2>/dev/null | wc -l") != "0\n":
        assert time.monotonic() < deadline
    assert (
        ask(host, "sh", "-c", "git rev-parse HEAD | cmp - /root/head && sha256sum -c --quiet /root/index && echo same")
        == "same\n"
    )
    assert not list((host.home.state / "vms").glob("*/.scratch/*"))
    assert not list(Path(git(repository, "rev-parse", "--absolute-git-dir").strip()).glob("banger-apply-*"))


def test_a_ctrl_c_while_all_is_sent_again_changes_nothing_there(host: Host, repository: Path, machine: str) -> None:
    look = "git status --porcelain=v2; sha256sum .git/index README.md; ls -A . odd | sort"
    before = ask(host, "sh", "-c", look), digest_tree(repository)
    child = host.start("vm", "workspace", "prepare", machine, "--mode", "full_copy", "--yes")
    time.sleep(4)
    child.send_signal(signal.SIGINT)
    _out, said = child.communicate(timeout=60)
    assert child.returncode == 130, said
    deadline = time.monotonic() + 60
    while ask(host, "sh", "-c", "ls -d /root/.banger-incoming 2>/dev/null | wc -l") != "0\n":
        assert time.monotonic() < deadline
    assert (ask(host, "sh", "-c", look), digest_tree(repository)) == before
    # What would come back is what was changed there before, and nothing else.
    assert b"alias.c" in host.succeed("vm", "workspace", "export", machine, "--stat")


def test_a_copy_can_be_read_only(host: Host, repository: Path, machine: str) -> None:
    host.succeed("vm", "workspace", "prepare", machine, "--mode", "full_copy", "--readonly", "--yes")
    assert ask(host, "sh", "-c", "touch x 2>/dev/null || echo no; git status --porcelain=v2") == "no\n" + git(
        repository, *_STATUS
    )
    host.succeed("vm", "workspace", "prepare", machine)
    assert ask(host, "sh", "-c", "touch x && rm x && echo yes") == "yes\n"


def test_a_guest_that_means_no_good_reaches_nothing(host: Host, repository: Path, machine: str) -> None:
    """Its git is replaced by one that sends what it wants; the last one is a real tree with wild names."""
    before = digest_tree(repository), git(repository, "for-each-ref"), sorted(repository.parent.iterdir())
    lies = {
        "nothing": "exit 0",
        "no pack": 'printf "banger 1 - %040d\\n" 0; head -c 100000 /dev/urandom',
        "escapes": 'printf "\\033]0;owned\\007\\n" >&2; printf "\\033[31m"; exit 3',
    }
    for script in lies.values():
        ask(
            host,
            "sh",
            "-c",
            'printf "%s\\n" "#!/bin/sh" "$1" >/usr/local/bin/git; chmod +x /usr/local/bin/git',
            "sh",
            script,
        )
        done = host.banger("vm", "workspace", "export", machine, "--apply", "--yes")
        assert done.returncode == 1
        assert b"\x1b" not in done.stderr + done.stdout
    ask(host, "rm", "/usr/local/bin/git")
    wild = """set -e
        blob=$(echo pwned | git hash-object -w --stdin)
        hook=$(printf '100755 blob %s\\tpost-checkout' $blob | git mktree)
        hooks=$(printf '040000 tree %s\\thooks' $hook | git mktree)
        tree=$(printf '040000 tree %s\\t.git\\0' $hooks | git hash-object -t tree --literally -w --stdin || :)
        evil=$(printf '040000 tree %s\\t%s\\n' $hooks .GIT | git mktree)
        commit=$(git commit-tree $evil -p HEAD -m 'wild')
        git update-ref HEAD $commit"""
    ask(host, "sh", "-c", wild)
    for options in (["--apply", "--yes"], ["--branch", "wild"], ["--stat"]):
        done = host.banger("vm", "workspace", "export", machine, *options)
        assert b"\x1b" not in done.stderr + done.stdout
        assert done.returncode == 1, options
    assert (digest_tree(repository), git(repository, "for-each-ref"), sorted(repository.parent.iterdir())) == before


def test_the_tests_of_a_real_project_run_and_their_status_and_changes_come_out(
    host: Host, archives: dict[str, Path], tmp_path: Path
) -> None:
    figlet = make_repository(archives["figlet"], tmp_path / "figlet")
    (figlet / "tests/res001.txt").write_text("not what figlet writes\n")
    (figlet / ".gitignore").write_text("*.o\nfiglet\nchkfont\n")
    (figlet / "mise.toml").write_text('[tools]\nnode = "22"\n')
    git(figlet, "add", ".gitignore", "mise.toml")
    settings = write_settings(host, tmp_path / "mine")
    words = ["vm", "run", "--rm", str(figlet), "--export", str(tmp_path / "it.patch"), "--apply", "--yes", "--no-nat"]
    look = "cd; stat -c '%a %n' .aws .aws/* bin/tool; cat .aws/keys; cd repo"
    done = host.banger(*words, "--", "sh", "-c", f"{look}; echo made >made.txt; make -s figlet chkfont && make check")
    settings.unlink()
    assert done.returncode == 2, done.stdout + done.stderr
    assert b"tests failed" in done.stdout
    synced = "700 .aws\n600 .aws/keys\n750 .aws/more\n755 bin/tool\nsecret\n"
    assert done.stdout.decode().startswith(synced)
    assert b"file_sync[3]" in done.stderr
    # What could not be installed is said, with why, and the command ran all the same.
    assert b"tools of mise.toml: not all of them are there: the machine has no outbound network" in done.stderr
    assert (figlet / "made.txt").read_text() == "made\n"
    assert b"made.txt" in (tmp_path / "it.patch").read_bytes()
    assert b"res001" in (tmp_path / "it.patch").read_bytes()
    assert [each["name"] for each in host.machines()] in ([], ["work"])


def write_settings(host: Host, mine: Path) -> Path:
    """Files of the host's that every new machine is to get."""
    (mine / "aws/more").mkdir(parents=True, mode=0o750)
    (mine / "aws").chmod(0o700)
    (mine / "aws/keys").write_text("secret\n")
    (mine / "tool").write_text("#!/bin/sh\n")
    entries = [(mine / "aws", "~/.aws", ""), (mine / "tool", "/root/bin/tool", "0755"), (mine / "gone", "~/gone", "")]
    text = "".join(
        f'[[file_sync]]\nhost = "{source}"\nguest = "{guest}"\n' + (f'mode = "{mode}"\n' if mode else "")
        for source, guest, mode in entries
    )
    path = host.home.root / "config/banger/config.toml"
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(text)
    return path
