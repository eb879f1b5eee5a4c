"""An upstream's settings, in every spelling they arrive in."""

from __future__ import annotations

from typing import Any

import pytest

from agent.config.opaque_config import ConfigReader
from agent.config.upstream_config import configured
from upstreams.ejection import EAGER, EjectionPolicy
from upstreams.spec import (
    Destination,
    LocalBind,
    QueryDestination,
    ServiceDestination,
    Upstream,
    WanMode,
)

BIND = LocalBind("127.0.0.1", 9191)
SERVICE, QUERY = ServiceDestination("db"), QueryDestination("geo-db")


def read(config: dict[str, Any], destination: Destination = SERVICE) -> tuple[Upstream, list[str]]:
    reader = ConfigReader(where="Config", config=config)
    upstream = configured(Upstream(destination=destination, bind=BIND), reader)
    return upstream, [problem.where for problem in reader.problems]


def sole(destination: Destination = SERVICE, **config: Any) -> Upstream:
    upstream, problems = read(config, destination)
    assert problems == []
    return upstream


@pytest.mark.parametrize("destination", [SERVICE, QUERY])
def test_nothing_said_is_the_default(destination: Destination) -> None:
    assert sole(destination) == Upstream(destination=destination, bind=BIND)


def test_times_and_modes() -> None:
    upstream = sole(
        connect_timeout_ms=250, deadline_ms=4000, wan="never", failover_hold="5s", poll_interval="15s"
    )
    assert (upstream.connect_timeout, upstream.deadline, upstream.hold) == (0.25, 4.0, 5.0)
    assert (upstream.wan, upstream.poll_interval) == (WanMode.NEVER, 15.0)


@pytest.mark.parametrize(
    "limits",
    [
        {"max_connections": 3, "max_pending_requests": 2, "max_concurrent_requests": 9},
        {"MaxConnections": 3.0, "MaxPendingRequests": 2, "MaxConcurrentRequests": None},
    ],
)
def test_limits_in_both_spellings(limits: dict[str, Any]) -> None:
    upstream = sole(limits=limits)
    assert (upstream.max_connections, upstream.max_pending) == (3, 2)


@pytest.mark.parametrize(
    "check",
    [
        {"interval": "30s", "max_failures": 4, "base_ejection_time": "20s"},
        {"Interval": 30_000_000_000, "MaxFailures": 4, "BaseEjectionTime": 20_000_000_000},
        {"interval": 30_000_000_000.0, "max_failures": 4.0, "base_ejection_time": "20s"},
    ],
)
def test_passive_health_check_in_both_spellings(check: dict[str, Any]) -> None:
    expected = EjectionPolicy(interval=30, max_failures=4, ejection_time=20)
    assert sole(passive_health_check=check).ejection == expected


def test_what_a_passive_health_check_does_not_say_stays() -> None:
    assert sole(passive_health_check={}).ejection == EAGER
    assert sole(passive_health_check={"max_failures": 2}).ejection == EjectionPolicy(max_failures=2)


def test_filter_and_near() -> None:
    upstream = sole(filter='Service.Meta.v == "2"', near="_agent")
    assert upstream.destination == ServiceDestination("db", filter='Service.Meta.v == "2"', near="_agent")
    assert sole(QUERY, near="n1").destination == QueryDestination("geo-db", near="n1")


@pytest.mark.parametrize("number", [0, 4, "4", 4.0, 64])
def test_warm_connections(number: Any) -> None:
    upstream = sole(warm=number, warm_idle="20s")
    assert (upstream.warm, upstream.warm_idle) == (int(number), 20.0)


@pytest.mark.parametrize("number", [-1, 65, 1.5, "many", True, [4]])
def test_a_wrong_number_of_warm_connections_is_none_and_names_the_bounds(number: Any) -> None:
    reader = ConfigReader(where="Config", config={"warm": number})
    assert configured(Upstream(destination=SERVICE, bind=BIND), reader).warm == 0
    (problem,) = reader.problems
    assert problem.where == "Config.warm"
    assert problem.detail == f"{number!r} is not a whole number from 0 to 64; 0 is used"


def test_a_query_takes_no_filter() -> None:
    upstream, problems = read({"filter": "x"}, QUERY)
    assert (upstream.destination, problems) == (QUERY, ["Config.filter"])


@pytest.mark.parametrize(
    ("table", "target"),
    [
        ({"datacenter": "dc2"}, ServiceDestination("db", "dc2")),
        ({"service": "db-spare"}, ServiceDestination("db-spare")),
        ({"service": "db", "datacenter": "dc3", "filter": "x"}, ServiceDestination("db", "dc3", filter="x")),
        ({"query": "any-db"}, QueryDestination("any-db")),
        ({"query": "any-db", "datacenter": "dc2"}, QueryDestination("any-db", "dc2")),
        ({}, SERVICE),
    ],
)
def test_stand_ins_of_a_service(table: dict[str, Any], target: Destination) -> None:
    assert sole(failover=[table]).failover == (target,)


def test_stand_ins_of_a_query() -> None:
    assert sole(QUERY, failover=[{"datacenter": "dc2"}, {"service": "db"}]).targets == (
        QUERY,
        QueryDestination("geo-db", "dc2"),
        ServiceDestination("db"),
    )


def test_a_stand_in_has_the_filter_of_the_service_it_stands_in_for() -> None:
    assert sole(filter="x", failover=[{"datacenter": "dc2"}, {"service": "other"}]).failover == (
        ServiceDestination("db", "dc2", filter="x"),
        ServiceDestination("other"),
    )


@pytest.mark.parametrize(
    ("config", "where"),
    [
        ({"wan": "sometimes"}, "Config.wan"),
        ({"wan": 3}, "Config.wan"),
        ({"failover": {"datacenter": "dc2"}}, "Config.failover"),
        ({"failover": ["dc2"]}, "Config.failover"),
        ({"failover": [{"datacenter": 7}]}, "Config.failover[0].datacenter"),
        ({"failover_hold": "soon"}, "Config.failover_hold"),
        ({"warm_idle": 0}, "Config.warm_idle"),
        ({"limits": {"max_connections": -1}}, "Config.limits.max_connections"),
        ({"limits": {"MaxConnections": "x"}}, "Config.limits.MaxConnections"),
        ({"passive_health_check": {"interval": -5}}, "Config.passive_health_check.interval"),
        ({"passive_health_check": {"Interval": True}}, "Config.passive_health_check.Interval"),
        ({"passive_health_check": 3}, "Config.passive_health_check"),
        ({"deadline_ms": 0}, "Config.deadline_ms"),
    ],
)
def test_what_cannot_be_read_is_named_and_the_default_holds(config: dict[str, Any], where: str) -> None:
    upstream, problems = read(config)
    assert problems == [where]
    assert upstream.connect_timeout == 5.0
