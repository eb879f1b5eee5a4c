"""Which ways are tried for one connection, in which order: targets, gateways, last resorts."""

from __future__ import annotations

from dataclasses import replace
from random import Random

from tests.upstreams.test_choose import Stopwatch, endpoint
from upstreams.choose import Chance
from upstreams.ejection import FailureMemory
from upstreams.endpoints import Endpoint, EndpointSet, ExpectedIdentity, Status
from upstreams.reach import DialAddress, ReachReason
from upstreams.route import BEFORE_FAILOVER, Candidate, RouteContext, candidates, dialled, first_choice
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


def route_context(
    mode: MeshGatewayMode = NONE,
    failures: FailureMemory | None = None,
    gateways: dict[str, EndpointSet] = GATEWAYS,
) -> RouteContext:
    return RouteContext(
        own_datacenter=HOME,
        mode=mode,
        gateways=gateways.get,
        failures=failures or FailureMemory(Stopwatch()),
        chance=Chance(Random(1)),
        loads={},
    )


def tried(ground: RouteContext, *sets: EndpointSet) -> list[str]:
    """Each way once, as the caller does it."""
    return list(dict.fromkeys(str(a.hop.service_id) for a in candidates(list(enumerate(sets)), ground)))


def memory(*ejected: Endpoint) -> FailureMemory:
    failures = FailureMemory(Stopwatch())
    for one in ejected:
        failures.failed(one)
    return failures


def test_stand_ins_come_after_the_active_one() -> None:
    assert tried(route_context(), of(endpoint("a")), of(away("b"))) == ["a", "b"]


def test_the_ejected_of_all_targets_come_after_the_rest_of_all() -> None:
    a, b, c = endpoint("a"), endpoint("b"), away("c")
    assert tried(route_context(failures=memory(a)), of(a, b), of(c)) == ["b", "c", "a"]
    assert tried(route_context(failures=memory(a, b)), of(a, b), of(c)) == [
        "c",
        *tried(route_context(), of(a, b)),
    ]


def test_many_dead_instances_do_not_keep_a_connection_from_the_stand_in() -> None:
    many = [endpoint(str(number)) for number in range(20)]
    order = tried(route_context(), of(*many), of(away("alive")))
    assert order.index("alive") == BEFORE_FAILOVER
    assert len(order) == 21


def test_left_counts_the_targets_still_to_come() -> None:
    ways = candidates([(2, of(endpoint("a"))), (0, of(away("b")))], route_context())
    first, second, third, *_ = ways
    assert [(way.target, way.left) for way in (first, second, third)] == [(2, 2), (0, 1), (2, 1)]


def test_a_last_resort_is_known_by_its_target_too() -> None:
    a = endpoint("a")
    ways = list(candidates([(2, of(a)), (0, of(away("b")))], route_context(failures=memory(a))))
    assert (ways[-2].hop.service_id, ways[-2].target) == ("a", 2)


def test_through_a_local_gateway_only_to_another_datacenter() -> None:
    assert tried(route_context(LOCAL), of(endpoint("a"))) == ["a"]
    assert set(tried(route_context(LOCAL), of(away("b"), away("c")))) == {"gate-home-1", "gate-home-2"}


def test_through_a_remote_gateway() -> None:
    (way, *_) = candidates([(0, of(away("b")))], route_context(REMOTE))
    assert (way.endpoint.service_id, way.hop.service_id) == ("b", "gate-far")
    assert str(way) == "b on n1 in dc2 through gate-far on n1 in dc2"
    assert way.through_gateway


def test_each_identity_is_sought_through_the_gateways() -> None:
    other = replace(away("c"), expected=ExpectedIdentity(datacenter=FAR, service="db-next"))
    alike = [away(f"b{number}") for number in range(20)]
    ways = candidates([(0, of(*alike, other))], route_context(REMOTE))
    found = [(way.endpoint.expected.service, way.hop.service_id) for way in ways]
    assert sorted(found[:2]) == [("db", "gate-far"), ("db-next", "gate-far")]  # one of db stands for all


def test_an_ejected_gateway_is_a_last_resort() -> None:
    first, second = GATEWAYS[HOME].endpoints
    assert tried(route_context(LOCAL, memory(first)), of(away("b"))) == [second.service_id, first.service_id]
    assert len(tried(route_context(LOCAL, memory(first, second)), of(away("b")))) == 2


