"""A repository of a registry to write into: blobs that it has not yet, and manifests that speak of them.

Who we are told to be, which server may hear it, and how a registry is reached are decided by the same code that pulls
(`registry.py`, `credentials.py`). `oras` makes and checks the request that puts a manifest; the request itself is sent
by us, and so are blobs, since oras-py hands a password to whatever server a registry names, waits without end, repeats
what failed after minutes of sleep that no Ctrl-C ends, and reads a blob whole into memory.

Promised: what `push_blob` and `push_manifest` return from is in the registry, whole and under its digest, as far as the
registry can be believed. A blob is sent as a stream; one whose sending breaks is sent again from its start, a bounded
number of times. Several threads may use one pusher.
"""

from __future__ import annotations

import contextlib
import hashlib
import json
import os
import re
import threading
from collections.abc import Callable, Iterator, Mapping
from types import TracebackType
from typing import IO, TYPE_CHECKING, Any, cast
from urllib.parse import urlencode, urljoin, urlsplit

from banger.errors import BangerError, Reason
from banger.run import is_cancelled, printable
from pipelines.oci.credentials import Access, Credentials, parse_challenges
from pipelines.oci.reference import Reference, parse_reference
from pipelines.oci.registry import RegistryOptions
from pipelines.oci.repository import Repository, Waits
from pipelines.oci.retry import PATIENCE, Patience, explain_status, origin_of, persist, quote_answer

if TYPE_CHECKING:
    from requests import Response

_MAX_MANIFEST_BYTES = 4 << 20  # distribution spec, "Pushing Manifests"
# A socket's time is for one whole block: small, so that a slow line gets it through.
_BLOCK_BYTES = 1 << 16
_MANIFEST_TYPES = (
    "application/vnd.oci.image.manifest.v1+json",
    "application/vnd.oci.image.index.v1+json",
    "application/vnd.docker.distribution.manifest.v2+json",
    "application/vnd.docker.distribution.manifest.list.v2+json",
)

Open = Callable[[], IO[bytes]]
Progress = Callable[[int], None]


def open_pusher(reference: str, registries: Mapping[str, RegistryOptions]) -> Pusher:
    """For the repository of `reference`, whose tag plays no part. Raises BAD_INPUT; asks no registry yet."""
    return Pusher(parse_reference(reference), registries)


