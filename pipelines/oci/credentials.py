"""Who a registry is told we are: found in options, the environment, or where docker, podman and skopeo keep it.

The first place that knows the registry wins; no secret is ever sent to a registry that it was not meant for, shown in
a message, or given to a program as an argument. Formats: docker's config.json (docs.docker.com, "docker login"),
containers-auth.json(5), and the protocol of docker-credential-helpers. Nothing is written.
"""

from __future__ import annotations

import base64
import json
import os
import re
import threading
import time
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING

from banger.errors import BangerError, Reason
from banger.run import find_program, printable, run
from pipelines.oci.reference import Reference
from pipelines.oci.retry import quote_errors

if TYPE_CHECKING:
    from pipelines.oci.registry import RegistryOptions

# How docker has named its own registry since its first version, in files and to helpers.
_HUB = "https://index.docker.io/v1/"
_HUB_HOSTS = {"index.docker.io", "registry-1.docker.io", "registry.hub.docker.com"}
_HELPER_NAME = re.compile(r"[A-Za-z0-9][A-Za-z0-9_.-]*")
_HELPER_TIMEOUT_S = 60.0
_MAX_FILE_BYTES = 4 << 20

_TOKEN = re.compile(r"[!-~]+")
_TOKEN_LIFETIME_S = 60.0  # distribution project, "Token Authentication": when none is told
_WORD = r"[!#$%&'*+.^_`|~0-9A-Za-z-]+"
_PARAMETER = re.compile(rf'({_WORD})\s*=\s*(?:"((?:[^"\\]|\\.)*)"|([^\s,"]+))')
_SCHEME = re.compile(rf"({_WORD})(?:[ ]+[A-Za-z0-9._~+/-]+=*(?=[ ]*(?:,|$)))?")


@dataclass(frozen=True)
class Credentials:
    """Name and password, or an identity token that a token server exchanges; `origin` says where they were found."""

    username: str = ""
    password: str = field(default="", repr=False)
    identity_token: str = field(default="", repr=False)
    origin: str = ""


def find_credentials(
    registry_host: str,
    environment: Mapping[str, str] = os.environ,
    *,
    repository: str = "",
    options: RegistryOptions | None = None,
) -> Credentials | None:
    """What is known for `registry_host` (`docker.io`, `localhost:5000`), most specific for `repository` first.

    Raises BAD_INPUT for half-set options or variables, CORRUPT for a damaged file, COMMAND_FAILED for a helper that
    fails, MISSING_PROGRAM for one that is not there.
    """
    if options is not None and (options.username or options.password):
        if not (options.username and options.password):
            raise BangerError(
                f"the entry of registry {registry_host!r} has a username or a password, but not both",
                reason=Reason.BAD_INPUT,
                hint="set both, or none",
            )
        return Credentials(options.username, options.password, origin="the configuration")
    found = _find_in_environment(registry_host, environment)
    if found is not None:
        return found
    for path in _files(environment):
        found = _find_in_file(path, registry_host, repository)
        if found is not None:
            return found
    return None


def _find_in_environment(host: str, environment: Mapping[str, str]) -> Credentials | None:
    names = ("BANGER_REGISTRY_HOST", "BANGER_REGISTRY_USERNAME", "BANGER_REGISTRY_PASSWORD")
    values = [environment.get(name, "") for name in names]
    if not any(values):
        return None
    if not all(values):
        missing = [name for name, value in zip(names, values, strict=True) if not value]
        raise BangerError(
            f"{' and '.join(missing)} must be set too",
            reason=Reason.BAD_INPUT,
            hint="a password is for one registry: set BANGER_REGISTRY_HOST, _USERNAME and _PASSWORD, or none of them",
        )
    named, username, password = values
    if normalise_host(named) != normalise_host(host):
        return None
    return Credentials(username, password, origin="BANGER_REGISTRY_USERNAME")


def _files(environment: Mapping[str, str]) -> Iterator[Path]:
    """Where credentials may be, as containers-auth.json(5) and docker say, in the order in which they are asked."""
    home = Path(environment.get("HOME") or Path.home())
    if named := environment.get("REGISTRY_AUTH_FILE"):
        yield Path(named)
    if runtime := environment.get("XDG_RUNTIME_DIR"):
        yield Path(runtime) / "containers/auth.json"
    else:
        yield Path(f"/run/containers/{os.getuid()}/auth.json")
    yield Path(environment.get("XDG_CONFIG_HOME") or home / ".config") / "containers/auth.json"
    yield Path(environment.get("DOCKER_CONFIG") or home / ".docker") / "config.json"


def _find_in_file(path: Path, host: str, repository: str) -> Credentials | None:
    content = _read(path)
    helpers = _table(content, "credHelpers", path)
    entries = _table(content, "auths", path)
    # Most specific first: host/a/b, host/a, host.
    parts = [normalise_host(host), *(part for part in repository.split("/") if part)]
    wanted = ["/".join(parts[:n]) for n in range(len(parts), 0, -1)]
    helper = _pick(helpers, wanted) or content.get("credsStore")
    if helper:
        found = _ask_helper(helper, _HUB if wanted[-1] == "docker.io" else host, path)
        if found is not None:
            return found
    entry = _pick(entries, wanted)
    return None if not entry else _parse_entry(entry, path)


