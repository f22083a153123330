"""A repository of a registry: more than one tag of it, over one connection, with more methods than GET.

Whom a registry is told that we are, which server may hear it, and how it is reached is `registry.py`'s: here is only
what reading one image does not need.
"""

from __future__ import annotations

import dataclasses
import os
from collections.abc import Callable, Mapping
from typing import TYPE_CHECKING, Any, cast

from banger.errors import BangerError, Reason
from pipelines.oci.credentials import Access
from pipelines.oci.reference import Reference
from pipelines.oci.registry import Form, RegistryOptions, RegistrySource, Web
from pipelines.oci.retry import PATIENCE, Patience, origin_of

if TYPE_CHECKING:
    from requests import Response, Session

_MAX_REDIRECTS = 5


@dataclasses.dataclass(frozen=True)
class Waits:
    """In seconds: to connect, for the next bytes of an answer, and for the answer to a blob that was sent.

    The last is longer: a registry may first put the blob where it belongs.
    """

    connect_s: float = 10.0
    read_s: float = 60.0
    upload_s: float = 300.0


class Repository(RegistrySource):
    """A repository of which more than one tag is read, over one connection and with waits of its own."""

    _web: TimedWeb

    def __init__(
        self,
        reference: Reference,
        options: Mapping[str, RegistryOptions],
        *,
        environment: Mapping[str, str] = os.environ,
        patience: Patience = PATIENCE,
        waits: Waits | None = None,
        access: type[Access] = Access,
    ) -> None:
        self._waits = waits or Waits()
        super().__init__(reference, options, environment=environment, patience=patience, access=access)

    def _make_web(
        self, registry: str, options: Mapping[str, RegistryOptions], environment: Mapping[str, str]
    ) -> TimedWeb:
        return TimedWeb(registry, options, environment, self._waits)

    @property
    def repository(self) -> str:
        """`127.0.0.1:5000/team/cache`."""
        return f"{self._reference.registry}/{self._reference.repository}"

    def close(self) -> None:
        self._web.close()


class TimedWeb(Web):
    """How a registry is spoken to, with more methods than GET."""

    def __init__(
        self, registry: str, options: Mapping[str, RegistryOptions], environment: Mapping[str, str], waits: Waits
    ) -> None:
        super().__init__(registry, options, environment)
        self._waits = waits

    def send(
        self,
        method: str,
        url: str,
        headers: Mapping[str, str],
        authorization: str | None,
        body: Callable[[], object] | None,
    ) -> Response:
        """One request. Only HEAD follows redirects, and takes `authorization` only to the origin of `url`."""
        target = url
        for _ in range(_MAX_REDIRECTS):
            own = authorization if origin_of(target) == origin_of(url) else None
            # What _send calls a form is what requests sends as the body, whatever it is.
            response = self._send(method, target, headers, own, cast(Form, body()) if body is not None else None)
            location = response.headers.get("Location")
            if method != "HEAD" or response.status_code not in (301, 302, 303, 307, 308) or not location:
                return response
            response.close()
            target = self._follow(target, location)
        raise BangerError(f"{self._registry} redirects in a circle", reason=Reason.NETWORK)

    def close(self) -> None:
        with self._session_lock:
            if self._session is not None:
                self._session.close()

    def _get_session(self) -> Session:
        return cast("Session", _TimedSession(super()._get_session(), self._waits))


class _TimedSession:
    """A session with waits of its own."""

    def __init__(self, session: Session, waits: Waits) -> None:
        self._session = session
        self._waits = waits

    def request(self, method: str, url: str, **more: Any) -> Response:
        read_s = self._waits.upload_s if method == "PUT" else self._waits.read_s
        return self._session.request(method, url, **{**more, "timeout": (self._waits.connect_s, read_s)})
