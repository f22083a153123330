"""A proxy in front of a registry that makes trouble for those who push."""

from __future__ import annotations

import http.client
from collections.abc import Iterator
from contextlib import closing, contextmanager
from dataclasses import dataclass, field

from tests.oci.registries import Quiet, Registry, serve


@dataclass
class Trouble:
    """What a proxy does with requests that push; each list is used up.

    `statuses` (method, status) are answered before anything is passed on. Of the body of a blob's PUT, `drop_after`
    bytes are read before the connection breaks, `cut_to` bytes passed on as if they were all. `lose_answer` answers
    to one never come, `headers` of answers are replaced, or taken away. `seen` has the method of each request.
    """

    statuses: list[tuple[str, int]] = field(default_factory=list)
    drop_after: list[int] = field(default_factory=list)
    cut_to: list[int] = field(default_factory=list)
    lose_answer: int = 0
    headers: dict[str, str | None] = field(default_factory=dict)
    seen: list[str] = field(default_factory=list)


@contextmanager
def trouble_before(upstream: str, trouble: Trouble) -> Iterator[Registry]:
    class Handler(Quiet):
        def do_any(self) -> None:
            trouble.seen.append(self.command)
            length = int(self.headers.get("Content-Length", 0))
            if trouble.statuses and trouble.statuses[0][0] == self.command:
                self.rfile.read(length)
                self.answer(trouble.statuses.pop(0)[1], b'{"errors": [{"code": "X", "message": "a fault"}]}')
                return
            is_blob = self.command == "PUT" and "/blobs/" in self.path
            if is_blob and trouble.drop_after:
                self.rfile.read(trouble.drop_after.pop(0))
                self.close_connection = True
                return
            body = self.rfile.read(length)
            if is_blob and trouble.cut_to:
                body = body[: trouble.cut_to.pop(0)]
            headers = {**dict(self.headers), "Content-Length": str(len(body)), "Host": upstream}
            with closing(http.client.HTTPConnection(upstream, timeout=20)) as connection:
                connection.request(self.command, self.path, body, headers)
                answer = connection.getresponse()
                content = answer.read()
            if is_blob and trouble.lose_answer:
                trouble.lose_answer -= 1
                self.close_connection = True
                return
            told = {name: value for name, value in answer.headers.items() if name != "Transfer-Encoding"}
            if "Location" in told:
                told["Location"] = told["Location"].replace(upstream, self.headers["Host"])
            answered = {"Content-Length": str(len(content)), **told, **trouble.headers}
            self.answer(answer.status, content, {name: value for name, value in answered.items() if value is not None})

        do_GET = do_HEAD = do_POST = do_PUT = do_any

    with serve(Handler) as host:
        yield Registry(host)