class Pusher(Repository):
    """What was sent is counted: `uploaded_blobs`, `uploaded_bytes` (of those), `uploaded_manifests`."""

    def __init__(
        self,
        reference: Reference,
        options: Mapping[str, RegistryOptions],
        *,
        environment: Mapping[str, str] = os.environ,
        patience: Patience = PATIENCE,
        waits: Waits | None = None,
    ) -> None:
        super().__init__(
            reference, options, environment=environment, patience=patience, waits=waits, access=_PushAccess
        )
        self.uploaded_blobs = 0
        self.uploaded_bytes = 0
        self.uploaded_manifests = 0
        self._guard = threading.Lock()

    def __enter__(self) -> Pusher:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()

    def push_blob(self, digest: str, size_bytes: int, open_content: Open, on_progress: Progress | None = None) -> bool:
        """Send a blob unless it is there; True when it was sent. `open_content` is asked once for each attempt.

        `on_progress` is told the bytes that were sent in this attempt. Raises CORRUPT when the content is not what
        digest and size say, UNAUTHORIZED, or NETWORK.
        """
        attempts = 0

        def attempt() -> bool:
            nonlocal attempts
            attempts += 1
            if self._has_blob(digest, size_bytes):
                # Of an earlier attempt the answer may have been lost, not the blob.
                return attempts > 1
            self._send_blob(digest, size_bytes, open_content, on_progress)
            return True

        is_sent = persist(attempt, self.patience)
        if is_sent:
            with self._guard:
                self.uploaded_blobs += 1
                self.uploaded_bytes += size_bytes
        return is_sent

    def has_blob(self, digest: str, size_bytes: int) -> bool:
        """Whether it is there; one of another size is not it."""
        return persist(lambda: self._has_blob(digest, size_bytes), self.patience)

    def has_manifest(self, tag_or_digest: str, digest: str | None = None) -> bool:
        """Whether a manifest is there; with `digest`, whether it is that one."""
        found = persist(lambda: self._find_manifest(tag_or_digest), self.patience)
        if found is None or digest is None:
            return found is not None
        algorithm = digest.partition(":")[0]
        if found.partition(":")[0] != algorithm:
            found = self._hash_manifest(tag_or_digest, algorithm)
        return found == digest

    def push_manifest(self, manifest: bytes, media_type: str, reference_or_tag: str) -> str:
        """Put a manifest whose blobs are there; gives its digest. BAD_INPUT for what is no manifest of an artifact.

        `reference_or_tag` is a tag, or a reference into this repository that ends with one.
        """
        if len(manifest) > _MAX_MANIFEST_BYTES:
            raise BangerError("the manifest is larger than 4 MiB", reason=Reason.TOO_LARGE)
        digest = f"sha256:{hashlib.sha256(manifest).hexdigest()}"
        told = persist(lambda: self._put_manifest(manifest, media_type, self._tag(reference_or_tag)), self.patience)
        if told not in ("", digest):
            raise self._altered(f"the manifest {digest} arrived as {printable(told)[:150]}")
        with self._guard:
            self.uploaded_manifests += 1
        return digest

    def _has_blob(self, digest: str, size_bytes: int) -> bool:
        with self._ask("HEAD", self._url(f"blobs/{digest}")) as response:
            if response.status_code == 404:
                return False
            _expect(response, 200)
            told = response.headers.get("Content-Length", "")
            return not told.isdecimal() or told == str(size_bytes)

    def _find_manifest(self, wanted: str) -> str | None:
        """The digest of what is there, empty when the registry does not tell it."""
        url = self._url(f"manifests/{self._tag(wanted)}")
        with self._ask("HEAD", url, {"Accept": ", ".join(_MANIFEST_TYPES)}) as response:
            if response.status_code == 404:
                return None
            _expect(response, 200)
            return response.headers.get("Docker-Content-Digest", "").strip()

    def _hash_manifest(self, wanted: str, algorithm: str) -> str | None:
        """The same where the registry does not tell it (the header is optional), or one of another algorithm."""
        try:
            content, _response = self._read_manifest(f"manifests/{self._tag(wanted)}")
        except BangerError as error:
            if error.reason is Reason.NOT_FOUND:
                return None
            raise
        return f"{algorithm}:{hashlib.new(algorithm, content).hexdigest()}"

    def _put_manifest(self, manifest: bytes, media_type: str, tag: str) -> str:
        from jsonschema import ValidationError
        from oras.container import Container
        from oras.provider import Registry

        base = urlsplit(self._web.find_base())
        namespace, _, name = self._reference.repository.rpartition("/")
        place = Container(name, registry=base.netloc)
        # Not read from a text: there, oras takes `a.b/c` for a host and `localhost/c` for none.
        place.namespace, place.repository, place.tag, place.digest = namespace or None, name, tag, None
        client: Any = Registry(hostname=base.netloc, insecure=base.scheme == "http")

        def send(url: str, method: str, headers: Mapping[str, str], **_json: object) -> Response:
            # The very bytes that the digest is of.
            return self._ask(method, url, {**headers, "Content-Type": media_type}, lambda: manifest)

        client.do_request = send
        try:
            document = json.loads(manifest)
            response = client.upload_manifest(document, place)
        except (ValidationError, ValueError) as error:
            raise BangerError("that is no manifest of an artifact", reason=Reason.BAD_INPUT) from error
        with cast("Response", response) as response:
            _expect(response, 201)
            return response.headers.get("Docker-Content-Digest", "").strip()

    def _send_blob(self, digest: str, size_bytes: int, open_content: Open, on_progress: Progress | None) -> None:
        """Distribution spec, "POST then PUT": one request for all of the blob, which is verified at its end."""
        with self._ask("POST", self._url("blobs/uploads/")) as response:
            _expect(response, 202)
            url = self._find_place(response, digest)
        with contextlib.ExitStack() as opened:

            def body() -> object:
                # An empty one must not be a stream: that would be sent in chunks, without a length.
                if not size_bytes:
                    return b""
                return _Body(opened.enter_context(open_content()), digest, size_bytes, on_progress)

            with self._ask("PUT", url, {"Content-Type": "application/octet-stream"}, body) as response:
                if response.status_code == 400:
                    raise self._altered(f"the blob {digest} did not arrive whole{quote_answer(response)}")
                _expect(response, 201)
                told = response.headers.get("Docker-Content-Digest", "").strip()
                if told not in ("", digest):
                    raise self._altered(f"the blob {digest} arrived as {printable(told)[:150]}")

    def _find_place(self, response: Response, digest: str) -> str:
        """Where a blob is to be put: over TLS, or at the registry itself, which may be one that is reached without."""
        told = response.headers.get("Location", "")
        try:
            url = urljoin(response.url, told) if told else ""
        except ValueError:
            url = ""
        scheme, host = origin_of(url)
        if not host or (scheme != "https" and (scheme, host) != origin_of(self._web.find_base())):
            raise BangerError(
                f"{self._reference.registry} names no safe place to upload to: {printable(told)[:150]!r}",
                reason=Reason.NETWORK,
            )
        return f"{url}{'&' if urlsplit(url).query else '?'}{urlencode({'digest': digest})}"

    def _ask(
        self, method: str, url: str, headers: Mapping[str, str] | None = None, body: Callable[[], object] | None = None
    ) -> Response:
        """One request, authorized when the registry wants it. `body` is asked anew each time that it is sent."""
        is_ours = origin_of(url) == origin_of(self._web.find_base())
        authorization = self._access.find_header() if is_ours else None
        response = self._web.send(method, url, headers or {}, authorization, body)
        if response.status_code == 401 and is_ours and origin_of(response.url) == origin_of(url):
            challenges = parse_challenges(response.headers.get("WWW-Authenticate", ""))
            response.close()
            response = self._web.send(method, url, headers or {}, self._access.answer(challenges, authorization), body)
        if response.status_code in (401, 403):
            with response:
                raise self._access.refuse(quote_answer(response))
        return response

    def _url(self, path: str) -> str:
        return f"{self._web.find_base()}/v2/{self._reference.repository}/{path}"

    def _tag(self, reference_or_tag: str) -> str:
        if "/" not in reference_or_tag:
            return reference_or_tag
        reference = parse_reference(reference_or_tag)
        assert (reference.registry, reference.repository) == (self._reference.registry, self._reference.repository)
        return reference.digest or reference.tag or ""

    def _altered(self, what: str) -> BangerError:
        return BangerError(
            f"{self.repository}: {what}",
            reason=Reason.CORRUPT,
            hint="something on the way alters what is sent, or it changed here meanwhile",
        )


