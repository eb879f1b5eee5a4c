"""The search for somebody who serves one connection: way after way, until one does or the time is up.

Where news can be expected, it is asked and waited for before the search gives up: a prepared query that is
polled slowly at rest may long know a better answer, and an upstream that was only just configured has its
first answer under way.
"""

from __future__ import annotations

from collections.abc import Iterator

import trio

from agent.base.latest import any_newer
from agent.outbound.upstream_state import UpstreamState
from upstreams.endpoints import EndpointKey, ExpectedIdentity
from upstreams.route import Candidate

MOST_ATTEMPTS = 16  # ways tried for one connection
NEWS_SECONDS = 2.0  # how long to wait for a newer answer once everything known has failed
ASK_SECONDS = 0.5  # how often it is asked for meanwhile; the watch has a rate of its own beneath this

_Tried = tuple[ExpectedIdentity, EndpointKey, str, int, str]


class CandidateSearch:
    """One connection's way through the targets of its upstream."""

    def __init__(self, targets: UpstreamState) -> None:
        self._targets = targets
        self._deadline = trio.current_time() + targets.upstream.deadline
        self._news_until: float | None = None
        self._ask_at = trio.current_time()
        self._tried: set[_Tried] = set()
        self._begin()

    async def next(self) -> Candidate | None:
        """The next way to try, each once; None when there is none left, or no time."""
        while len(self._tried) < MOST_ATTEMPTS and trio.current_time() < self._deadline:
            for approach in self._ways:
                if self._take(approach):
                    return approach
            if not await self._news():
                return None
            self._begin()
        return None

    def seconds(self, approach: Candidate, most: float) -> float:
        """How long one step of this way may take, so that the targets after it get their share."""
        left = max(0.0, self._deadline - trio.current_time())
        return min(most, left / approach.left)

    def served(self) -> None:
        """Somebody answered. Should the search have to go on, it has its whole time again."""
        self._deadline = trio.current_time() + self._targets.upstream.deadline
        self._news_until = None

    @property
    def late(self) -> bool:
        """Whether the time is up."""
        return trio.current_time() >= self._deadline

    def _begin(self) -> None:
        self._seen = [(source, source.endpoints.version) for source in self._targets.sources()]
        self._ways: Iterator[Candidate] = self._targets.approaches()

    def _take(self, approach: Candidate) -> bool:
        """An instance that has moved to another address is another way."""
        hop = approach.hop
        way = (approach.endpoint.expected, hop.key, hop.service_address, hop.port, hop.node_address)
        if way in self._tried:
            return False
        self._tried.add(way)
        return True

    async def _news(self) -> bool:
        """Wait for an answer newer than what has just been gone through; whether one came."""
        unknown = [(gate, 0) for gate in self._targets.gateways() if gate.endpoints.value is None]
        hopeful = [(source, version) for source, version in self._seen if source.may_have_news] + unknown
        if not hopeful:
            return False
        if self._news_until is None:
            self._news_until = min(trio.current_time() + NEWS_SECONDS, self._deadline)
        while trio.current_time() < self._news_until:
            if trio.current_time() >= self._ask_at:
                self._ask_at = trio.current_time() + ASK_SECONDS
                for source, _ in hopeful:
                    source.ask_again()
            with trio.move_on_at(min(self._news_until, self._ask_at)):
                await any_newer((source.endpoints, version) for source, version in (*self._seen, *unknown))
                return True
        return False
