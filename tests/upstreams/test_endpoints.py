"""Endpoints as values: tiers, identities, keys."""

from __future__ import annotations

import pytest

from certs.spiffe import ServiceId, TrustDomain
from tests.upstreams.test_choose import endpoint
from upstreams.endpoints import EndpointSet, ExpectedIdentity, Status


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


def test_identity_matches_in_every_part_and_prints_as_a_path() -> None:
    expected = ExpectedIdentity(datacenter="dc2", service="db")
    domain = TrustDomain("x.consul")
    assert expected.matches(ServiceId(trust_domain=domain, datacenter="dc2", service="db"))
    assert not expected.matches(ServiceId(trust_domain=domain, datacenter="dc1", service="db"))
    assert not expected.matches(ServiceId(trust_domain=domain, datacenter="dc2", service="web"))
    assert str(expected) == "/ns/default/dc/dc2/svc/db"
