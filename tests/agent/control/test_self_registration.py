"""`-register`; the maintenance, and the deregistration, of a proxy that others register; in virtual time."""

from __future__ import annotations

import json

import pytest
import trio
from trio.testing import MockClock

from agent.base.address import TcpAddress
from agent.control.self_registration import (
    GONE_GRACE,
    GOODBYE_SECONDS,
    HEARTBEAT_SECONDS,
    LEAVE_SECONDS,
    STOPPING,
    Maintenance,
    SelfRegistration,
    leave_seconds,
)
from tests.support.agent_parts import PROXY, SERVICE, AgentBench, agent_bench, proxy_answer, registration
from tests.support.fake_consul import Scripted

REGISTER, UPDATE = "/v1/agent/service/register", f"/v1/agent/check/update/{PROXY}-ttl"
CHECKS, MAINTENANCE = "/v1/agent/checks", f"/v1/agent/service/maintenance/{PROXY}"
DEREGISTER = f"/v1/agent/service/deregister/{PROXY}"


def own(bench: AgentBench, pieces: list[str], failures: list[str]) -> SelfRegistration:
    return SelfRegistration(
        consul=bench.control.consul,
        registration=registration(),
        missing=lambda: pieces,
        failed=failures.append,
    )


async def test_it_registers_once_and_tells_how_it_is(
    nursery: trio.Nursery, autojump_clock: MockClock
) -> None:
    bench = agent_bench(nursery)
    bench.consul.answer(REGISTER, text="")
    bench.consul.answer(UPDATE, text="")
    pieces: list[str] = ["credentials: none"]
    nursery.start_soon(own(bench, pieces, []).keep)
    await trio.sleep(HEARTBEAT_SECONDS / 2)
    pieces.clear()
    await trio.sleep(HEARTBEAT_SECONDS)
    assert len(bench.consul.questions(REGISTER)) == 1
    assert [json.loads(asked.body) for asked in bench.consul.questions(UPDATE)] == [
        {"Status": "critical", "Output": "credentials: none"},
        {"Status": "passing", "Output": "ready"},
    ]


async def test_an_agent_that_has_lost_us_is_told_again(
    nursery: trio.Nursery, autojump_clock: MockClock
) -> None:
    bench = agent_bench(nursery)
    bench.consul.answer(REGISTER, text="")
    bench.consul.answer(UPDATE, text="")
    bench.consul.answer(UPDATE, text='CheckID "x" does not have associated TTL', status=500)
    bench.consul.answer(UPDATE, text="")
    failures: list[str] = []
    nursery.start_soon(own(bench, [], failures).keep)
    await trio.sleep(HEARTBEAT_SECONDS * 2.5)
    assert len(bench.consul.questions(REGISTER)) == 2
    assert len(failures) == 1


async def test_goodbye(nursery: trio.Nursery, autojump_clock: MockClock) -> None:
    bench = agent_bench(nursery)
    failures: list[str] = []
    bench.consul.answer(DEREGISTER, text="")
    bench.consul.answer(DEREGISTER, text="no", status=500)
    for _ in range(2):
        await own(bench, [], failures).leave()
    assert len(failures) == 1
    bench.consul.say(DEREGISTER, Scripted(hang=True))
    began = trio.current_time()
    await own(bench, [], failures).leave()
    assert trio.current_time() - began == GOODBYE_SECONDS


def maintenance(bench: AgentBench, events: list[str]) -> Maintenance:
    return Maintenance(
        consul=bench.control.consul,
        proxy_id=PROXY,
        ended=lambda: events.append("ended"),
        failed=events.append,
    )


def in_maintenance(reason: str) -> dict[str, object]:
    return {f"_service_maintenance:{PROXY}": {"Notes": reason}}


async def test_who_leaves_puts_its_proxy_into_maintenance_with_a_reason_of_its_own(
    nursery: trio.Nursery,
) -> None:
    bench, events = agent_bench(nursery), list[str]()
    bench.consul.answer(MAINTENANCE, text="")
    assert await maintenance(bench, events).leave()
    (asked,) = bench.consul.questions(MAINTENANCE)
    assert (asked.method, asked.query) == ("PUT", {"enable": "true", "reason": STOPPING})
    assert events == []


