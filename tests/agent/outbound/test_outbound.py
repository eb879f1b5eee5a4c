"""The order on the way out, in its pure parts; the path itself is proven in tests/scenarios."""

from __future__ import annotations

import pytest
import trio

from agent.outbound.outbound import Outbound, serve
from agent.relay.relay import Relay
from tests.support.socket_pairs import tcp_pair
from tests.support.two_sidecars import echo, mesh, now, one


@pytest.mark.parametrize("served", [True, False])
async def test_the_place_is_settled_when_a_candidate_serves(served: bool) -> None:
    settled = trio.Event()
    near, far = tcp_pair()
    async with mesh(echo) as m, trio.open_nursery() as nursery:
        if not served:
            m.endpoints.publish(one())
        shared = Outbound(
            credentials=m.web.contexts,
            source_intentions=m.outgoing,
            deny_list=m.deny_list,
            relay=m.relay,
            ledger=m.web.ledger,
            clock=now,
            handshake_timeout=5.0,
        )
        nursery.start_soon(serve, far, settled.set, m.targets, shared)
        if served:
            await settled.wait()
            assert m.web.ledger.live()[0].opened
        near.close()
        await m.web.finished()
    assert settled.is_set() is served


async def test_it_makes_way_before_each_step_of_its_handshake(monkeypatch: pytest.MonkeyPatch) -> None:
    steps: list[Relay] = []

    async def serve_relay(relay: Relay) -> None:
        steps.append(relay)

    monkeypatch.setattr(Relay, "serve_relay", serve_relay)
    async with mesh(echo) as m:
        async with await m.connect() as app:
            await app.send_all(b"x")
            assert await app.receive_some() == b"x"
        await m.web.finished()
        assert steps == [m.relay, m.relay]  # of the outbound half alone: the mesh gives the other no way
