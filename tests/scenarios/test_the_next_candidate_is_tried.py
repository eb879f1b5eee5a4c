"""Before the first application byte a failure costs our app only time; after it, there is no second try."""

from __future__ import annotations

import socket
from contextlib import suppress

import pytest
import trio
from OpenSSL import SSL

from agent.base.incremental import Incremental
from agent.base.latest import Latest
from agent.net.dial import DialFailed, DialReason
from agent.net.handshake import HandshakeFailed, HandshakeReason
from agent.outbound.reasons import OutboundReason
from agent.policy.source_intentions import read_own_intentions
from agent.relay.splice import Ending
from certs.contexts import Contexts
from tests.certs.authority import Issuer
from tests.support.descriptors import no_descriptor_leaked
from tests.support.other_callee import in_place_of_db
from tests.support.policies import deny_all
from tests.support.socket_pairs import contexts_of
from tests.support.two_sidecars import Mesh, echo, endpoint, mesh, one, receive_all
from upstreams.endpoints import EndpointSet
from upstreams.reach import UnreachableReason


def closed_port() -> int:
    """A port nobody listens on."""
    with socket.create_server(("127.0.0.1", 0)) as sock:
        port: int = sock.getsockname()[1]
    return port


async def first_bytes(sock: socket.socket, tls: SSL.Connection) -> bytes:
    while True:
        try:
            return tls.recv(100)
        except SSL.WantReadError:
            await trio.lowlevel.wait_readable(sock)


async def reset_with(m: Mesh, reason: OutboundReason) -> None:
    client = await m.connect()
    async with client:
        with pytest.raises(trio.BrokenResourceError):
            await client.receive_some()
    assert (await m.web.finished()).reason is reason


async def test_the_first_is_down() -> None:
    async with no_descriptor_leaked(), mesh(echo) as m:
        down, up = endpoint(closed_port(), name="down"), endpoint(m.public.port, name="up")
        for wanted in (1, 2):  # until chance has put the broken one first, then memory keeps it last
            m.endpoints.publish(one(down, up))
            client = await m.connect()
            async with client:
                await client.send_all(b"hello")
                await client.send_eof()
                assert await receive_all(client) == b"hello"
            assert (await m.web.finished(wanted)).reason is Ending.CLEAN
        assert {attempt.reason for attempt in m.web.events.attempts} <= {DialReason.REFUSED}
        assert len(m.web.events.attempts) <= 1


async def test_all_are_down() -> None:
    async with mesh(echo) as m:
        m.endpoints.publish(one(endpoint(closed_port(), name="a"), endpoint(closed_port(), name="b")))
        await reset_with(m, OutboundReason.ALL_FAILED)
        assert [a.reason for a in m.web.events.attempts] == [DialReason.REFUSED, DialReason.REFUSED]
        assert "a on node-1" in m.web.ledger.recent()[-1].detail


async def test_want_of_descriptors_is_held_against_no_endpoint(monkeypatch: pytest.MonkeyPatch) -> None:
    async def without_descriptors(address: object, _seconds: float, **_: object) -> socket.socket:
        raise DialFailed(DialReason.NO_RESOURCES, f"{address}: Too many open files")

    monkeypatch.setattr("agent.outbound.outbound.dial", without_descriptors)
    async with mesh(echo) as m:
        await reset_with(m, OutboundReason.ALL_FAILED)
        assert [attempt.reason for attempt in m.web.events.attempts] == [DialReason.NO_RESOURCES]
        assert m.told.ejections == []


async def test_an_endpoint_without_an_address() -> None:
    async with mesh(echo) as m:
        m.endpoints.publish(one(endpoint(0)))
        await reset_with(m, OutboundReason.ALL_FAILED)
        assert [a.reason for a in m.web.events.attempts] == [UnreachableReason.NO_PORT]


async def test_there_is_none() -> None:
    async with mesh(echo) as m:
        m.endpoints.publish(one())
        await reset_with(m, OutboundReason.NO_ENDPOINTS)


async def test_nobody_has_said_yet_where_the_upstream_is() -> None:
    async with mesh(echo) as m:
        m.endpoints = Latest[EndpointSet]()
        await reset_with(m, OutboundReason.NO_ENDPOINTS_YET)


async def test_there_are_no_credentials_yet() -> None:
    async with mesh(echo) as m:
        m.web.contexts = Latest[Contexts]()
        await reset_with(m, OutboundReason.NO_CREDENTIALS_YET)


async def test_a_refusal_before_any_byte_goes_to_the_next() -> None:
    """A protocol whose server speaks first: our app has said nothing when the far side turns us away."""

    async def app(stream: trio.SocketStream) -> None:
        await stream.send_all(b"220 ready")
        await stream.receive_some()

    async with (
        no_descriptor_leaked(),
        mesh(app) as m,
        in_place_of_db(m) as answer,
        trio.open_nursery() as nursery,
    ):
        first = m.endpoints.value
        assert first is not None
        m.endpoints.publish(one(*first.endpoints))

        async def turn_away() -> None:
            sock, _ = await answer()
            m.endpoints.publish(one(endpoint(m.public.port, name="db-2")))
            sock.close()

        nursery.start_soon(turn_away)
        m.endpoints.publish(one(*first.endpoints, endpoint(m.public.port, name="db-2")))
        m.targets.failures.failed(endpoint(m.public.port, name="db-2"))  # so that it comes last
        client = await m.connect()
        async with client:
            assert await client.receive_some() == b"220 ready"
        await m.quiet()
        assert [a.reason for a in m.web.events.attempts] == [OutboundReason.REFUSED_BY_PEER]
        assert len(m.web.events.opened_ids) == 1


