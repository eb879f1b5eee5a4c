"""The tunnels of our own making: shared while they are made, replaced when full, silent or retired."""

from __future__ import annotations

from collections.abc import AsyncIterator
from dataclasses import replace

import pytest
import trio
import trio.testing

from agent.connections.records import CloseReason
from agent.net.dial import DialFailed, DialReason
from agent.outbound.tunnels import IDLE_SECONDS, MOST_TUNNELS, REST_SECONDS, ClientTunnel
from agent.policy.deny_list import parse_deny_list
from agent.relay.splice import Progress
from agent.tunnel.ends import TunnelReason
from tests.support.other_callee import in_place_of_db
from tests.support.socket_pairs import tcp_pair
from tests.support.two_sidecars import Mesh, echo, endpoint, mesh, until
from upstreams.reach import DialAddress
from upstreams.travel import IN_TUNNEL, Travel, TravelReason

EXPECTED = endpoint(1).expected


@pytest.fixture
async def m() -> AsyncIterator[Mesh]:
    async with mesh(echo, tunnel=True) as made:
        yield made


async def got(m: Mesh, port: int | None = None, seconds: float = 2.0) -> ClientTunnel | None:
    return await m.tunnels.get(EXPECTED, dialling(m, port), dial_seconds=seconds, shake_seconds=seconds)


def dialling(m: Mesh, port: int | None = None) -> DialAddress:
    endpoints = m.endpoints.value
    assert endpoints is not None
    return replace(m.targets.dialling(endpoints.endpoints[0]), port=port or m.public.port)


async def test_connections_that_come_while_it_is_made_wait_for_the_same_tunnel(m: Mesh) -> None:
    made: list[ClientTunnel | None] = []

    async def one() -> None:
        made.append(await got(m))

    async with trio.open_nursery() as nursery:
        for _ in range(5):
            nursery.start_soon(one)
    assert made[0] is not None
    assert set(made) == {made[0]}
    assert m.tunnels.ready(EXPECTED, dialling(m)) is made[0]
    assert m.tunnels.standing(EXPECTED, dialling(m)) is IN_TUNNEL


async def test_a_failure_is_that_of_each_connection_that_has_waited(m: Mesh) -> None:
    failures: list[DialReason] = []

    async def one() -> None:
        with pytest.raises(DialFailed) as caught:
            await got(m, port=1)
        failures.append(caught.value.reason)

    async with trio.open_nursery() as nursery:
        for _ in range(3):
            nursery.start_soon(one)
    assert failures == [DialReason.REFUSED] * 3


async def test_a_full_tunnel_gets_another_beside_it_up_to_a_bound(m: Mesh) -> None:
    made = []
    for _ in range(MOST_TUNNELS):
        found = await got(m)
        assert found is not None
        found.tunnel.h2.peer_most_streams = 0
        made.append(found)
    assert len(set(made)) == MOST_TUNNELS
    assert await got(m) is None
    assert m.tunnels.standing(EXPECTED, dialling(m)) == Travel(TravelReason.FULL)
    made[1].tunnel.h2.peer_most_streams = 1
    assert await got(m) is made[1]


async def test_a_tunnel_whose_window_slow_readers_hold_gets_another_beside_it(m: Mesh) -> None:
    first = await got(m)
    assert first is not None
    first.tunnel.h2.send_window = 0
    assert await got(m) not in (None, first)


async def test_newer_credentials_retire_a_tunnel_which_ends_with_its_last_stream(m: Mesh) -> None:
    first = await got(m)
    assert first is not None
    app, plain = tcp_pair()
    with app, plain:
        async with trio.open_nursery() as nursery:
            nursery.start_soon(first.run, plain, Progress())
            await until(lambda: first.tunnel.streams == 1)
            contexts = m.web.contexts.value
            assert contexts is not None
            m.web.contexts.publish(replace(contexts, generation=2))
            await until(lambda: first.retired)
            assert first.tunnel.reason is None
            second = await got(m)
            assert second not in (None, first)
            app.close()
            plain.shutdown(2)
            await until(lambda: first.tunnel.reason is TunnelReason.RETIRED)


async def test_a_denied_peer_loses_its_tunnel(m: Mesh) -> None:
    found = await got(m)
    assert found is not None
    (record,) = m.web.ledger.tunnels()
    m.deny_list.publish(parse_deny_list(f"{found.peer.id}\n"))
    record.close(CloseReason.DENY_LISTED)
    await until(lambda: not m.web.ledger.tunnels())
    assert found.tunnel.reason is CloseReason.DENY_LISTED
    assert m.tunnels.ready(EXPECTED, dialling(m)) is None


def published_port(m: Mesh) -> int:
    """The port of the one endpoint that web knows."""
    published = m.endpoints.value
    assert published is not None
    (only,) = published.endpoints
    return only.port


async def test_a_far_side_that_speaks_no_http2_is_not_asked_again_for_a_while(m: Mesh) -> None:
    async with in_place_of_db(m) as answer, trio.open_nursery() as nursery:

        async def close() -> None:
            sock, tls = await answer()
            tls.shutdown()
            sock.close()

        nursery.start_soon(close)
        port = published_port(m)
        assert await got(m, port) is None
        assert await got(m, port) is None  # without a dial: none is answered
        told = m.tunnels.standing(EXPECTED, dialling(m, port))
        assert (told.reason, 59 < (told.again_seconds or 0) <= REST_SECONDS) == (TravelReason.REFUSED, True)


async def test_a_far_side_that_stays_silent_gets_no_stream(m: Mesh) -> None:
    async with in_place_of_db(m) as answer, trio.open_nursery() as nursery:
        callers = []

        async def accept() -> None:
            callers.append(await answer())

        nursery.start_soon(accept)
        port = published_port(m)
        assert await got(m, port, seconds=0.2) is None
        assert m.tunnels.ready(EXPECTED, dialling(m, port)) is None
        assert m.tunnels.standing(EXPECTED, dialling(m, port)).reason is TravelReason.REFUSED
        for sock, _ in callers:
            sock.close()


async def test_a_tunnel_without_a_stream_is_retired_after_a_while(
    m: Mesh, mock_clock: trio.testing.MockClock
) -> None:
    found = await got(m, seconds=1e6)
    assert found is not None
    found.idle_since -= IDLE_SECONDS + 1
    mock_clock.jump(16.0)
    await until_ended(found)
    assert found.tunnel.reason is TunnelReason.RETIRED


async def until_ended(found: ClientTunnel) -> None:
    await found.tunnel.ended.wait()
