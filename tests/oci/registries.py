"""Real registries on loopback, what they hold, and a proxy that makes them misbehave.

`docker-registry` runs open, behind a password and TLS, or behind a token server; `skopeo` fills it.
"""

from __future__ import annotations

import base64
import contextlib
import gzip
import hashlib
import http.client
import io
import json
import random
import socket
import ssl
import struct
import tarfile
import threading
import time
import urllib.parse
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any

from banger.run import run, shielded, start
from pipelines.oci.registry import RegistryOptions
from tests.ports import find_free_port

USERNAME, PASSWORD = "alice", "correct horse"


@dataclass(frozen=True)
class Registry:
    """A running registry; `host` as a reference names it."""

    host: str
    ca: Path | None = None
    username: str = ""
    password: str = ""

    def options(self, **changes: Any) -> dict[str, RegistryOptions]:
        """The configuration with which it can be read."""
        known = {"username": self.username, "password": self.password, "ca": self.ca, **changes}
        return {self.host: RegistryOptions(self.host, **known)}

    def push(self, layout: Path, name: str, *more: str) -> str:
        """Copy an OCI layout there with skopeo; returns the reference."""
        login = ["--dest-creds", f"{self.username}:{self.password}"] if self.username else []
        run(
            ["skopeo", "--insecure-policy", "copy", "--dest-tls-verify=false", *login, *more]
            + [f"oci:{layout}", f"docker://{self.host}/{name}"]
        )
        return f"{self.host}/{name}"


@dataclass(frozen=True)
class Authority:
    """A test CA with one certificate for 127.0.0.1 and localhost."""

    ca: Path
    certificate: Path
    key: Path


def make_authority(folder: Path) -> Authority:
    folder.mkdir(parents=True)
    ca, ca_key, certificate, key, wish = (folder / name for name in ("ca.crt", "ca.key", "tls.crt", "tls.key", "csr"))
    new = ["openssl", "req", "-newkey", "rsa:2048", "-nodes"]
    run([*new, "-x509", "-days", "2", "-keyout", str(ca_key), "-out", str(ca), "-subj", "/CN=test CA"])
    run([*new, "-keyout", str(key), "-out", str(wish), "-subj", "/CN=localhost"])
    (folder / "names").write_text("subjectAltName=DNS:localhost,IP:127.0.0.1\n")
    run(
        ["openssl", "x509", "-req", "-in", str(wish), "-days", "2", "-CA", str(ca), "-CAkey", str(ca_key)]
        + ["-CAcreateserial", "-extfile", str(folder / "names"), "-out", str(certificate)]
    )
    return Authority(ca, certificate, key)


@contextlib.contextmanager
def run_registry(
    folder: Path,
    *,
    authority: Authority | None = None,
    with_password: bool = False,
    tokens: TokenServer | None = None,
) -> Iterator[Registry]:
    """`docker-registry` for the length of a block; open and by plain http unless told otherwise."""
    folder.mkdir(parents=True, exist_ok=True)
    port = find_free_port()
    config: dict[str, Any] = {
        "version": 0.1,
        "log": {"level": "error", "accesslog": {"disabled": True}},
        "storage": {"filesystem": {"rootdirectory": str(folder / "data")}},
        "http": {"addr": f"127.0.0.1:{port}"},
    }
    if authority is not None:
        config["http"]["tls"] = {"certificate": str(authority.certificate), "key": str(authority.key)}
    if with_password:
        line = run(["htpasswd", "-Bbn", USERNAME, PASSWORD]).stdout
        (folder / "htpasswd").write_bytes(line)
        config["auth"] = {"htpasswd": {"realm": "test", "path": str(folder / "htpasswd")}}
    if tokens is not None:
        config["auth"] = {"token": tokens.config()}
    (folder / "config.yml").write_text(json.dumps(config))
    known = (USERNAME, PASSWORD) if with_password or tokens is not None else ("", "")
    with contextlib.ExitStack() as stack:
        log = stack.enter_context((folder / "log").open("wb"))
        argv = ["docker-registry", "serve", str(folder / "config.yml")]
        # A test that cancels all that runs does not mean the registry.
        with shielded():
            child = stack.enter_context(start(argv, stdout=log, stderr=log))
        deadline = time.monotonic() + 60
        while True:
            with contextlib.suppress(OSError), socket.create_connection(("127.0.0.1", port), 1):
                break
            assert child.poll() is None, (folder / "log").read_text()
            assert time.monotonic() < deadline, "docker-registry does not listen"
            time.sleep(0.05)
        yield Registry(f"127.0.0.1:{port}", authority.ca if authority else None, *known)


