"""The small .git that goes along: the commit that is checked out, what led to it, and the index.

So git says in the guest what it says on the host.

Shallow: DEPTH commits back, with the tags on the way. Branches, remotes and hooks of the host stay there.
"""

from __future__ import annotations

import os
import shutil
from dataclasses import dataclass
from pathlib import Path
from urllib.parse import quote

from banger.workspace.git import find_git, plan_environment, run_git, split_names
from banger.workspace.repository import Author, Repository, find_author, find_origin, find_place
from banger.workspace.snapshot import COMPARED, Snapshot

DEPTH = 50
# Of the host's configuration: what decides how git reads and writes the files that are there.
_CONTENT_KEYS = ("autocrlf", "eol", "filemode", "symlinks", "sparsecheckout", "sparsecheckoutcone")
_PLACES = ("info/exclude", "info/attributes", "info/sparse-checkout")
# What the user says of all repositories counts less than what is said in this one, so it has a place of its own.
_USER_ATTRIBUTES = "info/user-attributes"
_GUEST_PLACE = "/root/repo/.git"
_GITLINK = "160000"


@dataclass(frozen=True)
class Checkout:
    """What is to be checked out in the guest: `commit` None is before the first one, `branch` None a detached HEAD."""

    commit: str | None
    branch: str | None


def make_history(repository: Repository, snapshot: Snapshot, checkout: Checkout, place: Path) -> None:
    """Make the repository in `place`, an empty folder: what becomes `.git` there, whole."""
    options = [f"--object-format={repository.object_format}", "--template=", "--bare", "--initial-branch=unused"]
    run_git(["-c", "init.defaultRefFormat=files", "init", "-q", *options, str(place)], place)
    if checkout.commit is not None:
        _fetch(repository, checkout.commit, place)
    _pack_index_objects(repository, snapshot, place)
    if snapshot.index is not None:
        _place_index(snapshot.index, place)
    _write_refs(checkout, place)
    (place / "info").mkdir(exist_ok=True)
    for name, content in _plan_places(repository).items():
        (place / name).write_bytes(content)
    config = _plan_config(repository)
    if (place / _USER_ATTRIBUTES).exists():
        config["core.attributesfile"] = f"{_GUEST_PLACE}/{_USER_ATTRIBUTES}"
    (place / "config").write_text(format_config(config), "utf-8", "surrogateescape")
    shutil.rmtree(place / "refs/banger", ignore_errors=True)


def format_gitconfig(author: Author) -> str:
    """What goes to ~/.gitconfig: who the host's user is to git."""
    return format_config(
        {f"user.{key}": value for key, value in (("name", author.name), ("email", author.email)) if value}
    )


def format_config(values: dict[str, str]) -> str:
    """git-config(1), "Syntax", from `section.name` or `section.sub.section.name`."""
    sections: dict[str, list[str]] = {}
    for key, value in values.items():
        section, _, rest = key.partition(".")
        subsection, _, name = rest.rpartition(".")
        head = f"[{section} {_quote(subsection)}]" if subsection else f"[{section}]"
        sections.setdefault(head, []).append(f"\t{name} = {_quote(value)}")
    return "".join(f"{line}\n" for head, lines in sections.items() for line in (head, *lines))


def _quote(text: str) -> str:
    escaped = text.replace("\\", "\\\\").replace('"', '\\"')
    return '"' + escaped.replace("\n", "\\n").replace("\t", "\\t").replace("\b", "\\b") + '"'


def _fetch(repository: Repository, commit: str, place: Path) -> None:
    """As a shallow clone is made, so that it is one; the host's repository may itself be shallow, or a work tree's."""
    url = "file://" + quote(os.fsencode(repository.root))
    # A partial clone lacks the files of older commits, and nothing is asked of the network for them.
    is_partial = find_git(["config", "--get-regexp", r"^remote\..*\.promisor$"], repository.root) is not None
    options = ["-q", f"--depth={1 if is_partial else DEPTH}", "--update-shallow", "--no-write-fetch-head"]
    settings = {
        "fetch.fsckObjects": "false",
        "fetch.recurseSubmodules": "false",
        "fetch.unpackLimit": "1",
        "pack.threads": "0",
        "protocol.file.allow": "always",
        # In older ones a commit can be asked for only if a branch or tag is there.
        "protocol.version": "2",
    }
    words = [word for name, value in settings.items() for word in ("-c", f"{name}={value}")]
    run_git([*words, "fetch", *options, url, f"{commit}:refs/banger/checkout"], place)


def _pack_index_objects(repository: Repository, snapshot: Snapshot, place: Path) -> None:
    """What is staged and not committed."""
    wanted = list_staged(repository, snapshot)
    if wanted:
        run_git(
            ["pack-objects", "-q", str(place / "objects/pack/pack")],
            repository.root,
            # Where git writes a pack before it gives it its name: not into the host's repository.
            environment=plan_environment(objects=place / "objects", alternates=[repository.objects]),
            stdin="".join(f"{each}\n" for each in sorted(wanted)).encode(),
        )


