"""A TLS server of the test's own where db's sidecar was."""

from __future__ import annotations

import contextlib
import socket
from collections.abc import AsyncIterator, Awaitable, Callable

import trio
from OpenSSL import SSL

from agent.net.handshake import HandshakeFailed, server_handshake
from certs.contexts import Contexts
from tests.support.socket_pairs import listener
from tests.support.two_sidecars import Mesh, endpoint, one


@contextlib.asynccontextmanager
async def in_place_of_db(
    m: Mesh, contexts: Contexts | None = None
) -> AsyncIterator[Callable[..., Awaitable[tuple[socket.socket, SSL.Connection]]]]:
    """web's upstream is now a TLS server of the test's own; the block gets the way to accept a caller."""
    with listener() as sock:
        m.endpoints.publish(one(endpoint(sock.getsockname()[1])))
        presented = contexts or m.db.contexts.value
        assert presented is not None

        async def answer(before: Callable[[], object] = bool) -> tuple[socket.socket, SSL.Connection]:
            await trio.lowlevel.wait_readable(sock)
            caller, _ = sock.accept()
            caller.setblocking(False)
            await trio.lowlevel.wait_readable(caller)  # its handshake has begun, and is not answered yet
            before()
            try:
                return caller, await server_handshake(caller, lambda: presented.server, 5)
            except HandshakeFailed:
                caller.close()
                raise

        yield answer
