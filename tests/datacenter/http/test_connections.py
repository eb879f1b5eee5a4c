"""One client address has so many connections; what comes beyond gets Consul's 429 and is closed."""

from __future__ import annotations

import socket
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager, suppress

import pytest
import trio

from datacenter.http.frame import Frame
from datacenter.http.server import bound_address, open_listener, serve_http
from tests.datacenter.world import World, settings

ASK = b"GET /v1/status/leader HTTP/1.1\r\nHost: localhost\r\n\r\n"


async def serving(nursery: trio.Nursery, most: int, address: str = "127.0.0.1:0") -> str:
    world = World()
    site = world.add(settings("dc1", http_max_conns_per_client=most))
    listener = open_listener(address)
    at = bound_address(listener)
    await nursery.start(serve_http, Frame(site.dc, ()), listener)
    return at


@contextmanager
def connected(at: str) -> Iterator[socket.socket]:
    if at.startswith("unix://"):
        sock = socket.socket(socket.AF_UNIX)
        sock.connect(at.removeprefix("unix://"))
    else:
        host, _, port = at.rpartition(":")
        sock = socket.create_connection((host, int(port)))
    with sock:
        sock.settimeout(5)
        yield sock


async def said(sock: socket.socket) -> bytes:
    return await trio.to_thread.run_sync(_said, sock)


def _said(sock: socket.socket) -> bytes:
    with suppress(BrokenPipeError):  # the refusal may have come, and the end
        sock.sendall(ASK)
    return sock.recv(65536)


@pytest.mark.parametrize("kind", ["tcp", "unix"])
async def test_the_connection_beyond_the_limit_is_answered_429_until_another_has_ended(
    nursery: trio.Nursery, kind: str, tmp_path: object
) -> None:
    at = await serving(nursery, 3, "127.0.0.1:0" if kind == "tcp" else f"unix://{tmp_path}/s")
    with ExitStack() as stack:
        held = [stack.enter_context(connected(at)) for _ in range(3)]
        assert all([(await said(sock)).startswith(b"HTTP/1.1 404") for sock in held])
        with connected(at) as one_more:
            refusal = await said(one_more)
            assert refusal.startswith(b"HTTP/1.1 429 Too Many Requests\r\n")
            assert b"too many concurrent connections" in refusal
        held[0].close()
        answer = b"429"
        with trio.fail_after(5):
            while b"429" in answer:  # the datacenter hears of the end a moment later
                with connected(at) as later:
                    answer = await said(later)
        assert answer.startswith(b"HTTP/1.1 404")
    nursery.cancel_scope.cancel()


async def test_without_a_limit_all_are_served(nursery: trio.Nursery) -> None:
    at = await serving(nursery, 0)
    with ExitStack() as stack:
        held = [stack.enter_context(connected(at)) for _ in range(250)]
        assert all([(await said(sock)).startswith(b"HTTP/1.1 404") for sock in held])
    nursery.cancel_scope.cancel()
