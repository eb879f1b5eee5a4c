"""Connections made before they are needed, over real TLS: used at once, judged first, never left behind."""

from __future__ import annotations

import contextlib
from collections.abc import AsyncIterator
from dataclasses import replace
from itertools import count
from random import Random

import pytest
import trio

from agent.base.latest import Latest
from agent.connections.records import Direction
from agent.outbound.reasons import OutboundReason
from agent.outbound.warm_connection import WarmReason
from agent.outbound.warm_pool import WarmContext, WarmPool
from agent.outbound.warm_serve import WarmUse
from agent.policy.deny_list import parse_deny_list
from agent.policy.http_mode import HttpMode
from agent.relay.close import reset
from agent.relay.splice import Ending
from agent.snapshot import Snapshot
from tests.certs.authority import TRUST_DOMAIN
from tests.scenarios.test_cancelled_anywhere_leaves_nothing import cancelled_at
from tests.support.agent_parts import registration
from tests.support.descriptors import no_descriptor_leaked
from tests.support.other_callee import in_place_of_db
from tests.support.policies import deny_all, policy_of
from tests.support.socket_pairs import contexts_of, tcp_pair
from tests.support.two_sidecars import UPSTREAM, Mesh, echo, mesh, now, outbound, until
from tests.support.warm_upstream import Events

DENY_DB = parse_deny_list(f"spiffe://{TRUST_DOMAIN}/ns/default/dc/*/svc/db")


@contextlib.asynccontextmanager
async def kept(m: Mesh, count: int = 2, *, full: bool = True) -> AsyncIterator[tuple[WarmPool, Events]]:
    """A pool beside web's half of the mesh, full at the beginning of the block."""
    events = Events()
    m.targets.become(replace(UPSTREAM, warm=count))
    snapshot = Snapshot(
        registration=Latest(registration(handshake_timeout=5.0)),
        credentials=m.web.contexts,
        source_intentions=m.outgoing,
        deny_list=m.deny_list,
    )
    context = WarmContext(snapshot=snapshot, clock=now, rng=Random(1), events=events)
    pool = WarmPool(m.targets, context)
    async with trio.open_nursery() as nursery:
        nursery.start_soon(pool.run)
        if full:
            await filled(pool, count)
        yield pool, events
        nursery.cancel_scope.cancel()


async def filled(pool: WarmPool, count: int = 2) -> None:
    with trio.fail_after(10):
        await until(lambda: len(pool.ready) >= count)


async def settled(m: Mesh, count: int = 2) -> None:
    """Until the far side has admitted that many, which it does after our handshake is over."""
    with trio.fail_after(10):
        await until(lambda: sum(one.opened for one in m.db.ledger.live()) >= count)


async def answer(client: trio.SocketStream) -> bytes:
    await client.send_all(b"hello")
    return bytes(await client.receive_some())


async def test_a_connection_of_our_app_is_served_by_one_that_was_ready() -> None:
    async with no_descriptor_leaked(), mesh(echo) as m, kept(m) as (pool, _):
        await settled(m)
        before = {one.caller for one in m.db.ledger.live()}
        async with await m.connect() as client:
            assert await answer(client) == b"hello"
            (connection,) = m.web.ledger.live()
            assert connection.dialled.endswith(", warm)")
            assert connection.peer is not None
            assert connection.ours is not None
            assert m.loads.total() == 1
            await filled(pool)
            await settled(m, 3)
            assert before < {one.caller for one in m.db.ledger.live()}, "none was dialled for it"
        ended = await m.web.finished()
        assert (ended.reason, ended.to_plain, ended.to_tls) == (Ending.CLEAN, 5, 5)
        assert (m.targets.warm_book.used, m.targets.warm_book.missed) == (1, 0)
    assert m.loads == {}


async def test_they_are_no_connections_of_our_app_but_they_are_the_far_apps() -> None:
    async with mesh(echo) as m, kept(m):
        await until(lambda: m.app.accepts == 2)  # the far sidecar has called its app for each
        assert m.web.ledger.live() == ()
        assert len(m.targets.connections) == 0
    assert m.web.ledger.counters() == {}
    assert m.web.ledger.bytes(Direction.OUTBOUND) == (0, 0)


