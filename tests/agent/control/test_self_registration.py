"""`-register`, in virtual time."""

from __future__ import annotations

import json

import trio
from trio.testing import MockClock

from agent.control.self_registration import GOODBYE_SECONDS, HEARTBEAT_SECONDS, SelfRegistration
from tests.support.agent_parts import PROXY, AgentBench, agent_bench, registration
from tests.support.fake_consul import Scripted

REGISTER, UPDATE = "/v1/agent/service/register", f"/v1/agent/check/update/{PROXY}-ttl"
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
        await own(bench, [], failures).end()
    assert len(failures) == 1
    bench.consul.say(DEREGISTER, Scripted(hang=True))
    began = trio.current_time()
    await own(bench, [], failures).end()
    assert trio.current_time() - began == GOODBYE_SECONDS
