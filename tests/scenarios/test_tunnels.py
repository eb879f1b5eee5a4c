"""Connections as streams of one tunnel: judged, cut, counted and named as connections of their own."""

from __future__ import annotations

import gc
import socket
from collections import Counter
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import replace

import pytest
import trio
import trio.testing

from agent.base import prometheus
from agent.base.address import TcpAddress
from agent.connections.connection import Connection, Handling
from agent.connections.reauthorize import Reauthorizer
from agent.connections.records import CloseReason, Direction
from agent.h2.stream import Stream
from agent.inbound.verdict import InboundReason
from agent.outbound.reasons import OutboundReason
from agent.policy.authorize import VerdictReason
from agent.policy.deny_list import parse_deny_list
from agent.policy.http_mode import HttpMode
from agent.proxy import report
from agent.relay.splice import Ending, Progress
from agent.tunnel.ends import TunnelReason
from agent.tunnel.leg import Leg
from agent.tunnel.tunnel import Tunnel
from tests.support.policies import allow_all, deny_all
from tests.support.socket_pairs import tcp_pair
from tests.support.two_sidecars import Handler, Mesh, echo, endpoint, mesh, now, one, until
from upstreams.endpoints import Endpoint

GET = b"\x82\x87\x84"  # a header block: GET, https, / (RFC 7541 appendix A)
_calls: list[trio.SocketStream] = []  # of the present test


@asynccontextmanager
async def tunnelling(
    limit: int | None = None, handler: Handler = echo, http: HttpMode = HttpMode.NEVER
) -> AsyncIterator[Mesh]:
    """Both halves with tunnels, and the judge of open connections at the far side."""
    async with mesh(handler, tunnel=True, limit=limit, http=http) as m, trio.open_nursery() as nursery:
        m.web.admission.limit = None
        judge = Reauthorizer(
            m.db.ledger,
            policy=m.policy,
            freshness=m.freshness,
            contexts=m.db.contexts,
            clock=now,
            on_closed=lambda _: None,
            faults=m.db.events,
            deny_list=m.deny_list,
        )
        nursery.start_soon(judge.run)
        try:
            yield m
        finally:
            while _calls:
                _calls.pop().socket.close()
            nursery.cancel_scope.cancel()


@pytest.fixture
async def m() -> AsyncIterator[Mesh]:
    async with tunnelling() as made:
        yield made


async def connect(m: Mesh) -> trio.SocketStream:
    """A connection of web's app."""
    _calls.append(await m.connect())
    return _calls[-1]


async def called(m: Mesh, text: bytes = b"hello") -> trio.SocketStream:
    """A connection of web's app that the far app has answered."""
    stream = await connect(m)
    await stream.send_all(text)
    with trio.fail_after(5):
        got = b""
        while len(got) < len(text) and (data := await stream.receive_some(65536)):
            got += data
        assert got == text
    return stream


async def ended(stream: trio.SocketStream) -> None:
    """Wait until a connection was reset."""
    with trio.fail_after(5), pytest.raises(trio.BrokenResourceError):
        await _all_of(stream)


async def refused_after_a_byte(m: Mesh) -> None:
    """Call and wait to be reset. The byte is sent in this thread, so that no refusal can come before it."""
    assert isinstance(m.upstream, TcpAddress)
    with socket.create_connection((m.upstream.host, m.upstream.port)) as caller:
        caller.send(b"x")
        caller.setblocking(False)
        await ended(trio.SocketStream(trio.socket.from_stdlib_socket(caller)))


async def _all_of(stream: trio.SocketStream) -> None:
    while await stream.receive_some(65536):
        pass


async def test_connections_share_one_tunnel_and_are_connections_in_every_book(m: Mesh) -> None:
    streams = [await called(m) for _ in range(5)]
    assert [len(side.ledger.live()) for side in (m.web, m.db)] == [5, 5]
    assert [len(side.ledger.tunnels()) for side in (m.web, m.db)] == [1, 1]
    far = m.db.ledger.live()[0]
    assert str(far.peer and far.peer.id).endswith("/ns/default/dc/dc1/svc/web")
    assert far.rule == "default policy (allow)"
    assert m.web.ledger.live()[0].dialled.endswith("tunnel)")
    for stream in streams:
        await stream.aclose()
    await m.quiet()
    assert m.web.ledger.counters() == {(Direction.OUTBOUND, "clean"): 5}
    assert m.db.ledger.counters() == {(Direction.INBOUND, "clean"): 5}
    assert m.db.ledger.bytes(Direction.INBOUND) == (25, 25)
    assert m.db.admission.live == 1  # the tunnel's own


