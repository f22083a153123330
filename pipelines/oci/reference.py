"""The name of an image in a registry: `debian`, `ghcr.io/owner/tool:1.2`, `localhost:5000/app@sha256:…`.

The grammar and the rules of normalisation are those of the distribution project (github.com/distribution/reference,
`reference.go` and `normalize.go`), so that a name means here what it means to docker, podman and skopeo.
`parse_reference` is the inverse of both `canonical` and `familiar`. Nothing is asked of the network.
"""

from __future__ import annotations

import ipaddress
import re
from dataclasses import dataclass

from banger.errors import BangerError, Reason

DEFAULT_REGISTRY = "docker.io"
_OFFICIAL = "library/"
_MAX_REPOSITORY_CHARS = 255
_MAX_TEXT_CHARS = 1024  # nothing valid comes near it: domain 253, repository 255, tag 128, digest 135

_COMPONENT = r"[a-z0-9]+(?:(?:[._]|__|-+)[a-z0-9]+)*"
_REPOSITORY = re.compile(rf"{_COMPONENT}(?:/{_COMPONENT})*")
_LABEL = r"[a-zA-Z0-9](?:[a-zA-Z0-9-]*[a-zA-Z0-9])?"
_DOMAIN = re.compile(rf"(?:{_LABEL}(?:\.{_LABEL})*|\[(?P<ipv6>[0-9a-fA-F:.]+)\])(?::(?P<port>[0-9]{{1,5}}))?")
_TAG = re.compile(r"[a-zA-Z0-9_][a-zA-Z0-9_.-]{0,127}")
_DIGEST = re.compile(r"sha256:[0-9a-f]{64}|sha512:[0-9a-f]{128}")
_IMAGE_ID = re.compile(r"[0-9a-f]{64}")


@dataclass(frozen=True)
class Reference:
    """A parsed reference: at least one of `tag` and `digest` is there; with both, the digest says which bytes."""

    registry: str
    repository: str
    tag: str | None
    digest: str | None

    @property
    def canonical(self) -> str:
        """In full: `docker.io/library/debian:12`."""
        return f"{self.registry}/{self.repository}{self._end}"

    @property
    def familiar(self) -> str:
        """As people write it: `debian:12`."""
        if self.registry != DEFAULT_REGISTRY:
            return self.canonical
        short = self.repository.removeprefix(_OFFICIAL)
        if "/" in short and self.repository != short:
            return self.repository + self._end
        # docker.io/localhost/x must not become localhost/x.
        return self.canonical if _is_domain(short) else short + self._end

    @property
    def _end(self) -> str:
        return (f":{self.tag}" if self.tag else "") + (f"@{self.digest}" if self.digest else "")


def parse_reference(text: str) -> Reference:
    """Read a reference as docker does; without tag and digest the tag is `latest`. Raises BAD_INPUT, nothing else."""
    if len(text) > _MAX_TEXT_CHARS or not text:
        raise _refuse(text, "it is empty" if not text else "it is too long")
    if _IMAGE_ID.fullmatch(text):
        raise _refuse(text, "64 hexadecimal digits alone are an image's ID, not a name")
    rest, at, digest = text.partition("@")
    if at and _DIGEST.fullmatch(digest) is None:
        raise _refuse(text, "what follows '@' is no sha256 or sha512 digest")
    registry, repository = _split_registry(rest)
    repository, colon, tag = repository.partition(":")
    if colon and _TAG.fullmatch(tag) is None:
        raise _refuse(text, "a tag is 1 to 128 letters, digits, '_', '.' or '-', and starts with none of the last two")
    _check_registry(registry, text)
    if registry == DEFAULT_REGISTRY and "/" not in repository:
        repository = _OFFICIAL + repository
    _check_repository(repository, text)
    if not colon and not at:
        tag = "latest"
    return Reference(registry, repository, tag or None, digest or None)


def _is_domain(text: str) -> bool:
    """Whether what stands before the first '/' is a registry, not the first part of a repository."""
    first, slash, _ = text.partition("/")
    return bool(slash) and ("." in first or ":" in first or first == "localhost" or first.lower() != first)


def _split_registry(text: str) -> tuple[str, str]:
    if not _is_domain(text):
        return DEFAULT_REGISTRY, text
    registry, _, repository = text.partition("/")
    return DEFAULT_REGISTRY if registry == "index.docker.io" else registry, repository


def _check_registry(registry: str, text: str) -> None:
    match = _DOMAIN.fullmatch(registry)
    if match is None:
        raise _refuse(text, "what stands before the first '/' is no name of a registry")
    if match["port"] and not 0 < int(match["port"]) < 65536:
        raise _refuse(text, "a port is a number from 1 to 65535")
    if match["ipv6"]:
        try:
            ipaddress.IPv6Address(match["ipv6"])
        except ValueError:
            raise _refuse(text, "what stands in brackets is no IPv6 address") from None


def _check_repository(repository: str, text: str) -> None:
    if len(repository) > _MAX_REPOSITORY_CHARS:
        raise _refuse(text, f"a repository's name has at most {_MAX_REPOSITORY_CHARS} characters")
    if _REPOSITORY.fullmatch(repository):
        return
    if _REPOSITORY.fullmatch(repository.lower()):
        raise _refuse(text, "a repository's name is in lower case")
    raise _refuse(text, "a repository is lower case letters and digits, joined by '.', '_', '__', '-' or '/'")


def _refuse(text: str, why: str) -> BangerError:
    return BangerError(
        f"{text[:100]!r} names no image: {why}",
        reason=Reason.BAD_INPUT,
        hint="an image is named like debian:12, ghcr.io/owner/tool:1.2 or localhost:5000/app@sha256:…",
    )