def test_without_gateways_there_is_no_way() -> None:
    assert tried(route_context(LOCAL, gateways={}), of(away("b"))) == []
    assert tried(route_context(LOCAL, gateways={HOME: of()}), of(away("b"))) == []


def test_what_can_be_reached() -> None:
    a, b = endpoint("a"), away("b")
    gate = GATEWAYS[FAR].endpoints[0]
    assert route_context().reachable(of(a))
    assert not route_context().reachable(of())
    assert not route_context(failures=memory(a)).reachable(of(a))
    assert route_context(REMOTE).reachable(of(b))
    assert not route_context(REMOTE, memory(gate)).reachable(of(b))
    assert route_context(REMOTE, memory(gate)).reachable(of(a))
    assert route_context(REMOTE, gateways={}).reachable(of(b))  # not known yet is no reason to give it up


def test_who_is_among_the_first_choices() -> None:
    a, b, poor = endpoint("a"), endpoint("b"), endpoint("poor", Status.WARNING)
    everybody = of(a, b, poor)

    def chosen(one: Endpoint, failures: FailureMemory | None = None) -> Endpoint | None:
        way = Candidate(target=0, endpoint=one, hop=one)
        return first_choice(way, everybody, route_context(failures=failures))

    assert (chosen(a), chosen(b), chosen(poor)) == (a, b, None)
    assert (chosen(a, memory(a)), chosen(b, memory(a)), chosen(poor, memory(a))) == (None, b, None)
    assert (chosen(a, memory(a, b)), chosen(poor, memory(a, b))) == (None, poor)
    assert chosen(poor, memory(a, b, poor)) is None
    assert chosen(endpoint("c")) is None
    assert chosen(replace(a, node="n2")) is None
    assert chosen(replace(a, expected=replace(a.expected, datacenter="dc9"))) is None
    assert chosen(replace(a, port=9)) == a, "the newest word on its address"


def test_a_gateway_among_the_first_choices() -> None:
    far, gate = away("far-1"), endpoint("gate-far", datacenter=FAR)
    through, straight = (Candidate(target=0, endpoint=far, hop=hop) for hop in (gate, far))
    others = of(away("far-2"))  # one endpoint stands for all of its service
    assert first_choice(through, others, route_context(REMOTE)) == gate
    assert first_choice(through, others, route_context(REMOTE, memory(gate))) is None
    assert first_choice(through, others, route_context(REMOTE, gateways={})) is None
    assert first_choice(through, others, route_context(LOCAL)) is None, "another gateway is asked now"
    assert first_choice(through, others, route_context(NONE)) is None, "none is asked now"
    assert first_choice(through, of(), route_context(REMOTE)) is None
    assert first_choice(straight, of(far), route_context(REMOTE)) is None
    assert first_choice(straight, of(far), route_context(NONE)) == far


def test_what_is_said_of_a_way() -> None:
    far, gate = away("far"), endpoint("gate")
    address = DialAddress(host="10.0.0.1", port=1, reason=ReachReason.WAN_TAG)
    straight, through = (Candidate(target=0, endpoint=far, hop=hop) for hop in (far, gate))
    assert dialled(straight, address) == str(address) == "10.0.0.1:1 (wan_tag)"
    assert dialled(straight, address, "warm") == "10.0.0.1:1 (wan_tag, warm)"
    assert dialled(through, address, "warm") == "10.0.0.1:1 (wan_tag, mesh gateway, warm)"


def test_a_dialled_instance_that_consul_does_not_offer_is_named() -> None:
    address = DialAddress(host="10.0.0.1", port=1, reason=ReachReason.WAN_TAG)
    gone, gate = endpoint("db", status=Status.VANISHED), endpoint("gate")
    fresh = endpoint("gate", status=Status.UNCHECKED)
    straight = Candidate(target=0, endpoint=gone, hop=gone)
    assert dialled(straight, address, "tunnel") == "10.0.0.1:1 (wan_tag, vanished, tunnel)"
    through = Candidate(target=0, endpoint=gate, hop=fresh)
    assert dialled(through, address) == "10.0.0.1:1 (wan_tag, mesh gateway, unchecked)"