async def test_tunnels_are_listed_beside_connections(m: Mesh) -> None:
    await called(m)
    (tunnel,) = m.db.ledger.tunnels()
    for side, other, generation in ((m.db, "web", 1), (m.web, "db", 1)):
        row = report._tunnel(*side.ledger.live_tunnels())
        assert row["peer"].endswith(f"/svc/{other}")
        assert (row["streams"], row["streams_opened"], row["generation"]) == (1, 1, generation)
        assert row["age_seconds"] >= 0
    text = prometheus.text(report._tunnel_families(m.db.ledger))
    assert 'sidecar_tunnels_live{direction="inbound"} 1' in text
    tunnel.close(CloseReason.SHUTDOWN)
    await until(lambda: not m.db.ledger.tunnels())
    text = prometheus.text(report._tunnel_families(m.db.ledger))
    assert 'sidecar_tunnels_total{direction="inbound",reason="shutdown"} 1' in text


async def test_a_denied_stream_is_answered_and_the_callers_log_names_the_reason(m: Mesh) -> None:
    kept = await called(m)
    m.policy.publish(deny_all())
    await ended(kept)
    refused = await connect(m)
    await ended(refused)
    assert m.app.accepts == 1
    finished = m.web.ledger.recent()[-1]
    assert finished.reason is OutboundReason.DENIED_BY_PEER
    assert "answered 403 default_deny" in finished.detail
    assert m.db.ledger.recent()[-1].reason is VerdictReason.DEFAULT_DENY
    assert len(m.db.ledger.tunnels()) == 1
    m.policy.publish(allow_all())
    await called(m)
    assert len(m.db.events.tunnels) == 1  # still the first one


async def test_a_registration_that_changes_applies_to_the_next_stream_of_a_tunnel(m: Mesh) -> None:
    kept = await called(m)
    app = m.app.address
    m.app.address = TcpAddress("127.0.0.1", 1)
    await refused_after_a_byte(m)
    m.app.address = app
    await called(m)
    await kept.send_all(b"still")
    assert await kept.receive_some(10) == b"still"
    assert len(m.db.events.tunnels) == 1


async def test_an_app_that_is_down_is_named(m: Mesh) -> None:
    m.app.address = TcpAddress("127.0.0.1", 1)
    refused = await connect(m)
    await ended(refused)
    finished = m.web.ledger.recent()[-1]
    assert finished.reason is OutboundReason.REFUSED_BY_PEER
    assert "answered 503 app_connect_refused" in finished.detail


async def test_a_deny_list_ends_the_tunnel_with_all_its_streams(m: Mesh) -> None:
    stream = await called(m)
    peer = m.db.ledger.live()[0].peer
    assert peer is not None
    m.deny_list.publish(parse_deny_list(f"{peer.id}\n"))
    await ended(stream)
    await until(lambda: not m.db.ledger.tunnels())
    assert m.db.ledger.recent()[-1].reason is CloseReason.DENY_LISTED


async def test_newer_credentials_take_new_streams_and_old_ones_go_on(m: Mesh) -> None:
    old = await called(m)
    for generation in range(2, 6):
        for side in (m.web, m.db):
            current = side.contexts.value
            assert current is not None
            side.contexts.publish(replace(current, generation=generation))
        await called(m)
    await old.send_all(b"still")
    assert await old.receive_some(100) == b"still"
    await until(lambda: len(m.web.ledger.tunnels()) >= 2)
    await old.aclose()
    assert m.db.ledger.counters().get((Direction.INBOUND, "tls_reset")) is None


