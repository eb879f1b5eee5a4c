"""The longest that a change waits after a storm, in virtual time: a read that hung, and an hour of errors."""

from __future__ import annotations

from random import Random

import trio
from trio.testing import MockClock

from agent.consul.watch import BACKOFF_CEILING, WAIT, Watch
from agent.control.watches import intentions_watch
from tests.support.agent_parts import MATCH, virtual
from tests.support.fake_consul import FakeConsul, Scripted
from tests.weather.story import bound

HUNG = WAIT * 17 / 16 + 10  # seconds until a blocking read without an answer is given up


def rule(source: str) -> dict[str, object]:
    return {"SourceName": source, "DestinationName": "web", "Action": "deny", "Precedence": 9}


def said(consul: FakeConsul, source: str, index: int) -> None:
    consul.answer(MATCH, {"web": [rule(source)]}, index=index)


async def begun(nursery: trio.Nursery, consul: FakeConsul, seen: list[str]) -> Watch[bytes, object]:
    """Follow the intentions of web; the first rule's source of every list is noted."""
    said(consul, "first", 7)
    watch = intentions_watch(consul.client(nursery), "web", lambda found: seen.append(str(found.rules[0])))
    nursery.start_soon(watch.follow, virtual, Random(3))
    await trio.sleep(1)
    assert len(seen) == 1
    return watch  # type: ignore[return-value]  # what it publishes is of no interest here


async def test_a_read_that_hangs_is_given_up_and_asked_again(autojump_clock: MockClock) -> None:
    consul, seen = FakeConsul(), list[str]()
    async with trio.open_nursery() as nursery:
        await begun(nursery, consul, seen)
        consul.say(MATCH, Scripted(hang=True))  # it ends the pending read, and is the answer to it
        said(consul, "second", 8)
        with trio.fail_after(HUNG + 8 + 1):  # and the pause after it, since there was no answer at all
            while len(seen) < 2:  # noqa: ASYNC110 - the watch publishes to a list
                await trio.sleep(0.1)
        assert trio.current_time() >= HUNG
        nursery.cancel_scope.cancel()


async def test_after_an_hour_of_errors_a_change_is_seen_within_a_minute(autojump_clock: MockClock) -> None:
    consul, seen = FakeConsul(), list[str]()
    async with trio.open_nursery() as nursery:
        await begun(nursery, consul, seen)
        began, asked = trio.current_time(), len(consul.asked)
        consul.replace(MATCH)
        consul.say(MATCH, Scripted(status=500, body=b"No cluster leader"))
        consul.drop()
        await trio.sleep(3600)
        assert len(consul.asked) - asked <= 10 + 3600 / (BACKOFF_CEILING / 2)
        consul.replace(MATCH)
        said(consul, "second", 8)
        with trio.fail_after(bound(trio.current_time() - began) + 1):
            while len(seen) < 2:  # noqa: ASYNC110 - as above
                await trio.sleep(0.1)
        nursery.cancel_scope.cancel()
