"""What Consul lets in by default: asked of the agent beside its header, once a change and at intervals."""

from __future__ import annotations

import json
from typing import Any

import pytest
import trio
from trio.testing import MockClock

from agent.base.phase import Phase
from agent.consul.answers import AuthorizeAnswer
from agent.consul.api import Answer
from agent.consul.watch import AnswerRejected
from agent.intentions.default_policy import ASK_SECONDS, UNNAMED, read_default, unnamed_caller
from agent.policy.authorize import VerdictReason, authorize
from certs.spiffe import ServiceId, parse
from tests.recorded import body
from tests.support.agent_parts import (
    AUTHORIZE,
    BY_DEFAULT,
    MATCH,
    AgentBench,
    agent_bench,
    registration,
    settings,
)

DENIED_BY_SETTING = {"Authorized": False, "Reason": "Default intention policy"}
WEB = parse("spiffe://x.consul/ns/default/dc/dc1/svc/client")


def watching(nursery: trio.Nursery, *, credentials: bool = False, **flags: str) -> AgentBench:
    """An agent that serves and watches who may call it."""
    bench = agent_bench(nursery, settings(**flags))
    bench.well()
    bench.control.phase = Phase.SERVING
    bench.control.take(registration())
    if credentials:
        bench.control.watch_credentials(registration())
    return bench


def answer(bench: AgentBench, value: object = None, **more: Any) -> None:
    """From now on authorize answers so."""
    bench.consul.replace(AUTHORIZE)
    bench.consul.answer(AUTHORIZE, value, **more)


def reason(bench: AgentBench) -> VerdictReason:
    """What decides about a caller that no intention names."""
    policy = bench.snapshot.policy.value
    assert policy is not None
    assert isinstance(WEB, ServiceId)
    return authorize(policy, WEB, bench.control.intentions.freshness.too_old_since()).reason


def asked(bench: AgentBench) -> int:
    return len(bench.consul.questions(AUTHORIZE))


def changed(bench: AgentBench, source: str, index: int, policy: str = "allow") -> None:
    rule = {"SourceName": source, "DestinationName": "web", "Action": "deny"}
    bench.consul.answer(MATCH, {"web": [rule]}, index=index, policy=policy)


def test_an_intention_that_matched_is_not_the_default() -> None:
    for name in ("authorize-default-allow", "authorize-default-deny"):
        recorded = body(name)
        found = read_default(Answer(value=AuthorizeAnswer(recorded["Authorized"], recorded["Reason"])))
        assert found.authorized is recorded["Authorized"]
    matched = body("authorize-allow")
    with pytest.raises(AnswerRejected, match="intention_matched"):
        read_default(Answer(value=AuthorizeAnswer(matched["Authorized"], matched["Reason"])))


def test_the_unnamed_caller_is_a_service_of_a_namespace_that_no_intention_names() -> None:
    for caller in (unnamed_caller("x.consul", "dc1"), unnamed_caller("", "")):
        identity = parse(caller)
        assert isinstance(identity, ServiceId)
        assert (identity.namespace, identity.service) == (UNNAMED, UNNAMED)


async def test_the_agent_is_asked_as_our_own_datacenter_and_trust_domain_know_it(
    nursery: trio.Nursery, autojump_clock: MockClock
) -> None:
    bench = watching(nursery, credentials=True)
    await trio.sleep(2 * ASK_SECONDS)
    question = bench.consul.questions(AUTHORIZE)[-1]
    assert question.method == "POST"
    contexts = bench.snapshot.credentials.value
    assert contexts is not None
    uri = unnamed_caller(str(contexts.credentials.bundle.trust_domain), "dc1")
    assert json.loads(question.body) == {"Target": "web", "ClientCertURI": uri, "ClientCertSerial": ""}


@pytest.mark.parametrize(
    ("policy", "said", "decides"),
    [
        ("allow", BY_DEFAULT, VerdictReason.DEFAULT_ALLOW),
        ("allow", DENIED_BY_SETTING, VerdictReason.DEFAULT_DENY),
        ("deny", {**DENIED_BY_SETTING, "Authorized": True}, VerdictReason.DEFAULT_DENY),
        ("", BY_DEFAULT, VerdictReason.DEFAULT_DENY),
    ],
)
async def test_the_stricter_of_header_and_authorize_holds(
    nursery: trio.Nursery,
    autojump_clock: MockClock,
    policy: str,
    said: dict[str, Any],
    decides: VerdictReason,
) -> None:
    bench = watching(nursery)
    answer(bench, said)
    bench.consul.replace(MATCH)
    bench.consul.answer(MATCH, {"web": None}, index=7, policy=policy)
    await trio.sleep(1)
    assert reason(bench) is decides
    assert asked(bench) == (policy == "allow")


