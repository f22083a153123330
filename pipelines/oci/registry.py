"""An image in a registry, by the OCI distribution spec (and Docker's registry HTTP API V2, which it grew from).

Where it is spoken to: https. A registry on loopback is asked by plain http first, and by https when that is what
answers there; one that is marked insecure by https without checking its certificate, then by plain http.
Credentials go to the registry's own origin and to the token server that it names, never where a redirect leads; a
token server gets them over https only, unless it and the registry are on loopback, or it is itself marked insecure.

`read_root` and `read_manifest` try again by themselves; `open_blob` tries once: `blob.py` resumes where it stopped.
"""

from __future__ import annotations

import contextlib
import copy
import dataclasses
import hashlib
import json
import os
import re
import threading
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import IO, TYPE_CHECKING, Self, cast
from urllib.parse import urlencode, urljoin

from banger.errors import BangerError, Reason
from banger.run import printable
from pipelines.oci.credentials import Access, find_credentials, normalise_host, parse_challenges
from pipelines.oci.reference import DEFAULT_REGISTRY, Reference
from pipelines.oci.retry import (
    PATIENCE,
    Body,
    Patience,
    explain,
    explain_status,
    host_of,
    is_loopback,
    origin_of,
    persist,
    quote_answer,
    read_limited,
)
from pipelines.oci.session import find_cas, make_session
from pipelines.oci.source import Descriptor

if TYPE_CHECKING:
    from requests import Response, Session

Form = list[tuple[str, str]]
_HUB_HOST = "registry-1.docker.io"
_MANIFEST_TYPES = (
    "application/vnd.oci.image.index.v1+json",
    "application/vnd.oci.image.manifest.v1+json",
    "application/vnd.docker.distribution.manifest.list.v2+json",
    "application/vnd.docker.distribution.manifest.v2+json",
)
_SCHEMA_1 = "application/vnd.docker.distribution.manifest.v1+"
_MAX_MANIFEST_BYTES = 4 << 20  # distribution spec, "Pushing Manifests"
_MAX_ANSWER_BYTES = 1 << 20
_MAX_REDIRECTS = 5
_TIMEOUT_S = (10.0, 30.0)  # to connect, and between two reads
_CHUNK_BYTES = 1 << 20


@dataclass(frozen=True)
class RegistryOptions:
    """What the configuration says about one registry; `host` as in a reference: `docker.io`, `localhost:5000`."""

    host: str
    username: str = ""
    password: str = field(default="", repr=False)
    ca: Path | None = None
    insecure: bool = False