def make_layer(name: str, size_bytes: int, seed: int = 0) -> bytes:
    """A gzip layer with one file that does not compress; the same bytes each time."""
    buffer = io.BytesIO()
    with tarfile.open(fileobj=buffer, mode="w") as tar:
        member = tarfile.TarInfo(name)
        member.size = size_bytes
        tar.addfile(member, io.BytesIO(random.Random(seed).randbytes(size_bytes)))
    return gzip.compress(buffer.getvalue(), 1, mtime=0)


def make_layout(
    folder: Path, layers: Sequence[bytes], platforms: Sequence[str] = (), annotations: Mapping[str, str] | None = None
) -> Path:
    """An OCI layout holding one image of these layers; with `platforms` an index with an image for each of them."""
    blobs = folder / "blobs/sha256"
    blobs.mkdir(parents=True)

    def put(content: bytes, media_type: str) -> dict[str, Any]:
        digest = hashlib.sha256(content).hexdigest()
        (blobs / digest).write_bytes(content)
        return {
            "mediaType": f"application/vnd.oci.image.{media_type}",
            "digest": f"sha256:{digest}",
            "size": len(content),
        }

    def put_image(architecture: str) -> dict[str, Any]:
        diffs = ["sha256:" + hashlib.sha256(gzip.decompress(layer)).hexdigest() for layer in layers]
        config = {"architecture": architecture, "os": "linux", "rootfs": {"type": "layers", "diff_ids": diffs}}
        manifest = {
            "schemaVersion": 2,
            "mediaType": "application/vnd.oci.image.manifest.v1+json",
            "config": put(json.dumps(config).encode(), "config.v1+json"),
            "layers": [put(layer, "layer.v1.tar+gzip") for layer in layers],
            "annotations": dict(annotations or {}),
        }
        return put(json.dumps(manifest).encode(), "manifest.v1+json")

    if platforms:
        children = [
            {**put_image(architecture), "platform": {"os": "linux", "architecture": architecture}}
            for architecture in platforms
        ]
        index = {
            "schemaVersion": 2,
            "mediaType": "application/vnd.oci.image.index.v1+json",
            "manifests": children,
        }
        root = put(json.dumps(index).encode(), "index.v1+json")
    else:
        root = put_image("amd64")
    (folder / "oci-layout").write_text('{"imageLayoutVersion": "1.0.0"}')
    (folder / "index.json").write_text(json.dumps({"schemaVersion": 2, "manifests": [root]}))
    return folder


@contextlib.contextmanager
def serve(handler: type[BaseHTTPRequestHandler], authority: Authority | None = None) -> Iterator[str]:
    """A threaded HTTP server on a free port of loopback for the length of a block; gives `127.0.0.1:port`."""

    class Server(ThreadingHTTPServer):
        daemon_threads = True

        def handle_error(self, request: Any, client_address: Any) -> None:
            """A client that goes away in the middle is what many tests are about."""

    server = Server(("127.0.0.1", 0), handler)
    if authority is not None:
        context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
        context.load_cert_chain(authority.certificate, authority.key)
        server.socket = context.wrap_socket(server.socket, server_side=True)
    thread = threading.Thread(target=server.serve_forever, args=(0.02,), daemon=True)
    thread.start()
    try:
        yield f"127.0.0.1:{server.server_address[1]}"
    finally:
        server.shutdown()
        server.server_close()
        thread.join()


