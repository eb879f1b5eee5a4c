"""The watch loop in virtual time, against a scripted agent."""

from __future__ import annotations

from collections.abc import Callable
from datetime import UTC, datetime, timedelta
from random import Random

import pytest
import trio
from trio.testing import MockClock, wait_all_tasks_blocked

from agent.base.watch_status import WatchStatus
from agent.consul.api import Answer, Blocking
from agent.consul.errors import ConsulError, ConsulReason
from agent.consul.watch import (
    BACKOFF_CEILING,
    BURST,
    DENIED_FLOOR,
    NEARBY_CEILING,
    WAIT,
    AnswerRejected,
    Cursor,
    Failure,
    TokenBucket,
    Watch,
    WatchReason,
    advance,
    backoff,
)

EPOCH = datetime(2031, 5, 17, tzinfo=UTC)
Reply = Answer[str] | ConsulError


def clock() -> datetime:
    return EPOCH + timedelta(seconds=trio.current_time())


def error(reason: ConsulReason = ConsulReason.UNAVAILABLE, status: int | None = 500) -> ConsulError:
    return ConsulError(reason, "/v1/x", "no", status=status)


@pytest.mark.parametrize(
    ("at", "index", "following"),
    [
        (0, 7, 7),
        (7, 9, 9),
        (7, 7, 7),  # a timeout
        (7, 3, 0),  # backwards: start again
        (0, 0, 1),  # never ask with 0 for ever
        (0, None, 1),
        (7, None, 0),
        (7, 0, 0),
    ],
)
def test_where_an_index_leads(at: int, index: int | None, following: int) -> None:
    assert advance(Cursor.INDEX, Blocking(index=at), index, "") == Blocking(index=following)


def test_where_a_hash_and_a_poll_lead() -> None:
    assert advance(Cursor.HASH, Blocking(content_hash="a"), 5, "b") == Blocking(content_hash="b")
    assert advance(Cursor.HASH, Blocking(content_hash="a"), 5, "") == Blocking()
    assert advance(Cursor.POLL, Blocking(), 1, "x") == Blocking()


@pytest.mark.parametrize(
    ("failure", "first", "last"),
    [
        (error(), 0.5, BACKOFF_CEILING),
        (error(ConsulReason.RATE_LIMITED, 429), 0.5, BACKOFF_CEILING),
        (error(ConsulReason.DENIED, 403), DENIED_FLOOR, BACKOFF_CEILING),
        (error(ConsulReason.UNAVAILABLE, None), 0.5, NEARBY_CEILING),
        (error(ConsulReason.NOT_FOUND, 404), 0.5, NEARBY_CEILING),
        (AnswerRejected(WatchReason.FILTERED, "no rights"), DENIED_FLOOR, BACKOFF_CEILING),
    ],
)
def test_how_long_to_wait_after_failures(failure: Failure, first: float, last: float) -> None:
    rng = Random(7)
    for _ in range(50):
        assert first / 2 <= backoff(1, failure, rng) <= first
        assert first <= backoff(2, failure, rng) <= first * 2
        assert last / 2 <= backoff(10_000, failure, rng) <= last


@pytest.mark.parametrize("reason", [ConsulReason.DENIED, ConsulReason.UNAVAILABLE, ConsulReason.NOT_FOUND])
def test_a_start_waits_shortly_whatever_was_refused(reason: ConsulReason) -> None:
    assert backoff(1, error(reason, 403), Random(7), starting=True) <= 0.5
    assert backoff(10_000, error(reason, 403), Random(7), starting=True) <= NEARBY_CEILING


@pytest.mark.parametrize("rate", [1, 4])
async def test_a_bucket_lets_a_burst_through_and_then_its_rate(autojump_clock: MockClock, rate: int) -> None:
    bucket, times = TokenBucket(rate=rate, burst=3), []
    for _ in range(6):
        await bucket.take()
        times.append(trio.current_time() * rate)
    assert times == [0, 0, 0, 1, 2, 3]
    await trio.sleep(2 / rate)
    for _ in range(3):
        await bucket.take()
    assert trio.current_time() * rate == 6


