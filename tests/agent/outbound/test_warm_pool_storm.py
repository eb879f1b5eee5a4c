"""The pool of warm connections in any order of events: what it hands out, the test knows to be fit."""

from __future__ import annotations

from dataclasses import replace
from random import Random

import pytest
import trio
from trio.testing import MockClock

from agent.outbound.warm_connection import WarmConnection
from agent.policy.deny_list import NO_ENTRIES
from tests.agent.outbound.test_warm_pool import DENY_DB
from tests.support.warm_upstream import DB, ONE, Story, contexts, story
from tests.upstreams.test_choose import endpoint
from upstreams.route import Candidate

pytestmark = pytest.mark.slow


@pytest.mark.parametrize("seed", range(12))
async def test_whatever_happens_in_whatever_order_nothing_unfit_is_handed_out(
    autojump_clock: MockClock, monkeypatch: pytest.MonkeyPatch, seed: int
) -> None:
    """Held to what the test itself knows to be true of the world at the moment of taking."""
    rng = Random(seed)
    async with story(monkeypatch, replace(DB, warm=3)) as told:
        world = {"generation": 1, "denied": False, "name": "one", "moved": False}
        ended: set[int] = set()
        for _ in range(400):
            _something_happens(rng, told, world, ended)
            if rng.random() < 0.5:
                warm = told.pool.take()
                if warm is not None:
                    _assert_fit(told, warm, world, ended)
                    warm.sock.close()
            await trio.sleep(rng.choice([0, 0, 0.01, 0.1, 1.0, 6.0]))
        assert told.targets.warm_book.used > 5, "the story must have had something to hand out"


def _something_happens(rng: Random, told: Story, world: dict[str, object], ended: set[int]) -> None:
    match rng.randrange(9):
        case 0:
            world["generation"] = generation = told.contexts.version + 1
            told.contexts.publish(contexts(generation))
        case 1:
            world["denied"] = rng.random() < 0.3
            told.deny_list.publish(DENY_DB if world["denied"] else NO_ENTRIES)
        case 2:
            world["name"] = rng.choice(["one", "two"])
            told.lookups.answer("db", endpoint(str(world["name"])))
        case 3 if rng.random() < 0.3:
            told.targets.failed(Candidate(target=0, endpoint=ONE, hop=ONE))
        case 4 if told.far:
            number = rng.randrange(len(told.far))
            if number not in ended and told.far[number].alive:
                ended.add(number)
                told.far[number].end(rng.choice(["closed", "broken"]))
        case _:
            return


def _assert_fit(told: Story, warm: WarmConnection, world: dict[str, object], ended: set[int]) -> None:
    hop = warm.candidate.hop
    assert not world["denied"]
    assert (warm.generation, hop.service_id) == (world["generation"], world["name"])
    assert hop.key not in told.targets.failures.ejected()
    assert warm.age <= told.targets.upstream.warm_idle
    assert told.far_of(warm).alive
    assert told.far.index(told.far_of(warm)) not in ended