def _place_index(index: Path, place: Path) -> None:
    copy = place / "index"
    copy.write_bytes(index.read_bytes())
    # An index remembers trees of what is staged, which an aborted commit has made: those are to be here too. One in
    # conflict stands for no tree, and one of a partial clone knows of files that are not here.
    environment = plan_environment(index=copy)
    run_git(["write-tree", "--missing-ok"], place, environment=environment, must_succeed=False)


def list_staged(repository: Repository, snapshot: Snapshot) -> set[str]:
    if snapshot.index is None:
        return set()
    environment = plan_environment(index=snapshot.index)
    in_conflict = run_git(["ls-files", "-z", "--unmerged"], repository.root, environment=environment).stdout
    found = {entry.split(" ", 2)[1] for entry in split_names(in_conflict) if not entry.startswith(_GITLINK)}
    if repository.head is None:
        listed = run_git(["ls-files", "-z", "--stage"], repository.root, environment=environment).stdout
        entries = [entry.split(" ", 2) for entry in split_names(listed)]
        found |= {name for mode, name, _rest in entries if mode != _GITLINK}
    else:
        # An intent to add is an empty file to everything that writes or checks an index.
        options = ["--raw", "-z", "--no-renames", "--no-abbrev", "--ita-visible-in-index"]
        words = ["diff-index", "--cached", *options, repository.head]
        raw = split_names(run_git(words, repository.root, environment=environment).stdout)
        # git-diff-index(1), "Raw output format": ":mode mode object object status", then the path.
        entries = [entry[1:].split(" ") for entry in raw[::2]]
        found |= {each[3] for each in entries if each[1] != _GITLINK and each[4] in "AMT"}
    return {name for name in found if name.strip("0")}


def _write_refs(checkout: Checkout, place: Path) -> None:
    if checkout.commit is not None and checkout.branch is not None:
        run_git(["update-ref", f"refs/heads/{checkout.branch}", checkout.commit], place)
    if checkout.commit is not None:
        run_git(["update-ref", "-d", "refs/banger/checkout"], place)
    run_git(["pack-refs", "--all", "--prune"], place)
    head = checkout.commit if checkout.branch is None else f"ref: refs/heads/{checkout.branch}"
    (place / "HEAD").write_bytes(os.fsencode(f"{head}\n"))


def _plan_places(repository: Repository) -> dict[str, bytes]:
    """What is ignored on the host is ignored there, also by the user's own wish."""
    found: dict[str, bytes] = {}
    for name in _PLACES:
        place = find_place(repository.root, name)
        if place.is_file():
            found[name] = place.read_bytes()
    ignored = _read_user_file(repository, "core.excludesFile", "ignore")
    if ignored is not None:
        # The repository's own word counts more: it comes last.
        found["info/exclude"] = ignored.rstrip(b"\n") + b"\n" + found.get("info/exclude", b"")
    attributes = _read_user_file(repository, "core.attributesFile", "attributes")
    if attributes is not None:
        found[_USER_ATTRIBUTES] = attributes
    return found


def _read_user_file(repository: Repository, key: str, default: str) -> bytes | None:
    """gitignore(5), gitattributes(5): an empty path stands for none, a relative one begins at the work tree."""
    path = find_git(["config", "--type=path", "--get", key], repository.root)
    if path is None:
        base = os.environ.get("XDG_CONFIG_HOME") or Path.home() / ".config"
        path = str(Path(base) / "git" / default)
    place = repository.root / path
    return place.read_bytes() if path and place.is_file() else None


def _read_content_keys(repository: Repository) -> dict[str, str]:
    pattern = rf"^core\.({'|'.join(_CONTENT_KEYS)})$"
    told = find_git(["config", "-z", "--get-regexp", pattern], repository.root) or ""
    found = {}
    for entry in told.split("\0")[:-1]:
        key, has_value, value = entry.partition("\n")
        # git-config(1): a key alone is true.
        found[key] = value if has_value else "true"
    return found


def _plan_config(repository: Repository) -> dict[str, str]:
    is_old = repository.object_format == "sha1"
    config = {"core.repositoryformatversion": "0" if is_old else "1"}
    if not is_old:
        config["extensions.objectformat"] = repository.object_format
    config |= {"core.bare": "false", "core.logallrefupdates": "true"}
    config |= COMPARED
    config |= _read_content_keys(repository)
    origin = find_origin(repository)
    if origin is not None:
        config |= {"remote.origin.url": origin, "remote.origin.fetch": "+refs/heads/*:refs/remotes/origin/*"}
        # No upstream of a branch: without the remote's own branches git would say that it is gone.
    author = find_author(repository)
    config |= {f"user.{key}": value for key, value in (("name", author.name), ("email", author.email)) if value}
    return config
