"""Debian's archive, asked through the host's apt: which packages, of which version, with which hash.

Recipes name suites and packages, never a mirror. The mirror is what the host's own apt uses for Debian, or the
`debian_mirror` key of the configuration. Signatures are checked by apt against Debian's own keyring.
"""

from __future__ import annotations

import email.utils
import re
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from urllib.parse import unquote, urlsplit, urlunsplit

import blake3

from banger.errors import BangerError, Reason
from banger.run import run
from pipelines.job import Job
from pipelines.step import Step

ARCHITECTURE = "amd64"
_KEYRINGS = (
    "/usr/share/keyrings/debian-archive-keyring.pgp",
    "/usr/share/keyrings/debian-archive-keyring.gpg",
)
# One line of `apt-get --print-uris` (apt-get(8)): 'URI' file-name size hash.
_URI_LINE = re.compile(r"^'(?P<uri>[^']+)' (?P<file>\S+) (?P<size>\d+) SHA256:(?P<sha256>[0-9a-f]{64})$")


@dataclass(frozen=True)
class Mirrors:
    """Base addresses of the main archive and of the security archive."""

    debian: str
    security: str


def find_mirrors(configured: str | None) -> Mirrors:
    """The mirrors to use: the configured one, or those of the host's apt.

    A configured mirror also serves security when it has `debian-security` beside `debian`, as Debian's mirrors do.
    """
    if configured:
        base = configured.rstrip("/")
        return Mirrors(base, base.removesuffix("/debian") + "/debian-security")
    listed = run(
        ["apt-get", "indextargets", "--format", "$(LABEL)|$(CODENAME)|$(REPO_URI)", "Created-By: Packages"]
    ).stdout.decode("utf-8", "replace")
    found: dict[str, str] = {}
    for line in listed.splitlines():
        label, codename, uri = (line.split("|") + ["", ""])[:3]
        if uri.startswith(("http://", "https://")) and "backports" not in codename:
            found.setdefault(label, _without_credentials(uri.rstrip("/")))
    if "Debian" not in found:
        raise BangerError(
            "this host's apt knows no mirror of Debian",
            reason=Reason.NOT_FOUND,
            hint='run "sudo apt-get update", or name a mirror: debian_mirror = "http://…/debian" in the configuration',
        )
    main = found["Debian"]
    return Mirrors(main, found.get("Debian-Security", main.removesuffix("/debian") + "/debian-security"))


def plan_mirrors(configured: str | None) -> Step:
    """`find_mirrors` as a step, so that apt is asked again only when its configuration changed: output `mirrors`.

    An empty object where the host knows no mirror.
    """
    sources = blake3.blake3((configured or "").encode())
    for path in (Path("/etc/apt/sources.list"), *sorted(Path("/etc/apt/sources.list.d").glob("*"))):
        if path.is_file():
            # Not the content: it may hold passwords that only root can read.
            found = path.stat()
            sources.update(f"{path.name}\0{found.st_size}\0{found.st_mtime_ns}\0".encode("utf-8", "surrogateescape"))

    def build(job: Job) -> None:
        try:
            found = asdict(find_mirrors(configured))
        except BangerError as error:
            # An image that was built elsewhere boots on a host that has no apt, or none that knows Debian.
            if error.reason not in (Reason.MISSING_PROGRAM, Reason.NOT_FOUND):
                raise
            job.note(f"{error.message}: the machine gets no sources of packages")
            found = {}
        job.write_json("mirrors", found)

    return Step(
        name="mirrors",
        kind="apt-mirrors",
        version=1,
        build=build,
        outputs=("mirrors",),
        parameters={"sources": sources.hexdigest()},
    )


def format_sources(suite: str, mirrors: Mirrors) -> list[str]:
    """The one-line sources of a suite with its updates and security fixes (sources.list(5))."""
    options = f"[arch={ARCHITECTURE} signed-by={get_keyring()}]"
    return [
        f"deb {options} {mirrors.debian} {suite} main",
        f"deb {options} {mirrors.debian} {suite}-updates main",
        f"deb {options} {mirrors.security} {suite}-security main",
    ]


def get_keyring() -> str:
    for path in _KEYRINGS:
        if Path(path).exists():
            return path
    raise BangerError(
        "Debian's archive keyring is missing",
        reason=Reason.MISSING_PROGRAM,
        hint="install it: sudo apt-get install debian-archive-keyring",
    )