async def test_a_tunnel_that_we_retire_ends_with_its_last_stream(m: Mesh) -> None:
    stream = await called(m)
    m.leaving.set()
    await until(lambda: m.tunnels.ready(endpoint(1).expected, m.targets.dialling(one_endpoint(m))) is None)
    await stream.send_all(b"still")
    assert await stream.receive_some(100) == b"still"
    await stream.aclose()
    await m.quiet()
    await until(lambda: not m.web.ledger.tunnels())
    assert m.web.ledger.tunnel_counters() == {(Direction.OUTBOUND, TunnelReason.RETIRED.value): 1}


def one_endpoint(m: Mesh) -> Endpoint:
    endpoints = m.endpoints.value
    assert endpoints is not None
    return endpoints.endpoints[0]


async def test_an_endpoint_that_offers_none_gets_a_connection_each() -> None:
    async with tunnelling() as m:
        m.endpoints.publish(one(endpoint(m.public.port)))
        await called(m)
        assert not m.db.ledger.tunnels()
        assert m.db.ledger.live()[0].handling is Handling.RELAYED


async def test_a_far_side_that_forbids_them_gets_a_connection_each_all_the_same() -> None:
    async with tunnelling() as m:
        m.tunnel = False  # db's setting, of which its registration does not tell
        await called(m)
        await called(m)
        assert not m.web.ledger.tunnels()
        assert [one.reason.value for one in m.db.events.refused_ones] == ["no_tunnels"]


async def test_a_stream_that_asks_for_no_connect_is_refused_and_counted_by_its_reason(m: Mesh) -> None:
    await called(m)
    (tunnel,) = (live.streams for live in m.web.ledger.live_tunnels())
    assert isinstance(tunnel, Tunnel)
    caller, plain = tcp_pair()
    with caller, plain:
        over = list[Leg]()
        tunnel.open(plain, GET, Progress(), over.append)
        with trio.fail_after(5):
            await until(lambda: bool(over))
    assert over[0].refused == "405 not_connect"
    (refused,) = m.db.events.refused_ones
    assert (refused.reason, refused.theirs) == (InboundReason.NOT_CONNECT, m.db.ledger.live()[0].peer)
    assert m.db.ledger.counters()[Direction.INBOUND, "not_connect"] == 1
    assert m.db.admission.live == 1  # the tunnel's, and that of its first stream


async def test_the_first_stream_of_a_tunnel_frees_its_place_when_it_ends() -> None:
    async with tunnelling(limit=2) as m:
        first, second = await called(m), await called(m)
        await first.aclose()
        await until(lambda: len(m.db.ledger.live()) == 1)
        third = await called(m)
        assert m.db.admission.live == 2
        await second.aclose()
        await third.aclose()
        await m.quiet()


async def test_a_listeners_limit_holds_for_streams() -> None:
    async with tunnelling(limit=3) as m:
        kept = [await called(m) for _ in range(3)]
        refused = await connect(m)
        await ended(refused)
        assert "503 max_connections" in m.web.ledger.recent()[-1].detail
        await kept.pop().aclose()
        await until(lambda: m.db.admission.live == 2)
        await called(m)


async def test_a_reset_travels() -> None:
    async with tunnelling() as m:
        stream = await called(m)
        stream.setsockopt(1, 13, b"\1\0\0\0\0\0\0\0")  # SOL_SOCKET, SO_LINGER: reset
        await stream.aclose()
        await m.quiet()
        assert m.web.ledger.recent()[-1].reason is Ending.PLAIN_RESET
        assert m.db.ledger.recent()[-1].reason is Ending.TLS_RESET


async def test_streams_that_have_ended_leave_nothing_to_the_collector(m: Mesh) -> None:
    await called(m)
    gc.collect()
    gc.disable()
    try:
        for _ in range(5):
            await (await called(m)).aclose()
        await until(lambda: len(m.db.ledger.live()) == len(m.web.ledger.live()) == 1)
        await trio.testing.wait_all_tasks_blocked(0.01)
        kept = [one for one in gc.get_objects() if isinstance(one, Leg | Stream | Connection)]
        assert Counter(type(one).__name__ for one in kept) == {"Leg": 2, "Stream": 2, "Connection": 4}
    finally:
        gc.enable()
