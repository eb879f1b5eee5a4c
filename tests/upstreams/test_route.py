"""Which ways are tried for one connection, in which order: targets, gateways, last resorts."""

from __future__ import annotations

from dataclasses import replace
from random import Random

from tests.upstreams.test_choose import Clock, endpoint
from upstreams.ejection import FailureMemory
from upstreams.endpoints import Endpoint, EndpointSet, ExpectedIdentity
from upstreams.route import BEFORE_STAND_INS, Terrain, approaches
from upstreams.spec import MeshGatewayMode

NONE, LOCAL, REMOTE = MeshGatewayMode.NONE, MeshGatewayMode.LOCAL, MeshGatewayMode.REMOTE
HOME, FAR = "dc1", "dc2"


def of(*endpoints: Endpoint) -> EndpointSet:
    return EndpointSet(endpoints=endpoints)


def away(name: str) -> Endpoint:
    expected = ExpectedIdentity(datacenter=FAR, service="db")
    return replace(endpoint(name, datacenter=FAR), expected=expected)


GATEWAYS = {
    HOME: of(endpoint("gate-home-1"), endpoint("gate-home-2")),
    FAR: of(endpoint("gate-far", datacenter=FAR)),
}


def terrain(
    mode: MeshGatewayMode = NONE,
    failures: FailureMemory | None = None,
    gateways: dict[str, EndpointSet] = GATEWAYS,
) -> Terrain:
    return Terrain(
        own_datacenter=HOME,
        mode=mode,
        gateways=gateways.get,
        failures=failures or FailureMemory(Clock()),
        rng=Random(1),
        loads={},
    )


def tried(ground: Terrain, *sets: EndpointSet) -> list[str]:
    """Each way once, as the caller does it."""
    return list(dict.fromkeys(str(a.hop.service_id) for a in approaches(list(enumerate(sets)), ground)))


def memory(*ejected: Endpoint) -> FailureMemory:
    failures = FailureMemory(Clock())
    for one in ejected:
        failures.failed(one)
    return failures


def test_stand_ins_come_after_the_active_one() -> None:
    assert tried(terrain(), of(endpoint("a")), of(away("b"))) == ["a", "b"]


def test_the_ejected_of_all_targets_come_after_the_rest_of_all() -> None:
    a, b, c = endpoint("a"), endpoint("b"), away("c")
    assert tried(terrain(failures=memory(a)), of(a, b), of(c)) == ["b", "c", "a"]
    assert tried(terrain(failures=memory(a, b)), of(a, b), of(c)) == ["c", *tried(terrain(), of(a, b))]


def test_many_dead_instances_do_not_keep_a_connection_from_the_stand_in() -> None:
    many = [endpoint(str(number)) for number in range(20)]
    order = tried(terrain(), of(*many), of(away("alive")))
    assert order.index("alive") == BEFORE_STAND_INS
    assert len(order) == 21


def test_left_counts_the_targets_still_to_come() -> None:
    ways = approaches([(2, of(endpoint("a"))), (0, of(away("b")))], terrain())
    first, second, third, *_ = ways
    assert [(way.target, way.left) for way in (first, second, third)] == [(2, 2), (0, 1), (2, 1)]


def test_through_a_local_gateway_only_to_another_datacenter() -> None:
    assert tried(terrain(LOCAL), of(endpoint("a"))) == ["a"]
    assert set(tried(terrain(LOCAL), of(away("b"), away("c")))) == {"gate-home-1", "gate-home-2"}


def test_through_a_remote_gateway() -> None:
    (way, *_) = approaches([(0, of(away("b")))], terrain(REMOTE))
    assert (way.endpoint.service_id, way.hop.service_id) == ("b", "gate-far")
    assert str(way) == "b on n1 in dc2 through gate-far on n1 in dc2"
    assert way.through_gateway


def test_each_identity_is_sought_through_the_gateways() -> None:
    other = replace(away("c"), expected=ExpectedIdentity(datacenter=FAR, service="db-next"))
    ways = approaches([(0, of(away("b"), away("b2"), other))], terrain(REMOTE))
    assert sorted({(way.endpoint.expected.service, way.hop.service_id) for way in ways}) == [
        ("db", "gate-far"),
        ("db-next", "gate-far"),
    ]


def test_an_ejected_gateway_is_a_last_resort() -> None:
    first, second = GATEWAYS[HOME].endpoints
    assert tried(terrain(LOCAL, memory(first)), of(away("b"))) == [second.service_id, first.service_id]
    assert len(tried(terrain(LOCAL, memory(first, second)), of(away("b")))) == 2


def test_without_gateways_there_is_no_way() -> None:
    assert tried(terrain(LOCAL, gateways={}), of(away("b"))) == []
    assert tried(terrain(LOCAL, gateways={HOME: of()}), of(away("b"))) == []


def test_what_can_be_reached() -> None:
    a, b = endpoint("a"), away("b")
    gate = GATEWAYS[FAR].endpoints[0]
    assert terrain().reachable(of(a))
    assert not terrain().reachable(of())
    assert not terrain(failures=memory(a)).reachable(of(a))
    assert terrain(REMOTE).reachable(of(b))
    assert not terrain(REMOTE, memory(gate)).reachable(of(b))
    assert terrain(REMOTE, memory(gate)).reachable(of(a))
    assert terrain(REMOTE, gateways={}).reachable(of(b))  # not known yet is no reason to give it up