def plan_lock(name: str, suite: str, packages: Sequence[str], selection: str, debian_mirror: str | None) -> Step:
    """The step that resolves packages of a suite to versions and hashes: output `lock`, a small JSON document.

    `selection` is an apt pattern for what comes on top of `packages` (`?essential`, or more).
    """

    def build(job: Job) -> None:
        job.progress("asking the archive")
        job.write_json(
            "lock", resolve_packages(suite, [*packages, selection], find_mirrors(debian_mirror), job.directory)
        )

    return Step(
        name=f"lock:{name}",
        kind="apt-lock",
        version=1,
        build=build,
        outputs=("lock",),
        parameters={"suite": suite, "packages": list(packages), "selection": selection},
        resolves=True,
    )


def resolve_packages(suite: str, wanted: Sequence[str], mirrors: Mirrors, scratch: Path) -> dict[str, object]:
    """Ask the archive. Gives {suite, epoch, packages: [{name, version, architecture, sha256, size_bytes}]}.

    `epoch` (seconds) is the date of the suite's release: a time for files that the build makes, the same on every
    machine.
    """
    state, cache = scratch / "state", scratch / "cache"
    for folder in (state / "lists/partial", cache / "archives/partial"):
        folder.mkdir(parents=True)
    (state / "status").touch()
    sources = scratch / "sources.list"
    sources.write_text("\n".join(format_sources(suite, mirrors)) + "\n")
    options = [
        word
        for setting in (
            f"Dir::State={state}",
            f"Dir::State::status={state}/status",
            f"Dir::Cache={cache}",
            f"Dir::Etc::sourcelist={sources}",
            "Dir::Etc::sourceparts=/dev/null",
            "Dir::Etc::preferences=/dev/null",
            "Dir::Etc::preferencesparts=/dev/null",
            f"APT::Architecture={ARCHITECTURE}",
            f"APT::Architectures={ARCHITECTURE}",
            "APT::Install-Recommends=false",
            "APT::Sandbox::User=root",
            "Acquire::Languages=none",
            "Acquire::ForceHash=SHA256",
            "Acquire::Retries=3",
        )
        for word in ("-o", setting)
    ]
    run(["apt-get", *options, "--error-on=any", "update"], timeout_s=300)
    found = run(["apt-get", *options, "install", "--yes", "--print-uris", *wanted], must_succeed=False)
    if found.returncode != 0:
        said = found.stderr.decode("utf-8", "replace").strip().splitlines() or ["no reason given"]
        raise BangerError(f"apt cannot resolve {suite}: {said[-1]}", reason=Reason.NOT_FOUND)
    packages = [_parse_uri_line(line) for line in found.stdout.decode().splitlines() if line.startswith("'")]
    if not packages:
        raise BangerError(f"apt resolved no package of {suite}", reason=Reason.NOT_FOUND)
    return {
        "suite": suite,
        "epoch": _release_date(state / "lists", suite),
        "packages": sorted(packages, key=lambda package: str(package["name"])),
    }


def _parse_uri_line(line: str) -> dict[str, object]:
    match = _URI_LINE.match(line)
    parts = unquote(match["file"]).removesuffix(".deb").split("_") if match else []
    if match is None or len(parts) != 3:
        raise BangerError(f"apt printed an unknown line: {line!r}", reason=Reason.COMMAND_FAILED)
    name, version, architecture = parts
    return {
        "name": name,
        "version": version,
        "architecture": architecture,
        "sha256": match["sha256"],
        "size_bytes": int(match["size"]),
    }


def _release_date(lists: Path, suite: str) -> int:
    """The Date field of the suite's Release file (Debian repository format, "Date, Valid-Until")."""
    for path in sorted(lists.glob(f"*_dists_{suite}_InRelease")):
        for line in path.read_text("utf-8", "replace").splitlines():
            if line.startswith("Date:"):
                return int(email.utils.parsedate_to_datetime(line.removeprefix("Date:").strip()).timestamp())
    raise BangerError(f"the Release file of {suite} has no date", reason=Reason.NOT_FOUND)


def _without_credentials(uri: str) -> str:
    """Addresses end up inside guests; a password for the mirror must not."""
    parts = urlsplit(uri)
    return urlunsplit(parts._replace(netloc=parts.netloc.rpartition("@")[2]))
