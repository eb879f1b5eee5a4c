"""The admin endpoint's answer to a question, before and while there is something to go by."""

from __future__ import annotations

import json
from dataclasses import replace

import trio

from agent.observe.explain import answer_inquiry
from tests.support.agent_parts import agent_bench, registration
from tests.support.policies import policy_of


async def test_questions(nursery: trio.Nursery) -> None:
    bench = agent_bench(nursery)
    assert answer_inquiry(bench.agent, b"nonsense").status == 400
    assert answer_inquiry(bench.agent, b'{"source": "api", "more": 1}').status == 400
    ask = b'{"source": "api@dc2"}'
    assert answer_inquiry(bench.agent, ask).status == 503
    bench.snapshot.registration.publish(registration())
    bench.snapshot.policy.publish(replace(policy_of([], "web", default_allow=True), datacenter="dc1"))
    assert answer_inquiry(bench.agent, b'{"source": ""}').status == 400
    reply = answer_inquiry(bench.agent, ask)
    told = json.loads(reply.body)
    assert (reply.status, told["allowed"], told["reason"]) == (200, True, "default_allow")
    assert "replica     0 rules as this agent has them" in told["text"]
    assert "travel      a connection each: our setting `tunnel` is never (no_tunnels)" in told["text"]
    assert answer_inquiry(bench.agent, b'{"source": "a", "destination": "web@dc1"}').status == 200
    assert answer_inquiry(bench.agent, b'{"source": "a", "destination": "web@dc2"}').status == 400