@pytest.mark.parametrize(
    "wrong",
    [
        {"text": "Permission denied", "status": 403},
        {"text": "rpc error", "status": 500},
        {"text": "not found", "status": 404},
        {"text": "{"},
        {"value": {"Reason": "by default"}},
        {"value": {"Authorized": "true"}},
        {"value": {"Authorized": True, "Reason": "Matched L4 intention: */* => default/web"}},
    ],
)
async def test_no_answer_is_no_default_allow_and_says_why(
    nursery: trio.Nursery, autojump_clock: MockClock, wrong: dict[str, Any]
) -> None:
    bench = watching(nursery)
    answer(bench, **wrong)
    await trio.sleep(1)
    assert reason(bench) is VerdictReason.DEFAULT_UNKNOWN
    policy = bench.snapshot.policy.value
    assert policy is not None
    assert policy.intentions.default == "unknown"
    assert policy.intentions.default_unknown
    answer(bench, BY_DEFAULT)
    await trio.sleep(ASK_SECONDS)
    assert reason(bench) is VerdictReason.DEFAULT_ALLOW


async def test_one_question_a_change_and_one_an_interval(
    nursery: trio.Nursery, autojump_clock: MockClock
) -> None:
    bench = watching(nursery)
    await trio.sleep(1)
    assert asked(bench) == 1
    for number in range(5):
        changed(bench, f"svc{number}", index=8 + number)
        await trio.sleep(2)
        assert asked(bench) == 2 + number
    await trio.sleep(10 * ASK_SECONDS)
    assert 6 + 9 <= asked(bench) <= 6 + 12
    assert len(bench.consul.questions(MATCH)) < 25


async def test_a_change_is_in_force_before_the_default_is_asked_for_again(
    nursery: trio.Nursery, autojump_clock: MockClock
) -> None:
    bench = watching(nursery)
    await trio.sleep(1)
    bench.consul.hang(AUTHORIZE)
    changed(bench, "client", index=8)
    await trio.sleep(0.01)
    assert reason(bench) is VerdictReason.INTENTION_DENY


async def test_the_first_list_comes_with_its_default_and_does_not_wait_for_ever(
    nursery: trio.Nursery, autojump_clock: MockClock
) -> None:
    bench = watching(nursery)
    bench.consul.hang(AUTHORIZE)
    await trio.sleep(10)
    assert bench.snapshot.policy.value is None
    await trio.sleep(10)
    assert reason(bench) is VerdictReason.DEFAULT_UNKNOWN
    assert bench.events().count("intentions.changed") == 1


async def test_another_default_is_taken_up_at_the_next_question(
    nursery: trio.Nursery, autojump_clock: MockClock
) -> None:
    bench = watching(nursery)
    await trio.sleep(1)
    answer(bench, DENIED_BY_SETTING)
    await trio.sleep(1.2 * ASK_SECONDS)
    assert reason(bench) is VerdictReason.DEFAULT_DENY
    assert bench.events().count("intentions.changed") == 2


async def test_an_agent_that_was_away_is_asked_again_at_once(
    nursery: trio.Nursery, autojump_clock: MockClock
) -> None:
    bench = watching(nursery)
    await trio.sleep(1)
    bench.consul.down = True
    bench.consul.drop()
    await trio.sleep(3)
    answer(bench, DENIED_BY_SETTING)
    bench.consul.down = False
    await trio.sleep(10)
    assert reason(bench) is VerdictReason.DEFAULT_DENY


async def test_the_default_outlives_an_outage_as_the_list_does(
    nursery: trio.Nursery, autojump_clock: MockClock
) -> None:
    bench = watching(nursery)
    await trio.sleep(1)
    bench.consul.down = True
    bench.consul.drop()
    await trio.sleep(10**5)
    assert reason(bench) is VerdictReason.DEFAULT_ALLOW


async def test_the_default_does_not_outlive_by_far_a_list_that_is_confirmed(
    nursery: trio.Nursery, autojump_clock: MockClock
) -> None:
    bench = watching(nursery)
    await trio.sleep(1)
    answer(bench, text="Permission denied", status=403)
    await trio.sleep(200)
    assert reason(bench) is VerdictReason.DEFAULT_ALLOW, "a starting agent refuses too"
    await trio.sleep(300)
    assert reason(bench) is VerdictReason.DEFAULT_UNKNOWN
    answer(bench, BY_DEFAULT)
    await trio.sleep(100)
    assert reason(bench) is VerdictReason.DEFAULT_ALLOW


async def test_what_is_too_old_is_made_no_younger_by_the_default(
    nursery: trio.Nursery, autojump_clock: MockClock
) -> None:
    bench = watching(nursery, intentions_max_age="120")
    await trio.sleep(1)
    bench.consul.replace(MATCH)
    bench.consul.answer(MATCH, text="rpc error", status=500)
    await trio.sleep(300)
    assert reason(bench) is VerdictReason.INTENTIONS_TOO_OLD
    answer(bench, DENIED_BY_SETTING)
    version = bench.snapshot.policy.version
    await trio.sleep(2 * ASK_SECONDS)
    assert bench.snapshot.policy.version == version + 1
    assert reason(bench) is VerdictReason.INTENTIONS_TOO_OLD
