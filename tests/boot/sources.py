"""Real projects as git repositories: the sources of Debian packages, from where the host's own packages come from."""

from __future__ import annotations

import subprocess
from pathlib import Path

from pipelines.apt import find_mirrors

_SUITE = "trixie"
_KEYRING = "/usr/share/keyrings/debian-archive-keyring.gpg"


def fetch_sources(place: Path, *packages: str) -> dict[str, Path]:
    """The packages' upstream archives, verified by apt; kept in `place`."""
    place.mkdir(parents=True, exist_ok=True)
    for folder in ("lists/partial", "cache/archives/partial"):
        (place / folder).mkdir(parents=True, exist_ok=True)
    (place / "sources.list").write_text(f"deb-src [signed-by={_KEYRING}] {find_mirrors(None).debian} {_SUITE} main\n")
    settings = {
        "Dir::Etc::sourcelist": place / "sources.list",
        "Dir::Etc::sourceparts": "/dev/null",
        "Dir::State::lists": place / "lists",
        "Dir::Cache": place / "cache",
        "APT::Sandbox::User": "root",
    }
    options = [word for name, value in settings.items() for word in ("-o", f"{name}={value}")]
    for words in (["update"], ["source", "--download-only", *packages]):
        subprocess.run(["apt-get", "-qq", *options, *words], cwd=place, check=True, capture_output=True)
    return {package: next(place.glob(f"{package}_*.orig.tar.*")) for package in packages}


def make_repository(archive: Path, root: Path) -> Path:
    """A repository whose one commit is what the archive holds."""
    root.mkdir(parents=True)
    subprocess.run(["tar", "-xf", archive, "--strip-components=1", "-C", root], check=True)
    git(root, "init", "-q", "-b", "main")
    git(root, "config", "user.name", "Ada Löw")
    git(root, "config", "user.email", "ada@example.org")
    git(root, "config", "gc.auto", "0")
    git(root, "add", "-A", "-f")
    git(root, "commit", "-q", "-m", "As published")
    return root


def git(root: Path, *words: str) -> str:
    done = subprocess.run(["git", "-C", root, *words], check=True, capture_output=True)
    return done.stdout.decode("utf-8", "surrogateescape")
