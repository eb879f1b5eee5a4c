"""The walk tells how connections travel, and goes through a tunnel where they would."""

from __future__ import annotations

import socket
from collections.abc import Awaitable, Callable
from dataclasses import replace
from functools import partial

import pytest
import trio
from OpenSSL import SSL

from agent.base.address import TcpAddress
from agent.overview.stations import Light, Name, Station, first_red
from agent.path.stream import ask_for_stream
from agent.path.walk import Trip, Walk, take
from agent.policy.source_intentions import OwnIntentions, unknown_own_intentions
from tests.support.agent_in_process import wall
from tests.support.other_callee import in_place_of_db
from tests.support.policies import deny_all
from tests.support.tunnels import BLOCK, handshaken
from tests.support.two_sidecars import UPSTREAM, Mesh, echo, endpoint, mesh, until
from upstreams.route import Candidate
from upstreams.spec import TunnelMode, Upstream, WanMode
from upstreams.travel import Travel, TravelReason

AUTO, NEVER = TunnelMode.AUTO, TunnelMode.NEVER


async def own_intentions() -> OwnIntentions:
    await trio.lowlevel.checkpoint()
    return unknown_own_intentions("no answer in this test")


async def walked(
    m: Mesh,
    *,
    offers: bool = True,
    usual: TunnelMode = AUTO,
    upstream: Upstream = UPSTREAM,
    gateway: bool = False,
    port: int = 0,
    standing: str = "",
) -> dict[Name, Station]:
    contexts = m.web.contexts.value
    assert contexts is not None
    trip = Trip(
        datacenter="dc1",
        wan=WanMode.NEVER,
        contexts=contexts,
        clock=wall,
        own_intentions=own_intentions,
        upstream=upstream,
        tunnel=usual,
        standing={str(endpoint(1)): standing} if standing else {},
    )
    to = replace(endpoint(port or m.public.port), tunnels=offers)
    hop = replace(to) if gateway else to
    walk = Walk(name="db@dc2")
    walk.begin()
    with trio.fail_after(20):
        reached = await take(walk, Candidate(target=0, endpoint=to, hop=hop), trip)
    assert reached is (first_red(walk.passed) is None)
    return {station.name: station for station in walk.passed}


async def test_the_walk_goes_through_a_tunnel_where_connections_do() -> None:
    async with mesh(echo, tunnel=True) as m:
        passed = await walked(m)
        assert list(passed) == list(Name)[3:]
        assert passed[Name.TRAVEL].text == "in a tunnel, and so did this walk"
        assert {one.light for name, one in passed.items() if name is not Name.ADDRESS} == {Light.GREEN}
        await until(lambda: not m.db.ledger.tunnels())
        assert [one.opened for one in m.db.ledger.recent()] == [True]
        assert m.db.ledger.tunnel_counters()


@pytest.mark.parametrize(
    ("walking", "reason"),
    [
        (partial(walked, offers=False), "no_tunnel_offer"),
        (partial(walked, usual=NEVER), "tunnel_never"),
        (partial(walked, upstream=replace(UPSTREAM, tunnel=NEVER)), "tunnel_never_here"),
        (partial(walked, gateway=True), "behind_mesh_gateway"),
    ],
)
async def test_the_walk_has_a_connection_of_its_own_and_says_why(
    walking: Callable[[Mesh], Awaitable[dict[Name, Station]]], reason: str
) -> None:
    async with mesh(echo, tunnel=True) as m:
        station = (await walking(m))[Name.TRAVEL]
        assert (station.light, f"({reason})" in station.text) == (Light.GREEN, True)
        assert not m.db.ledger.tunnel_counters()


async def test_a_far_side_that_takes_no_tunnels_is_told_and_reached_all_the_same() -> None:
    async with mesh(echo, tunnel=True) as m:
        m.tunnel = False  # db's setting, of which its registration does not tell
        station = (await walked(m))[Name.TRAVEL]
        assert (station.light, "(no_tunnels)" in station.text) == (Light.AMBER, True)
        assert station.remedy
        assert "no_tunnels" in [one.reason.value for one in m.db.events.refused_ones]


@pytest.mark.parametrize("takes", [True, False])
async def test_what_the_running_agent_waits_for_is_told(takes: bool) -> None:
    async with mesh(echo, tunnel=True) as m:
        m.tunnel = takes
        said = str(Travel(TravelReason.REFUSED, 41.0))
        station = (await walked(m, standing=said))[Name.TRAVEL]
        assert station.light is Light.AMBER
        assert station.text.endswith("(no_tunnels); asked again in 41 s")
        assert ("this walk went in a tunnel" in station.text) is takes


async def test_a_denied_walk_has_the_reason_from_the_far_side() -> None:
    async with mesh(echo, tunnel=True) as m:
        m.policy.publish(deny_all())
        station = (await walked(m))[Name.INTENTION]
        assert station.light is Light.RED
        assert "answered 403 default_deny" in station.text


async def test_an_app_that_is_down_is_named_by_its_sidecar() -> None:
    async with mesh(echo, tunnel=True) as m:
        m.app.address = TcpAddress("127.0.0.1", 1)
        station = (await walked(m))[Name.FAR_APP]
        assert station.light is Light.RED
        assert "answered 503 app_connect_refused" in station.text


async def test_a_far_side_that_is_silent_is_asked_no_longer_than_the_time() -> None:
    async with mesh(echo, tunnel=True) as m:
        contexts = m.web.contexts.value
        assert contexts is not None
        (tls, sock), (_, other) = await handshaken(contexts)
        with sock, other:
            answer = await ask_for_stream(tls, sock, BLOCK, 0.01)
        assert (answer.greeted, answer.served, answer.reason) == (False, False, "")


async def test_a_far_side_that_speaks_something_else_has_not_greeted() -> None:
    async with mesh(echo, tunnel=True) as m, in_place_of_db(m) as accept, trio.open_nursery() as nursery:

        async def speak() -> None:
            for _ in range(2):
                answers.append(await accept())
                answers[-1][1].send(b"220 mail.example.com ESMTP" + bytes(64))

        answers: list[tuple[socket.socket, SSL.Connection]] = []
        nursery.start_soon(speak)
        endpoints = m.endpoints.value
        assert endpoints is not None
        station = (await walked(m, port=endpoints.endpoints[0].port))[Name.TRAVEL]
        assert (station.light, len(answers)) == (Light.AMBER, 2)  # by a connection of its own too
        for sock, _ in answers:
            sock.close()
