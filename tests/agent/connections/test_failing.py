"""A call that fails is told of until one is served, or for five minutes."""

from __future__ import annotations

import json
from enum import StrEnum
from pathlib import Path

import trio
from trio.testing import MockClock

import agent
from agent.connections.failing import APP_FAILS, MOST, SECONDS, UPSTREAM_FAILS
from agent.connections.ledger import Ledger
from agent.connections.records import Direction
from agent.net.dial import DialReason
from agent.outbound.reasons import OutboundReason
from agent.policy.authorize import VerdictReason
from agent.relay.splice import Ending
from tests.scenarios.recorder import Recorder
from tests.support.two_sidecars import now

UPSTREAMS = ("db@dc2",)


def ended(ledger: Ledger, direction: Direction, reason: StrEnum, detail: str = "", rule: str = "") -> None:
    upstream = "db@dc2" if direction is Direction.OUTBOUND else ""
    with ledger.open(direction, "127.0.0.1:5", upstream) as connection:
        connection.rule = rule
        if reason is Ending.CLEAN:
            connection.relaying()
        connection.end(reason, detail)


async def test_a_failed_call_is_told_of_until_one_is_served() -> None:
    ledger = Ledger(now, Recorder())
    ended(ledger, Direction.OUTBOUND, OutboundReason.DENIED_BY_PEER, "denied", rule="web => db (deny)")
    ended(ledger, Direction.OUTBOUND, OutboundReason.NO_ENDPOINTS, "no instance is passing or warning")
    assert ledger.failing.texts(UPSTREAMS) == [
        "calls to db@dc2 fail: no_endpoints: no instance is passing or warning",
    ]
    ended(ledger, Direction.INBOUND, DialReason.REFUSED, rule="web => db (allow)")
    ended(ledger, Direction.OUTBOUND, Ending.CLEAN)
    assert ledger.failing.texts(UPSTREAMS) == ["our app takes no calls: connect_refused"]
    ended(ledger, Direction.INBOUND, Ending.CLEAN)
    assert ledger.failing.texts(UPSTREAMS) == []


async def test_an_upstream_that_is_no_more_does_not_fail() -> None:
    ledger = Ledger(now, Recorder())
    ended(ledger, Direction.OUTBOUND, OutboundReason.NO_ENDPOINTS)
    assert ledger.failing.texts(("cache",)) == []


async def test_a_refused_caller_is_no_failure_of_ours() -> None:
    ledger = Ledger(now, Recorder())
    ended(ledger, Direction.INBOUND, VerdictReason.DEFAULT_DENY)
    assert ledger.failing.texts(UPSTREAMS) == []


async def test_the_rule_is_named_and_the_text_is_short() -> None:
    ledger = Ledger(now, Recorder())
    ended(ledger, Direction.OUTBOUND, OutboundReason.DENIED_BY_PEER, "x" * 500, rule="web => db (deny)")
    (text,) = ledger.failing.texts(UPSTREAMS)
    assert text.startswith("calls to db@dc2 fail: denied_by_peer: web => db (deny); xxx")
    assert len(text) == MOST


async def test_an_old_failure_is_forgotten(autojump_clock: MockClock) -> None:
    ledger = Ledger(now, Recorder())
    ended(ledger, Direction.OUTBOUND, OutboundReason.ALL_FAILED)
    await trio.sleep(SECONDS)
    assert len(ledger.failing.texts(UPSTREAMS)) == 1
    await trio.sleep(1)
    assert ledger.failing.texts(UPSTREAMS) == []


def test_each_reason_is_one_that_has_a_meaning() -> None:
    known = json.loads((Path(agent.__file__).parent / "page" / "reasons.json").read_text())
    assert known.keys() >= UPSTREAM_FAILS | APP_FAILS
    assert {one.value for one in DialReason} - APP_FAILS == {DialReason.NO_RESOURCES.value}