class _Body:
    """A file as the body of a request, block by block; what is not exactly the blob is never sent whole."""

    def __init__(self, content: IO[bytes], digest: str, size_bytes: int, on_progress: Progress | None) -> None:
        self._content = content
        self._digest = digest
        self._size_bytes = size_bytes
        self._tell = on_progress or (lambda _done: None)

    def __len__(self) -> int:
        return self._size_bytes

    def __iter__(self) -> Iterator[bytes]:
        algorithm = self._digest.partition(":")[0]
        hasher = hashlib.new(algorithm)
        done = 0
        while done < self._size_bytes:
            if is_cancelled():
                raise KeyboardInterrupt
            block = self._content.read(min(_BLOCK_BYTES, self._size_bytes - done))
            done += len(block)
            hasher.update(block)
            # Known before the last of it is sent, so that the registry never gets all of what is wrong.
            if not block or (done == self._size_bytes and self._is_wrong(hasher.hexdigest())):
                raise BangerError(f"what is to be the blob {self._digest} is something else", reason=Reason.CORRUPT)
            yield block
            self._tell(done)

    def _is_wrong(self, found: str) -> bool:
        return found != self._digest.partition(":")[2] or bool(self._content.read(1))


class _PushAccess(Access):
    """Asks for the right to push from the start: some registries name no more than pulling when they ask who it is."""

    def refuse(self, why: str = "") -> BangerError:
        error = super().refuse(why)
        hint = error.hint.replace("and may read", "and may write to")
        return BangerError(error.message, reason=error.reason, hint=hint)

    def _fetch_token(self, asked: Mapping[str, str], who: Credentials | None) -> tuple[str, float]:
        wanted = f"repository:{self._reference.repository}:pull,push"
        others = [
            scope
            for scope in asked.get("scope", "").split()
            if not re.match(rf"repository:{re.escape(self._reference.repository)}:", scope)
        ]
        return super()._fetch_token({**asked, "scope": " ".join([wanted, *others])}, who)


def _expect(response: Response, status: int) -> None:
    if response.status_code == status or (status == 201 and response.status_code in (200, 202, 204)):
        return
    raise explain_status(response)
