"""500 streams of five sources, a tunnel each: those of the source that is denied end, and no other.

The judge runs as in the agent. How long it takes is measured by hand (docs/tunnels.md).
"""

from __future__ import annotations

import contextlib
import socket
from collections import Counter
from collections.abc import AsyncIterator
from dataclasses import dataclass, field

import pytest
import trio

from agent.connections.reauthorize import Reauthorizer
from agent.connections.records import CloseReason
from agent.net.handshake import client_handshake
from agent.policy.deny_list import parse_deny_list
from agent.relay.splice import Progress
from agent.tunnel.leg import Leg
from agent.tunnel.sign import marked
from agent.tunnel.tunnel import Tunnel
from certs.contexts import Contexts
from tests.certs.authority import Issuer
from tests.scenarios.test_one_source_of_five_is_cut import EACH, SOURCES, live, trust
from tests.support.policies import policy_of
from tests.support.socket_pairs import contexts_of, tcp_pair
from tests.support.tunnels import BLOCK, FarEnd, receive, send
from tests.support.two_sidecars import Mesh, echo, mesh, now, until


@dataclass
class Source:
    """One sidecar that calls: its tunnel, and the streams that its app has in it."""

    tunnel: Tunnel
    sock: socket.socket
    apps: list[socket.socket] = field(default_factory=list)
    legs: list[Leg] = field(default_factory=list)

    def call(self) -> None:
        app, plain = tcp_pair()
        self.apps.append(app)
        self.legs.append(self.tunnel.open(plain, BLOCK, Progress(), lambda _: None))

    async def all_answer(self) -> bool:
        for app in self.apps:
            await send(app, b"hello")
            if await receive(app, 5) != b"hello":
                return False
        return True

    @property
    def over(self) -> int:
        return sum(leg.over for leg in self.legs)

    def close(self) -> None:
        for sock in (self.sock, *self.apps, *(leg.sock for leg in self.legs)):
            sock.close()


@contextlib.asynccontextmanager
async def calling(m: Mesh, contexts: Contexts) -> AsyncIterator[Source]:
    """A source with EACH streams in one tunnel, each of which has carried bytes."""
    sock = m.raw()
    tls = await client_handshake(sock, contexts.client, marked("db"), 5)
    source = Source(Tunnel(tls, sock, m.relay, FarEnd(), client=True), sock)
    source.tunnel.start()
    for _ in range(EACH):
        source.call()
    assert await source.all_answer()
    try:
        yield source
    finally:
        source.tunnel.end(CloseReason.SHUTDOWN)
        source.close()


async def gone(m: Mesh, sources: dict[str, Source], name: str, reason: CloseReason) -> None:
    """All streams of that source end for that reason, and none besides."""
    before, ended = live(m), len(m.db.events.closed_ones)
    await until(lambda: live(m)[name] == 0 and sources[name].over == EACH)
    assert live(m) == before - Counter({name: EACH})
    closed = [one for one in m.db.events.closed_ones[ended:] if one.theirs]
    assert {(one.reason, one.theirs and one.theirs.id.service) for one in closed} == {(reason, name)}


@pytest.mark.slow
async def test_exactly_the_streams_of_one_source_end() -> None:
    async with contextlib.AsyncExitStack() as stack:
        m = await stack.enter_async_context(mesh(echo, tunnel=True))
        other = Issuer.root(name="other")
        m.db.contexts.publish(trust(m, m.root, other))
        nursery = await stack.enter_async_context(trio.open_nursery())
        judge = Reauthorizer(
            m.db.ledger, policy=m.policy, freshness=m.freshness, contexts=m.db.contexts, clock=now,
            on_closed=lambda _: None, faults=m.db.events, deny_list=m.deny_list,
        )  # fmt: skip
        nursery.start_soon(judge.run)
        sources = {}
        for name in SOURCES:
            root = other if name == "c" else m.root
            contexts = contexts_of(root.leaf(service=name), m.root)
            sources[name] = await stack.enter_async_context(calling(m, contexts))
        assert live(m) == Counter(dict.fromkeys(SOURCES, EACH))
        assert len(m.db.ledger.tunnels()) == len(SOURCES)

        rule = {"SourceName": "a", "DestinationName": "db", "Action": "deny"}
        m.policy.publish(policy_of([rule], "db", default_allow=True))
        await gone(m, sources, "a", CloseReason.INTENTION_WITHDRAWN)
        assert len(m.db.ledger.tunnels()) == len(SOURCES), "the tunnel answers the next stream why"
        m.deny_list.publish(parse_deny_list(f"spiffe://{m.root.trust_domain}/ns/default/dc/*/svc/b\n"))
        await gone(m, sources, "b", CloseReason.DENY_LISTED)
        m.db.contexts.publish(trust(m, m.root))
        await gone(m, sources, "c", CloseReason.ROOT_REMOVED)
        assert await sources["d"].all_answer()
        assert await sources["e"].all_answer()
        nursery.cancel_scope.cancel()
