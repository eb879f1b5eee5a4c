"""What doctor finds at the Consul agent: each check green and red, by a scripted Consul."""

from __future__ import annotations

from datetime import timedelta
from pathlib import Path

import pytest
import trio

from agent.base.exits import ExitCode
from agent.cli.doctor_consul import (
    Examination,
    look_at_connections,
    look_at_consul,
    look_at_credentials,
    look_at_intentions,
    look_at_registration,
    look_at_token,
)
from agent.cli.findings import State
from agent.config.parsers import ConsulAddress
from agent.consul.token import TokenSource
from tests.certs.authority import Issuer, roots_answer
from tests.support.agent_parts import (
    AUTHORIZE,
    LEAF,
    MATCH,
    ROOTS,
    SERVICE,
    SERVICES,
    AgentBench,
    agent_bench,
    registration,
    settings,
)
from tests.support.fake_consul import Scripted

DATACENTERS = "/v1/catalog/datacenters"
DENIED = {"text": "Permission denied", "status": 403}


def examined(nursery: trio.Nursery, **flags: str | list[str]) -> tuple[AgentBench, Examination]:
    bench = agent_bench(nursery, settings(**flags))
    bench.well()
    told = bench.control.settings
    case = Examination(
        settings=told,
        consul=bench.control.consul,
        token=TokenSource(told.token, told.token_file),
        clock=bench.control.clock,
        findings=[],
    )
    return bench, case


def dated(bench: AgentBench, ahead: float) -> None:
    at = bench.control.clock() + timedelta(seconds=ahead)
    date = at.strftime("%a, %d %b %Y %H:%M:%S GMT")
    bench.consul.say(DATACENTERS, Scripted(body=b'["dc1", "dc2"]', headers={"Date": date}))


def told(case: Examination) -> list[tuple[State, str]]:
    return [(one.state, one.subject) for one in case.findings]


async def test_consul_answers_and_the_clocks_agree(nursery: trio.Nursery) -> None:
    bench, case = examined(nursery)
    dated(bench, 0)
    assert await look_at_consul(case)
    assert told(case) == [(State.OK, "consul"), (State.OK, "clock"), (State.OK, "consul connections")]
    assert case.datacenter == "dc1"


async def test_the_clocks_differ(nursery: trio.Nursery) -> None:
    bench, case = examined(nursery)
    dated(bench, 90)
    assert await look_at_consul(case)
    assert told(case)[1] == (State.WARN, "clock")


async def test_consul_is_down_or_hangs(nursery: trio.Nursery, autojump_clock: object) -> None:
    bench, case = examined(nursery)
    bench.consul.say(DATACENTERS, Scripted(hang=True))
    assert not await look_at_consul(case)
    bench.consul.down = True
    bench.consul.drop()
    assert not await look_at_consul(case)
    assert [one.code for one in case.findings] == [ExitCode.UNAVAILABLE] * 2
    assert "no answer within 5 s" in case.findings[0].found


async def test_the_token(nursery: trio.Nursery) -> None:
    assert look_at_token(examined(nursery)[1])
    _, case = examined(nursery, token="secret")
    case.token = TokenSource(None, Path("/nowhere/token"))
    assert not look_at_token(case)
    assert case.findings[0].code is ExitCode.PERMISSION


async def test_the_registration_is_found(nursery: trio.Nursery) -> None:
    _, case = examined(nursery)
    assert await look_at_registration(case)
    assert told(case) == [(State.OK, "registration")]
    assert case.registration is not None


async def test_the_registration_has_a_problem(nursery: trio.Nursery) -> None:
    bench, case = examined(nursery, proxy_id="web-sidecar-proxy")
    bench.consul.replace(SERVICE)
    proxy = {"DestinationServiceName": "web", "DestinationServiceID": "web", "Mode": "transparent"}
    answer = {"Kind": "connect-proxy", "ID": "web-sidecar-proxy", "Port": 1, "Proxy": proxy}
    bench.consul.answer(SERVICE, answer)
    assert await look_at_registration(case)
    assert {one.state for one in case.findings} == {State.WARN}
    assert any("transparent_proxy" in one.found for one in case.findings)


