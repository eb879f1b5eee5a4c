"""The state is written when a value has changed, and when Consul has confirmed them; not otherwise."""

from __future__ import annotations

from datetime import timedelta

import pytest
import trio

from agent.handover.keep import REFRESH, StateKeeper
from agent.handover.memory import Memory
from agent.handover.state import decode
from tests.agent.handover.runs import run, state_of
from tests.support.agent_parts import MATCH
from tests.support.descriptor_store import Store


async def test_it_is_written_at_each_change_and_when_it_is_confirmed(
    nursery: trio.Nursery, store: Store
) -> None:
    one = run(nursery, store)
    one.bench.well()
    keeper = state_of(one)
    await keeper.write_news()
    assert keeper.current() is None  # nothing is known yet
    async with trio.open_nursery() as inner:
        inner.start_soon(one.run)
        await one.ready()
        await one.until(keeper.memory.states)
        names = list(store.kept)
        await keeper.write_news()
        assert list(store.kept) == names
        denied = {"SourceName": "x", "DestinationName": "web", "Action": "deny"}
        one.bench.consul.answer(MATCH, {"web": [denied]}, index=9)
        await one.until(lambda: list(store.kept) != names)
        await one.until(lambda: len(keeper.memory.states()) == 1)
        (text,) = keeper.memory.states()
        assert "deny" in str(decode(text).intentions)
        names = list(store.kept)
        for status in keeper._watches():  # as time passes
            assert status.answered_at is not None
            status.answered_at += REFRESH
        await keeper.write_news()
        assert list(store.kept) != names
        one.cycle.drain("the test")
    keeper.memory.close()


async def test_what_cannot_be_written_is_a_complaint(
    nursery: trio.Nursery, store: Store, monkeypatch: pytest.MonkeyPatch
) -> None:
    def full(_memory: Memory, _text: bytes) -> None:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(Memory, "keep", full)
    one = run(nursery, store)
    one.bench.well()
    async with trio.open_nursery() as inner:
        inner.start_soon(one.run)
        await one.ready()
        await state_of(one).write_news()
        assert "No space left" in state_of(one).resume.unkept
        assert any("No space left" in text for text in one.bench.agent.complaints)
        one.cycle.drain("the test")


async def test_without_a_place_to_write_to_nothing_runs(nursery: trio.Nursery) -> None:
    one = run(nursery, Store())
    keeper = StateKeeper(control=one.bench.control, memory=Memory(), file=None, resume=state_of(one).resume)
    with trio.fail_after(timedelta(seconds=5).total_seconds()):
        await keeper.run()
