"""The one loop behind everything the agent watches: ask, compare, publish, wait, ask again.

Theory of operation
-------------------
Consul has three ways to be asked again (docs/consul-api.md#blocking-queries, #blocking-by-hash,
#prepared-queries), and they differ only in where the next question starts:

- INDEX: the answer carries an index; asking with it blocks until there is a newer one or the wait is over.
  An index is a hint, not a version: it moves without a change, it stands still through a restart, and it
  may be missing or 0 (then 1 is used: asking with 0 for ever would be a busy loop). So what counts as a
  change is the value, compared. An index below the one asked with is no news (`index_went_back`): the
  answer is one of the past, or of a server that has lost its place, and is not looked at (Consul 1.18 ends
  a pending question with an empty list and index 1 when its token expires). The question is asked anew with
  0, and whatever answers that one is taken: a server that was restored has lower indexes for good.
- HASH: the same with a content hash; an unchanged hash is a timeout.
- POLL: the endpoint never blocks (prepared queries); the next question is asked after an interval.

`advance` and `goes_back` hold these rules and nothing else does.

Rights that are missing look like instances that are. A list that Consul has filtered says so
(`Answer.filtered`), and an empty one is then a failure (`filtered_by_acls`); but only to a question that
does not block: by its streaming backend (1.10 and later) the list of a token that has lost its rights
becomes empty with the index as it was and without any sign. So a blocking answer that is `doubtful` is not
believed before an answer to a question without an index says the same, or refuses.

An error, any error, forgets the position: the server may not be the one we asked before. The last good value
stays published; `Latest` has no way to take one back. The next question waits out a jittered exponential
delay of at most a minute, less while nothing answers at all, for then it costs nobody anything and the agent
on this host is most likely restarting. An answer that arrives but cannot be read is different: it has a
position, so the next question blocks for a better one instead of asking in a loop.

An exception that nobody foresaw, in a question, a reader or whoever takes the value, is a failure like any
other (`internal_error`), told with its traceback; what was not taken to the end is news again.

Beneath all of it lies a token bucket: whatever a server does with its indexes, a watch asks once a second on
average.

`kick` ends a waiting early: when the token has changed, or when every candidate of an upstream has failed.
"""

from __future__ import annotations

from collections.abc import Awaitable, Callable
from dataclasses import dataclass, field, replace
from datetime import datetime
from enum import StrEnum
from random import Random
from typing import Generic, TypeVar

import trio

from agent.base.clock import Clock
from agent.base.exits import Exit
from agent.base.incremental import Incremental
from agent.base.watch_status import WatchStatus
from agent.consul.api import Answer, Blocking, ConsulError, ConsulReason

R = TypeVar("R")
T = TypeVar("T")

WAIT = 60.0  # seconds a server may hold a question
BACKOFF_FLOOR, BACKOFF_CEILING = 0.5, 60.0
DENIED_FLOOR = 5.0  # an operator has to act; asking sooner helps nobody
NEARBY_CEILING = 8.0  # the agent on this host is down, or does not know us yet; or a file is being written
INTERNAL_ERROR = "internal_error"
RATE, BURST = 1.0, 4  # questions per second, and how many may come at once


class Cursor(StrEnum):
    """How a watch knows where to go on."""

    INDEX = "index"
    HASH = "hash"
    POLL = "poll"


class WatchReason(StrEnum):
    """Why an answer that Consul has given is left aside, beside the reasons of whoever reads it."""

    INDEX_WENT_BACK = "index_went_back"
    FILTERED = "filtered_by_acls"  # the token may not see what was asked for


class AnswerRejected(Exception):
    """An answer that cannot be used, with its named reason; the last good value stays."""

    unanswered = False

    def __init__(self, reason: StrEnum | str, detail: str) -> None:
        super().__init__(f"{reason}: {detail}")
        self.reason = str(reason)
        self.detail = detail


class WatchCrashed(Exception):
    """An exception that nobody foresaw, where an answer was asked for, read or taken."""

    reason = INTERNAL_ERROR
    unanswered = False

    def __init__(self, error: Exception) -> None:
        super().__init__(f"{self.reason}: {type(error).__name__}; the log has more")
        self.error = error


Failure = ConsulError | AnswerRejected | WatchCrashed


def advance(cursor: Cursor, at: Blocking, index: int | None, content_hash: str) -> Blocking:
    """Where the next question starts after an answer with this index and hash to a question asked `at`."""
    if goes_back(cursor, at, index):
        return Blocking()
    if cursor is Cursor.INDEX:
        return Blocking(index=index or 1)
    if cursor is Cursor.HASH:
        return Blocking(content_hash=content_hash)
    return Blocking()


def goes_back(cursor: Cursor, at: Blocking, index: int | None) -> bool:
    """Whether an answer with this index is from before the question asked `at`."""
    return cursor is Cursor.INDEX and (index or 1) < at.index


def backoff(failures: int, failure: Failure, rng: Random) -> float:
    """Seconds to wait after so many failures in a row (at least one): doubling, jittered downward by half."""
    ceiling, floor = BACKOFF_CEILING, BACKOFF_FLOOR
    if failure.reason in (ConsulReason.DENIED, WatchReason.FILTERED):
        floor = DENIED_FLOOR
    elif failure.unanswered or failure.reason in (ConsulReason.NOT_FOUND, ConsulReason.NOT_ASKED):
        ceiling = NEARBY_CEILING
    return min(ceiling, floor * 2.0 ** min(failures - 1, 16)) * rng.uniform(0.5, 1.0)