async def test_keys_that_configure_envoy_are_no_fault_of_the_registration(nursery: trio.Nursery) -> None:
    bench, case = examined(nursery, proxy_id="web-sidecar-proxy")
    bench.consul.replace(SERVICE)
    config = {"envoy_prometheus_bind_addr": "0.0.0.0:9102", "colour": "red"}
    proxy = {"DestinationServiceName": "web", "DestinationServiceID": "web", "LocalServicePort": 1}
    answer = {
        "Kind": "connect-proxy",
        "ID": "web-sidecar-proxy",
        "Port": 1,
        "Proxy": proxy | {"Config": config},
    }
    bench.consul.answer(SERVICE, answer)
    assert await look_at_registration(case)
    told_of = {str(one) for one in case.findings}
    assert (
        "ok    registration: Proxy.Config: for Envoy alone, no effect here: envoy_prometheus_bind_addr"
        in told_of
    )
    (warned,) = (one for one in case.findings if one.state is State.WARN)
    assert "colour" in warned.found


async def test_listeners_that_meet_fail_by_name(nursery: trio.Nursery) -> None:
    bench, case = examined(nursery, proxy_id="web-sidecar-proxy", listen="10.0.0.5:80")
    bench.consul.replace(SERVICE)
    proxy = {
        "DestinationServiceName": "web",
        "DestinationServiceID": "web",
        "LocalServicePort": 80,
        "Upstreams": [
            {"DestinationName": "db", "LocalBindPort": 80},
            {"DestinationName": "api", "LocalBindPort": 9191},
        ],
    }
    answer = {"Kind": "connect-proxy", "ID": "web-sidecar-proxy", "Port": 1, "Proxy": proxy}
    bench.consul.answer(SERVICE, answer)
    assert await look_at_registration(case)
    assert [one for one in told(case) if one[1] == "listeners"] == [
        (State.FAIL, "listeners"),
        (State.WARN, "listeners"),
    ]
    assert "upstream db on 127.0.0.1:80: bind_of_the_app" in case.findings[0].found
    assert "Consul's check of the public port" in case.findings[1].found
    assert case.registration is not None
    assert [str(one.destination) for one in case.registration.upstreams] == ["api"]


@pytest.mark.parametrize(
    ("answer", "code"),
    [(DENIED, ExitCode.PERMISSION), ({"text": "unknown service", "status": 404}, ExitCode.CONFIGURATION)],
)
async def test_no_registration(nursery: trio.Nursery, answer: dict[str, object], code: ExitCode) -> None:
    bench, case = examined(nursery)
    for path in (SERVICES, SERVICE):
        bench.consul.replace(path)
        bench.consul.answer(path, **answer)  # type: ignore[arg-type]  # a table of tests' own making
    assert not await look_at_registration(case)
    assert case.findings[0].code is (code if code is ExitCode.PERMISSION else ExitCode.CONFIGURATION)


async def test_credentials_fit(nursery: trio.Nursery) -> None:
    _, case = examined(nursery)
    assert await look_at_credentials(case, registration())
    assert [one.subject for one in case.findings] == ["roots", "leaf"]
    assert "a chain of 1" in case.findings[1].found
    assert case.credentials is not None


async def test_the_leaf_is_of_other_roots(nursery: trio.Nursery) -> None:
    bench, case = examined(nursery)
    bench.consul.replace(ROOTS)
    bench.consul.answer(ROOTS, roots_answer(Issuer.root(now=bench.control.clock())))
    assert not await look_at_credentials(case, registration())
    assert "does not fit the roots: untrusted_chain" in case.findings[-1].found
    assert case.credentials is None


async def test_the_leaf_is_refused(nursery: trio.Nursery) -> None:
    bench, case = examined(nursery)
    bench.consul.replace(LEAF)
    bench.consul.answer(LEAF, text="Permission denied", status=403)
    assert not await look_at_credentials(case, registration())
    refusal = case.findings[-1]
    assert (refusal.subject, refusal.code) == ("leaf", ExitCode.PERMISSION)
    assert 'service "web" { policy = "write" }' in refusal.remedy


async def test_connect_is_off(nursery: trio.Nursery) -> None:
    bench, case = examined(nursery)
    bench.consul.replace(ROOTS)
    text = "Connect must be enabled in order to use this endpoint"
    bench.consul.answer(ROOTS, text=text, status=500)
    assert not await look_at_credentials(case, registration())
    assert "connect { enabled = true }" in case.findings[0].remedy


