"""Why a callee has refused us, by the intentions that were looked up, in words."""

from __future__ import annotations

from collections.abc import Sequence

import pytest
import trio
from trio.testing import MockClock

from agent.base.incremental import Incremental
from agent.base.latest import Latest
from agent.outbound.refusal import FRESH_SECONDS, WAIT_SECONDS, RefusalInquiry, explained
from agent.policy.source_intentions import OwnIntentions, read_own_intentions, unknown_own_intentions
from certs.spiffe import ServiceId, TrustDomain

DOMAIN = TrustDomain("x.consul")
WEB = ServiceId(trust_domain=DOMAIN, datacenter="dc1", service="web")
DB = ServiceId(trust_domain=DOMAIN, datacenter="dc2", service="db")


def intentions(rules: Sequence[object], *, default_allow: bool = False) -> OwnIntentions:
    return Incremental(read_own_intentions(rules, default_allow=default_allow)).run_now()


def rule(source: str, destination: str, action: str, **more: object) -> dict[str, object]:
    return {"SourceName": source, "DestinationName": destination, "Action": action, **more}


@pytest.mark.parametrize(
    ("known", "denies", "said"),
    [
        (None, False, "no answer of Consul yet"),
        (unknown_own_intentions("permission denied"), False, "permission denied"),
        (intentions([rule("web", "db", "deny")]), True, "web => db (deny"),
        (
            intentions([rule("*", "*", "deny"), rule("web", "db", "allow")]),
            False,
            "lets us call, so its app does not answer",
        ),
        (intentions([rule("*", "*", "deny"), rule("web", "other", "allow")]), True, "* => * (deny"),
        (intentions([]), True, "default policy (deny)"),
        (intentions([], default_allow=True), False, "default policy (unknown"),
        (intentions([rule("web", "db", "allow", Meta={"source-datacenters": "dc9"})]), True, "dc9"),
        (intentions([rule("web", "db", "allow", Conditions=[1])]), False, "may be denied"),
    ],
)
def test_the_rule_is_named_only_where_it_denies(known: OwnIntentions | None, denies: bool, said: str) -> None:
    refusal = explained(known, WEB, DB)
    assert bool(refusal.rule) is denies
    assert said in refusal.text


def test_another_namespace_is_not_judged_by_our_rules() -> None:
    shop = ServiceId(trust_domain=DOMAIN, datacenter="dc2", service="db", namespace="shop")
    assert explained(intentions([]), WEB, shop).rule == ""


async def test_one_answer_explains_the_refusals_of_some_seconds(autojump_clock: MockClock) -> None:
    asked: list[float] = []
    cell: Latest[OwnIntentions] = Latest()

    def ask() -> None:
        asked.append(trio.current_time())
        cell.publish(intentions([rule("web", "db", "deny")]))

    inquiry = RefusalInquiry(ask)
    for _ in range(3):
        assert (await inquiry.explain(cell, WEB, DB)).rule
    assert len(asked) == 1
    await trio.sleep(FRESH_SECONDS)
    await inquiry.explain(cell, WEB, DB)
    assert len(asked) == 2


async def test_no_answer_holds_up_the_end_for_a_moment_only(autojump_clock: MockClock) -> None:
    began = trio.current_time()
    refusal = await RefusalInquiry(lambda: None).explain(Latest(), WEB, DB)
    assert trio.current_time() - began == pytest.approx(WAIT_SECONDS)
    assert "no answer" in refusal.text


async def test_refusals_that_come_at_once_wait_for_the_one_answer_and_take_no_older_one(
    autojump_clock: MockClock,
) -> None:
    cell: Latest[OwnIntentions] = Latest(intentions([rule("web", "db", "allow")]))
    asked: list[float] = []
    inquiry = RefusalInquiry(lambda: asked.append(trio.current_time()))
    rules: list[str] = []

    async def explain() -> None:
        rules.append((await inquiry.explain(cell, WEB, DB)).rule)

    async with trio.open_nursery() as nursery:
        for _ in range(5):
            nursery.start_soon(explain)
        await trio.sleep(0.2)
        cell.publish(intentions([rule("web", "db", "deny")]))
    assert len(asked) == 1
    assert all("web => db (deny" in one for one in rules)