class RegistrySource:
    """The `Source` of one reference. Connections are kept and shared; credentials are looked up when asked for."""

    def __init__(
        self,
        reference: Reference,
        options: Mapping[str, RegistryOptions] | None = None,
        *,
        environment: Mapping[str, str] = os.environ,
        patience: Patience = PATIENCE,
        access: type[Access] = Access,
    ) -> None:
        self._reference = reference
        self.patience = patience
        by_host = {normalise_host(host): each for host, each in (options or {}).items()}
        self._web = self._make_web(reference.registry, by_host, environment)
        known = by_host.get(normalise_host(reference.registry))
        self._access = access(
            reference,
            lambda: find_credentials(reference.registry, environment, repository=reference.repository, options=known),
            self._web.exchange,
        )

    def _make_web(self, registry: str, options: Mapping[str, RegistryOptions], environment: Mapping[str, str]) -> Web:
        return Web(registry, options, environment)

    @property
    def reference(self) -> str:
        return self._reference.canonical

    @property
    def name(self) -> str | None:
        return self._reference.familiar

    def at(self, tag_or_digest: str) -> Self:
        """Another tag or digest of the same repository, over the same connection."""
        is_digest = ":" in tag_or_digest
        other = copy.copy(self)
        other._reference = dataclasses.replace(
            self._reference,
            tag=None if is_digest else tag_or_digest,
            digest=tag_or_digest if is_digest else None,
        )
        return other

    def read_root(self) -> tuple[Descriptor, bytes]:
        wanted = self._reference.digest or self._reference.tag
        content, response = self._read_manifest(f"manifests/{wanted}")
        told = response.headers.get("Docker-Content-Digest", "").strip()
        digest = self._reference.digest or _digest(content, "sha256")
        for other in (digest, told or digest):
            if _digest(content, other.partition(":")[0]) != other:
                raise self._corrupt(f"the manifest has not the digest {printable(other)[:150]}")
        media_type = self._media_type(content, response.headers.get("Content-Type", ""))
        return Descriptor(media_type, digest, len(content)), content

    def read_manifest(self, descriptor: Descriptor) -> bytes:
        if descriptor.size_bytes > _MAX_MANIFEST_BYTES:
            raise BangerError(
                f"{self.reference}: the manifest {descriptor.digest} is larger than 4 MiB", reason=Reason.TOO_LARGE
            )
        return self._read_manifest(f"manifests/{descriptor.digest}")[0]

    @contextlib.contextmanager
    def open_blob(self, descriptor: Descriptor, offset: int = 0) -> Iterator[IO[bytes]]:
        headers = {"Range": f"bytes={offset}-"} if offset else {}
        with self._get(f"blobs/{descriptor.digest}", headers) as response:
            skip = self._check_range(response, descriptor, offset)
            body = Body(response)
            while skip:
                skipped = len(body.read(min(skip, _CHUNK_BYTES)))
                if not skipped:
                    raise self._corrupt(f"the blob {descriptor.digest} ends before byte {offset}")
                skip -= skipped
            yield cast(IO[bytes], body)

    def _read_manifest(self, path: str) -> tuple[bytes, Response]:
        def read() -> tuple[bytes, Response]:
            with self._get(path, {"Accept": ", ".join(_MANIFEST_TYPES)}) as response:
                return read_limited(response, _MAX_MANIFEST_BYTES), response

        return persist(read, self.patience)

    def _get(self, path: str, headers: Mapping[str, str]) -> Response:
        """One GET below the repository, authorized when the registry wants it; the answer is a good one."""
        url = f"{self._web.find_base()}/v2/{self._reference.repository}/{path}"
        authorization = self._access.find_header()
        response = self._web.get(url, headers, authorization)
        if response.status_code == 401 and origin_of(response.url) == origin_of(url):
            challenges = parse_challenges(response.headers.get("WWW-Authenticate", ""))
            response.close()
            response = self._web.get(url, headers, self._access.answer(challenges, authorization))
        if response.status_code in (200, 206):
            return response
        with response:
            if response.status_code in (401, 403) and origin_of(response.url) == origin_of(url):
                raise self._access.refuse(quote_answer(response))
            if response.status_code == 404:
                what = "the image" if path.startswith("manifests/") else path
                raise BangerError(
                    f"{self.reference}: {self._reference.registry} does not have {what}{quote_answer(response)}",
                    reason=Reason.NOT_FOUND,
                    hint="check the repository's name and the tag",
                )
            if response.status_code == 416:
                raise self._corrupt(f"{path} is shorter than its descriptor says")
            raise explain_status(response)

    def _check_range(self, response: Response, descriptor: Descriptor, offset: int) -> int:
        """How many bytes to skip to be at `offset`; raises CORRUPT if it is not the blob's length that is promised."""
        total = response.headers.get("Content-Length", "")
        start = 0
        if response.status_code == 206:
            told = response.headers.get("Content-Range", "")
            match = re.fullmatch(r"bytes ([0-9]{1,19})-[0-9]{1,19}/([0-9]{1,19}|\*)", told.strip())
            if match is None or int(match[1]) != offset:
                raise self._corrupt(f"asked for bytes from {offset} on, it sends {printable(told)[:80]!r}")
            start, total = offset, match[2]
        if descriptor.size_bytes >= 0 and total.isdecimal() and total.lstrip("0") != f"{descriptor.size_bytes or ''}":
            total = printable(total)[:20]
            raise self._corrupt(f"the blob {descriptor.digest} has {total} bytes instead of {descriptor.size_bytes}")
        return offset - start

    def _media_type(self, content: bytes, header: str) -> str:
        """The type: what the header says, unless that is a general one; the document must not contradict it."""
        try:
            document = json.loads(content)
        except (ValueError, RecursionError) as error:
            raise self._corrupt("its manifest is not JSON") from error
        if not isinstance(document, dict):
            raise self._corrupt("its manifest is no JSON object")
        told = header.partition(";")[0].strip().lower()
        inner = document.get("mediaType")
        if told.startswith(_SCHEMA_1) or document.get("schemaVersion") == 1:
            raise BangerError(
                f"{self.reference} is in Docker's schema 1, which was given up in 2017",
                reason=Reason.BAD_INPUT,
                hint="push the image again with a current tool; skopeo copy converts it",
            )
        if told in _MANIFEST_TYPES:
            if inner is not None and inner != told:
                raise self._corrupt(f"its manifest is sent as {told}, and says to be {str(inner)[:100]!r}")
            return told
        if inner in _MANIFEST_TYPES:
            return str(inner)
        raise BangerError(
            f"{self.reference} is no container image, but {str(inner or told)[:100]!r}", reason=Reason.BAD_INPUT
        )

    def _corrupt(self, what: str) -> BangerError:
        return BangerError(
            f"{self.reference}: {what}",
            reason=Reason.CORRUPT,
            hint="the registry is damaged, or something on the way alters what it sends",
        )