async def test_intentions(nursery: trio.Nursery) -> None:
    _, case = examined(nursery)
    assert await look_at_intentions(case, registration())
    origin = "X-Consul-Default-Acl-Policy, authorize allows: Default behavior configured by ACLs"
    assert case.findings[0].found == f"0 for web, default allow ({origin})"


async def test_the_age_of_a_replica_that_is_cut_off_is_the_running_agents(nursery: trio.Nursery) -> None:
    _, case = examined(nursery, primary_datacenter="dc9")
    aged = {"state": "unreachable", "confirmed_seconds_ago": 34.2, "detail": "no answer"}
    case.running = {"replica": {"primary": "dc9", "intentions": aged, "roots": None}}
    assert await look_at_credentials(case, registration())
    assert await look_at_intentions(case, registration())
    replica = case.findings[-1]
    assert replica.state is State.WARN
    assert replica.found.startswith("unreachable: ")
    assert "by the running agent the primary last said the same of intentions 34 s ago" in replica.found


async def test_a_default_that_consul_does_not_tell_is_pointed_out(nursery: trio.Nursery) -> None:
    bench, case = examined(nursery)
    bench.consul.replace(AUTHORIZE)
    bench.consul.answer(AUTHORIZE, text="Permission denied", status=403)
    assert await look_at_intentions(case, registration())
    assert case.findings[0].state is State.WARN
    assert "default unknown" in case.findings[0].found
    assert 'service "web" { policy = "write" }' in case.findings[0].remedy


async def test_intentions_that_are_not_understood_are_pointed_out(nursery: trio.Nursery) -> None:
    bench, case = examined(nursery)
    bench.consul.replace(MATCH)
    rule = {"SourceName": "api", "DestinationName": "web", "Action": "allow", "Conditions": [1]}
    bench.consul.answer(MATCH, {"web": [rule]})
    assert await look_at_intentions(case, registration())
    assert case.findings[0].state is State.WARN
    assert "unknown fields 'Conditions'" in case.findings[0].found


async def test_permissions_that_cannot_be_honoured(nursery: trio.Nursery) -> None:
    bench, case = examined(nursery)
    bench.consul.replace(MATCH)
    permissions = [{"Action": "allow", "HTTP": {"PathPrefix": "/"}}]
    rule = {"SourceName": "api", "DestinationName": "web", "Permissions": permissions}
    bench.consul.answer(MATCH, {"web": [rule]})
    assert await look_at_intentions(case, registration())
    assert await look_at_intentions(case, registration(protocol="http"))
    assert [one.state for one in case.findings] == [State.WARN, State.OK, State.SKIP]


async def test_intentions_are_refused(nursery: trio.Nursery) -> None:
    bench, case = examined(nursery)
    bench.consul.replace(MATCH)
    bench.consul.answer(MATCH, text="Permission denied", status=403)
    assert not await look_at_intentions(case, registration())
    assert 'service "web" { policy = "read" } (which includes' in case.findings[0].remedy


@pytest.mark.parametrize(("count", "state"), [(3, State.OK), (180, State.WARN)])
def test_the_connections_of_this_host_are_counted_as_the_agent_counts_them(
    tmp_path: Path, count: int, state: State
) -> None:
    row = "   0: 0100007F:A000 0100007F:{port:04X} {state} 00000000:00000000 00:00000000 00000000 0 0 1"
    lines = [
        "  sl  local_address rem_address   st tx_queue",
        *[row.format(port=8500, state="01")] * (count - 2),
    ]
    lines += [row.format(port=8500, state=one) for one in ("04", "05")]  # closed here, and not there yet
    lines += [row.format(port=8500, state="06"), row.format(port=8501, state="01")]
    (tmp_path / "tcp").write_text("\n".join(lines) + "\n")
    (finding,) = look_at_connections(ConsulAddress(host="127.0.0.1", port=8500), tmp_path)
    assert (finding.state, f"has {count} to" in finding.found) == (state, True)
    assert look_at_connections(ConsulAddress(socket="/run/consul.sock"), tmp_path) == []