class Quiet(BaseHTTPRequestHandler):
    """HTTP/1.1 with kept connections, and nothing on stderr."""

    protocol_version = "HTTP/1.1"

    def setup(self) -> None:
        super().setup()
        # Headers and body go in two writes: without this each answer would wait for a delayed ACK.
        self.connection.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)

    def log_message(self, format: str, *args: Any) -> None:
        pass

    def answer(self, status: int, body: bytes = b"", headers: Mapping[str, str] | None = None) -> None:
        self.send_response(status)
        for name, value in {"Content-Length": str(len(body)), **(headers or {})}.items():
            self.send_header(name, value)
        self.end_headers()
        # After an answer to HEAD it would stand before the next one.
        if self.command != "HEAD":
            self.wfile.write(body)


@dataclass
class TokenServer:
    """Signs tokens for docker-registry (distribution project, "Token Authentication"): anybody may pull `public/…`,
    USERNAME with PASSWORD (or with `refresh_token`) may do all. `asked` keeps the requests.
    """

    authority: Authority
    host: str = ""
    lifetime_s: int = 300
    told_lifetime_s: int | None = None
    refresh_token: str = "refresh me"
    asked: list[tuple[str, dict[str, list[str]], str]] = field(default_factory=list)

    def config(self) -> dict[str, str]:
        return {
            "realm": f"http://{self.host}/token",
            "service": "test registry",
            "issuer": "test issuer",
            "rootcertbundle": str(self.authority.ca),
        }

    @contextlib.contextmanager
    def run(self) -> Iterator[TokenServer]:
        server = self

        class Handler(Quiet):
            def do_GET(self) -> None:
                query = urllib.parse.parse_qs(urllib.parse.urlsplit(self.path).query)
                login = self.headers.get("Authorization", "")
                server.asked.append(("GET", query, login))
                right = "Basic " + base64.b64encode(f"{USERNAME}:{PASSWORD}".encode()).decode()
                if login and login != right:
                    self.answer(401, b'{"errors": [{"code": "UNAUTHORIZED", "message": "wrong password"}]}')
                else:
                    token = server.sign(query.get("scope", []), known=bool(login))
                    self.answer(200, json.dumps({"token": token, **server.told()}).encode())

            def do_POST(self) -> None:
                form = urllib.parse.parse_qs(self.rfile.read(int(self.headers["Content-Length"])).decode())
                server.asked.append(("POST", form, self.headers.get("Authorization", "")))
                if form.get("grant_type") != ["refresh_token"] or form.get("refresh_token") != [server.refresh_token]:
                    self.answer(400, b'{"errors": [{"code": "UNAUTHORIZED", "message": "unknown token"}]}')
                else:
                    token = server.sign(form["scope"], known=True)
                    self.answer(200, json.dumps({"access_token": token, **server.told()}).encode())

        with serve(Handler) as self.host:
            yield self

    def told(self) -> dict[str, int]:
        return {"expires_in": self.lifetime_s if self.told_lifetime_s is None else self.told_lifetime_s}

    def sign(self, scopes: Sequence[str], *, known: bool) -> str:
        access = []
        for scope in scopes:
            kind, name, actions = scope.split(":")
            granted = actions.split(",") if known else ["pull"] if name.startswith("public/") else []
            access.append({"type": kind, "name": name, "actions": granted})
        certificate = ssl.PEM_cert_to_DER_cert(self.authority.certificate.read_text())
        head = {"typ": "JWT", "alg": "RS256", "x5c": [base64.b64encode(certificate).decode()]}
        now = int(time.time())
        claims = {
            "iss": "test issuer",
            "sub": USERNAME if known else "",
            "aud": "test registry",
            "iat": now,
            "nbf": now - 100,
            "exp": now + self.lifetime_s,
            "jti": str(random.random()),
            "access": access,
        }
        text = ".".join(_base64url(json.dumps(part).encode()) for part in (head, claims))
        sign = ["openssl", "dgst", "-sha256", "-sign", str(self.authority.key)]
        return f"{text}.{_base64url(run(sign, stdin=text.encode()).stdout)}"


