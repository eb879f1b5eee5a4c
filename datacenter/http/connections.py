"""Accepts connections, as many of one client address as Consul does by default, and gives them to Hypercorn.

Consul's `limits.http_max_conns_per_client` is 200, counted by address, all processes of a host together; all
clients of a unix socket count as one. What comes beyond is answered with 429 at once and closed
(docs/consul-api.md#blocking-queries).
"""

from __future__ import annotations

import socket
from collections import Counter
from collections.abc import Iterator
from contextlib import contextmanager
from functools import partial

import trio
from hypercorn.config import Config
from hypercorn.trio.tcp_server import TCPServer
from hypercorn.trio.worker_context import WorkerContext
from hypercorn.typing import AppWrapper, ConnectionState, LifespanState

_WRITE_SECONDS = 0.01  # a client that does not read is closed without an answer
_TEXT = b"Your IP is issuing too many concurrent connections, please rate limit your calls\n"
_REFUSAL = (
    b"HTTP/1.1 429 Too Many Requests\r\nContent-Type: text/plain\r\nContent-Length: %d\r\n"
    b"Connection: close\r\n\r\n%s" % (len(_TEXT), _TEXT)
)


class Clients:
    """The connections by client address; 0: no limit."""

    def __init__(self, most: int) -> None:
        self._most = most
        self._live: Counter[str] = Counter()

    @contextmanager
    def counted(self, stream: trio.SocketStream) -> Iterator[bool]:
        """Count the connection within the block; return whether it is within the limit."""
        try:
            client = _client(stream)
        except OSError:  # it has gone already
            yield False
            return
        if self._most and self._live[client] >= self._most:
            yield False
            return
        self._live[client] += 1
        try:
            yield True
        finally:
            self._live[client] -= 1
            if not self._live[client]:
                del self._live[client]


async def serve_connections(
    app: AppWrapper, config: Config, listener: socket.socket, most: int, stop: trio.Event
) -> None:
    """Serve until `stop` is set; connections under way then have the time that `config` gives them."""
    context = WorkerContext(None)
    serve = partial(_serve, app, config, context, Clients(most))
    async with trio.open_nursery() as connections:
        async with trio.open_nursery() as accepting:
            listeners = [trio.SocketListener(trio.socket.from_stdlib_socket(listener))]
            accepting.start_soon(partial(trio.serve_listeners, serve, listeners, handler_nursery=connections))
            await stop.wait()
            accepting.cancel_scope.cancel()
        await context.terminated.set()
        connections.cancel_scope.deadline = trio.current_time() + config.graceful_timeout


class _Connection(TCPServer):
    """Hypercorn's connection, which ends as soon as its client has left, and not after an idle time."""

    async def _read_data(self) -> None:
        await super()._read_data()
        await self.idle_task.stop()


async def _serve(
    app: AppWrapper, config: Config, context: WorkerContext, clients: Clients, stream: trio.SocketStream
) -> None:
    with clients.counted(stream) as admitted:
        if not admitted:
            await _refuse(stream)
            return
        await _Connection(app, config, context, ConnectionState(LifespanState()), stream)  # type: ignore[arg-type]  # it serves plain streams too


async def _refuse(stream: trio.SocketStream) -> None:
    try:
        with trio.move_on_after(_WRITE_SECONDS):
            await stream.send_all(_REFUSAL)
            await stream.send_eof()
            await stream.receive_some(4096)  # unread bytes would make the close a reset, and lose the answer
    except trio.BrokenResourceError:
        pass  # the client has gone
    finally:
        await trio.aclose_forcefully(stream)


def _client(stream: trio.SocketStream) -> str:
    """Return the client's address; for a unix socket one for all. Raises OSError."""
    if stream.socket.family == socket.AF_UNIX:
        return "unix"
    return str(stream.socket.getpeername()[0])
