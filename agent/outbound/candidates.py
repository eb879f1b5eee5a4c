"""Finds candidates for one connection, one after another, until one serves or the time is up.

Before the search gives up it asks for newer answers and waits for them, where they can be expected: a
prepared query that is polled slowly may have a better answer already, and the first answer for a new upstream
may be on its way.
"""

from __future__ import annotations

from collections.abc import Iterator

import trio

from agent.base.latest import any_newer
from agent.outbound.upstream_state import UpstreamState
from upstreams.endpoints import EndpointKey, ExpectedIdentity
from upstreams.route import Candidate

MOST_ATTEMPTS = 16  # candidates tried for one connection
ASK_SECONDS = 0.5  # the interval of asking meanwhile; the watch's own rate limit applies beneath it

_Tried = tuple[ExpectedIdentity, EndpointKey, str, int, str]


class CandidateSearch:
    """The candidates of one connection, over all targets of its upstream."""

    def __init__(self, targets: UpstreamState) -> None:
        self._targets = targets
        self._deadline = trio.current_time() + targets.upstream.deadline
        self._news_until: float | None = None
        self._ask_at = trio.current_time()
        self._tried: set[_Tried] = set()
        self._begin()

    async def next(self) -> Candidate | None:
        """Return the next candidate, each once; None when there is none left, or no time."""
        while len(self._tried) < MOST_ATTEMPTS and trio.current_time() < self._deadline:
            for candidate in self._ways:
                if self._take(candidate):
                    return candidate
            if not await self._news():
                return None
            self._begin()
        return None

    def seconds(self, candidate: Candidate, most: float) -> float:
        """Return how long a step of this candidate may take, so that the targets after it get their share."""
        left = max(0.0, self._deadline - trio.current_time())
        return min(most, left / candidate.left)

    def served(self) -> None:
        """Note that a candidate has served. If the search must go on, its whole time starts again."""
        self._deadline = trio.current_time() + self._targets.upstream.deadline
        self._news_until = None

    @property
    def late(self) -> bool:
        """Whether the time is up."""
        return trio.current_time() >= self._deadline

    def _begin(self) -> None:
        self._seen = [(source, source.endpoints.version) for source in self._targets.sources()]
        self._ways: Iterator[Candidate] = self._targets.candidates()

    def _take(self, candidate: Candidate) -> bool:
        """Return whether the candidate is new; an instance at another address is another candidate."""
        hop = candidate.hop
        way = (candidate.endpoint.expected, hop.key, hop.service_address, hop.port, hop.node_address)
        if way in self._tried:
            return False
        self._tried.add(way)
        return True

    async def _news(self) -> bool:
        """Wait for an answer newer than those searched; return whether one came."""
        unknown = [(gate, 0) for gate in self._targets.gateways() if gate.endpoints.value is None]
        hopeful = [(source, version) for source, version in self._seen if source.may_have_news] + unknown
        if not hopeful:
            return False
        if self._news_until is None:
            patience = max(source.news_seconds for source, _ in hopeful)
            self._news_until = min(trio.current_time() + patience, self._deadline)
        while trio.current_time() < self._news_until:
            if trio.current_time() >= self._ask_at:
                self._ask_at = trio.current_time() + ASK_SECONDS
                for source, _ in hopeful:
                    source.ask_again()
            with trio.move_on_at(min(self._news_until, self._ask_at)):
                await any_newer((source.endpoints, version) for source, version in (*self._seen, *unknown))
                return True
        return False
