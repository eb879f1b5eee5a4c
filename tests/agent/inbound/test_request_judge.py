"""Verdicts that are looked up: the same as those that are taken anew, whatever has changed in between."""

from __future__ import annotations

from dataclasses import replace
from datetime import UTC, datetime

import pytest
import trio.testing
from hypothesis import given
from hypothesis import strategies as st

from agent.base.freshness import Confirmation, Freshness
from agent.base.latest import Latest
from agent.http1.request import HttpRequest
from agent.inbound.request_judge import LONGEST, REMEMBERED, RequestJudge
from agent.policy.authorize import Policy, VerdictReason, authorize_request
from agent.policy.narrowing import Narrowing
from tests.scenarios.http_front import allow, deny, policy
from tests.support.http_services import WEB, http_service
from tests.support.policies import allow_all, deny_all, policy_of

NOON = datetime(2026, 1, 1, 12, tzinfo=UTC)
POLICIES = [
    policy(deny(PathPrefix="/no"), allow(PathPrefix="/")),
    policy(allow(PathExact="/a", Header=[{"Name": "x-role", "Exact": "user"}]), default_allow=True),
    policy(
        deny(Header=[{"Name": "X-Role", "Exact": "root"}, {"Name": "x-b", "Present": True}]),
        allow(Methods=["GET"]),
    ),
    policy(allow(PathRegex="(?=a)")),
    replace(policy(deny(PathPrefix="/no"), allow(PathPrefix="/")), audit=True),
    policy_of([{"SourceName": "web", "DestinationName": "db", "Action": "deny"}], default_allow=True),
    policy_of(
        None, default_allow=True, narrowings=(Narrowing(sources=frozenset({"dc2"})),), datacenter="dc1"
    ),
    allow_all(),
    deny_all(),
]
REQUESTS = st.builds(
    HttpRequest,
    method=st.sampled_from(["GET", "get", "POST"]),
    paths=st.sampled_from([("/",), ("/a",), ("/no",), ("/a", "/no"), ("/NO",)]),
    headers=st.dictionaries(
        st.sampled_from(["x-role", "x-b", "x-c", "x-original-url"]),
        st.sampled_from([("user",), ("root",), ("user", "root"), ("root", "user"), (None,), ("user, root",)]),
        max_size=3,
    ),
)


@given(st.lists(st.tuples(st.sampled_from(POLICIES), REQUESTS), max_size=12))
def test_a_verdict_is_the_one_that_would_be_taken_anew(steps: list[tuple[Policy, HttpRequest]]) -> None:
    cell: Latest[Policy] = Latest()
    judge = RequestJudge(http_service(cell), WEB)
    for policy_now, asked in steps:
        cell.publish(policy_now)
        assert judge.verdict(asked) == authorize_request(policy_now, WEB, asked, None)
        assert judge.verdict(asked) == authorize_request(policy_now, WEB, asked, None)


def get(path: str, **headers: tuple[str | None, ...]) -> HttpRequest:
    return HttpRequest(method="GET", paths=(path,), headers=headers)


def judging(policy_now: Policy) -> RequestJudge:
    return RequestJudge(http_service(Latest(policy_now)), WEB)


def test_another_policy_judges_at_once() -> None:
    cell = Latest(POLICIES[0])
    judge = RequestJudge(http_service(cell), WEB)
    assert judge.verdict(get("/")).allowed
    cell.publish(policy(deny(PathPrefix="/")))
    assert not judge.verdict(get("/")).allowed


async def test_intentions_that_have_become_too_old_deny_what_was_allowed_before(
    autojump_clock: trio.testing.MockClock,
) -> None:
    confirmed = Latest(Confirmation(NOON, trio.current_time()))
    judge = RequestJudge(http_service(Latest(POLICIES[0]), Freshness(confirmed, 60, lambda: NOON)), WEB)
    assert judge.verdict(get("/")).allowed
    await trio.sleep(61)
    assert judge.verdict(get("/")).reason is VerdictReason.INTENTIONS_TOO_OLD
    confirmed.publish(Confirmation(NOON, trio.current_time()))
    assert judge.verdict(get("/")).allowed


def test_verdicts_are_looked_up_and_of_a_bounded_number() -> None:
    newest = policy(deny(PathPrefix="/no"), allow(PathPrefix="/"))
    judge = judging(newest)
    assert judge.verdict(get("/a")) is judge.verdict(get("/a", other=("b",)))
    for number in range(2 * REMEMBERED):
        judge.verdict(get(f"/{number}"))
        assert 0 < len(newest.taken(WEB)) <= REMEMBERED


@pytest.mark.parametrize("asked", [get("/" + LONGEST * "x"), get("/", **{"x-a": (LONGEST * "x" + "y",)})])
def test_what_is_long_is_judged_and_not_kept(asked: HttpRequest) -> None:
    newest = policy(deny(Header=[{"Name": "x-a", "Prefix": "z"}]), allow(PathPrefix="/"))
    assert judging(newest).verdict(asked).reason is VerdictReason.PERMISSION_ALLOW
    assert not newest.taken(WEB)
