"""Each caller who may not come in is refused by its own name, counted once, and costs the app nothing."""

from __future__ import annotations

import socket
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager, suppress
from datetime import timedelta
from enum import StrEnum

import pytest
import trio
from OpenSSL import SSL

from agent.base.address import TcpAddress
from agent.base.latest import Latest
from agent.connections.records import Direction
from agent.inbound.verdict import InboundReason
from agent.net.dial import DialReason
from agent.net.handshake import HandshakeReason
from agent.net.tls_records import MemoryConnection
from agent.policy.authorize import VerdictReason
from agent.policy.http_mode import HttpMode
from certs.contexts import Contexts
from certs.peer import PeerReason
from tests.certs.authority import OTHER_TRUST_DOMAIN, TRUST_DOMAIN, Issuer, Minted
from tests.support.descriptors import no_descriptor_leaked
from tests.support.policies import deny_all, policy_of
from tests.support.socket_pairs import NOW, contexts_of
from tests.support.two_sidecars import Mesh, mesh, until

DEADLINE = 0.3  # of the handshake, for those who make it wait


async def unreached(stream: trio.SocketStream) -> None:
    raise AssertionError("the app was reached")


@asynccontextmanager
async def refusing(reason: StrEnum, within: float = 2.0) -> AsyncIterator[Mesh]:
    """The block's caller must be refused for that reason, within seconds, once, and leave nothing behind."""
    async with no_descriptor_leaked(), mesh(unreached, handshake_timeout=DEADLINE) as m:
        began = trio.current_time()
        yield m
        refused = await m.db.finished()
        assert trio.current_time() - began < within
        assert (refused.reason, refused.opened, refused.dialled) == (reason, False, "")
        assert refused.detail
        assert m.db.ledger.counters() == {(Direction.INBOUND, reason.value): 1}
        assert [told.reason for told in m.db.events.refused_ones] == [reason]
        assert m.db.events.opened_ids == []
        assert m.db.ledger.live() == ()
        assert m.app.accepts == 0


async def turned_away(sock: socket.socket) -> None:
    """The other side ends the connection; how does not matter."""
    await trio.lowlevel.wait_readable(sock)
    with sock:
        try:
            while sock.recv(4096):
                await trio.lowlevel.wait_readable(sock)
        except ConnectionResetError:
            pass


async def call_and_be_refused(m: Mesh, context: SSL.Context) -> None:
    """With TLS 1.3 the refusal is the first read, so the handshake itself may well succeed."""
    sock = m.raw()
    tls = SSL.Connection(context, sock)
    tls.set_connect_state()
    with sock:
        while True:
            try:
                tls.recv(100)
            except SSL.WantReadError:
                await trio.lowlevel.wait_readable(sock)
            except SSL.Error:
                return


def showing(minted: Minted, m: Mesh) -> SSL.Context:
    """A client context that presents that leaf, and trusts the mesh's root."""
    return contexts_of(minted, m.root).client


async def test_no_certificate() -> None:
    async with refusing(HandshakeReason.NO_CERTIFICATE) as m:
        await call_and_be_refused(m, SSL.Context(SSL.TLS_CLIENT_METHOD))


async def test_a_leaf_of_another_root() -> None:
    async with refusing(HandshakeReason.UNTRUSTED_CHAIN) as m:
        await call_and_be_refused(m, showing(Issuer.root(OTHER_TRUST_DOMAIN).leaf(), m))


async def test_a_leaf_of_another_trust_domain_under_our_own_root() -> None:
    uri = f"spiffe://{OTHER_TRUST_DOMAIN}/ns/default/dc/dc1/svc/web"
    async with refusing(PeerReason.WRONG_TRUST_DOMAIN) as m:
        await call_and_be_refused(m, showing(m.root.leaf(uris=[uri]), m))


async def test_an_expired_leaf() -> None:
    async with refusing(PeerReason.EXPIRED) as m:
        old = m.root.leaf(not_before=NOW - timedelta(hours=2), not_after=NOW - timedelta(hours=1))
        await call_and_be_refused(m, showing(old, m))


async def test_a_leaf_of_tomorrow() -> None:
    async with refusing(PeerReason.NOT_YET_VALID) as m:
        await call_and_be_refused(m, showing(m.root.leaf(not_before=NOW + timedelta(days=1)), m))


async def test_an_identity_that_is_no_service() -> None:
    uri = f"spiffe://{TRUST_DOMAIN}/agent/client/dc/dc1/id/node-1"
    async with refusing(PeerReason.NOT_A_SERVICE) as m:
        context = borrowed_identity(m, m.root.leaf(uris=[uri]))
        await call_and_be_refused(m, context)


async def test_a_leaf_without_an_identity() -> None:
    async with refusing(PeerReason.NO_URI) as m:
        await call_and_be_refused(m, borrowed_identity(m, m.root.leaf(uris=[], dns=["web"])))


async def test_an_intention_denies() -> None:
    async with refusing(VerdictReason.DEFAULT_DENY) as m:
        m.policy.publish(deny_all())
        assert m.web.contexts.value is not None
        await call_and_be_refused(m, m.web.contexts.value.client)
    async with refusing(VerdictReason.INTENTION_DENY) as m:
        rule = {"SourceName": "web", "DestinationName": "db", "Action": "deny"}
        m.policy.publish(policy_of([rule], "db", default_allow=True))
        assert m.web.contexts.value is not None
        await call_and_be_refused(m, m.web.contexts.value.client)