class Web:
    """HTTP as one registry is spoken to.

    One session serves all threads: its connection pools are made for that, it is not changed after it was made, and
    what is not safe to share, or would act behind our back (cookies, .netrc, redirects), is switched off.
    """

    def __init__(self, registry: str, options: Mapping[str, RegistryOptions], environment: Mapping[str, str]) -> None:
        self._registry = registry
        self._options = options
        self._environment = environment
        self._lock = threading.Lock()
        self._session_lock = threading.Lock()
        self._session: Session | None = None
        self._base: str | None = None

    def find_base(self) -> str:
        """`https://host` or `http://host`, found out by the first who asks."""
        with self._lock:
            if self._base is None:
                self._base = self._probe(_HUB_HOST if self._registry == DEFAULT_REGISTRY else self._registry)
            return self._base

    def get(self, url: str, headers: Mapping[str, str], authorization: str | None) -> Response:
        """A GET that follows redirects; `authorization` goes to the origin of `url` alone."""
        target = url
        for _ in range(_MAX_REDIRECTS):
            own = authorization if origin_of(target) == origin_of(url) else None
            response = self._send("GET", target, headers, own)
            location = response.headers.get("Location")
            if response.status_code not in (301, 302, 303, 307, 308) or not location:
                return response
            response.close()
            target = self._follow(target, location)
        raise BangerError(f"{self._registry} redirects in a circle", reason=Reason.NETWORK)

    def exchange(self, realm: str, form: Form, authorization: str | None) -> tuple[int, bytes]:
        """Ask a token server: a GET with a query, or a POST when the form holds a secret. No redirect is followed."""
        self._check_realm(realm)
        if any(name == "refresh_token" for name, _ in form):
            response = self._send("POST", realm, {}, None, form=form)
        else:
            url = realm + ("&" if "?" in realm else "?") + urlencode(form)
            response = self._send("GET", url, {}, authorization)
        with response:
            if response.status_code not in (200, 400, 401, 403):
                raise explain_status(response)
            return response.status_code, read_limited(response, _MAX_ANSWER_BYTES)

    def _probe(self, host: str) -> str:
        schemes = ["http", "https"] if is_loopback(host) else ["https", "http"]
        if schemes[0] == "https" and not self._is_insecure(host):
            return f"https://{host}"
        failures: list[BangerError] = []
        for scheme in schemes:
            try:
                with self._send("GET", f"{scheme}://{host}/v2/", {}, None) as response:
                    # 400 is what servers answer to http where they speak TLS.
                    if scheme == "https" or response.status_code != 400:
                        return f"{scheme}://{host}"
            except BangerError as failure:
                failures.append(failure)
        raise failures[0]

    def _send(
        self, method: str, url: str, headers: Mapping[str, str], authorization: str | None, form: Form | None = None
    ) -> Response:
        from requests import RequestException
        from requests.utils import get_environ_proxies
        from urllib3.exceptions import HTTPError

        host = host_of(url)
        try:
            return self._get_session().request(
                method,
                url,
                headers={**headers, **({"Authorization": authorization} if authorization else {})},
                data=form,
                stream=True,
                allow_redirects=False,
                timeout=_TIMEOUT_S,
                verify=not self._is_insecure(host),
                # A proxy cannot reach our loopback, and must not see what is meant for it.
                proxies={} if is_loopback(host) else dict(get_environ_proxies(url)),
            )
        except (RequestException, HTTPError, OSError, ValueError) as error:
            raise explain(error, host) from error

    def _get_session(self) -> Session:
        with self._session_lock:
            if self._session is None:
                known = self._options.get(normalise_host(self._registry))
                cas = find_cas(self._registry, None if known is None else known.ca, self._environment)
                insecure = [_HUB_HOST if host == DEFAULT_REGISTRY else host for host in self._options]
                self._session = make_session(cas, [host for host in insecure if self._is_insecure(host)])
            return self._session

    def _is_insecure(self, host: str) -> bool:
        known = self._options.get(normalise_host(host))
        return known is not None and known.insecure

    def _follow(self, url: str, location: str) -> str:
        try:
            target = urljoin(url, location)
        except ValueError:
            target = ""
        scheme, host = origin_of(target)
        # A manifest that comes by tag has nothing but TLS to vouch for it.
        if scheme == "https" or (scheme == "http" and (url.startswith("http:") or self._is_insecure(host))):
            return target
        raise BangerError(f"{host_of(url)} redirects to what is not safe: {location[:150]!r}", reason=Reason.NETWORK)

    def _check_realm(self, realm: str) -> None:
        """No secret is sent in the clear, except where the registry itself is local or the realm's host is trusted."""
        scheme, host = origin_of(realm)
        local = is_loopback(host) and is_loopback(self._registry)
        if not host or not (scheme == "https" or (scheme == "http" and (local or self._is_insecure(host)))):
            raise BangerError(
                f"{self._registry} names a token server that is not reached by https: {realm[:150]!r}",
                reason=Reason.UNAUTHORIZED,
                hint="mark the token server's host insecure in the configuration, if you trust the network to it",
            )


def _digest(content: bytes, algorithm: str) -> str:
    if algorithm not in ("sha256", "sha512"):
        return ""
    return f"{algorithm}:{hashlib.new(algorithm, content).hexdigest()}"
