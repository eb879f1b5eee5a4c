"""The way to an endpoint: found once, and anew when anything has changed that it was found by."""

from __future__ import annotations

from collections.abc import AsyncIterator
from dataclasses import dataclass, replace

import pytest

from agent.outbound import at_once
from agent.outbound.at_once import MOST_WAYS
from agent.outbound.outbound import Outbound
from agent.outbound.tunnels import Tunnels
from agent.outbound.upstream_state import UpstreamState
from agent.policy.source_intentions import parse_outgoing
from agent.tunnel.ends import TunnelReason
from tests.scenarios.test_tunnels import called, tunnelling
from tests.support.socket_pairs import contexts_of
from tests.support.two_sidecars import Mesh, endpoint, now, one
from upstreams.endpoints import EndpointKey
from upstreams.route import Candidate
from upstreams.spec import TunnelMode


@dataclass
class Ways:
    """web's ways to db, of which `found` have been found so far."""

    m: Mesh
    found: int = 0

    @property
    def outbound(self) -> Outbound:
        return Outbound(
            credentials=self.m.web.contexts,
            source_intentions=self.m.outgoing,
            deny_list=self.m.deny_list,
            relay=self.m.relay,
            ledger=self.m.web.ledger,
            clock=now,
            handshake_timeout=5.0,
        )

    def way(self) -> at_once._Way | None:
        """Return the way of a new connection, if there is one."""
        found = at_once._way(self.m.targets, self.outbound, self.m.tunnels)
        return None if found is None else found[0]


@pytest.fixture
async def ways(monkeypatch: pytest.MonkeyPatch) -> AsyncIterator[Ways]:
    """A mesh whose tunnel is up."""
    afresh = at_once._found

    async with tunnelling() as m:
        made = Ways(m)

        def noted(
            candidate: Candidate, targets: UpstreamState, outbound: Outbound, tunnels: Tunnels
        ) -> object:
            made.found += 1
            return afresh(candidate, targets, outbound, tunnels)

        await (await called(m)).aclose()
        await m.quiet()
        monkeypatch.setattr(at_once, "_found", noted)
        yield made


async def test_while_nothing_changes_it_is_found_once(ways: Ways) -> None:
    first = ways.way()
    assert first is not None
    assert (first.destination, first.dialled.rpartition(", ")[2]) == ("db@dc2", "tunnel)")
    assert ways.way() is ways.way() is first
    assert ways.found == 1


async def test_an_instance_at_another_address_is_another_one(ways: Ways) -> None:
    assert ways.way() is not None
    ways.m.endpoints.publish(one(replace(endpoint(1), tunnels=True)))
    assert ways.way() is None  # no tunnel leads there


async def test_an_endpoint_behind_a_gateway_is_not_that_at_the_same_address(ways: Ways) -> None:
    way = ways.way()
    assert way is not None
    other = replace(way.candidate.endpoint, service_id="db-2")
    for behind in (replace(way.candidate, endpoint=other), replace(way.candidate, hop=other)):
        assert not way.holds(behind, ways.m.targets, ways.outbound)


async def test_an_upstream_that_is_to_have_no_tunnels_has_none_at_once(ways: Ways) -> None:
    assert ways.way() is not None
    ways.m.targets.upstream = replace(ways.m.targets.upstream, tunnel=TunnelMode.NEVER)
    assert ways.way() is None


async def test_a_datacenter_of_ours_that_becomes_known_changes_the_address(ways: Ways) -> None:
    first = ways.way()
    assert first is not None
    targets = ways.m.targets
    targets._context = replace(targets._context, own_datacenter=lambda: "dc2")
    second = ways.way()
    assert second is not None
    assert second.dialled != first.dialled


async def test_an_intention_against_us_leaves_no_way(ways: Ways) -> None:
    assert ways.way() is not None
    denied = {"SourceName": "web", "DestinationName": "db", "Action": "deny"}
    ways.m.outgoing.publish(parse_outgoing([denied]))
    assert ways.way() is None
    ways.m.outgoing.publish(parse_outgoing(None))
    assert ways.way() is not None


async def test_newer_credentials_lead_to_no_tunnel_of_the_older_ones(ways: Ways) -> None:
    assert ways.way() is not None
    leaf = ways.m.root.leaf(service="web", datacenter="dc1")
    ways.m.web.contexts.publish(contexts_of(leaf, ways.m.root, generation=2))
    assert ways.way() is None  # at once, before the older tunnels are told


async def test_a_tunnel_that_takes_no_streams_is_no_way(ways: Ways) -> None:
    first = ways.way()
    assert first is not None
    tunnel = first.tunnel()
    assert tunnel is not None
    tunnel.tunnel.end(TunnelReason.RETIRED)
    assert ways.way() is None


async def test_what_is_remembered_of_an_upstream_is_bounded(ways: Ways) -> None:
    known = ways.m.targets.ways
    for number in range(MOST_WAYS):
        known[EndpointKey(datacenter="dc2", node="gone", service_id=f"db-{number}")] = object()
    assert ways.way() is not None
    assert len(known) == 1
    ways.m.targets.become(ways.m.targets.upstream)
    assert not known
