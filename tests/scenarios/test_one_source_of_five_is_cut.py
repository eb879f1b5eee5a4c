"""500 live connections from five sources: the one no longer allowed is closed within a second, and no other.

The judge runs as in the agent. What is measured is from the moment the new value is known to the moment the
last of a source's connections has been taken out of the ledger.
"""

from __future__ import annotations

import contextlib
import socket
from collections import Counter
from collections.abc import AsyncIterator
from datetime import timedelta

import trio
from OpenSSL import SSL

from agent.connections.reauthorize import Reauthorizer
from agent.connections.records import CloseReason
from agent.policy.deny_list import parse_deny_list
from certs.contexts import Contexts
from tests.certs.authority import Issuer, Minted
from tests.support.faults import NoFaults
from tests.support.policies import NEVER_TOO_OLD, policy_of
from tests.support.socket_pairs import contexts_of
from tests.support.two_sidecars import Mesh, echo, mesh, now, until

EACH = 100
SECOND = 1.0
SOURCES = ("a", "b", "c", "d", "e")
EXPIRES_IN = timedelta(seconds=12)  # d's certificates, from when it begins to call

Held = dict[str, list[tuple[socket.socket, SSL.Connection]]]


async def hold(m: Mesh, context: SSL.Context) -> list[tuple[socket.socket, SSL.Connection]]:
    """Connections that are open, and have carried something."""
    held = [await m.call(context) for _ in range(EACH)]
    for pair in held:
        assert await said(*pair)
    return held


async def said(sock: socket.socket, tls: SSL.Connection) -> bool:
    """Whether an open connection brings back what it is told."""
    tls.send(b"x")
    while True:
        try:
            return tls.recv(10) == b"x"
        except SSL.WantReadError:
            await trio.lowlevel.wait_readable(sock)
        except SSL.Error:
            return False


def live(m: Mesh) -> Counter[str]:
    return Counter(connection.peer.id.service for connection in m.db.ledger.live() if connection.peer)


async def gone(m: Mesh, source: str, reason: CloseReason, *, within: float = SECOND) -> None:
    """All of that source, for that reason, in time, and none besides."""
    before, began = live(m), trio.current_time()
    assert before[source] == EACH
    ended = len(m.db.events.closed_ones)
    await until(lambda: live(m)[source] == 0)
    assert trio.current_time() - began < within
    assert live(m) == before - Counter({source: EACH})
    closed = m.db.events.closed_ones[ended:]
    assert {(finished.reason, finished.theirs and finished.theirs.id.service) for finished in closed} == {
        (reason, source)
    }


def seconds_left(m: Mesh, source: str) -> float:
    """Until that source's certificate ends."""
    peers = [connection.peer for connection in m.db.ledger.live()]
    (end,) = {peer.not_after for peer in peers if peer is not None and peer.id.service == source}
    return (end - now()).total_seconds()


def trust(m: Mesh, *roots: Issuer) -> Contexts:
    minted = m.root.intermediate().leaf(service="db", datacenter="dc2")
    return contexts_of(minted, *roots, generation=m.db.contexts.version + 1)


@contextlib.asynccontextmanager
async def judged(m: Mesh) -> AsyncIterator[None]:
    told: list[int] = []
    judge = Reauthorizer(
        m.db.ledger,
        policy=m.policy,
        freshness=NEVER_TOO_OLD,
        contexts=m.db.contexts,
        clock=now,
        on_closed=told.append,
        faults=NoFaults(),
        deny_list=m.deny_list,
    )
    async with trio.open_nursery() as nursery:
        nursery.start_soon(judge.run)
        yield
        nursery.cancel_scope.cancel()
    assert sum(told) == EACH * 4


def shown(m: Mesh, source: str, other: Issuer) -> Minted:
    """The certificate of one source: c's is of another root, d's ends soon."""
    if source == "d":
        return m.root.leaf(service=source, not_after=now() + EXPIRES_IN)
    return (other if source == "c" else m.root).leaf(service=source)


async def test_exactly_one_source_at_a_time() -> None:
    async with mesh(echo) as m:
        other = Issuer.root(name="other")
        m.db.contexts.publish(trust(m, m.root, other))
        held: Held = {}
        for source in SOURCES:
            held[source] = await hold(m, contexts_of(shown(m, source, other), m.root).client)
        assert live(m) == Counter(dict.fromkeys(SOURCES, EACH))
        async with judged(m):
            rule = {"SourceName": "a", "DestinationName": "db", "Action": "deny"}
            m.policy.publish(policy_of([rule], "db", default_allow=True))
            await gone(m, "a", CloseReason.INTENTION_WITHDRAWN)
            m.deny_list.publish(parse_deny_list(f"spiffe://{m.root.trust_domain}/ns/default/dc/*/svc/b\n"))
            await gone(m, "b", CloseReason.DENY_LISTED)
            m.db.contexts.publish(trust(m, m.root))
            await gone(m, "c", CloseReason.ROOT_REMOVED)
            await trio.sleep(seconds_left(m, "d") - 0.1)
            await gone(m, "d", CloseReason.PEER_EXPIRED, within=SECOND + 0.1)
            assert m.app.accepts == EACH * len(SOURCES)
            assert [await said(*pair) for pair in held["e"]] == [True] * EACH
        for pairs in held.values():
            for sock, _ in pairs:
                sock.close()
