"""A program out of an npm package: resolved with `npm view`, fetched with `npm pack`, checked by its integrity hash.

npm asks whatever registry the user's own configuration names. A host without npm resolves to "absent": an image
that wants the program is then built without it, and says so.
"""

from __future__ import annotations

import base64
import hashlib
import hmac
import json
import re
import tarfile
from pathlib import Path

from banger.errors import BangerError, Reason
from banger.run import find_program, run
from catalog.recipes import NpmBinary
from pipelines.job import Job
from pipelines.step import Artifact, Step

# semver.org, 2.0.0.
_VERSION = re.compile(r"[0-9]+\.[0-9]+\.[0-9]+[0-9A-Za-z.+-]*")


def plan_npm_binary(binary: NpmBinary) -> Artifact:
    """The program as an artifact: a tar that holds it at its path, or nothing when the host has no npm."""
    name = binary.path.rpartition("/")[2]
    lock = Step(
        name=f"lock:npm-{name}",
        kind="npm-lock",
        version=1,
        build=lambda job: job.write_json("lock", _resolve(job, binary)),
        outputs=("lock",),
        parameters={"package": binary.package},
        resolves=True,
    )
    fetch = Step(
        name=f"npm:{name}",
        kind="npm-binary",
        version=1,
        build=lambda job: _fetch(job, binary),
        outputs=("files",),
        parameters={"package": binary.package, "file": binary.file, "path": binary.path},
        inputs={"lock": lock.output("lock")},
    )
    return fetch.output("files")


def _resolve(job: Job, binary: NpmBinary) -> dict[str, str]:
    if find_program("npm") is None:
        job.note(f"npm is not installed: the image is built without {binary.path.rpartition('/')[2]}")
        return {}
    job.progress("asking the registry")
    said = run(["npm", "view", binary.package, "version", "dist.integrity", "--json", *_options(job)], timeout_s=120)
    try:
        found = json.loads(said.stdout)
        version, integrity = str(found["version"]), str(found["dist.integrity"])
    except (ValueError, KeyError, TypeError) as error:
        raise BangerError(f"npm does not tell what {binary.package} is", reason=Reason.CORRUPT) from error
    if not integrity.startswith("sha512-"):
        raise BangerError(f"npm gives no sha512 for {binary.package}", reason=Reason.CORRUPT)
    return {"version": version, "integrity": integrity}


def _fetch(job: Job, binary: NpmBinary) -> None:
    lock = job.read_json("lock")
    with job.create("files") as sink, tarfile.open(fileobj=sink, mode="w|", format=tarfile.GNU_FORMAT) as files:
        if not lock:
            return
        if not _VERSION.fullmatch(lock["version"]):
            # npm takes addresses in its place, and the lock may come from a remote cache.
            raise BangerError(f"{binary.package} has no version {lock['version']!r}", reason=Reason.CORRUPT)
        job.progress(f"fetching {binary.package} {lock['version']}")
        run(
            [
                "npm",
                "pack",
                f"{binary.package}@{lock['version']}",
                "--ignore-scripts",
                "--pack-destination",
                str(job.directory),
                *_options(job),
            ],
            timeout_s=900,
        )
        packages = list(job.directory.glob("*.tgz"))
        if len(packages) != 1:
            raise BangerError(f"npm fetched {len(packages)} packages for {binary.package}", reason=Reason.CORRUPT)
        check_integrity(packages[0], lock["integrity"], binary.package)
        with tarfile.open(packages[0]) as tar:
            member = next((each for each in tar if each.name == binary.file and each.isreg()), None)
            source = None if member is None else tar.extractfile(member)
            if member is None or source is None:
                raise BangerError(f"the npm package {binary.package} holds no {binary.file}", reason=Reason.CORRUPT)
            entry = tarfile.TarInfo(binary.path)
            entry.size, entry.mode = member.size, 0o755
            files.addfile(entry, source)


def check_integrity(package: Path, integrity: str, name: str) -> None:
    """Compare with a Subresource Integrity string (W3C SRI, section 3.5) of the sha512 kind."""
    with package.open("rb") as source:
        digest = hashlib.file_digest(source, "sha512").digest()
    if not hmac.compare_digest(base64.b64encode(digest).decode(), integrity.removeprefix("sha512-")):
        raise BangerError(f"the npm package {name} is not what the registry promised", reason=Reason.CORRUPT)


def _options(job: Job) -> list[str]:
    # The prefix is where npm looks for a project's own .npmrc: not in the folder that somebody happens to be in, which
    # may be a hostile clone that names a registry of its own.
    where = ["--prefix", str(job.directory), "--cache", str(job.directory / "npm-cache")]
    return [*where, "--loglevel", "error", "--no-update-notifier"]