class Script:
    """Answers in order; when they are used up a question waits for ever. Keeps when and what was asked."""

    def __init__(self, *replies: Reply) -> None:
        self.replies = list(replies)
        self.asked: list[tuple[float, Blocking]] = []

    async def ask(self, at: Blocking) -> Answer[str]:
        await trio.lowlevel.checkpoint()
        self.asked.append((trio.current_time(), at))
        if not self.replies:
            await trio.sleep_forever()
        reply = self.replies.pop(0)
        if isinstance(reply, ConsulError):
            raise reply
        return reply


def answer(value: str, index: int | None = None, content_hash: str = "") -> Answer[str]:
    return Answer(value=value, index=index, content_hash=content_hash)


def read(reply: Answer[str]) -> str:
    if reply.value.startswith("bad"):
        raise AnswerRejected("malformed", reply.value)
    return reply.value


def watching(script: Script, cursor: Cursor = Cursor.INDEX) -> tuple[Watch[str, str], list[str]]:
    published: list[str] = []
    watch = Watch(name="x", cursor=cursor, ask=script.ask, read=read, publish=published.append)
    return watch, published


async def follow(watch: Watch[str, str], seconds: float = 10_000) -> None:
    with trio.move_on_after(seconds):
        await watch.follow(clock, Random(7))


async def test_each_question_goes_on_from_the_last_answer(autojump_clock: MockClock) -> None:
    script = Script(answer("a", 5), answer("b", 9), answer("c", 9), answer("d", 10))
    watch, published = watching(script)
    await follow(watch)
    assert published == ["a", "b", "c", "d"]
    assert [at for _, at in script.asked] == [Blocking(index=index, wait=WAIT) for index in (0, 5, 9, 9, 10)]


async def test_only_another_value_is_published(autojump_clock: MockClock) -> None:
    watch, published = watching(Script(answer("a", 5), answer("a", 6), answer("a", 6), answer("b", 7)))
    await follow(watch)
    assert published == ["a", "b"]
    assert (watch.status.answers, watch.status.changes) == (4, 2)


def repeating(*replies: Reply) -> tuple[Watch[str, str], list[str], list[str]]:
    """A watch of answers that are compared before they are read; what it reads, and what it publishes."""
    watch, published = watching(Script(*replies))
    reads: list[str] = []

    def noted(reply: Answer[str]) -> str:
        reads.append(reply.value)
        return read(reply)

    watch.read = noted
    watch.essence = lambda reply: reply.value
    return watch, reads, published


async def test_an_answer_that_repeats_the_last_one_taken_is_not_read_and_confirms_it(
    autojump_clock: MockClock,
) -> None:
    good, bad = answer("a", 6), answer("bad", 6)
    watch, reads, published = repeating(good, good, bad, good, error(), answer("a", 7), answer("b", 8))
    confirmed: list[int] = []
    watch.on_answer = lambda status: confirmed.append(status.answers)
    await follow(watch)
    assert (reads, published) == (["a", "bad", "b"], ["a", "b"])
    assert confirmed == [1, 2, 3, 4, 5]


async def test_what_was_not_taken_to_the_end_is_read_again_though_it_repeats(
    autojump_clock: MockClock,
) -> None:
    watch, reads, _ = repeating(answer("a", 5), answer("b", 6), answer("b", 6), answer("b", 6))
    taken: list[str] = []

    def publish(value: str) -> None:
        taken.append(value)
        if taken == ["a", "b"]:
            raise KeyError("a bug")

    watch.publish = publish
    await follow(watch)
    assert (reads, taken) == (["a", "b", "b"], ["a", "b", "b"])


async def test_an_error_forgets_the_position_and_keeps_the_value(autojump_clock: MockClock) -> None:
    script = Script(answer("a", 5), error(), error(), answer("a", 5))
    watch, published = watching(script)
    await follow(watch)
    assert published == ["a"]
    assert [at.index for _, at in script.asked] == [0, 5, 0, 0, 5]
    gaps = [b - a for (a, _), (b, _) in zip(script.asked[1:], script.asked[2:], strict=False)]
    assert 0.25 <= gaps[0] <= 0.5
    assert 0.5 <= gaps[1] <= 1.0


async def test_a_hash_is_followed(autojump_clock: MockClock) -> None:
    script = Script(answer("a", None, "h1"), answer("a", None, "h1"), answer("b", None, "h2"))
    watch, published = watching(script, Cursor.HASH)
    await follow(watch)
    assert published == ["a", "b"]
    assert [at.content_hash for _, at in script.asked] == ["", "h1", "h1", "h2"]