async def test_idle_ones_are_kept_by_a_far_side_that_looks_at_requests_and_its_app_is_not_called() -> None:
    permissions = [{"SourceName": "web", "DestinationName": "db", "Permissions": [
        {"Action": "allow", "HTTP": {"PathPrefix": "/"}}]}]  # fmt: skip

    async def app(stream: trio.SocketStream) -> None:
        await stream.receive_some()
        await stream.send_all(b"HTTP/1.1 204 No Content\r\n\r\n")
        await stream.receive_some()

    async with mesh(app, http=HttpMode.IF_NEEDED) as m:
        m.policy.publish(policy_of(permissions, "db", default_allow=False))
        async with kept(m):
            await settled(m)
            assert m.app.accepts == 0
            async with await m.connect() as client:
                await client.send_all(b"GET / HTTP/1.1\r\nHost: db\r\n\r\n")
                assert (await client.receive_some()).startswith(b"HTTP/1.1 204")
            assert m.app.accepts == 1
            assert m.targets.warm_book.used == 1


async def test_when_all_are_taken_the_next_is_dialled() -> None:
    async with mesh(echo) as m, kept(m, 1) as (pool, _):
        first = pool.take()
        assert first is not None
        with first.sock:
            m.targets.become(replace(UPSTREAM, warm=0))  # or another might be ready before our app calls
            async with await m.connect() as client:
                assert await answer(client) == b"hello"
                assert not m.web.ledger.live()[0].dialled.endswith(", warm)")
            assert m.targets.warm_book.missed == 1


async def test_what_a_server_says_first_arrives_whole_and_once() -> None:
    async def greet(stream: trio.SocketStream) -> None:
        await stream.send_all(b"220 ready\r\n")
        await echo(stream)

    async with mesh(greet) as m, kept(m) as (pool, _):
        await until(lambda: all(warm.early == b"220 ready\r\n" for warm in pool.ready))
        async with await m.connect() as client:
            assert await client.receive_some() == b"220 ready\r\n"
            assert await answer(client) == b"hello"
        ended = await m.web.finished()
        assert (ended.reason, ended.to_plain, ended.to_tls) == (Ending.CLEAN, 16, 5)


async def test_a_server_that_hangs_up_on_idle_callers_is_noticed() -> None:
    hang_up, served = trio.Event(), count()

    async def impatient(stream: trio.SocketStream) -> None:
        if next(served) < 2:
            await hang_up.wait()
            return
        await echo(stream)

    async with mesh(impatient) as m, kept(m) as (pool, events):
        hang_up.set()
        await until(lambda: len(events.discarded) == 2)
        assert events.reasons == [WarmReason.CLOSED.value] * 2
        await filled(pool)
        async with await m.connect() as client:
            assert await answer(client) == b"hello"
        assert m.targets.failures.ejected() == {}


async def test_a_refusal_is_noticed_before_it_could_be_used() -> None:
    async with mesh(echo) as m:
        m.policy.publish(deny_all())
        async with kept(m, full=False) as (_, events):
            await until(lambda: WarmReason.REFUSED.value in events.reasons)
            assert m.targets.failures.ejected()
        assert m.targets.warm_book.used == 0
        assert m.app.accepts == 0


async def test_a_verdict_of_the_far_side_that_turns_ends_them() -> None:
    """As soon as the far side closes them; it judges open connections live, whatever they carry."""
    async with mesh(echo) as m, kept(m) as (pool, events):
        await settled(m)
        m.policy.publish(deny_all())
        for one in m.db.ledger.live():
            one.cut()  # as its judge would
        await until(lambda: not pool.ready)
        assert set(events.reasons) <= {WarmReason.REFUSED.value, WarmReason.EJECTED.value}


async def test_new_credentials_replace_them_all() -> None:
    async with mesh(echo) as m, kept(m) as (pool, events):
        old = list(pool.ready)
        leaf = m.root.leaf(service="web", datacenter="dc1", serial=0x0E)
        m.web.contexts.publish(contexts_of(leaf, m.root, generation=2))
        await until(lambda: len(pool.ready) == 2 and not set(old) & set(pool.ready))
        assert events.reasons == [WarmReason.NEW_CREDENTIALS.value] * 2
        assert {warm.ours.serial for warm in pool.ready} == {"0e"}
        async with await m.connect() as client:
            assert await answer(client) == b"hello"
            await until(lambda: any(c.progress.to_tls for c in m.db.ledger.live()))
            (busy,) = [c for c in m.db.ledger.live() if c.progress.to_tls]
            assert busy.peer is not None
            assert busy.peer.serial == "0e"