@pytest.mark.parametrize("http", HttpMode)
async def test_of_a_denied_caller_nothing_is_read_after_the_refusal(
    http: HttpMode, monkeypatch: pytest.MonkeyPatch
) -> None:
    """It costs the handshake and the refusal: no parser, no dial, no byte decrypted, no place kept."""

    def reached(*_: object, **__: object) -> object:
        raise AssertionError("reached after the refusal")

    for name in ("inbound.TlsStream", "inbound.dial", "by_request.HttpConnection"):
        monkeypatch.setattr(f"agent.inbound.{name}", reached)
    monkeypatch.setattr(MemoryConnection, "recv", reached)
    async with no_descriptor_leaked(), mesh(unreached, http=http) as m:
        m.policy.publish(deny_all())
        assert m.web.contexts.value is not None
        sock, tls = await m.call(m.web.contexts.value.client)
        with sock:
            with suppress(SSL.Error):  # it may have been refused already
                tls.send(b"GET /a HTTP/1.1\r\nHost: db\r\n\r\n" * 100)
            assert (await m.db.finished()).reason is VerdictReason.DEFAULT_DENY
            await until(lambda: m.db.admission.live == 0)
        assert m.db.ledger.live() == ()


async def test_a_handshake_in_more_records_than_any_needs() -> None:
    async with refusing(HandshakeReason.FRAGMENTED) as m:
        sock = m.raw()
        hello = client_hello()[5:]
        sock.send(b"".join(b"\x16\x03\x01\0\1" + hello[at : at + 1] for at in range(len(hello))))
        await turned_away(sock)


async def test_intentions_are_not_known_yet() -> None:
    async with refusing(InboundReason.NO_INTENTIONS_YET) as m:
        m.policy = Latest()
        assert m.web.contexts.value is not None
        await call_and_be_refused(m, m.web.contexts.value.client)


async def test_there_are_no_credentials_yet() -> None:
    async with refusing(InboundReason.NO_CREDENTIALS_YET) as m:
        m.db.contexts = Latest[Contexts]()
        await turned_away(m.raw())


@pytest.mark.parametrize(
    "words", [b"GET / HTTP/1.1\r\nHost: db\r\n\r\n", b"SSH-2.0-OpenSSH_9.2\r\n", b"\n", b"\x00\x00\x00\x08"]
)
async def test_plain_text(words: bytes) -> None:
    async with refusing(HandshakeReason.NOT_TLS) as m:
        sock = m.raw()
        sock.send(words)
        await turned_away(sock)


async def test_a_client_that_sends_nothing() -> None:
    async with refusing(HandshakeReason.SILENT, within=DEADLINE + 1) as m:
        await turned_away(m.raw())


async def test_a_client_that_stalls_in_mid_handshake() -> None:
    async with refusing(HandshakeReason.STALLED, within=DEADLINE + 1) as m:
        sock = m.raw()
        sock.send(client_hello()[:100])
        await turned_away(sock)


async def test_a_client_that_stalls_after_its_hello() -> None:
    async with refusing(HandshakeReason.STALLED, within=DEADLINE + 1) as m:
        sock = m.raw()
        sock.send(client_hello())
        await turned_away(sock)


async def test_a_client_that_leaves_in_mid_handshake() -> None:
    async with refusing(HandshakeReason.CLOSED) as m:
        sock = m.raw()
        sock.send(client_hello())
        sock.shutdown(socket.SHUT_WR)
        await turned_away(sock)


async def test_tls_1_1() -> None:
    async with refusing(HandshakeReason.PROTOCOL) as m:
        sock = m.raw()
        body = b"\x03\x02" + bytes(32) + b"\x00" + b"\x00\x04\xc0\x0a\xc0\x14" + b"\x01\x00"
        message = b"\x01" + len(body).to_bytes(3, "big") + body
        sock.send(b"\x16\x03\x01" + len(message).to_bytes(2, "big") + message)
        await turned_away(sock)


async def test_garbage_inside_a_tls_record() -> None:
    async with refusing(HandshakeReason.MALFORMED) as m:
        sock = m.raw()
        sock.send(b"\x16\x03\x01\x00\x05hello")
        await turned_away(sock)


async def test_a_peer_that_rejects_us() -> None:
    """It does not trust our root; its alert is its refusal, not ours."""
    async with refusing(HandshakeReason.PEER_REFUSED) as m:
        stranger = Issuer.root()
        await call_and_be_refused(m, contexts_of(m.root.leaf(), stranger).client)


async def test_a_health_check_is_no_caller() -> None:
    """Consul's default check connects and closes, every ten seconds: no refusal, no event, no line."""
    async with no_descriptor_leaked(), mesh(unreached, handshake_timeout=DEADLINE) as m:
        for _ in range(3):
            m.raw().close()
        await until(lambda: m.db.ledger.probes == 3)
        assert m.db.ledger.counters() == {}
        assert m.db.ledger.recent() == ()
        assert m.db.events.refused_ones == []
        assert m.app.accepts == 0


async def test_the_app_does_not_answer() -> None:
    async with refusing(DialReason.REFUSED) as m:
        with socket.create_server(("127.0.0.1", 0)) as closed:
            m.app.address = TcpAddress(*closed.getsockname())
        assert m.web.contexts.value is not None
        await call_and_be_refused(m, m.web.contexts.value.client)


def borrowed_identity(m: Mesh, shown: Minted) -> SSL.Context:
    """A context for a leaf whose identity our own parser would not even take in."""
    context = SSL.Context(SSL.TLS_CLIENT_METHOD)
    context.use_privatekey(shown.key)
    context.use_certificate(shown.certificate)
    return context


def client_hello() -> bytes:
    """A whole ClientHello record of TLS 1.3."""
    tls = SSL.Connection(SSL.Context(SSL.TLS_CLIENT_METHOD), None)
    tls.set_connect_state()
    with pytest.raises(SSL.WantReadError):
        tls.do_handshake()
    return tls.bio_read(16384)
