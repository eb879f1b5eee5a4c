"""Calls to other datacenters: over real sockets where the kernel matters, over wires in memory elsewhere."""

from __future__ import annotations

import socket
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

import pytest
import trio

from datacenter.http.forward import DATACENTERS, HttpWire, KnownDatacenters, Received
from datacenter.state.errors import ApiError
from datacenter.state.store import Store
from tests.datacenter.world import World, settings


def test_known_datacenters_are_those_in_the_table() -> None:
    store = Store()
    known = KnownDatacenters("dc2", store)
    assert known.datacenters() == ["dc2"]
    store.table(DATACENTERS).put("dc1", {"Address": "http://10.0.0.1:8500"})
    store.table(DATACENTERS).put("dc2", {"Address": "http://10.0.0.2:8500"})
    assert known.datacenters() == ["dc2", "dc1"]
    assert known.base_url("dc1") == "http://10.0.0.1:8500"
    assert known.base_url("dc9") is None


def federation() -> World:
    world = World()
    for name in ("dc1", "dc2"):
        world.add(settings(name))
    return world


async def test_no_path() -> None:
    reply = await federation().dc1.call("GET", "/v1/catalog/nodes?dc=dc9")
    assert (reply.status, reply.body) == (500, b"No path to datacenter")


async def test_errors_are_marked_as_another_s_unless_they_are_about_the_request() -> None:
    dc1 = federation().dc1
    missing = await dc1.call("GET", "/v1/query/nope/execute?dc=dc2")
    assert (missing.status, missing.body) == (404, b"rpc error making call: Query not found")
    mistaken = await dc1.call("PUT", "/v1/catalog/register?dc=dc2", "{")
    assert (mistaken.status, mistaken.body) == (400, b"Request decode failed: unexpected EOF")


async def test_a_datacenter_that_is_down() -> None:
    world = federation()
    world.down.add("dc2")
    reply = await world.dc1.call("GET", "/v1/catalog/nodes?dc=dc2")
    assert reply.status == 500
    assert b"connect: connection refused" in reply.body


async def test_a_call_of_our_own_brings_value_and_index() -> None:
    world = federation()
    answer = await world.dc1.dc.forwarder.call("GET", "http://dc2.example:8500/v1/catalog/nodes")
    assert isinstance(answer.value, list)
    assert answer.index == 2


async def test_a_call_without_an_answer_s_body() -> None:
    world = federation()
    url = "http://dc2.example:8500/v1/agent/service/register"
    answer = await world.dc1.dc.forwarder.call("PUT", url, body={"Name": "web"}, token="t")
    assert (answer.value, answer.index) == (None, 0)
    assert await world.dc2.ok("GET", "/v1/agent/services")


@asynccontextmanager
async def peer(*chunks: bytes) -> AsyncIterator[str]:
    """A server that takes one request and answers with these bytes, then closes."""
    listener = (await trio.open_tcp_listeners(0, host="127.0.0.1"))[0]
    port = listener.socket.getsockname()[1]

    async def answer(stream: trio.SocketStream) -> None:
        await stream.receive_some(65536)
        for chunk in chunks:
            await stream.send_all(chunk)
        if not chunks:
            await trio.sleep_forever()
        await stream.aclose()

    async with trio.open_nursery() as nursery:
        nursery.start_soon(trio.serve_listeners, answer, [listener])
        yield f"http://127.0.0.1:{port}"
        nursery.cancel_scope.cancel()


async def exchange(url: str, patience: float = 5.0) -> Received:
    async with HttpWire() as wire:
        return await wire.exchange("PUT", url, headers={"A": "b"}, body=b"x", patience=patience)


async def test_http() -> None:
    async with peer(b"HTTP/1.1 200 OK\r\nContent-Length: 2\r\nX-Y: z\r\n\r\nhi") as url:
        received = await exchange(url)
    assert (received.status, received.headers["x-y"], received.body) == (200, "z", b"hi")


async def test_nobody_listens() -> None:
    with socket.socket() as taken:  # bound and not listening: nobody else gets this port
        taken.bind(("127.0.0.1", 0))
        port = taken.getsockname()[1]
        with pytest.raises(ApiError) as caught:
            await exchange(f"http://127.0.0.1:{port}/x")
    text = "rpc error getting client: failed to get conn: dial tcp 127.0.0.1:{}: connect: connection refused"
    assert (caught.value.status, caught.value.text) == (500, text.format(port))


async def test_an_answer_that_breaks_off() -> None:
    async with peer(b"HTTP/1.1 200 OK\r\nContent-Length: 20\r\n\r\nhi") as url:
        with pytest.raises(ApiError, match="rpc error making call: EOF"):
            await exchange(url)


async def test_an_answer_that_does_not_come() -> None:
    async with peer() as url:
        with pytest.raises(ApiError, match="rpc error making call: i/o timeout"):
            await exchange(url, patience=0.05)