async def test_a_poll_asks_after_its_interval(autojump_clock: MockClock) -> None:
    script = Script(*(answer("a", 1) for _ in range(5)))
    watch, published = watching(script, Cursor.POLL)
    watch.poll_interval = 30
    await follow(watch)
    assert published == ["a"]
    assert [at for _, at in script.asked] == [Blocking(wait=WAIT)] * 6
    gaps = [b - a for (a, _), (b, _) in zip(script.asked, script.asked[1:], strict=False)]
    assert all(27 <= gap <= 33 for gap in gaps)
    assert len(set(gaps)) > 1


async def test_a_kick_ends_a_poll_and_a_backoff_early(autojump_clock: MockClock) -> None:
    script = Script(answer("a"), error(ConsulReason.DENIED, 403), answer("b"))
    watch, published = watching(script, Cursor.POLL)
    async with trio.open_nursery() as nursery:
        nursery.start_soon(watch.follow, clock, Random(7))
        for asked in (1, 2, 3):
            await trio.sleep(1)
            assert len(script.asked) == asked
            watch.kick()
        nursery.cancel_scope.cancel()
    assert published == ["a", "b"]


async def test_a_server_that_answers_at_once_for_ever_is_asked_once_a_second(
    autojump_clock: MockClock,
) -> None:
    script = Script(*(answer("a", 1) for _ in range(1000)))
    watch, _ = watching(script)
    await follow(watch, seconds=100.5)
    assert len(script.asked) == 100 + BURST


async def test_an_answer_that_cannot_be_read_is_not_asked_for_again_in_a_loop(
    autojump_clock: MockClock,
) -> None:
    script = Script(answer("a", 5), answer("bad key", 6), answer("b", 7))
    watch, published = watching(script)
    async with trio.open_nursery() as nursery:
        script.replies.pop()
        nursery.start_soon(watch.follow, clock, Random(7))
        await wait_all_tasks_blocked()
        assert isinstance(watch.status.failing, AnswerRejected)
        assert str(watch.status.failing) == "malformed: bad key"
        assert watch.status.failing_since == EPOCH
        nursery.cancel_scope.cancel()
    assert published == ["a"]
    assert [at.index for _, at in script.asked] == [0, 5, 6]


async def test_a_run_of_failures_is_told_and_so_is_its_end(autojump_clock: MockClock) -> None:
    heard: list[str] = []

    def hear(word: str) -> Callable[[WatchStatus], None]:
        return lambda status: heard.append(f"{word} {status.failures_in_row} {status.reason_changed}")

    script = Script(error(), error(), error(ConsulReason.DENIED, 403), answer("a", 1), answer("b", 2))
    watch, _ = watching(script)
    watch.on_failure, watch.on_recovery = hear("failed"), hear("recovered")
    await follow(watch)
    assert heard == ["failed 1 False", "failed 2 False", "failed 3 True", "recovered 0 True"]
    assert watch.status.failures == {"unavailable": 2, "denied": 1}
    assert watch.status.failing is None


async def test_who_hears_of_a_failure_may_end_it_all(autojump_clock: MockClock) -> None:
    class Enough(Exception):
        pass

    def give_up(_: WatchStatus) -> None:
        raise Enough

    watch, _ = watching(Script(error()))
    watch.on_failure = give_up
    with pytest.raises(Enough):
        await watch.follow(clock, Random(7))


async def test_a_status_knows_when_it_was_last_well(autojump_clock: MockClock) -> None:
    status = WatchStatus(name="x")
    assert (status.age, status.failing_seconds) == (None, 0)
    status.succeeded(EPOCH)
    status.failed(error(), EPOCH + timedelta(seconds=1))
    await trio.sleep(4)
    status.failed(error(), EPOCH + timedelta(seconds=2))
    assert (status.age, status.failing_seconds) == (4, 4)
    assert status.answered_at == EPOCH
    assert status.failing_since == EPOCH + timedelta(seconds=1)
    status.succeeded(EPOCH + timedelta(seconds=3))
    assert (status.failures_in_row, str(status.failing_since)) == (0, "None")
    assert (status.age, status.failing_seconds) == (0, 0)
