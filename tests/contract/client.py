"""A client of Consul's HTTP API as small as can be: one call, one answer, blocking reads that can be held.

It shares nothing with the product, so that a mistake in the sidecar's own client cannot hide one in a
datacenter.
"""

from __future__ import annotations

import http.client
import json
from collections.abc import Callable, Mapping
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import closing
from dataclasses import dataclass, field
from pathlib import Path
from time import monotonic
from typing import Any
from urllib.parse import urlsplit

ESTABLISHED = "01"  # in the kernel's list: https://docs.kernel.org/networking/proc_net_tcp.html
PATIENCE = 100.0  # seconds: above every wait, and above the minute in which an agent repairs a missed sync


@dataclass(frozen=True, slots=True, kw_only=True)
class Answer:
    """One reply. Header names are in lower case; `seconds` is how long it took."""

    status: int
    headers: Mapping[str, str]
    text: str = field(repr=False)
    seconds: float

    @property
    def json(self) -> Any:
        """The decoded body of a 200."""
        assert self.status == 200, f"{self.status}: {self.text}"
        return json.loads(self.text)

    @property
    def index(self) -> int:
        """`X-Consul-Index`, which must be there."""
        return int(self.headers["x-consul-index"])


class Api:
    """One datacenter's HTTP API, asked with a token if one is given."""

    def __init__(self, name: str, url: str, threads: ThreadPoolExecutor, *, token: str = "") -> None:
        self.name = name
        self.url = url
        self._threads = threads
        self.token = token

    def connections(self) -> int:
        """How many TCP connections this host has to it by IPv4, counted at the clients' end."""
        port = urlsplit(self.url).port
        rows = [line.split() for line in Path("/proc/self/net/tcp").read_text().splitlines()[1:]]
        return sum(row[2].endswith(f":{port:04X}") and row[3] == ESTABLISHED for row in rows)

    def call(self, method: str, path: str, body: object = None) -> Answer:
        """One request; a `str` body is sent as it is, anything else as JSON."""
        where = urlsplit(self.url)
        assert where.hostname
        content = body if body is None or isinstance(body, str) else json.dumps(body)
        token = {"X-Consul-Token": self.token} if self.token else {}
        started = monotonic()
        with closing(http.client.HTTPConnection(where.hostname, where.port, timeout=PATIENCE)) as connection:
            connection.request(method, path, content, token)
            reply = connection.getresponse()
            text = reply.read().decode()
        headers = {name.lower(): value for name, value in reply.getheaders()}
        return Answer(status=reply.status, headers=headers, text=text, seconds=monotonic() - started)

    def get(self, path: str) -> Answer:
        """GET."""
        return self.call("GET", path)

    def put(self, path: str, body: object = None) -> Answer:
        """PUT."""
        return self.call("PUT", path, body)

    def post(self, path: str, body: object = None) -> Answer:
        """POST."""
        return self.call("POST", path, body)

    def delete(self, path: str) -> Answer:
        """DELETE."""
        return self.call("DELETE", path)

    def hold(self, path: str) -> Future[Answer]:
        """A read that is expected to block, held in a thread of its own."""
        return self._threads.submit(self.get, path)

    def until(self, path: str, true: Callable[[Any], object]) -> Answer:
        """Follow an index-blocking path until its decoded body satisfies `true`."""
        deadline = monotonic() + PATIENCE
        separator = "&" if "?" in path else "?"
        index = 0
        while True:
            answer = self.get(f"{path}{separator}index={index}&wait=2s" if index else path)
            if true(answer.json):
                return answer
            assert monotonic() < deadline, f"{path} never came to what was expected: {answer.text[:2000]}"
            # An index that went backwards starts over: docs/consul-api.md#blocking-queries.
            index = answer.index if answer.index >= index else 0