async def test_a_denial_on_the_far_side_is_told_as_one() -> None:
    async with mesh(echo) as m:
        m.policy.publish(deny_all())
        await reset_with(m, OutboundReason.REFUSED_BY_PEER)
        assert m.app.accepts == 0


@pytest.mark.parametrize("spoken", [b"", b"GET"])
async def test_a_denial_on_the_far_side_names_the_rule_on_ours(spoken: bytes) -> None:
    async with mesh(echo) as m:
        m.policy.publish(deny_all())
        rule = {"SourceName": "web", "DestinationName": "db", "Action": "deny"}
        m.answer_why = Incremental(read_own_intentions([rule], default_allow=False)).run_now()
        async with await m.connect() as client:
            with suppress(trio.BrokenResourceError):
                if spoken:
                    await client.send_all(spoken)
                await client.receive_some()
        finished = await m.web.finished()
        assert finished.reason is OutboundReason.DENIED_BY_PEER
        assert "web => db (deny" in finished.rule
        assert "web => db (deny" in finished.detail
        assert not m.targets.failures.ejected()  # a denial is no fault of the instance
        assert m.asked_why == 1
        async with await m.connect() as client:
            with pytest.raises(trio.BrokenResourceError):
                await client.receive_some()
        assert m.asked_why == 1


async def test_after_a_byte_there_is_no_second_try() -> None:
    async with mesh(echo) as m, in_place_of_db(m) as answer:
        first = m.endpoints.value
        assert first is not None
        m.endpoints.publish(one(*first.endpoints, endpoint(m.public.port, name="db-2")))
        m.targets.failures.failed(endpoint(m.public.port, name="db-2"))
        client = await m.connect()
        async with client:
            await client.send_all(b"debit 100")
            sock, tls = await answer()
            with sock:
                assert await first_bytes(sock, tls) == b"debit 100"
            with pytest.raises(trio.BrokenResourceError):
                await client.receive_some()
        assert (await m.web.finished()).reason is OutboundReason.REFUSED_BY_PEER
        assert m.app.accepts == 0
        assert m.web.events.attempts == []
        assert len(m.targets.failures.ejected()) == 2


async def test_several_connections_share_the_memory_of_failures() -> None:
    async with mesh(echo) as m, trio.open_nursery() as nursery:
        down, up = endpoint(closed_port(), name="down"), endpoint(m.public.port, name="up")
        m.targets.failures.failed(down)
        m.endpoints.publish(one(down, up))

        async def exchange() -> None:
            client = await m.connect()
            async with client:
                await client.send_all(b"x")
                await client.send_eof()
                assert await receive_all(client) == b"x"

        for _ in range(20):
            nursery.start_soon(exchange)
        await m.web.finished(20)
        assert m.web.events.attempts == []


async def test_who_was_not_trusted_by_former_roots_is_asked_again_by_the_newest() -> None:
    """Our root was replaced twice while we shook hands: no bridge reaches what we began with."""
    newest = Issuer.root()
    async with no_descriptor_leaked(), mesh(echo) as m:
        shown = contexts_of(newest.leaf(service="db", datacenter="dc2"), newest, m.root)
        async with in_place_of_db(m, shown) as answer, trio.open_nursery() as nursery:

            async def serve() -> None:
                with pytest.raises(HandshakeFailed):
                    await answer(lambda: m.web.contexts.publish(contexts_of(m.root.leaf(), newest, m.root)))
                sock, tls = await answer()
                with sock:
                    assert await first_bytes(sock, tls) == b"hello"
                    tls.shutdown()

            nursery.start_soon(serve)
            client = await m.connect()
            async with client:
                await client.send_all(b"hello")
                await client.send_eof()
                assert await receive_all(client) == b""
            await m.web.finished()
        assert [a.reason for a in m.web.events.attempts] == [OutboundReason.ROOTS_REPLACED]
        assert m.targets.failures.ejected() == {}


async def test_who_is_not_trusted_by_the_newest_roots_is_not_asked_twice() -> None:
    stranger = Issuer.root()
    async with mesh(echo) as m:
        shown = contexts_of(stranger.leaf(service="db", datacenter="dc2"), stranger, m.root)
        async with in_place_of_db(m, shown) as answer, trio.open_nursery() as nursery:

            async def serve() -> None:
                with pytest.raises(HandshakeFailed):
                    await answer()

            nursery.start_soon(serve)
            await reset_with(m, OutboundReason.ALL_FAILED)
        assert [a.reason for a in m.web.events.attempts] == [HandshakeReason.UNTRUSTED_CHAIN]
