"""Sixty sidecars that start beside an agent which takes 200 connections, however their looks interleave.

The kernel's table and the agent are played in virtual time, the sidecars' budgets and rooms are the true
ones. A look takes up to a second, and what it has seen is as old as that when it is used. An answer takes up
to two seconds. The agent goes on counting a question of some kinds that was given up, until its wait is over
(docs/consul-api.md#the-connection-budget).
"""

from __future__ import annotations

from dataclasses import dataclass, field
from functools import partial
from random import Random

import pytest
import trio
from trio.testing import MockClock

from agent.base.clock import now
from agent.consul.api import Answer, Blocking
from agent.consul.budget import Budget, Rank, Urgency
from agent.consul.room import Look, Room
from agent.consul.watch import Cursor, Watch

LIMIT, SIDECARS = 200, 60
OWN = (Rank.INTENTIONS, Rank.ROOTS, Rank.LEAF, Rank.REGISTRATION, Rank.SOURCE_INTENTIONS)
GHOSTS = (Rank.INTENTIONS, Rank.REGISTRATION, Rank.SOURCE_INTENTIONS)  # counted on after they were given up


@dataclass
class Agent:
    """An agent and the connections of its host, those that it counts on among them."""

    rng: Random
    open: int = 0
    most: int = 0
    refused: int = 0
    slow: float = 0.02  # seconds that an answer takes at most
    look: float = 0.01  # seconds that a look takes at most
    cost: float = 0.0  # seconds of CPU of a look

    def opened(self) -> None:
        self.open += 1
        self.most = max(self.most, self.open)
        self.refused += self.open > LIMIT

    async def count(self) -> Look:
        await trio.sleep(self.rng.uniform(0, self.look / 2))
        seen = self.open
        await trio.sleep(self.rng.uniform(0, self.look / 2))
        return Look(host=seen, cost=self.cost)


@dataclass
class Sidecar:
    """The connections of one sidecar: in use, or idle and kept."""

    agent: Agent
    nursery: trio.Nursery
    budget: Budget = field(default_factory=lambda: Budget(3, 16))
    known: set[str] = field(default_factory=set)
    open: int = 0
    idle: int = 0
    kept: int = 3

    async def answer(self, name: str, rank: Rank, at: Blocking) -> Answer[str]:
        if self.idle:
            self.idle -= 1
        else:
            self.open += 1
            self.agent.opened()
        answered = False
        began = trio.current_time()
        try:
            await trio.sleep(self.agent.rng.uniform(0, self.agent.slow) + (at.wait if at.index else 0.0))
            answered = True
        finally:
            if answered and self.open <= self.kept:
                self.idle += 1
            else:
                self.open -= 1
                left = began + at.wait * 17 / 16 - trio.current_time()
                ghost = not answered and at.index and rank in GHOSTS
                self.nursery.start_soon(self._let_go, left if ghost else 0.0)
        self.known.add(name)
        return Answer(value=name, index=7)

    async def _let_go(self, seconds: float) -> None:
        await trio.sleep(max(0.0, seconds))
        self.agent.open -= 1

    async def keep(self, connections: int) -> None:
        self.kept = connections
        while self.idle and self.open > connections:
            self.idle, self.open = self.idle - 1, self.open - 1
            self.agent.open -= 1

    async def run(self, after: float) -> None:
        await trio.sleep(after)
        room = Room(self.budget, self.keep, self.agent.count, self.agent.rng)
        self.nursery.start_soon(room.follow)
        async with self.budget.turn(Urgency.OWN):
            await self.answer("identity", Rank.LEAF, Blocking())
        for rank in (*OWN, *[Rank.ENDPOINTS] * 8):
            name = f"{rank.name} {len(self.known)} {self.budget.in_turn}"
            ask = partial(self.answer, name, rank)
            watch = Watch(
                name=name,
                cursor=Cursor.INDEX,
                ask=ask,
                read=lambda answer: answer.value,
                publish=lambda _: None,
            )
            self.budget.place(rank, watch).join()
            self.nursery.start_soon(watch.follow, now, self.agent.rng)


@pytest.mark.parametrize("seed", range(3))
@pytest.mark.parametrize("within", [0.0, 2.0, 20.0])
@pytest.mark.parametrize("early", [0, 5, 9])
async def test_sixty_that_start_are_never_refused(
    nursery: trio.Nursery, autojump_clock: MockClock, early: int, within: float, seed: int
) -> None:
    """`early` have all that is to be had when the others start, `within` so many seconds and under load."""
    rng = Random(seed)
    agent = Agent(rng)
    sidecars = [Sidecar(agent, nursery) for _ in range(SIDECARS)]
    for one in sidecars[:early]:
        nursery.start_soon(one.run, rng.uniform(0, 1))
    await trio.sleep(60)
    assert sum(one.budget.connections for one in sidecars[:early]) >= 12 * early
    agent.slow, agent.look = 2.0, 1.0
    for one in sidecars[early:]:
        nursery.start_soon(one.run, rng.uniform(0, within))
    await trio.sleep(within + 120)
    assert (agent.refused, agent.most <= LIMIT) == (0, True)
    assert {one.budget.connections for one in sidecars} == {3}
    assert {len(one.known) for one in sidecars} == {14}


async def test_sixty_have_their_least_soon_where_looks_are_dear_and_so_rare(
    nursery: trio.Nursery, autojump_clock: MockClock
) -> None:
    """As beside 20,000 sockets that wait for their end. None that starts is left with less for minutes."""
    agent = Agent(Random(5), cost=0.06)
    sidecars = [Sidecar(agent, nursery) for _ in range(SIDECARS)]
    for one in sidecars:
        nursery.start_soon(one.run, agent.rng.uniform(0, 0.5))
    await trio.sleep(50)
    assert agent.most <= LIMIT
    assert {one.budget.connections for one in sidecars} == {3}