class TokenBucket:
    """At most `burst` at once and `rate` per second on average, by trio's clock."""

    def __init__(self, rate: float = RATE, burst: int = BURST) -> None:
        self._rate = rate
        self._burst = burst
        self._level = float(burst)
        self._filled = trio.current_time()

    async def take(self) -> None:
        """Take one, waiting for it if need be."""
        now = trio.current_time()
        self._level = min(self._burst, self._level + (now - self._filled) * self._rate) - 1
        self._filled = now
        if self._level < 0:
            await trio.sleep(-self._level / self._rate)


def _ignore(_status: WatchStatus) -> None:
    """Nobody wants to hear of it."""


def _believe(_value: object) -> bool:
    """Nothing is doubtful."""
    return False


@dataclass(kw_only=True)
class Watch(Generic[R, T]):
    """One thing to watch.

    `ask` asks once or raises ConsulError. `read` makes a value of the answer, at once or in pieces, or raises
    AnswerRejected.
    `doubtful` says whether a value must be confirmed if it is news and answers a question that blocked.
    `publish` is called with every value that differs from the one before. `on_failure` hears of every failure
    and may raise to end it all; `on_recovery` hears when a run of them is over, `on_filtered` when answers
    begin or cease to be short of what the token may not see, `on_answer` of every good answer once its value
    is published, changed or not.
    """

    name: str
    cursor: Cursor
    ask: Callable[[Blocking], Awaitable[Answer[R]]]
    read: Callable[[Answer[R]], T | Incremental[T]]
    publish: Callable[[T], None]
    poll_interval: float = 30.0  # seconds, for POLL
    doubtful: Callable[[T], bool] = _believe
    on_failure: Callable[[WatchStatus], None] = _ignore
    on_recovery: Callable[[WatchStatus], None] = _ignore
    on_filtered: Callable[[WatchStatus], None] = _ignore
    on_answer: Callable[[WatchStatus], None] = _ignore
    status: WatchStatus = field(init=False)
    _kicked: trio.Event = field(init=False, default_factory=trio.Event)
    _last: T | None = field(init=False, default=None)
    _at: Blocking = field(init=False, default=Blocking())

    def __post_init__(self) -> None:
        self.status = WatchStatus(name=self.name)

    @property
    def index(self) -> int:
        """The index of the newest answer; 0 when the next question starts anew."""
        return self._at.index

    def kick(self) -> None:
        """Ask again soon, if the watch is waiting between two questions."""
        self._kicked.set()

    async def follow(self, clock: Clock, rng: Random) -> None:
        """Watch for ever. Raises Exit, if whoever takes a value or hears of a failure does."""
        bucket = TokenBucket()
        while True:
            await bucket.take()
            try:
                await self._ask_and_take(clock)
            except (ConsulError, AnswerRejected) as failure:
                await self._rest_after(failure, clock, rng)
            except Exit:
                raise
            except Exception as error:  # noqa: BLE001 - it ends this question, by name, and not the agent
                self._last = None  # what has not been taken to the end is news again
                await self._rest_after(WatchCrashed(error), clock, rng)
            else:
                await self._rest(rng)

    async def _rest_after(self, failure: Failure, clock: Clock, rng: Random) -> None:
        """Tell it; wait, unless there is a position to block at."""
        self.status.failed(failure, clock())
        self.on_failure(self.status)
        if isinstance(failure, AnswerRejected) and failure.reason != WatchReason.FILTERED:
            await self._rest(rng)
            return
        self._at = Blocking()  # what blocks would be answered without the sign that it is filtered
        await self._pause(backoff(self.status.failures_in_row, failure, rng))

    async def _rest(self, rng: Random) -> None:
        if self.cursor is Cursor.POLL:
            await self._pause(self.poll_interval * rng.uniform(0.9, 1.1))

    async def _ask_and_take(self, clock: Clock) -> None:
        asked = self._at
        answer = await self.ask(replace(asked, wait=WAIT))
        self._at = advance(self.cursor, asked, answer.index, answer.content_hash)
        if goes_back(self.cursor, asked, answer.index):
            detail = f"index {answer.index} after {asked.index}; asked again from 0"
            raise AnswerRejected(WatchReason.INDEX_WENT_BACK, detail)
        at = clock()
        value = await self._read(answer)
        is_news = value != self._last
        if asked.params and is_news and (self.status.filtered or self.doubtful(value)):
            self._at = Blocking()
            if self.doubtful(value):
                return
        self._succeeded(at)
        if not asked.params and answer.filtered is not self.status.filtered:
            self.status.filtered = answer.filtered
            self.on_filtered(self.status)
        if is_news:
            self._last = value
            self.status.changes += 1
            self.publish(value)
        self.on_answer(self.status)

    def _succeeded(self, at: datetime) -> None:
        recovered = self.status.failing is not None
        self.status.succeeded(at)
        if recovered:
            self.on_recovery(self.status)

    async def _read(self, answer: Answer[R]) -> T:
        found = self.read(answer)
        return await found.together() if isinstance(found, Incremental) else found

    async def _pause(self, seconds: float) -> None:
        with trio.move_on_after(seconds):
            await self._kicked.wait()
        self._kicked = trio.Event()


def is_gone(status: WatchStatus) -> bool:
    """Whether Consul says that what is watched does not exist."""
    failing = status.failing
    return isinstance(failing, ConsulError) and failing.reason is ConsulReason.NOT_FOUND