async def test_one_that_was_denied_is_never_used() -> None:
    async with mesh(echo) as m, kept(m) as (_, events):
        m.deny_list.publish(DENY_DB)
        async with await m.connect() as client:
            with pytest.raises(trio.BrokenResourceError):
                await answer(client)
        refused = await m.web.finished()
        assert refused.reason is OutboundReason.ALL_FAILED
        assert [one.reason for one in m.web.events.attempts] == [OutboundReason.DENY_LISTED]
        assert events.reasons[:2] == [OutboundReason.DENY_LISTED.value] * 2
        assert m.targets.warm_book.used == 0


@pytest.mark.parametrize("next_one", ["warm", "dialled"])
async def test_one_that_breaks_as_it_is_taken_is_made_up_for(next_one: str) -> None:
    """Not a byte of our app had gone, so nobody notices, and the endpoint is not to blame."""
    async with (
        no_descriptor_leaked(),
        mesh(echo) as m,
        in_place_of_db(m) as accept,
        kept(m, 1, full=False) as (pool, _),
    ):
        far, _tls = await accept()
        await filled(pool, 1)
        if next_one == "dialled":
            m.targets.become(replace(m.targets.upstream, max_connections=1))  # no place for another
        async with await m.connect() as client:
            await until(lambda: m.targets.warm_book.used == 1 and m.relay.connections == 1)
            if next_one == "warm":
                other, tls = await accept()
                await filled(pool, 1)
                reset(far)
            else:
                reset(far)
                other, tls = await accept()
            with other:
                await client.send_all(b"hello")
                await trio.lowlevel.wait_readable(other)
                assert tls.recv(100) == b"hello"
                assert m.web.ledger.live()[0].dialled.endswith(", warm)") is (next_one == "warm")
                assert [attempt.reason for attempt in m.web.events.attempts] == [WarmUse.BROKEN]
                assert m.targets.failures.ejected() == {}


@pytest.mark.parametrize("ready", [True, False])
async def test_cancelled_anywhere_they_leave_nothing(ready: bool) -> None:
    """The app's connection, served by a warm one or while the only one is being made."""

    async def once(step: int) -> bool:
        async with mesh(echo) as m, kept(m, 1, full=ready):
            near, far = tcp_pair()
            async with trio.open_nursery() as nursery:
                nursery.start_soon(_talk, near)
                return await cancelled_at(step, lambda: outbound(m, far))

    for step in range(8):
        async with no_descriptor_leaked():
            await once(step)


async def _talk(sock: object) -> None:
    stream = trio.SocketStream(trio.socket.from_stdlib_socket(sock))  # type: ignore[arg-type]
    async with stream:
        with contextlib.suppress(trio.BrokenResourceError):
            await stream.send_all(b"hello")
            await stream.receive_some()


async def test_a_pool_cancelled_at_any_moment_leaves_nothing() -> None:
    for turns in range(40):
        async with no_descriptor_leaked(), mesh(echo) as m, kept(m, 3, full=False):
            for _ in range(turns):
                await trio.lowlevel.checkpoint()
        assert m.web.ledger.live() == ()


async def test_callers_while_credentials_change_again_and_again() -> None:
    """Every one is served, and by nothing that was made with a leaf before the newest."""
    async with no_descriptor_leaked(), mesh(echo) as m, kept(m, 3) as (pool, _):
        for generation in range(2, 40):
            leaf = m.root.leaf(service="web", serial=generation)
            m.web.contexts.publish(contexts_of(leaf, m.root, generation=generation))
            async with trio.open_nursery() as nursery:
                for _ in range(2):
                    nursery.start_soon(_converse, m, generation)
            await filled(pool, 3)
            await _converse(m, generation)
        await m.web.ledger.empty()
    assert m.targets.warm_book.used > 10
    assert m.targets.warm_book.discarded["new_credentials"] > 10


async def _converse(m: Mesh, least: int) -> None:
    async with await m.connect() as client:
        assert await answer(client) == b"hello"
        serials = [int(one.ours.serial, 16) for one in m.web.ledger.live() if one.ours is not None]
        assert min(serials) >= least
