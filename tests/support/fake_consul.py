"""A Consul agent in memory: what it answers is scripted, what it was asked is kept.

    consul = FakeConsul()
    consul.answer("/v1/agent/connect/ca/roots", {"TrustDomain": …}, index=7)
    client = consul.client()          # agent.consul.api.Consul over in-memory streams

A path with several answers gives one after the other, one to each question; the last one stands. A question
with the index or hash of the standing answer waits for the next `answer` to that path, or for its `wait`.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import dataclass, field
from urllib.parse import parse_qs, urlsplit

import h11
import trio
from trio.testing import memory_stream_pair

from agent.consul.api import Consul
from agent.consul.http import Client
from agent.consul.token import TokenSource


@dataclass(frozen=True, slots=True, kw_only=True)
class Asked:
    """One request as it arrived."""

    method: str
    path: str
    query: Mapping[str, str]
    headers: Mapping[str, str]
    body: bytes


@dataclass(frozen=True, slots=True, kw_only=True)
class Scripted:
    """One answer. `hang` never comes; `cut` closes the connection instead."""

    status: int = 200
    body: bytes = b""
    headers: Mapping[str, str] = field(default_factory=dict)
    hang: bool = False
    cut: bool = False


@dataclass(slots=True)
class _Script:
    standing: Scripted | None = None
    coming: list[Scripted] = field(default_factory=list)
    changed: trio.Event = field(default_factory=trio.Event)


class FakeConsul:
    """The double. `down` refuses every connection."""

    def __init__(self) -> None:
        self.asked: list[Asked] = []
        self.down = False
        self.connections = 0
        self._scripts: dict[str, _Script] = {}
        self._nursery: trio.Nursery | None = None
        self._hung: set[str] = set()
        self._dropped = trio.Event()

    # --- the script ---

    def answer(
        self,
        path: str,
        value: object = None,
        *,
        status: int = 200,
        text: str | None = None,
        index: int | None = None,
        content_hash: str | None = None,
        policy: str = "allow",
    ) -> None:
        """The next answer to that path: `value` as JSON, or `text` as it is."""
        headers = {"X-Consul-Default-Acl-Policy": policy}
        if index is not None:
            headers["X-Consul-Index"] = str(index)
        if content_hash is not None:
            headers["X-Consul-Contenthash"] = content_hash
        body = json.dumps(value).encode() if text is None else text.encode()
        self.say(path, Scripted(status=status, body=body, headers=headers))

    def say(self, path: str, answer: Scripted) -> None:
        """The next answer, whatever it is."""
        script = self._scripts.setdefault(path, _Script())
        script.coming.append(answer)
        script.changed.set()
        script.changed = trio.Event()

    def replace(self, path: str) -> None:
        """Forget what is scripted for that path."""
        self._scripts.pop(path, None)

    def forget(self, path: str) -> Scripted:
        """Forget it; what would have been answered next."""
        return self._scripts.pop(path).coming[0]

    def hang(self, path: str) -> None:
        """From now on no question there is answered."""
        self.replace(path)
        self.say(path, Scripted(hang=True))

    def hang_blocking(self, path: str) -> None:
        """From now on a question there that blocks is never answered; one without an index is."""
        self._hung.add(path)

    def drop(self) -> None:
        """Break every connection."""
        self._dropped.set()
        self._dropped = trio.Event()

    def questions(self, path: str) -> list[Asked]:
        """What was asked of that path."""
        return [asked for asked in self.asked if asked.path == path]

    # --- the server ---

    def client(self, nursery: trio.Nursery, token: TokenSource | None = None) -> Consul:
        """A client whose connections are served in that nursery."""
        self._nursery = nursery
        return Consul(Client(self.dial, host="consul"), token or TokenSource(None, None))

    async def listen(self, nursery: trio.Nursery) -> str:
        """Serve on a loopback port as well, for an agent in another process; its `host:port`."""
        (listener,) = await trio.open_tcp_listeners(0, host="127.0.0.1")
        nursery.start_soon(trio.serve_listeners, self._serve, [listener])
        return f"127.0.0.1:{listener.socket.getsockname()[1]}"

    async def dial(self) -> trio.abc.Stream:
        """Connect, in memory."""
        if self.down:
            raise ConnectionRefusedError(111, "Connection refused")
        assert self._nursery is not None, "call client() first"
        ours, theirs = memory_stream_pair()
        self.connections += 1
        self._nursery.start_soon(self._serve, theirs)
        return ours

    async def _serve(self, stream: trio.abc.Stream) -> None:
        async with trio.open_nursery() as nursery:
            nursery.start_soon(self._break_off, self._dropped, nursery.cancel_scope)
            await self._converse(stream)
            nursery.cancel_scope.cancel()

    async def _break_off(self, dropped: trio.Event, scope: trio.CancelScope) -> None:
        await dropped.wait()
        scope.cancel()

    async def _converse(self, stream: trio.abc.Stream) -> None:
        http = h11.Connection(h11.SERVER)
        try:
            while True:
                request, body = await receive_request(http, stream)
                if request is None:
                    return
                answer = await self._decide(request, body)
                if answer.hang:
                    await trio.sleep_forever()
                if answer.cut:
                    return
                headers = [*answer.headers.items(), ("Content-Length", str(len(answer.body)))]
                head = h11.Response(status_code=answer.status, headers=headers)
                for event in (head, h11.Data(data=answer.body), h11.EndOfMessage()):
                    await stream.send_all(http.send(event) or b"")
                http.start_next_cycle()
        except (trio.BrokenResourceError, trio.ClosedResourceError):
            pass  # the client has given up on its question
        finally:
            await trio.aclose_forcefully(stream)

    async def _decide(self, request: h11.Request, body: bytes) -> Scripted:
        split = urlsplit(request.target.decode())
        query = {name: values[0] for name, values in parse_qs(split.query, keep_blank_values=True).items()}
        headers = {name.decode(): value.decode() for name, value in request.headers}
        self.asked.append(
            Asked(method=request.method.decode(), path=split.path, query=query, headers=headers, body=body)
        )
        script = self._scripts.get(split.path)
        if script is None:
            return Scripted(status=404, body=b"nothing is scripted for this path")
        if split.path in self._hung and "index" in query:
            return Scripted(hang=True)
        if not script.coming and script.standing is not None and _blocks(script.standing, query):
            with trio.move_on_after(float(query["wait"].removesuffix("s"))):
                await script.changed.wait()
        if script.coming:
            script.standing = script.coming.pop(0)
        assert script.standing is not None  # a path is known by its first answer
        return script.standing


def _blocks(standing: Scripted, query: Mapping[str, str]) -> bool:
    index = standing.headers.get("X-Consul-Index")
    content_hash = standing.headers.get("X-Consul-Contenthash")
    if "wait" not in query or standing.status != 200:
        return False
    return (index is not None and query.get("index") == index) or (
        content_hash is not None and query.get("hash") == content_hash
    )


async def receive_request(http: h11.Connection, stream: trio.abc.Stream) -> tuple[h11.Request | None, bytes]:
    """Return the next request and its body; no request at the end of the connection."""
    request: h11.Request | None = None
    body = bytearray()
    while True:
        event = http.next_event()
        if event is h11.NEED_DATA:
            http.receive_data(bytes(await stream.receive_some(65536)))
        elif isinstance(event, h11.Request):
            request = event
        elif isinstance(event, h11.Data):
            body += event.data
        elif isinstance(event, h11.EndOfMessage):
            return request, bytes(body)
        else:
            return None, b""