def _read(path: Path) -> dict[str, object]:
    try:
        with path.open("rb") as file:
            text = file.read(_MAX_FILE_BYTES)
    except (FileNotFoundError, NotADirectoryError):
        return {}
    except OSError as error:
        raise BangerError(f"{path} cannot be read: {error.strerror}", reason=Reason.IO) from error
    if not text.strip():
        return {}
    try:
        content = json.loads(text)
    except (ValueError, RecursionError) as error:
        raise _damaged(path, "it is not JSON") from error
    if not isinstance(content, dict):
        raise _damaged(path, "it is no JSON object")
    return content


def _table(content: Mapping[str, object], key: str, path: Path) -> dict[str, object]:
    table = content.get(key)
    if table is None:
        return {}
    if not isinstance(table, dict):
        raise _damaged(path, f"{key!r} is no object")
    return table


def _pick(table: Mapping[str, object], wanted: list[str]) -> object:
    by_name: dict[str, object] = {}
    for key, value in table.items():
        # The plain name of a host goes before an URL of it.
        if key == normalise_host(key) or normalise_host(key) not in by_name:
            by_name[normalise_host(key)] = value
    return next((by_name[name] for name in wanted if name in by_name), None)


def normalise_host(key: str) -> str:
    """`https://index.docker.io/v1/` and `registry-1.docker.io` are `docker.io`; `https://host/v2/` is `host`."""
    name = re.sub(r"^https?://", "", key).rstrip("/")
    host, slash, path = re.sub(r"/v[12]$", "", name).partition("/")
    host = host.lower()
    return ("docker.io" if host in _HUB_HOSTS else host) + slash + path


def _parse_entry(entry: object, path: Path) -> Credentials | None:
    if not isinstance(entry, dict):
        raise _damaged(path, "an entry of 'auths' is no object")
    fields = {key: entry.get(key) or "" for key in ("auth", "username", "password", "identitytoken")}
    if not all(isinstance(value, str) for value in fields.values()):
        raise _damaged(path, "an entry of 'auths' holds what is no text")
    username, password = fields["username"], fields["password"]
    if fields["auth"]:
        try:
            plain = base64.b64decode(fields["auth"], validate=True).decode()
        except ValueError as error:
            raise _damaged(path, "an 'auth' is not base64") from error
        username, colon, password = plain.partition(":")
        if not colon:
            raise _damaged(path, "an 'auth' holds no name and password")
        password = password.strip("\0")
    if fields["identitytoken"]:
        return Credentials(username, identity_token=fields["identitytoken"], origin=str(path))
    return _credentials(username, password, str(path))


def _ask_helper(name: object, server: str, path: Path) -> Credentials | None:
    """`docker-credential-NAME get`: the server on stdin, JSON on stdout; errors are told on stdout too."""
    if not isinstance(name, str) or _HELPER_NAME.fullmatch(name) is None:
        raise _damaged(path, f"{str(name)[:50]!r} is no name of a credential helper")
    program = f"docker-credential-{name}"
    if find_program(program) is None:
        raise BangerError(
            f"{path} names the credential helper {program}, which is not installed",
            reason=Reason.MISSING_PROGRAM,
            hint=f"install it, or take it out of {path}",
        )
    answer = run([program, "get"], stdin=server.encode(), must_succeed=False, timeout_s=_HELPER_TIMEOUT_S)
    if answer.returncode != 0:
        said = printable((answer.stdout + answer.stderr).decode("utf-8", "replace").strip())[:200]
        if "credentials not found" in said:
            return None
        raise BangerError(
            f"the credential helper {program} failed for {server}: {said or f'status {answer.returncode}'}",
            reason=Reason.COMMAND_FAILED,
            hint=f"{path} names it; try: echo {server} | {program} get",
        )
    try:
        told = json.loads(answer.stdout)
        username, secret = told["Username"], told["Secret"]
        if not isinstance(username, str) or not isinstance(secret, str):
            raise TypeError
    except (ValueError, KeyError, TypeError, RecursionError):
        # Without the cause: it would carry the secret.
        raise BangerError(
            f"the credential helper {program} gave no username and secret for {server}", reason=Reason.COMMAND_FAILED
        ) from None
    return _credentials(username, secret, program)


def _credentials(username: str, secret: str, origin: str) -> Credentials | None:
    if username == "<token>":
        return Credentials(identity_token=secret, origin=origin)
    return Credentials(username, secret, origin=origin) if username or secret else None


def _damaged(path: Path, what: str) -> BangerError:
    return BangerError(
        f"{path} is damaged: {what}",
        reason=Reason.CORRUPT,
        hint="log in again (skopeo login, docker login) or repair it",
    )


