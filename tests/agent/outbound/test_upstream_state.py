"""One upstream's state: which target is active, what was told, what a change of configuration keeps."""

from __future__ import annotations

from dataclasses import replace

from agent.consul.errors import ConsulError, ConsulReason
from agent.outbound.upstream_state import UpstreamState
from tests.support.upstream_doubles import Lookups, Told, surroundings
from tests.upstreams.test_choose import START, Stopwatch, endpoint
from upstreams.endpoints import Endpoint, HostPort, Status
from upstreams.reach import AddressWarning
from upstreams.route import Candidate
from upstreams.spec import (
    LocalBind,
    MeshGatewayMode,
    QueryDestination,
    ServiceDestination,
    Upstream,
    WanMode,
)

DB = Upstream(
    destination=ServiceDestination("db"),
    bind=LocalBind("127.0.0.1", 9191),
    failover=(ServiceDestination("db", "dc2"), QueryDestination("db-any")),
    hold=30,
)
NEAR, SPARE, FAR = endpoint("near"), endpoint("spare"), endpoint("far", datacenter="dc2")


class Story:
    """Targets, and what happens around them."""

    def __init__(self, upstream: Upstream = DB) -> None:
        self.clock, self.told, self.lookups = Stopwatch(), Told(), Lookups()
        self.targets = UpstreamState(upstream, surroundings(self.lookups, self.told, self.clock))
        self.targets.sources()

    def ways(self) -> list[str]:
        return list(dict.fromkeys(way.hop.service_id for way in self.targets.candidates()))

    def fail(self, one: Endpoint) -> None:
        self.targets.failed(Candidate(target=0, endpoint=one, hop=one))

    def after(self, seconds: float) -> str:
        self.clock.now += seconds
        return str(self.targets.active())


def test_the_preferred_target_first_then_its_stand_ins() -> None:
    story = Story()
    story.lookups.answer("db", NEAR)
    story.lookups.answer("db@dc2", FAR)
    assert story.ways() == ["near", "far"]
    assert story.told.changes == []


def test_before_any_answer_there_is_no_way_and_no_change() -> None:
    story = Story()
    assert story.ways() == []
    story.lookups.answer("db@dc2", FAR)
    assert story.ways() == ["far"]  # used, and yet nothing is known against the preferred one
    assert story.after(0) == "db"


def test_a_failover_target_goes_before_vanished_instances() -> None:
    story, gone = Story(), endpoint("near", Status.VANISHED)
    story.lookups.answer("db", gone)
    assert story.ways() == ["near"]  # there is nothing better
    story.lookups.answer("db@dc2", FAR)
    assert story.ways() == ["far", "near"]
    assert story.after(0) == "db@dc2"


def test_an_empty_list_is_left_at_once_and_told() -> None:
    story = Story()
    story.lookups.answer("db", NEAR)
    story.lookups.answer("db@dc2", FAR)
    assert story.after(0) == "db"
    story.lookups.answer("db")
    assert story.after(0) == "db@dc2"
    assert story.told.changes == [("db", "db@dc2")]
    assert story.targets.changes == 1


async def test_a_lookup_that_fails_before_its_first_answer_is_dead() -> None:
    story = Story()
    status = story.lookups.made["db"].status
    status.failed(ConsulError(ConsulReason.UNAVAILABLE, "/v1/health/connect/db", "no"), START)
    story.lookups.answer("db@dc2", FAR)
    assert story.after(0) == "db@dc2"


async def test_a_lookup_that_fails_later_keeps_its_last_answer() -> None:
    story = Story()
    story.lookups.answer("db", NEAR)
    story.lookups.answer("db@dc2", FAR)
    status = story.lookups.made["db"].status
    status.failed(ConsulError(ConsulReason.UNAVAILABLE, "/v1/health/connect/db", "no"), START)
    assert story.after(600) == "db"
    assert story.ways()[0] == "near"


