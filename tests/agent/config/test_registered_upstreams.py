"""Upstreams as registered: served, or named with the reason."""

from __future__ import annotations

from typing import Any

import msgspec
import pytest

from agent.config.opaque_config import Problem, ProblemReason
from agent.config.registered_upstreams import MeshGatewayAnswer, UpstreamAnswer, gateway_mode, read_upstreams
from upstreams.spec import (
    LocalBind,
    MeshGatewayMode,
    QueryDestination,
    ServiceDestination,
    SocketBind,
    Upstream,
)


def read(*answers: dict[str, Any]) -> tuple[tuple[Upstream, ...], list[Problem]]:
    return read_upstreams(msgspec.convert(list(answers), list[UpstreamAnswer]))


def entry(**changes: Any) -> dict[str, Any]:
    return {"DestinationType": "service", "DestinationName": "db", "LocalBindPort": 9191, **changes}


def sole(**changes: Any) -> Upstream:
    (upstream,), problems = read(entry(**changes))
    assert problems == []
    return upstream


def test_plain_service() -> None:
    assert sole() == Upstream(destination=ServiceDestination("db"), bind=LocalBind("127.0.0.1", 9191))


def test_service_elsewhere_on_another_address() -> None:
    upstream = sole(Datacenter="dc2", LocalBindAddress="127.0.0.9")
    assert upstream.destination == ServiceDestination("db", "dc2")
    assert upstream.bind == LocalBind("127.0.0.9", 9191)


def test_brackets_round_an_address_are_taken_off() -> None:
    assert sole(LocalBindAddress="[::1]").bind == LocalBind("::1", 9191)


def test_empty_type_is_a_service() -> None:
    assert sole(DestinationType="").destination == ServiceDestination("db")


def test_prepared_query_with_its_poll_interval() -> None:
    upstream = sole(DestinationType="prepared_query", Datacenter="dc2", Config={"poll_interval": "15s"})
    assert (upstream.destination, upstream.poll_interval) == (QueryDestination("db", "dc2"), 15.0)


def test_socket_with_its_mode() -> None:
    bind = sole(LocalBindPort=0, LocalBindSocketPath="/run/db.sock", LocalBindSocketMode="0660").bind
    assert bind == SocketBind("/run/db.sock", 0o660)
    assert sole(LocalBindPort=0, LocalBindSocketPath="/run/db.sock").bind == SocketBind("/run/db.sock")


def test_settings_of_an_upstream() -> None:
    config = {"connect_timeout_ms": 3000.0, "limits": {"max_connections": 3}, "protocol": "http", "x": [1]}
    upstream = sole(Config=config, MeshGateway={"Mode": "remote"})
    assert upstream.connect_timeout == 3.0
    assert (upstream.max_connections, upstream.protocol) == (3, "http")
    assert upstream.mesh_gateway is MeshGatewayMode.REMOTE


@pytest.mark.parametrize("timeout", [2500, 2500.0, "2.5s", "2500"])
def test_connect_timeout_in_any_form(timeout: object) -> None:
    assert sole(Config={"connect_timeout_ms": timeout}).connect_timeout == 2.5


def test_default_namespace_and_partition_are_ours() -> None:
    assert sole(DestinationNamespace="default", DestinationPartition="default", DestinationPeer="") == sole()


def test_null_maps_are_tolerated() -> None:
    assert sole(Config=None, MeshGateway=None).mesh_gateway is MeshGatewayMode.UNSET


@pytest.mark.parametrize(
    ("flaw", "reason"),
    [
        ({"LocalBindPort": 0}, ProblemReason.NO_BIND),
        ({"LocalBindPort": 70000}, ProblemReason.BAD_BIND),
        ({"LocalBindSocketPath": "/run/s", "LocalBindSocketMode": "rw"}, ProblemReason.BAD_BIND),
        ({"LocalBindSocketPath": "/run/s", "LocalBindSocketMode": "7777"}, ProblemReason.BAD_BIND),
        ({"DestinationPeer": "east"}, ProblemReason.PEERED),
        ({"DestinationNamespace": "team"}, ProblemReason.OTHER_NAMESPACE),
        ({"DestinationPartition": "sales"}, ProblemReason.OTHER_PARTITION),
        ({"DestinationName": ""}, ProblemReason.NO_NAME),
        ({"DestinationType": "cluster"}, ProblemReason.UNKNOWN_TYPE),
    ],
)
def test_what_cannot_be_served_is_named_and_the_rest_is_served(
    flaw: dict[str, Any], reason: ProblemReason
) -> None:
    served, problems = read(entry(**flaw), entry(DestinationName="cache", LocalBindPort=9192))
    assert [upstream.destination.name for upstream in served] == ["cache"]
    assert [problem.reason for problem in problems] == [reason]
    assert problems[0].where.startswith("Upstreams[0]")


def test_the_first_of_two_on_one_bind_is_served() -> None:
    served, problems = read(entry(), entry(DestinationName="cache"))
    assert [upstream.destination.name for upstream in served] == ["db"]
    assert [(p.where, p.reason) for p in problems] == [
        ("cache on 127.0.0.1:9191", ProblemReason.DUPLICATE_BIND)
    ]


def test_centrally_configured_entries_are_left_alone() -> None:
    assert read(entry(CentrallyConfigured=True, LocalBindPort=0)) == ((), [])


def test_a_wrong_setting_is_a_problem_and_the_upstream_is_served() -> None:
    served, problems = read(entry(Config={"connect_timeout_ms": "soon", "limits": 3}))
    assert served[0].connect_timeout == 5.0
    assert {problem.where for problem in problems} == {
        "Upstreams[0].Config.connect_timeout_ms",
        "Upstreams[0].Config.limits",
    }


def test_unknown_gateway_mode_is_unset() -> None:
    assert gateway_mode(MeshGatewayAnswer("sideways")) is MeshGatewayMode.UNSET


def test_the_mode_of_the_proxy_is_the_default_of_its_upstreams() -> None:
    answers = msgspec.convert(
        [entry(), entry(LocalBindPort=9192, MeshGateway={"Mode": "none"})], list[UpstreamAnswer]
    )
    upstreams, _ = read_upstreams(answers, MeshGatewayMode.LOCAL)
    assert [u.mesh_gateway for u in upstreams] == [MeshGatewayMode.LOCAL, MeshGatewayMode.NONE]
