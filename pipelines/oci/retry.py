"""Trying again: how often, how long to wait in between, and which failures of the web are worth it.

Waiting grows exponentially with jitter (several downloads that failed together do not come back together), follows a
server's Retry-After up to a limit, and ends with KeyboardInterrupt when banger is cancelled.
"""

from __future__ import annotations

import datetime
import email.utils
import io
import ipaddress
import json
import random
import re
import socket
import ssl
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import TYPE_CHECKING, TypeVar, cast
from urllib.parse import urlsplit

from banger.errors import BangerError, Reason
from banger.run import is_cancelled, printable
from pipelines.oci.source import TemporaryFailure

if TYPE_CHECKING:
    from requests import Response

_T = TypeVar("_T")
_SLICE_S = 0.1
_MAX_ERROR_BYTES = 1 << 16
# What OpenSSL says of an answer that is no TLS, from version to version.
_NO_TLS = ("WRONG_VERSION_NUMBER", "HTTP_REQUEST", "RECORD_LAYER_FAILURE", "PACKET_LENGTH_TOO_LONG")


@dataclass(frozen=True)
class Patience:
    """`attempts` without progress before giving up; a pause of about `first_s`, doubled each time up to `longest_s`."""

    attempts: int = 5
    first_s: float = 0.5
    longest_s: float = 60.0

    def delay_s(self, failures: int, wish_s: float | None = None) -> float:
        """How long to wait after the n-th failure (from 1); `wish_s` is the server's Retry-After."""
        if wish_s is not None:
            return min(self.longest_s, wish_s + random.uniform(0, self.first_s))  # noqa: S311
        most = min(self.longest_s, self.first_s * 2.0 ** (failures - 1))
        return random.uniform(most / 2, most)  # noqa: S311


PATIENCE = Patience()


def pause(seconds: float) -> None:
    end = time.monotonic() + seconds
    while (left := end - time.monotonic()) > 0:
        if is_cancelled():
            raise KeyboardInterrupt
        time.sleep(min(left, _SLICE_S))


def persist(action: Callable[[], _T], patience: Patience) -> _T:
    """Call `action` until it raises no `TemporaryFailure`; the last one of them is the caller's."""
    for failures in range(1, patience.attempts):
        try:
            return action()
        except TemporaryFailure as failure:
            pause(patience.delay_s(failures, failure.retry_after_s))
    return action()


def parse_retry_after(text: str | None) -> float | None:
    """Seconds from now that a Retry-After header asks for: a number or a date (RFC 9110, 10.2.3); None if neither."""
    if text is None:
        return None
    text = text.strip()
    if text.isascii() and text.isdigit() and len(text) < 10:
        return float(text)
    try:
        when = email.utils.parsedate_to_datetime(text)
    except (ValueError, OverflowError):
        return None
    if when.tzinfo is None:
        when = when.replace(tzinfo=datetime.UTC)
    return max(0.0, (when - datetime.datetime.now(datetime.UTC)).total_seconds())


def explain(error: Exception, host: str) -> BangerError:
    """What an exception of requests, urllib3 or a socket means for a user: one line, and temporary where it may be."""
    chain = list(_causes(error))
    for cause in chain:
        if isinstance(cause, ssl.SSLCertVerificationError):
            return BangerError(
                f"the certificate of {host} is not trusted: {printable(cause.verify_message)[:200]}",
                reason=Reason.NETWORK,
                hint="name the CA that signed it in BANGER_REGISTRY_CA or in the registry's entry of the configuration",
            )
        if isinstance(cause, ssl.SSLError) and cause.reason in _NO_TLS:
            return BangerError(
                f"{host} does not speak TLS",
                reason=Reason.NETWORK,
                hint="if it is meant to be reached by plain http, mark it insecure in the configuration",
            )
        if isinstance(cause, ConnectionRefusedError):
            return TemporaryFailure(f"{host} refuses the connection", hint="is the registry running, the port right?")
        if isinstance(cause, socket.gaierror):
            return TemporaryFailure(
                f"the name {host} cannot be resolved", hint="check its spelling and the network connection"
            )
    names = {type(cause).__name__ for cause in chain}
    if "ProxyError" in names:
        return TemporaryFailure(f"the proxy to {host} fails", hint="check HTTPS_PROXY, HTTP_PROXY and NO_PROXY")
    if any(isinstance(cause, TimeoutError) for cause in chain) or any("Timeout" in name for name in names):
        return TemporaryFailure(f"{host} does not answer in time")
    if isinstance(error, ValueError):
        return BangerError(f"{host} cannot be asked: its address is not valid", reason=Reason.NETWORK)
    return TemporaryFailure(f"the connection to {host} failed")