def test_when_every_endpoint_is_ejected_the_stand_in_has_it_and_gives_it_back_after_the_hold() -> None:
    story = Story()
    story.lookups.answer("db", NEAR, SPARE)
    story.lookups.answer("db@dc2", FAR)
    story.fail(NEAR)
    assert story.after(0) == "db"
    story.fail(SPARE)
    assert story.after(0) == "db@dc2"
    assert sorted(story.told.ejections) == ["near", "spare"]
    assert story.ways()[0] == "far"
    assert story.after(10) == "db@dc2"  # back from their ejection, from now on they live
    assert story.after(29) == "db@dc2"
    assert story.after(1) == "db"
    assert story.told.changes == [("db", "db@dc2"), ("db@dc2", "db")]


def test_ejection_is_told_once() -> None:
    story = Story()
    for _ in range(5):
        story.fail(NEAR)
    assert story.told.ejections == ["near"]


def test_another_configuration_starts_anew_and_keeps_the_connections() -> None:
    story = Story()
    story.lookups.answer("db", NEAR)
    story.fail(NEAR)
    before = story.targets.connections
    story.targets.become(replace(DB, failover=(), wan=WanMode.NEVER))
    assert story.targets.connections is before
    assert story.targets.failures.ejected() == {}
    assert story.targets.wan is WanMode.NEVER
    assert len(story.targets.sources()) == 1


def test_the_agents_own_mode_unless_the_upstream_has_one() -> None:
    assert Story().targets.wan is WanMode.AUTO


def test_an_odd_address_is_told_once_for_each_endpoint() -> None:
    mixed = replace(
        FAR,
        port=31000,
        service_address="10.0.0.9",
        tagged={"lan": HostPort("10.0.0.9", 21000), "wan": HostPort("203.0.113.9", 31000)},
    )
    story = Story()
    for _ in range(3):
        dialling = story.targets.address(Candidate(target=1, endpoint=mixed, hop=mixed))
        assert (dialling.host, dialling.port) == ("203.0.113.9", 31000)
    assert story.told.doubts == [("far", AddressWarning.MIXED_PAIR)]


def test_gateways_are_looked_up_when_a_way_needs_them() -> None:
    story = Story(replace(DB, mesh_gateway=MeshGatewayMode.LOCAL, failover=()))
    story.lookups.answer("db", NEAR)
    assert story.ways() == ["near"]
    assert story.targets.gateways() == []
    story.lookups.answer("db", FAR)
    assert story.ways() == []
    assert [source.status.name for source in story.targets.gateways()] == ["mesh gateways"]
    story.lookups.answer("mesh gateways", endpoint("gate"))
    assert story.ways() == ["gate"]


def test_remote_gateways_are_those_of_the_datacenter_that_answers() -> None:
    story = Story(replace(DB, mesh_gateway=MeshGatewayMode.REMOTE, failover=()))
    story.lookups.answer("db", FAR)
    assert story.ways() == []
    story.lookups.answer("mesh gateways@dc2", endpoint("gate", datacenter="dc2"))
    assert story.ways() == ["gate"]


def test_a_way_leads_on_while_nothing_about_it_changes() -> None:
    story = Story()
    story.lookups.answer("db", NEAR)
    story.lookups.answer("db@dc2", FAR)
    way = story.targets.first_choice()
    assert way is not None
    assert way[0].hop == NEAR
    assert story.targets.leads(*way)
    story.lookups.answer("db", replace(NEAR, status=Status.WARNING), replace(SPARE, status=Status.WARNING))
    assert story.targets.leads(*way), "its health alone is no other address"
    for moved in (replace(NEAR, port=2), replace(NEAR, service_address="10.0.0.2"), replace(NEAR, port=0)):
        story.lookups.answer("db", moved)
        assert not story.targets.leads(*way)
    story.lookups.answer("db", NEAR)
    assert story.targets.leads(*way)
    story.fail(NEAR)
    assert not story.targets.leads(*way)
    second = story.targets.first_choice()
    assert second is not None
    assert second[0].hop == FAR
    story.after(11)  # no longer ejected, but the hold time is not over
    assert not story.targets.leads(*way)
    story.after(31)
    assert story.targets.leads(*way)
    assert not story.targets.leads(*second)


def test_only_ejected_ones_are_no_first_choice() -> None:
    story = Story(replace(DB, failover=()))
    assert story.targets.first_choice() is None
    story.lookups.answer("db", NEAR)
    story.fail(NEAR)
    assert story.ways() == ["near"]
    assert story.targets.first_choice() is None
