"""Specs, `Config` maps, tables and registrations nobody would write: refused by the field, or borne."""

from __future__ import annotations

from typing import Any

from hypothesis import given
from hypothesis import strategies as st

from agent.config.opaque_config import ConfigReader, Problem
from agent.config.registration import RegistrationReason, RegistrationRejected, parse_registration
from agent.config.upstream_config import configured
from agent.config.upstream_tables import read_tables
from agent.proxy import upstream_limits
from tests.properties.mutations import Mutated, anything, mutated
from tests.upstreams.test_choose import Stopwatch, endpoint
from upstreams.ejection import FailureMemory
from upstreams.failover import Failover, TargetHealth
from upstreams.spec import InvalidUpstream, TunnelMode, Upstream, WanMode, parse_upstream_flag

CONFIG: dict[str, Any] = {
    "connect_timeout_ms": 250,
    "deadline_ms": 5000.0,
    "failover": [{"datacenter": "dc3"}, {"query": "near"}, {"service": "db-old", "filter": "x"}],
    "failover_hold": "30s",
    "filter": "Service.Meta.v == 2",
    "limits": {"max_connections": 10, "max_pending_requests": "20"},
    "mesh_gateway": "local",
    "near": "_agent",
    "passive_health_check": {"interval": "10s", "max_failures": 2, "base_ejection_time": 10_000_000_000},
    "poll_interval": "5s",
    "protocol": "tcp",
    "wan": "prefer",
    "warm": 2,
    "warm_idle": "10s",
}
UPSTREAM: dict[str, Any] = {
    "DestinationType": "service",
    "DestinationName": "db",
    "Datacenter": "dc2",
    "LocalBindAddress": "127.0.0.1",
    "LocalBindPort": 9191,
    "LocalBindSocketPath": "",
    "LocalBindSocketMode": "0600",
    "Config": CONFIG,
    "MeshGateway": {"Mode": "remote"},
}
REGISTRATION: dict[str, Any] = {
    "Kind": "connect-proxy",
    "ID": "web-sidecar-proxy",
    "Address": "10.0.0.1",
    "Port": 21000,
    "Datacenter": "dc1",
    "ContentHash": "abc",
    "Proxy": {
        "DestinationServiceName": "web",
        "DestinationServiceID": "web",
        "LocalServiceAddress": "127.0.0.1",
        "LocalServicePort": 8080,
        "Mode": "",
        "Config": {
            "bind_port": 1,
            "handshake_timeout_ms": 5000,
            "max_inbound_connections": 9,
            "protocol": "tcp",
        },
        "Upstreams": [UPSTREAM],
        "MeshGateway": {"Mode": "local"},
        "Expose": {"Checks": False, "Paths": []},
    },
}
TABLES = [{"spec": "db@dc2:9191", **CONFIG}]
DB = parse_upstream_flag("db@dc2:9191")


def usable(upstream: Upstream) -> None:
    """Everything that is made of an upstream's numbers can be made of these."""
    failures = FailureMemory(Stopwatch(), upstream.ejection)
    for _ in range(40):
        failures.failed(endpoint("a"))
        failures.share(endpoint("a"))
        failures.failed(endpoint("b"))
    failover = Failover(len(upstream.targets), upstream.hold, Stopwatch())
    for lives in ([TargetHealth.DEAD], [TargetHealth.LIVE]):
        failover.judge(lives * len(upstream.targets))
    upstream_limits.row(upstream)
    upstream_limits.written(upstream, WanMode.AUTO, TunnelMode.NEVER)
    assert 0 < upstream.connect_timeout < 1e9
    assert 0 < upstream.deadline < 1e9


def within(problem: Problem, place: str, key: str) -> bool:
    """Whether it stands at or below that key, and says so."""
    return problem.where.startswith(f"{place}.{key}") and bool(problem.detail)


@given(mutated(CONFIG))
def test_a_config_map_is_read_with_its_problems_named(change: Mutated) -> None:
    problems: list[Problem] = []
    usable(configured(DB, ConfigReader(where="Config", config=change.document, problems=problems)))
    assert all(within(problem, "Config", str(change.path[0])) for problem in problems), problems


@given(st.dictionaries(st.sampled_from(sorted(CONFIG)), anything))
def test_no_config_map_at_all_is_too_much(config: dict[str, Any]) -> None:
    reader = ConfigReader(where="Config", config=config)
    usable(configured(DB, reader))
    assert all(any(within(problem, "Config", key) for key in config) for problem in reader.problems)


@given(mutated(TABLES))
def test_a_table_is_read_or_its_mistakes_are_named(change: Mutated) -> None:
    upstreams, mistakes = read_tables(change.document)
    for upstream in upstreams:
        usable(upstream)
    assert all(mistake.startswith("upstreams") and ": " in mistake for mistake in mistakes)
    assert upstreams or mistakes or not change.document


@given(anything)
def test_anything_may_stand_where_tables_should(value: object) -> None:
    _, mistakes = read_tables(value)
    assert all(mistake.startswith("upstreams") for mistake in mistakes)


@given(mutated(REGISTRATION))
def test_a_registration_is_rejected_by_name_or_borne(change: Mutated) -> None:
    try:
        registration = parse_registration(change.document)
    except RegistrationRejected as error:
        named(error, change)
        return
    for upstream in registration.upstreams:
        usable(upstream)
    assert all(problem.where and problem.detail for problem in registration.problems)
    assert registration.handshake_timeout > 0
    for address in (
        registration.public_bind,
        registration.local_app,
        *(u.bind for u in registration.upstreams),
    ):
        assert 1 <= getattr(address, "port", 1) <= 65535


def named(error: RegistrationRejected, change: Mutated) -> None:
    """A field of the wrong type by its place, another by a reason of its own."""
    if error.reason is RegistrationReason.MALFORMED:
        at = change.at
        holder, _, field = at.rpartition(".")
        assert f"`{at}" in error.detail or (
            f"`{field}`" in error.detail and (holder == "$" or f"`{holder}`" in error.detail)
        ), (error.detail, at)
    else:
        assert change.path[0] in {"Kind", "Proxy"}


KNOWN = ("prepared_query:", "unix:", "/run/db", "db", "@", "dc2", ":", "9191", "[", "]", "::1", "127.0.0.1")
pieces = st.sampled_from(KNOWN) | st.text(max_size=3)


def refused(error: InvalidUpstream) -> None:
    assert error.field in {"spec", "name", "datacenter", "socket", "address", "port"}
    assert str(error).startswith(f"upstream {error.field} {error.value!r}: ")
    assert error.remedy


@given(st.lists(pieces, max_size=8).map("".join))
def test_a_spec_is_read_or_refused_by_its_field(text: str) -> None:
    try:
        read = parse_upstream_flag(text)
    except InvalidUpstream as error:
        refused(error)
        return
    usable(read)
    destination, _, bind = str(read).rpartition(" on ")
    assert parse_upstream_flag(f"{destination}:{bind}") == read
