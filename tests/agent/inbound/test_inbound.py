"""The order on the way in, at the seams between its steps: the newest values count, and no dial is early."""

from __future__ import annotations

import socket
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from datetime import timedelta

import pytest
import trio
import trio.testing
from OpenSSL import SSL

from agent.base.address import TcpAddress
from agent.connections.reauthorize import rejudge
from agent.connections.records import CloseReason
from agent.inbound.verdict import InboundReason
from agent.net.dial import DialReason
from agent.net.handshake import client_handshake
from agent.outbound.reasons import OutboundReason
from certs.peer import PeerReason
from tests.certs.authority import Issuer
from tests.support.descriptors import no_descriptor_leaked
from tests.support.policies import deny_all
from tests.support.socket_pairs import contexts_of, tcp_pair
from tests.support.two_sidecars import Mesh, echo, inbound, mesh, now, until


@contextmanager
def deaf_app() -> Iterator[TcpAddress]:
    """An app whose backlog is full: the kernel drops each dial to it."""
    with ExitStack() as sockets:
        app = sockets.enter_context(socket.socket())
        app.bind(("127.0.0.1", 0))
        app.listen(0)
        for _ in range(4):
            sock = sockets.enter_context(socket.socket())
            sock.setblocking(False)
            sock.connect_ex(app.getsockname())
        yield TcpAddress(*app.getsockname())


def client_of(m: Mesh) -> SSL.Context:
    contexts = m.web.contexts.value
    assert contexts is not None
    return contexts.client


async def finish(tls: SSL.Connection, sock: socket.socket) -> None:
    while True:
        try:
            return tls.do_handshake()
        except SSL.WantReadError:
            await trio.lowlevel.wait_readable(sock)


async def test_who_begins_late_is_answered_with_the_newest_generation() -> None:
    """Connected, then silent while everything was replaced: what was in force before does not count."""
    async with no_descriptor_leaked(), mesh(echo) as m:
        with m.raw() as sock:
            await until(lambda: m.db.ledger.live() != ())
            await trio.testing.wait_all_tasks_blocked()  # the server waits for the first byte
            new = Issuer.root()
            for side, service, datacenter in ((m.web, "web", "dc1"), (m.db, "db", "dc2")):
                leaf = new.leaf(service=service, datacenter=datacenter, serial=0x77)
                side.contexts.publish(contexts_of(leaf, new, generation=2))
            tls = await client_handshake(sock, client_of(m), "db.test", 5)
            shown = tls.get_peer_certificate()
            assert shown is not None
            assert shown.get_serial_number() == 0x77
            await until(lambda: m.app.accepts == 1)
            (live,) = m.db.ledger.live()
            assert live.ours is not None
            assert live.ours.serial == "77"


async def test_a_root_that_goes_during_the_handshake_is_trusted_no_more() -> None:
    """The handshake began under the old bundle; the caller is judged by the new one."""
    async with no_descriptor_leaked(), mesh(echo) as m:
        with m.raw() as sock:
            sock.setblocking(False)
            tls = SSL.Connection(client_of(m), sock)
            tls.set_connect_state()
            with pytest.raises(SSL.WantReadError):
                tls.do_handshake()
            await until(lambda: any(one.ours for one in m.db.ledger.live()))  # it has taken its context
            new = Issuer.root()
            m.db.contexts.publish(contexts_of(new.leaf(service="db", datacenter="dc2"), new, generation=2))
            await finish(tls, sock)
            assert (await m.db.finished()).reason is PeerReason.UNTRUSTED_ROOT
        assert m.app.accepts == 0


async def test_new_credentials_are_for_new_callers_and_leave_the_old_ones_alone() -> None:
    async with mesh(echo) as m:
        old = await m.connect()
        async with old:
            await old.send_all(b"before")
            assert await old.receive_some() == b"before"
            new = Issuer.root()
            for side, service, datacenter in ((m.web, "web", "dc1"), (m.db, "db", "dc2")):
                minted = new.leaf(service=service, datacenter=datacenter)
                side.contexts.publish(contexts_of(minted, new, m.root, generation=2))
            young = await m.connect()
            async with young:
                await young.send_all(b"after")
                assert await young.receive_some() == b"after"
                peers = [connection.peer for connection in m.db.ledger.live()]
                assert len({peer.root for peer in peers if peer is not None}) == 2
            await old.send_all(b"still")
            assert await old.receive_some() == b"still"


async def test_an_intention_that_turns_while_the_app_is_dialled() -> None:
    """The app's backlog is full, so its dial hangs; the caller is in nobody's hands but the judge's."""
    with deaf_app() as address:
        async with no_descriptor_leaked(), mesh(echo) as m:
            m.app.address = address
            sock, _ = await m.call(client_of(m))
            with sock:
                await until(lambda: m.db.ledger.live() != () and m.db.ledger.live()[0].peer is not None)
                m.policy.publish(deny_all())
                assert (
                    rejudge(
                        m.db.ledger, m.policy.value, m.db.contexts.value, now(), too_old_since=None
                    ).closed
                    == 1
                )
                ended = await m.db.finished()
            assert (ended.reason, ended.opened) == (CloseReason.INTENTION_WITHDRAWN, False)


async def test_an_app_that_does_not_answer_in_time() -> None:
    with deaf_app() as address:
        async with mesh(echo) as m:
            m.app.address = address
            sock, _ = await m.call(client_of(m))
            with sock:
                assert (await m.db.finished()).reason is DialReason.TIMEOUT  # of the mesh's two seconds


async def test_a_bug_in_a_connection_is_raised_and_leaves_nothing(monkeypatch: pytest.MonkeyPatch) -> None:
    """Expected refusals are named; anything else must not be mistaken for one."""

    def broken(*_: object) -> object:
        raise ZeroDivisionError

    async with no_descriptor_leaked(), mesh(echo) as m:
        monkeypatch.setattr("agent.inbound.inbound.verify_peer", broken)
        near, far = tcp_pair()
        with near:
            raised: list[BaseException] = []

            async def serve() -> None:
                try:
                    await inbound(m, far)
                except ZeroDivisionError as error:
                    raised.append(error)

            async with trio.open_nursery() as nursery:
                nursery.start_soon(serve)
                await client_handshake(near, client_of(m), "db.test", 5)
        assert len(raised) == 1
        assert m.db.ledger.recent()[-1].reason is CloseReason.INTERNAL_ERROR
        assert far.fileno() == -1


async def test_with_an_expired_certificate_of_ours_nobody_is_let_in_and_that_is_the_reason() -> None:
    async with no_descriptor_leaked(), mesh(echo) as m:
        ended = now() - timedelta(seconds=1)
        minted = m.root.leaf(service="db", datacenter="dc2", not_after=ended)
        m.db.contexts.publish(contexts_of(minted, m.root, generation=2))
        with m.raw():
            finished = await m.db.finished()
        assert finished.reason is InboundReason.CREDENTIALS_EXPIRED
        assert ended.isoformat()[:16] in finished.detail
        assert m.app.accepts == 0


async def test_with_an_expired_certificate_of_ours_nobody_is_called() -> None:
    async with no_descriptor_leaked(), mesh(echo) as m:
        minted = m.root.leaf(not_after=now() - timedelta(seconds=1))
        m.web.contexts.publish(contexts_of(minted, m.root, generation=2))
        async with await m.connect():
            assert (await m.web.finished()).reason is OutboundReason.CREDENTIALS_EXPIRED
        assert m.app.accepts == 0
