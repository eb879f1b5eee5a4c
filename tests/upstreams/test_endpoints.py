"""Endpoints as values: tiers, identities, keys."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import replace

import pytest

from certs.spiffe import ServiceId, TrustDomain
from tests.upstreams.test_choose import endpoint
from upstreams.endpoints import Endpoint, EndpointSet, ExpectedIdentity, Status, Tier


def tiers(*statuses: Status, nearest_first: bool = False) -> list[list[str]]:
    endpoints = tuple(endpoint(str(number), status) for number, status in enumerate(statuses))
    group = EndpointSet(endpoints=endpoints, nearest_first=nearest_first)
    return [[e.service_id for e in tier.endpoints] for tier in group.tiers]


P, W, C = Status.PASSING, Status.WARNING, Status.CRITICAL


def test_passing_before_warning_and_critical_nowhere() -> None:
    assert tiers(W, P, C, P, W) == [["1", "3"], ["0", "4"]]
    assert tiers(W, C) == [["0"]]
    assert tiers(C) == []


def test_sorted_by_distance_each_is_a_tier_of_its_own() -> None:
    assert tiers(W, P, C, P, nearest_first=True) == [["1"], ["3"], ["0"]]


def test_totals_add_up_the_odds() -> None:
    group = EndpointSet(endpoints=(endpoint("a", weight=3), endpoint("b", weight=0), endpoint("c", weight=5)))
    assert group.tiers[0].totals == pytest.approx((3, 3, 8), abs=1e-5)


def test_an_instance_is_found_by_its_key() -> None:
    a, b = endpoint("a"), endpoint("b")
    twice = replace(a, port=9)
    (tier,) = EndpointSet(endpoints=(a, b, twice)).tiers
    assert tier.find(replace(b, port=7, weight=5)) is b
    assert tier.find(twice) is a, "the first of two"
    for other in (endpoint("c"), replace(a, node="n2"), replace(a, datacenter="dc2")):
        assert tier.find(other) is None


def test_whoever_looks_again_goes_through_nobody() -> None:
    class Counted(tuple[Endpoint, ...]):
        __slots__ = ()
        looks = 0

        def __reversed__(self) -> Iterator[Endpoint]:
            Counted.looks += 1
            return reversed(tuple(self))

        def __iter__(self) -> Iterator[Endpoint]:
            Counted.looks += 1
            return super().__iter__()

    many = Counted(endpoint(str(number)) for number in range(1000))
    tier = Tier(many, ())
    tier.find(endpoint("0"))
    before = Counted.looks
    assert all(tier.find(endpoint(str(number))) is not None for number in range(0, 1000, 100))
    assert Counted.looks == before


def test_identity_matches_in_every_part_and_prints_as_a_path() -> None:
    expected = ExpectedIdentity(datacenter="dc2", service="db")
    domain = TrustDomain("x.consul")
    assert expected.matches(ServiceId(trust_domain=domain, datacenter="dc2", service="db"))
    assert not expected.matches(ServiceId(trust_domain=domain, datacenter="dc1", service="db"))
    assert not expected.matches(ServiceId(trust_domain=domain, datacenter="dc2", service="web"))
    assert str(expected) == "/ns/default/dc/dc2/svc/db"
