"""The pool of warm connections in virtual time: how many, how old, whom never to hand out, and patience."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable
from dataclasses import replace
from datetime import timedelta
from typing import cast

import pytest
import trio
from trio.testing import MockClock

from agent.connections.connection import Connection
from agent.connections.records import CloseReason
from agent.outbound.warm_connection import MOST_EARLY, PROVEN_SECONDS, WarmReason
from agent.outbound.warm_pool import LONGEST_REST
from agent.policy.deny_list import parse_deny_list
from agent.policy.source_intentions import parse_outgoing
from tests.certs.authority import TRUST_DOMAIN, Issuer
from tests.support.warm_upstream import DB, ONE, Story, contexts, refused, story, unfinished
from tests.upstreams.test_choose import endpoint
from upstreams.ejection import EjectionPolicy
from upstreams.endpoints import Status
from upstreams.route import Candidate
from upstreams.spec import ServiceDestination

DENY_DB = parse_deny_list(f"spiffe://{TRUST_DOMAIN}/ns/default/dc/*/svc/db")


async def test_as_many_as_wanted_are_ready_after_two_round_trips(
    autojump_clock: MockClock, monkeypatch: pytest.MonkeyPatch
) -> None:
    async with story(monkeypatch) as told:
        await trio.sleep(2 * told.round_trip + 0.01)
        assert (len(told.pool.ready), told.pool.under_way, told.alive) == (2, 0, 2)
        await trio.sleep(30)
        assert len(told.dials) == 2


async def test_one_that_is_taken_is_made_anew_and_is_the_takers(
    autojump_clock: MockClock, monkeypatch: pytest.MonkeyPatch
) -> None:
    async with story(monkeypatch) as told:
        await told.filled()
        oldest = told.pool.ready[0]
        assert told.pool.take() is oldest
        await told.filled()
        assert oldest not in told.pool.ready
        assert (told.targets.warm_book.used, told.targets.warm_book.made, told.alive) == (1, 3, 3)
        told.far_of(oldest).end("broken")
        await trio.sleep(100)
        assert set(told.reasons) == {WarmReason.IDLE.value}, "nobody watches what was taken"
        oldest.sock.close()


async def test_none_gets_too_old_and_all_are_made_anew(
    autojump_clock: MockClock, monkeypatch: pytest.MonkeyPatch
) -> None:
    async with story(monkeypatch, replace(DB, warm=8, warm_idle=20)) as told:
        for _ in range(2000):
            await trio.sleep(0.05)
            assert all(warm.age <= 20.1 for warm in told.pool.ready)
        assert set(told.reasons) == {WarmReason.IDLE.value}
        assert len(told.pool.ready) >= 6
        gone = Counter(round(at) for at in told.dials)
        assert max(list(gone.values())[1:]) < 8, "not all at once"


@pytest.mark.parametrize(("how", "reason"), [("closed", WarmReason.CLOSED), ("broken", WarmReason.LOST)])
async def test_an_end_is_noticed_at_once_and_made_up_for(
    autojump_clock: MockClock, monkeypatch: pytest.MonkeyPatch, how: str, reason: WarmReason
) -> None:
    async with story(monkeypatch) as told:
        await trio.sleep(PROVEN_SECONDS + 1)
        first, second = told.pool.ready
        told.far_of(first).end(how)
        assert told.pool.take() is second, "asked before the watch could run"
        assert told.reasons == [reason.value]
        second.sock.close()
        await trio.sleep(PROVEN_SECONDS + 1)
        told.far_of(told.pool.ready[1]).end(how)
        await trio.sleep(0.01)
        assert told.reasons == [reason.value] * 2, "noticed without being asked"
        assert len(told.pool.ready) == 1
        await told.filled()


@pytest.mark.parametrize("reason", [WarmReason.CLOSED, WarmReason.REFUSED, WarmReason.LOST])
async def test_who_ends_them_soon_is_asked_ever_less_often(
    autojump_clock: MockClock, monkeypatch: pytest.MonkeyPatch, reason: WarmReason
) -> None:
    async with story(monkeypatch, replace(DB, warm=4)) as told:
        seen = 0
        for _ in range(12_000):
            await trio.sleep(0.05)
            for one in told.far[seen:]:
                one.sock.send(b"220 db" if reason is WarmReason.LOST else b"")
                one.end("closed" if reason is WarmReason.CLOSED else "broken")
            seen = len(told.far)
        assert not told.pool.ready
        late = [at for at in told.dials if at > 300]
        assert len(late) <= 2 * 300 / LONGEST_REST
        assert {reason.value} <= set(told.reasons) <= {reason.value, WarmReason.EJECTED.value}
        assert bool(told.told.ejections) is (reason is WarmReason.REFUSED), "the others are not told on"


@pytest.mark.parametrize("most", [1, 1000])  # failures before an endpoint is ejected, which is a rest too
@pytest.mark.parametrize("fault", [refused, unfinished])
async def test_failures_are_told_on_and_tried_one_at_a_time_ever_less_often(
    autojump_clock: MockClock, monkeypatch: pytest.MonkeyPatch, fault: Exception, most: int
) -> None:
    upstream = replace(DB, warm=5, ejection=EjectionPolicy(max_failures=most))
    async with story(monkeypatch, upstream) as told:
        told.fault = fault
        await trio.sleep(0.01)
        assert len(told.dials) == 5
        await trio.sleep(600)
        assert 5 < len(told.dials) < 5 + 600 / 10
        assert bool(told.told.ejections) is (most == 1)
        assert told.targets.warm_book.failed.total() == len(told.events.failed) == len(told.dials)
        told.fault = None
        await trio.sleep(301 + LONGEST_REST)  # the longest ejection
        assert len(told.pool.ready) >= 1
        await told.filled(5)


async def test_after_a_setback_it_is_back_to_full_speed_once_one_has_lived(
    autojump_clock: MockClock, monkeypatch: pytest.MonkeyPatch
) -> None:
    async with story(monkeypatch) as told:
        await told.filled()
        for one in told.far:
            one.end("closed")
        await trio.sleep(0.01)
        assert not told.pool.ready
        await told.filled()
        await trio.sleep(PROVEN_SECONDS)
        for warm in (told.pool.take(), told.pool.take()):
            assert warm is not None
            warm.sock.close()
        await trio.sleep(2 * told.round_trip + 0.01)
        assert len(told.pool.ready) == 2


def eject(told: Story) -> None:
    told.targets.failed(Candidate(target=0, endpoint=ONE, hop=ONE))


CHANGES: list[tuple[str, Callable[[Story], None]]] = [
    ("new_credentials", lambda told: told.contexts.publish(contexts(2))),
    ("deny_listed", lambda told: told.deny_list.publish(DENY_DB)),
    ("peer_expired", lambda told: setattr(told, "skew", timedelta(hours=1, seconds=1))),
    ("endpoint_ejected", eject),
    ("endpoint_gone", lambda told: told.lookups.answer("db", endpoint("two"))),
    ("endpoint_gone", lambda told: told.lookups.answer("db")),
    ("endpoint_gone", lambda told: told.lookups.answer("db", replace(ONE, port=2))),
    ("endpoint_gone", lambda told: told.lookups.answer("db", replace(ONE, service_address="10.0.0.9"))),
    (
        "endpoint_gone",
        lambda told: told.lookups.answer(
            "db", replace(ONE, expected=replace(ONE.expected, service="another"))
        ),
    ),
]


@pytest.mark.parametrize("asked", ["at once", "later"])
@pytest.mark.parametrize(("reason", "change"), CHANGES)
async def test_what_must_not_be_used_any_more_is_never_handed_out(
    autojump_clock: MockClock,
    monkeypatch: pytest.MonkeyPatch,
    reason: str,
    change: Callable[[Story], None],
    asked: str,
) -> None:
    async with story(monkeypatch) as told:
        await told.filled()
        before = list(told.pool.ready)
        change(told)
        if asked == "at once":
            assert told.pool.take() is None
        else:
            told.fault = refused
            await trio.sleep(1.5)
        assert told.reasons[:2] == [reason, reason]
        assert told.alive == 0 or not set(before) & set(told.pool.ready)


async def test_a_root_that_is_no_longer_trusted(
    autojump_clock: MockClock, monkeypatch: pytest.MonkeyPatch
) -> None:
    """With the generation set aside, which would have been enough."""
    async with story(monkeypatch) as told:
        await told.filled()
        told.contexts.publish(contexts(1, root=Issuer.root()))
        assert told.pool.take() is None
        assert told.reasons[:2] == [CloseReason.ROOT_REMOVED.value] * 2


async def test_all_are_made_anew_with_new_credentials(
    autojump_clock: MockClock, monkeypatch: pytest.MonkeyPatch
) -> None:
    async with story(monkeypatch) as told:
        await told.filled()
        told.contexts.publish(contexts(2))
        await trio.sleep(2 * told.round_trip + 0.01)
        assert [warm.generation for warm in told.pool.ready] == [2, 2]


async def test_credentials_that_change_in_a_handshake(
    autojump_clock: MockClock, monkeypatch: pytest.MonkeyPatch
) -> None:
    async with story(monkeypatch) as told:
        await trio.sleep(1.5 * told.round_trip)
        told.contexts.publish(contexts(2))
        await trio.sleep(told.round_trip)
        assert told.pool.take() is None
        await told.filled()
        assert {warm.generation for warm in told.pool.ready} == {2}


async def test_a_handshake_that_fails_by_credentials_of_the_past_is_nobodys_fault(
    autojump_clock: MockClock, monkeypatch: pytest.MonkeyPatch
) -> None:
    async with story(monkeypatch) as told:
        told.fault = unfinished
        await trio.sleep(0.5 * told.round_trip)
        told.contexts.publish(contexts(2))
        await trio.sleep(0.51 * told.round_trip)
        told.fault = None
        assert told.targets.warm_book.failed.total() == 2
        await trio.sleep(2 * told.round_trip)
        assert len(told.pool.ready) == 2, "both were tried again at once"
        assert told.told.ejections == []


async def test_without_credentials_in_force_nobody_is_called(
    autojump_clock: MockClock, monkeypatch: pytest.MonkeyPatch
) -> None:
    async with story(monkeypatch) as told:
        await told.filled()
        told.skew = timedelta(days=3, seconds=1)
        dials = len(told.dials)
        await trio.sleep(20)
        assert (len(told.pool.ready), len(told.dials)) == (0, dials)


async def test_traffic_that_moves_to_a_stand_in_takes_the_pool_with_it(
    autojump_clock: MockClock, monkeypatch: pytest.MonkeyPatch
) -> None:
    upstream = replace(DB, failover=(ServiceDestination("db", "dc2"),))
    async with story(monkeypatch, upstream) as told:
        told.lookups.answer("db@dc2", endpoint("far"))
        await told.filled()
        told.lookups.answer("db")
        assert told.pool.take() is None
        await told.filled()
        assert {warm.candidate.hop.service_id for warm in told.pool.ready} == {"far"}


async def test_a_worse_instance_is_left_when_a_better_one_is_back(
    autojump_clock: MockClock, monkeypatch: pytest.MonkeyPatch
) -> None:
    async with story(monkeypatch) as told:
        told.lookups.answer("db", replace(ONE, status=Status.WARNING))
        await told.filled()
        told.lookups.answer("db", replace(ONE, status=Status.WARNING), endpoint("two"))
        assert told.pool.take() is None
        assert told.reasons[:2] == ["endpoint_gone"] * 2


async def test_they_count_against_the_limit_of_connections(
    autojump_clock: MockClock, monkeypatch: pytest.MonkeyPatch
) -> None:
    async with story(monkeypatch, replace(DB, warm=4, max_connections=5)) as told:
        await told.filled(4)
        live = [cast("Connection", object()) for _ in range(5)]
        for number, connection in enumerate(live, 1):
            told.targets.connections.add(connection)
            await trio.sleep(1.1)
            assert len(told.pool.ready) == min(4, 5 - number)
        assert set(told.reasons) == {WarmReason.NOT_WANTED.value}
        told.targets.connections.clear()
        await told.filled(4)


async def test_as_many_as_the_newest_settings_say(
    autojump_clock: MockClock, monkeypatch: pytest.MonkeyPatch
) -> None:
    async with story(monkeypatch) as told:
        for count in (5, 1, 3):
            told.targets.become(replace(DB, warm=count))
            await trio.sleep(1.5)
            assert len(told.pool.ready) == told.alive == count


async def test_what_the_far_side_says_first_is_kept_in_order(
    autojump_clock: MockClock, monkeypatch: pytest.MonkeyPatch
) -> None:
    async with story(monkeypatch, replace(DB, warm=1)) as told:
        await told.filled(1)
        told.far[0].send(b"220 db ")
        await trio.sleep(1)
        told.far[0].send(b"ready\r\n")
        warm = told.pool.take()
        assert warm is not None
        assert bytes(warm.early) == b"220 db ready\r\n"
        warm.sock.close()


async def test_one_that_spoke_and_left_is_noticed(
    autojump_clock: MockClock, monkeypatch: pytest.MonkeyPatch
) -> None:
    async with story(monkeypatch, replace(DB, warm=1)) as told:
        await told.filled(1)
        told.far[0].send(b"220 db ready\r\n")
        await trio.sleep(1)
        told.far[0].end("closed")
        assert told.pool.take() is None
        assert told.reasons == [WarmReason.CLOSED.value]


async def test_who_says_too_much_is_given_up(
    autojump_clock: MockClock, monkeypatch: pytest.MonkeyPatch
) -> None:
    async with story(monkeypatch, replace(DB, warm=1)) as told:
        await told.filled(1)
        told.far[0].send(bytes([1]) * (MOST_EARLY + 1))
        await trio.sleep(0.01)
        assert told.reasons == [WarmReason.TALKATIVE.value]


async def test_what_our_own_list_denies_is_not_kept_nor_made_and_no_instance_is_blamed(
    autojump_clock: MockClock, monkeypatch: pytest.MonkeyPatch
) -> None:
    async with story(monkeypatch) as told:
        await told.filled()
        denied = {"SourceName": "web", "DestinationName": "db", "Action": "deny"}
        told.outgoing.publish(parse_outgoing([denied]))
        assert told.pool.take() is None, "in the moment it is denied"
        await trio.sleep(60)
        assert set(told.reasons) == {CloseReason.INTENTION_WITHDRAWN.value}
        assert (len(told.pool.ready), len(told.dials), told.alive) == (0, 2, 0)
        assert told.targets.failures.ejected() == {}
        told.outgoing.publish(parse_outgoing(None))
        await told.filled()
        assert told.alive == 2
