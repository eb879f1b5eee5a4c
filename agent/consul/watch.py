"""The loop behind every watch on Consul: ask, compare, publish, wait, ask again.

Theory of operation
-------------------
Consul offers three ways to follow a value (docs/consul-api.md#blocking-queries, #blocking-by-hash,
#prepared-queries). They differ only in where the next question starts:

- INDEX: the answer carries an index; a question with that index blocks until there is a newer one or until
the wait is over. An index is a hint, not a version: it moves without a change, it stands still through a
restart, and it may be missing or 0 (then 1 is used: a question with 0 never blocks). So a change is found by
comparing values. An index below that of the question is rejected unread (`index_went_back`): the answer is an
old one, or comes from a server that has lost its state (Consul 1.18 ends a pending question with an empty
list and index 1 when its token expires). The next question starts from 0, and its answer is taken whatever
its index is: a restored server has lower indexes for good. - HASH: the same with a content hash; an unchanged
hash means that the wait was over. - POLL: the endpoint never blocks (prepared queries); the next question
follows after an interval.

Only `advance` and `goes_back` hold these rules.

Missing rights look like missing instances. A list that Consul has filtered by ACLs says so
(`Answer.filtered`), and an empty one is then a failure (`filtered_by_acls`). But Consul marks only answers to
questions that do not block: with its streaming backend (1.10 and later) the list of a token that has lost its
rights becomes empty, with an unchanged index and without a mark. So a `doubtful` value in an answer that
blocked is not published until a question without an index has confirmed it, or is refused.

Every error clears the position, since another server may answer next. The last good value stays published;
`Latest` cannot take one back. The next question follows after an exponential delay with jitter, of at most
a minute; of at most 8 s while there is no answer at all, since the agent on this host is then most likely
restarting and requests cost it nothing. An answer that was received but cannot be read keeps its position, so
the next question blocks for a better answer instead of asking in a loop.

An unforeseen exception in `ask`, `read` or `publish` is a failure like any other (`internal_error`), logged
with its traceback; a value that was not published completely is published again.

A token bucket bounds all of this: whatever a server does with its indexes, a watch asks at most once a second
on average.

`kick` ends a pause early: when the token has changed, or when every candidate of an upstream has failed.
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
from agent.consul.api import Answer, Blocking
from agent.consul.errors import ConsulError, ConsulReason

R = TypeVar("R")
T = TypeVar("T")

WAIT = 60.0  # seconds Consul may hold a question
BACKOFF_FLOOR, BACKOFF_CEILING = 0.5, 60.0
DENIED_FLOOR = 5.0  # the operator has to act, so asking sooner is of no use
NEARBY_CEILING = (
    8.0  # the agent on this host is down, or does not know us yet; or the token file is being written
)
INTERNAL_ERROR = "internal_error"
RATE, BURST = 1.0, 4  # questions per second on average, and how many at once


class Cursor(StrEnum):
    """How the next question names its position."""

    INDEX = "index"
    HASH = "hash"
    POLL = "poll"


class WatchReason(StrEnum):
    """Why the watch itself rejects an answer of Consul; `read` has reasons of its own."""

    INDEX_WENT_BACK = "index_went_back"
    FILTERED = "filtered_by_acls"  # the token may not see the entries


class AnswerRejected(Exception):
    """An unusable answer, with its named reason; the last good value stays published."""

    unanswered = False

    def __init__(self, reason: StrEnum | str, detail: str) -> None:
        super().__init__(f"{reason}: {detail}")
        self.reason = str(reason)
        self.detail = detail


class WatchCrashed(Exception):
    """An unforeseen exception while an answer was asked for, read or published."""

    reason = INTERNAL_ERROR
    unanswered = False

    def __init__(self, error: Exception) -> None:
        super().__init__(f"{self.reason}: {type(error).__name__}; the log has more")
        self.error = error


Failure = ConsulError | AnswerRejected | WatchCrashed


def advance(cursor: Cursor, at: Blocking, index: int | None, content_hash: str) -> Blocking:
    """Return the position of the next question, after an answer with this index and hash to one at `at`."""
    if goes_back(cursor, at, index):
        return Blocking()
    if cursor is Cursor.INDEX:
        return Blocking(index=index or 1)
    if cursor is Cursor.HASH:
        return Blocking(content_hash=content_hash)
    return Blocking()


def goes_back(cursor: Cursor, at: Blocking, index: int | None) -> bool:
    """Return whether an answer with this index is older than the question at `at`."""
    return cursor is Cursor.INDEX and (index or 1) < at.index


def backoff(failures: int, failure: Failure, rng: Random, *, starting: bool = False) -> float:
    """Return the seconds to wait after `failures` in a row (at least one): doubling, with jitter of -50 %.

    `starting`: we have never served, and Consul may be starting too, so that whatever it says is soon over.
    """
    ceiling, floor = BACKOFF_CEILING, BACKOFF_FLOOR
    if starting:
        ceiling = NEARBY_CEILING
    elif failure.reason in (ConsulReason.DENIED, WatchReason.FILTERED):
        floor = DENIED_FLOOR
    elif failure.unanswered or failure.reason in (ConsulReason.NOT_FOUND, ConsulReason.NOT_ASKED):
        ceiling = NEARBY_CEILING
    rest = min(ceiling, floor * 2.0 ** min(failures - 1, 16)) * rng.uniform(0.5, 1.0)
    asked_for = failure.retry_after if isinstance(failure, ConsulError) else None
    return rest if asked_for is None else max(rest, asked_for * rng.uniform(1.0, 1.25))


class TokenBucket:
    """A token bucket: at most `burst` at once and `rate` per second on average, by trio's clock."""

    def __init__(self, rate: float = RATE, burst: int = BURST) -> None:
        self._rate = rate
        self._burst = burst
        self._level = float(burst)
        self._filled = trio.current_time()

    async def take(self) -> None:
        """Take one token; wait until there is one."""
        now = trio.current_time()
        self._level = min(self._burst, self._level + (now - self._filled) * self._rate) - 1
        self._filled = now
        if self._level < 0:
            await trio.sleep(-self._level / self._rate)