class Body(io.RawIOBase):
    """The bytes of an answer exactly as sent; a connection that breaks is a `TemporaryFailure`.

    A read gives what has come by then, at least a byte, and nothing at the end only.
    """

    def __init__(self, response: Response) -> None:
        self._raw = response.raw
        self._host = host_of(response.url)

    def readable(self) -> bool:
        return True

    def read(self, size: int = -1, /) -> bytes:
        from urllib3.exceptions import HTTPError

        if size < 0:
            return self.readall()
        try:
            return cast(bytes, self._raw.read1(size, decode_content=False))
        except (HTTPError, OSError) as error:
            raise explain(error, self._host) from error


def read_limited(response: Response, limit_bytes: int) -> bytes:
    """A small answer whole; raises TOO_LARGE past the limit."""
    body = Body(response)
    content = bytearray()
    while chunk := body.read(1 << 16):
        content += chunk
        if len(content) > limit_bytes:
            raise BangerError(
                f"{host_of(response.url)} sends more than {limit_bytes} bytes of what should be small",
                reason=Reason.TOO_LARGE,
            )
    return bytes(content)


def explain_status(response: Response) -> BangerError:
    """What an answer that is none means, where it means the same for all that could be asked."""
    status = response.status_code
    message = f"{host_of(response.url)} answers with status {status}{quote_answer(response)}"
    if status in (408, 429) or status >= 500:
        return TemporaryFailure(message, retry_after_s=parse_retry_after(response.headers.get("Retry-After")))
    return BangerError(message, reason=Reason.NETWORK)


def quote_answer(response: Response) -> str:
    """`: ` and what a registry says in an error's body (distribution spec, "Error Codes"), or nothing."""
    try:
        return quote_errors(read_limited(response, _MAX_ERROR_BYTES))
    except BangerError:
        return ""


def host_of(url: str) -> str:
    """Host and port of an URL, without a name and password that may stand before them."""
    return urlsplit(url).netloc.rpartition("@")[2]


def origin_of(url: str) -> tuple[str, str]:
    """Scheme and authority, to be compared with another's; both empty for what is no URL."""
    try:
        parts = urlsplit(url)
    except ValueError:
        return "", ""
    return parts.scheme, parts.netloc.lower()


def is_loopback(host: str) -> bool:
    name = re.sub(r":[0-9]+$", "", host) if not host.endswith("]") else host
    if name == "localhost":
        return True
    try:
        return ipaddress.ip_address(name.strip("[]")).is_loopback
    except ValueError:
        return False


def quote_errors(body: bytes) -> str:
    """The same of a body that was read."""
    try:
        errors = json.loads(body)["errors"]
        said = "; ".join(str(error.get("message") or error["code"]) for error in errors)
    except (ValueError, KeyError, TypeError, AttributeError, RecursionError):
        return ""
    return f": {printable(said)[:200]}" if said else ""


def _causes(error: BaseException) -> Iterator[BaseException]:
    """The exception and all that it was made from: the libraries hide a cause in `args`, `reason` or `__context__`."""
    waiting: list[object] = [error]
    seen: set[int] = set()
    while waiting:
        cause = waiting.pop(0)
        if isinstance(cause, BaseException) and id(cause) not in seen:
            seen.add(id(cause))
            yield cause
            waiting += [*cause.args, getattr(cause, "reason", None), cause.__cause__, cause.__context__]