class Access:
    """The Authorization header for pulling one repository: found out when asked for, renewed before it expires.

    Several threads may ask at once; one of them talks to the token server, the others wait for what it got.
    """

    def __init__(
        self, reference: Reference, find: Callable[[], Credentials | None], ask: Callable[..., tuple[int, bytes]]
    ) -> None:
        """`find` looks up who we are; `ask(realm, form, authorization)` gives a token server's status and answer."""
        self._reference = reference
        self._find = find
        self._ask = ask
        self._lock = threading.Lock()
        self._credentials: Credentials | None = None
        self._challenge: Challenge | None = None
        self._header: str | None = None
        self._renew_at = 0.0

    def find_header(self) -> str | None:
        with self._lock:
            if self._header is not None and time.monotonic() >= self._renew_at:
                self._renew()
            return self._header

    def answer(self, challenges: list[Challenge], refused: str | None) -> str | None:
        """A header that may do, after the registry refused the last one (None: it was asked anonymously)."""
        with self._lock:
            if self._header is not None and self._header != refused:
                return self._header
            by_scheme = {challenge.scheme: challenge for challenge in reversed(challenges)}
            challenge = by_scheme.get("bearer") or by_scheme.get("basic")
            if challenge is None:
                raise self.refuse(": it asks for no way to log in that is known here")
            if self._credentials is None:
                self._credentials = self._find()
            self._challenge = challenge
            self._renew()
            return self._header

    def refuse(self, why: str = "") -> BangerError:
        host = self._reference.registry
        if self._credentials is None:
            whom = "without a login"
            hint = f"if it exists, log in (skopeo login {host}, docker login {host}), or set BANGER_REGISTRY_HOST, "
            hint += "BANGER_REGISTRY_USERNAME and BANGER_REGISTRY_PASSWORD"
        else:
            whom = f"with the credentials from {self._credentials.origin}"
            hint = f"check that they are right, and may read {self._reference.repository}"
        return BangerError(
            f"{self._reference.canonical}: {host} refuses it {whom}{why}", reason=Reason.UNAUTHORIZED, hint=hint
        )

    def _renew(self) -> None:
        assert self._challenge is not None
        who = self._credentials
        if self._challenge.scheme == "basic":
            if who is None or who.identity_token:
                raise self.refuse(": it wants a name and a password")
            self._header, self._renew_at = _basic(who), float("inf")
            return
        self._header = None
        token, lifetime_s = self._fetch_token(self._challenge.parameters, who)
        self._header = f"Bearer {token}"
        # A little early, so that no request is under way when it expires.
        self._renew_at = time.monotonic() + max(lifetime_s - 10, lifetime_s / 2)

    def _fetch_token(self, asked: Mapping[str, str], who: Credentials | None) -> tuple[str, float]:
        """A token and its life in seconds (distribution project, "Token Authentication", and its OAuth2 form)."""
        realm = asked.get("realm", "")
        scope = asked.get("scope") or f"repository:{self._reference.repository}:pull"
        form = [("service", asked["service"])] if asked.get("service") else []
        if who is not None and who.identity_token:
            form += [("grant_type", "refresh_token"), ("client_id", "banger"), ("refresh_token", who.identity_token)]
            status, answer = self._ask(realm, [*form, ("scope", scope)], None)
        else:
            form += [("scope", one) for one in scope.split()]
            form += [("account", who.username)] if who is not None else []
            status, answer = self._ask(realm, form, _basic(who) if who is not None else None)
        if status != 200:
            raise self.refuse(quote_errors(answer))
        try:
            told = json.loads(answer)
            token = told.get("token") or told["access_token"]
            lifetime_s = min(float(told.get("expires_in") or _TOKEN_LIFETIME_S), 86400.0)
            if not _TOKEN.fullmatch(token):
                raise ValueError
        except (ValueError, KeyError, TypeError, AttributeError, OverflowError, RecursionError):
            # Without the cause: it might carry the token.
            raise BangerError(
                f"the token server {printable(realm)[:150]} gave no token", reason=Reason.NETWORK
            ) from None
        return token, lifetime_s


@dataclass(frozen=True)
class Challenge:
    """One way to log in that a registry offers; `scheme` and the names of parameters are in lower case."""

    scheme: str
    parameters: Mapping[str, str]


def parse_challenges(header: str) -> list[Challenge]:
    """WWW-Authenticate (RFC 9110, 11.6.1), several challenges in one value too; what is not understood is skipped."""
    found: list[tuple[str, dict[str, str]]] = []
    position = 0
    while position < len(header):
        if match := _PARAMETER.match(header, position):
            if found:
                value = match[3] if match[2] is None else re.sub(r"\\(.)", r"\1", match[2])
                found[-1][1].setdefault(match[1].lower(), value)
        elif match := _SCHEME.match(header, position):
            found.append((match[1].lower(), {}))
        position = match.end() if match else position + 1
    return [Challenge(scheme, parameters) for scheme, parameters in found]


def _basic(who: Credentials) -> str:
    return "Basic " + base64.b64encode(f"{who.username}:{who.password}".encode()).decode()