@dataclass
class Faults:
    """What a proxy in front of a registry does wrong; each fault is a list that is used up, or a lasting state."""

    statuses: list[tuple[int, dict[str, str]]] = field(default_factory=list)
    """Answers given before anything is passed on (manifests and blobs only)."""
    drop_after: list[int] = field(default_factory=list)
    """After how many bytes of a blob the connection breaks."""
    reset: bool = False
    """Whether it breaks with RST rather than with an end of the stream."""
    headers: dict[str, str | None] = field(default_factory=dict)
    """Headers of manifests and blobs that are replaced, or taken away."""
    alter_at: int | None = None
    """The byte of a blob or manifest that is flipped."""
    append: bytes = b""
    """What is sent after the end of a blob."""
    ignore_range: bool = False
    redirect_to: str = ""
    """Where blobs are said to be: scheme and host."""
    seen: list[tuple[str, dict[str, str]]] = field(default_factory=list)
    """Path and headers of each request."""

    def ranges(self) -> list[str]:
        """The Range headers of the blobs that were asked for, in order."""
        return [headers.get("Range", "") for path, headers in self.seen if "/blobs/" in path]


@contextlib.contextmanager
def run_proxy(upstream: str, faults: Faults, authority: Authority | None = None) -> Iterator[Registry]:
    """A registry that is `upstream` (host and port, plain http) with faults."""

    class Handler(Quiet):
        def do_GET(self) -> None:
            faults.seen.append((self.path, dict(self.headers)))
            is_blob = "/blobs/" in self.path
            if is_blob or "/manifests/" in self.path:
                if faults.statuses:
                    status, headers = faults.statuses.pop(0)
                    self.answer(status, b'{"errors": [{"code": "X", "message": "a fault"}]}', headers)
                    return
                if is_blob and faults.redirect_to:
                    self.answer(307, headers={"Location": faults.redirect_to + self.path})
                    return
            sent = dict(self.headers)
            if faults.ignore_range:
                sent.pop("Range", None)
            connection = http.client.HTTPConnection(upstream, timeout=20)
            with contextlib.closing(connection):
                connection.request("GET", self.path, headers=sent)
                answer = connection.getresponse()
                body = bytearray(answer.read())
                self.pass_on(answer, body, is_blob)

        def pass_on(self, answer: http.client.HTTPResponse, body: bytearray, is_blob: bool) -> None:
            headers = dict(answer.headers)
            if is_blob or "/manifests/" in self.path:
                for name, value in faults.headers.items():
                    headers.pop(name, None)
                    if value is not None:
                        headers[name] = value
                if faults.alter_at is not None:
                    body[faults.alter_at] ^= 1
            self.send_response(answer.status)
            for name, value in headers.items():
                self.send_header(name, value)
            if "Content-Length" not in headers:
                self.send_header("Connection", "close")
                self.close_connection = True
            self.end_headers()
            if is_blob and faults.drop_after:
                self.wfile.write(body[: faults.drop_after.pop(0)])
                self.wfile.flush()
                self.close_connection = True
                if faults.reset:
                    self.connection.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
                    self.connection.close()
                return
            self.wfile.write(body + (faults.append if is_blob else b""))

    with serve(Handler, authority) as host:
        yield Registry(host, authority.ca if authority else None)


def _base64url(data: bytes) -> str:
    return base64.urlsafe_b64encode(data).rstrip(b"=").decode()
