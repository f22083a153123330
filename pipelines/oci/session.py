"""An HTTP session for one registry: whom it trusts, and nothing that acts behind our back."""

from __future__ import annotations

import http.cookiejar
import ssl
from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

from banger.errors import BangerError, Reason

if TYPE_CHECKING:
    from requests import Response, Session

_POOL_SIZE = 16
_CERTS_D = (Path("/etc/docker/certs.d"), Path("/etc/containers/certs.d"))


def make_session(cas: list[Path], insecure_hosts: list[str]) -> Session:
    """Trusts the system's CAs, those that come with requests, and `cas`; of insecure hosts it checks nothing."""
    import certifi
    import requests
    import urllib3
    from requests.adapters import HTTPAdapter

    context = ssl.create_default_context()
    for path in [Path(certifi.where()), *cas]:
        try:
            if path.is_dir():
                context.load_verify_locations(capath=path)
            else:
                context.load_verify_locations(cafile=path)
        except OSError as error:
            why = "it holds no certificate" if isinstance(error, ssl.SSLError) else error.strerror
            raise BangerError(f"the CA file {path} cannot be used: {why}", reason=Reason.BAD_INPUT) from error

    class Trusting(HTTPAdapter):
        def init_poolmanager(self, *args: Any, **kwargs: Any) -> None:
            super().init_poolmanager(*args, **kwargs, ssl_context=context)

        def proxy_manager_for(self, *args: Any, **kwargs: Any) -> Any:
            return super().proxy_manager_for(*args, **kwargs, ssl_context=context)

        def cert_verify(self, conn: Any, url: str, verify: Any, cert: Any) -> None:
            conn.cert_reqs = "CERT_REQUIRED"

    class Plain(requests.Session):
        def get_redirect_target(self, resp: Response) -> str | None:
            # Else requests reads the whole body of a redirect, however long, even when it is not to follow it.
            return None

    session = Plain()
    session.trust_env = False
    session.cookies.set_policy(http.cookiejar.DefaultCookiePolicy(allowed_domains=[]))
    session.headers.update({"User-Agent": "banger", "Accept-Encoding": "identity", "Accept": "*/*"})
    session.mount("https://", Trusting(pool_maxsize=_POOL_SIZE))
    session.mount("http://", HTTPAdapter(pool_maxsize=_POOL_SIZE))
    for host in insecure_hosts:
        session.mount(f"https://{host}/", HTTPAdapter(pool_maxsize=_POOL_SIZE))
        urllib3.disable_warnings(urllib3.exceptions.InsecureRequestWarning)
    return session


def find_cas(registry: str, configured: Path | None, environment: Mapping[str, str]) -> list[Path]:
    """Files and folders of certificates for one registry, besides the system's."""
    named = [environment.get(name) for name in ("BANGER_REGISTRY_CA", "REQUESTS_CA_BUNDLE", "CURL_CA_BUNDLE")]
    cas = [Path(name) for name in named if name]
    if configured is not None:
        cas.append(configured)
    for folder in _CERTS_D:
        cas += sorted((folder / registry).glob("*.crt"))
    return cas