def _ignore(_status: WatchStatus) -> None:
    """Default callback: do nothing."""


def _nothing() -> None:
    """Default `on_kick`: do nothing."""


def _believe(_value: object) -> bool:
    """Default `doubtful`: no value is."""
    return False


def _unlike(_answer: object) -> object:
    """Default `essence`: every answer is read, since it says what no other one says."""
    return object()


@dataclass(kw_only=True)
class Watch(Generic[R, T]):
    """One watched value.

    `ask` sends one question; it may raise ConsulError. `read` makes a value of the answer, at once or in
    steps; it may raise AnswerRejected. `essence` returns what an answer says: one that says what the last one
    that was taken said is not read, and confirms the value. `doubtful` returns whether a changed value must
    be confirmed when it answers a question that blocked. `publish` is called with every value that differs
    from the last one. `on_failure` is called for every failure and may raise to end the watch; `on_recovery`
    when a row of failures is over; `on_filtered` when answers begin or cease to lack what the token may not
    see; `on_answer` for every good answer once its value is published, changed or not.
    """

    name: str
    cursor: Cursor
    ask: Callable[[Blocking], Awaitable[Answer[R]]]
    read: Callable[[Answer[R]], T | Incremental[T]]
    publish: Callable[[T], None]
    poll_interval: float = 30.0  # seconds, for POLL
    essence: Callable[[Answer[R]], object] = _unlike
    doubtful: Callable[[T], bool] = _believe
    on_failure: Callable[[WatchStatus], None] = _ignore
    on_recovery: Callable[[WatchStatus], None] = _ignore
    on_filtered: Callable[[WatchStatus], None] = _ignore
    on_answer: Callable[[WatchStatus], None] = _ignore
    on_kick: Callable[[], None] = _nothing
    status: WatchStatus = field(init=False)
    _kicked: trio.Event = field(init=False, default_factory=trio.Event)
    _last: T | None = field(init=False, default=None)
    _taken: object = field(init=False, default=None, repr=False)  # the essence of what `_last` was read from
    _at: Blocking = field(init=False, default=Blocking())

    def __post_init__(self) -> None:
        self.status = WatchStatus(name=self.name)

    @property
    def index(self) -> int:
        """The index of the newest answer; 0 when the next question starts from the beginning."""
        return self._at.index

    def kick(self) -> None:
        """Ask again soon if the watch pauses between two questions, or waits for its turn."""
        self._kicked.set()
        self.on_kick()

    async def follow(self, clock: Clock, rng: Random) -> None:
        """Watch until cancelled. Raises Exit if `publish` or a callback does."""
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
                self._last = self._taken = None  # publish the value again, even if it is unchanged
                await self._rest_after(WatchCrashed(error), clock, rng)
            else:
                await self._rest(rng)

    async def _rest_after(self, failure: Failure, clock: Clock, rng: Random) -> None:
        """Report the failure; then wait, unless there is a position to block at."""
        self.status.failed(failure, clock())
        self.on_failure(self.status)
        if isinstance(failure, AnswerRejected) and failure.reason != WatchReason.FILTERED:
            await self._rest(rng)
            return
        self._at = Blocking()  # the answer to a blocking question would not say that it is filtered
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
        if self._taken is not None and self._taken == self.essence(answer):
            self._succeeded(at, asked, answer)
        else:
            await self._take(answer, asked, at)

    async def _take(self, answer: Answer[R], asked: Blocking, at: datetime) -> None:
        value = await self._read(answer)
        is_news = value != self._last
        if asked.params and is_news and (self.status.filtered or self.doubtful(value)):
            self._at = Blocking()
            if self.doubtful(value):
                return
        self._succeeded(at, asked, answer, value if is_news else None)
        self._taken = self.essence(answer)

    def _succeeded(self, at: datetime, asked: Blocking, answer: Answer[R], news: T | None = None) -> None:
        recovered = self.status.failing is not None
        self.status.succeeded(at)
        if recovered:
            self.on_recovery(self.status)
        if not asked.params and answer.filtered is not self.status.filtered:
            self.status.filtered = answer.filtered
            self.on_filtered(self.status)
        if news is not None:
            self._last = news
            self.status.changes += 1
            self.publish(news)
        self.on_answer(self.status)

    async def _read(self, answer: Answer[R]) -> T:
        found = self.read(answer)
        return await found.run() if isinstance(found, Incremental) else found

    async def _pause(self, seconds: float) -> None:
        with trio.move_on_after(seconds):
            await self._kicked.wait()
        self._kicked = trio.Event()


def is_gone(status: WatchStatus) -> bool:
    """Return whether Consul says that the watched object does not exist."""
    failing = status.failing
    return isinstance(failing, ConsulError) and failing.reason is ConsulReason.NOT_FOUND