async def test_a_refused_maintenance_is_said_once_and_a_silent_consul_is_waited_for_shortly(
    nursery: trio.Nursery, autojump_clock: MockClock
) -> None:
    bench, events = agent_bench(nursery), list[str]()
    bench.consul.answer(MAINTENANCE, text="Permission denied", status=403)
    assert not await maintenance(bench, events).leave()
    assert events == [f"{MAINTENANCE} answered 403: Permission denied"]
    bench.consul.hang(MAINTENANCE)
    began = trio.current_time()
    assert not await maintenance(bench, events).leave()
    assert trio.current_time() - began == GOODBYE_SECONDS
    assert events[1:] == ["no answer within 3 s"]


async def test_a_start_ends_a_maintenance_of_ours(nursery: trio.Nursery) -> None:
    bench, events = agent_bench(nursery), list[str]()
    bench.consul.answer(CHECKS, in_maintenance(STOPPING))
    bench.consul.answer(MAINTENANCE, text="")
    await maintenance(bench, events).keep()
    (asked,) = bench.consul.questions(MAINTENANCE)
    assert (asked.query, events) == ({"enable": "false"}, ["ended"])


@pytest.mark.parametrize("checks", [{}, in_maintenance("the operator's"), in_maintenance("")])
async def test_a_start_leaves_an_operators_maintenance_alone(
    nursery: trio.Nursery, checks: dict[str, object]
) -> None:
    bench, events = agent_bench(nursery), list[str]()
    bench.consul.answer(CHECKS, checks)
    await maintenance(bench, events).keep()
    assert (bench.consul.questions(MAINTENANCE), events) == ([], [])


async def test_a_start_tries_again_until_consul_answers_and_complains_once(
    nursery: trio.Nursery, autojump_clock: MockClock
) -> None:
    bench, events = agent_bench(nursery), list[str]()
    for _ in range(3):
        bench.consul.answer(CHECKS, text="No cluster leader", status=500)
    bench.consul.answer(CHECKS, in_maintenance(STOPPING))
    bench.consul.answer(MAINTENANCE, text="")
    await maintenance(bench, events).keep()
    assert events == [f"{CHECKS} answered 500: No cluster leader", "ended"]


def test_callers_are_not_sent_away_from_a_socket_in_which_they_can_wait() -> None:
    public = TcpAddress("127.0.0.1", 20000)
    assert [leave_seconds(None, None), leave_seconds(None, public)] == [LEAVE_SECONDS, 0]
    assert [leave_seconds(given, at) for given in (0, 7) for at in (None, public)] == [0, 0, 7, 7]


async def test_a_registration_that_stays_gone_takes_no_callers_until_it_is_there_again(
    nursery: trio.Nursery, autojump_clock: MockClock
) -> None:
    bench = agent_bench(nursery)
    bench.consul.answer(SERVICE, proxy_answer(port=20000), content_hash="h1")
    bench.control.watch_registration(PROXY)
    before = await bench.snapshot.registration.first()
    bench.consul.answer(SERVICE, text="unknown service ID", status=404)
    await trio.sleep(GONE_GRACE - 10)
    assert bench.snapshot.registration.value == before
    await trio.sleep(30)
    withdrawn = bench.snapshot.registration.value
    assert withdrawn is not None
    assert (withdrawn.accepts_callers, withdrawn.upstreams) == (False, before.upstreams)
    assert str(withdrawn.problems[-1]).startswith("the public listener: deregistered: Consul does not know")
    assert sum("deregistered" in line for line in bench.log) == 1
    bench.consul.answer(SERVICE, proxy_answer(port=20000), content_hash="h1")
    await trio.sleep(10)
    assert bench.snapshot.registration.value == before


async def test_an_outage_before_a_registration_is_gone_does_not_count(
    nursery: trio.Nursery, autojump_clock: MockClock
) -> None:
    bench = agent_bench(nursery)
    bench.consul.answer(SERVICE, proxy_answer(port=20000), content_hash="h1")
    bench.control.watch_registration(PROXY)
    before = await bench.snapshot.registration.first()
    bench.consul.answer(SERVICE, text="no leader", status=500)
    await trio.sleep(600)
    bench.consul.answer(SERVICE, text="unknown service ID", status=404)
    await trio.sleep(GONE_GRACE)
    assert bench.snapshot.registration.value == before
