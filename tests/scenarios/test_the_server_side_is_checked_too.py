"""An endpoint that is not who it must be gets not one application byte."""

from __future__ import annotations

import contextlib
from datetime import timedelta
from enum import StrEnum

import pytest
import trio

from agent.base.address import TcpAddress
from agent.connections.records import Direction
from agent.net.handshake import HandshakeReason
from agent.outbound.reasons import OutboundReason
from certs.peer import PeerReason
from tests.certs.authority import OTHER_TRUST_DOMAIN, Issuer, Minted
from tests.support.descriptors import no_descriptor_leaked
from tests.support.other_callee import in_place_of_db
from tests.support.socket_pairs import NOW, contexts_of
from tests.support.two_sidecars import Mesh, echo, endpoint, mesh, one


async def refused(m: Mesh, reason: StrEnum, words: str = "") -> None:
    """Our app's connection is reset, with that reason for the one attempt."""
    client = await m.connect()
    async with client:
        with contextlib.suppress(trio.BrokenResourceError):  # it may be reset already
            await client.send_all(b"secret")
        with pytest.raises(trio.BrokenResourceError):
            await client.receive_some()
    ended = await m.web.finished()
    assert (ended.reason, ended.opened) == (OutboundReason.ALL_FAILED, False)
    assert (ended.to_tls, ended.to_plain) == (0, 0)
    assert [attempt.reason for attempt in m.web.events.attempts] == [reason]
    assert m.web.ledger.failed_attempts() == {reason.value: 1}
    assert m.web.ledger.counters() == {(Direction.OUTBOUND, "all_failed"): 1}
    assert words in ended.detail
    assert m.targets.failures.ejected()


async def against(reason: StrEnum, minted: Minted, m: Mesh, words: str = "") -> None:
    """db's place is taken by a server with that leaf; whatever it hears after the handshake is too much."""
    heard: list[bytes] = []
    async with in_place_of_db(m, contexts_of(minted, m.root)) as answer, trio.open_nursery() as nursery:

        async def serve() -> None:
            sock, _ = await answer()
            with sock:
                await trio.lowlevel.wait_readable(sock)
                try:
                    heard.append(sock.recv(100))
                except ConnectionResetError:
                    heard.append(b"")

        nursery.start_soon(serve)
        await refused(m, reason, words)
    assert heard == [b""]
    assert m.app.accepts == 0


async def test_another_services_leaf() -> None:
    async with mesh(echo) as m:
        minted = m.root.leaf(service="billing", datacenter="dc2")
        await against(OutboundReason.WRONG_IDENTITY, minted, m, "/ns/default/dc/dc2/svc/db, it is spiffe://")


async def test_the_right_service_of_the_wrong_datacenter() -> None:
    async with mesh(echo) as m:
        minted = m.root.leaf(service="db", datacenter="dc3")
        await against(OutboundReason.WRONG_IDENTITY, minted, m, "/ns/default/dc/dc3/svc/db")


async def test_the_right_service_in_other_letters_is_accepted_as_consuls_proxy_does() -> None:
    """Consul compares the service without regard to case; the leaf of `DB` is that of `db`."""
    async with mesh(echo) as m:
        async with in_place_of_db(
            m, contexts_of(m.root.leaf(service="DB", datacenter="dc2"), m.root)
        ) as answer:
            client = await m.connect()
            async with client:
                await client.send_all(b"hello")
                sock, tls = await answer()
                with sock:
                    await trio.lowlevel.wait_readable(sock)
                    assert tls.recv(100) == b"hello"
        assert m.web.events.attempts == []


async def test_an_expired_leaf() -> None:
    async with mesh(echo) as m:
        minted = m.root.leaf(
            service="db",
            datacenter="dc2",
            not_before=NOW - timedelta(hours=2),
            not_after=NOW - timedelta(hours=1),
        )
        await against(PeerReason.EXPIRED, minted, m)


async def test_another_trust_domain_under_our_own_root() -> None:
    async with mesh(echo) as m:
        uri = f"spiffe://{OTHER_TRUST_DOMAIN}/ns/default/dc/dc2/svc/db"
        await against(PeerReason.WRONG_TRUST_DOMAIN, m.root.leaf(uris=[uri]), m)


async def test_another_root() -> None:
    async with mesh(echo) as m:
        stranger = Issuer.root()
        contexts = contexts_of(stranger.leaf(service="db", datacenter="dc2"), stranger)
        async with in_place_of_db(m, contexts) as answer, trio.open_nursery() as nursery:

            async def serve() -> None:
                with pytest.raises(Exception, match="peer_refused"):
                    await answer()

            nursery.start_soon(serve)
            await refused(m, HandshakeReason.UNTRUSTED_CHAIN)


async def test_a_server_that_is_silent() -> None:
    async with no_descriptor_leaked(), mesh(echo, handshake_timeout=0.2) as m, in_place_of_db(m):
        await refused(m, HandshakeReason.SILENT)


async def test_a_plain_text_server() -> None:
    async with mesh(echo) as m:

        async def greet(stream: trio.SocketStream) -> None:
            await stream.send_all(b"220 smtp.example ESMTP\r\n")

        async with mesh(greet) as other:
            m.endpoints.publish(one(endpoint(_port(other))))
            await refused(m, HandshakeReason.NOT_TLS)


def _port(m: Mesh) -> int:
    assert isinstance(m.app.address, TcpAddress)
    return m.app.address.port
