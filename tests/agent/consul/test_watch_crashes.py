"""An unforeseen exception in code that a watch calls is a failure of that watch."""

from __future__ import annotations

from random import Random

import pytest
from trio.testing import MockClock

from agent.base.exits import Exit, ExitCode
from agent.base.watch_status import WatchFailure
from agent.consul.watch import WatchCrashed
from tests.agent.consul.test_watch import Script, answer, clock, follow, watching


@pytest.mark.parametrize("where", ["ask", "read", "publish", "on_answer"])
async def test_an_exception_nobody_foresaw_is_a_failure_of_this_watch_and_no_end(
    autojump_clock: MockClock, where: str
) -> None:
    script = Script(answer("a", 5), answer("b", 6), answer("b", 6), answer("c", 7))
    watch, published = watching(script)
    work = getattr(watch, where)
    bugs = [None, KeyError("a bug"), None, None]
    await_first = where == "ask"

    def fail_once(*args: object) -> object:
        bug = bugs.pop(0) if bugs else None
        if bug is not None:
            raise bug
        return work(*args)

    setattr(watch, where, fail_once)
    failures: list[WatchFailure | None] = []
    watch.on_failure = lambda status: failures.append(status.failing)
    await follow(watch)
    (failure,) = failures
    assert isinstance(failure, WatchCrashed)
    assert isinstance(failure.error, KeyError)
    assert watch.status.failures == {"internal_error": 1}
    assert watch.status.failing is None
    assert [at.index for _, at in script.asked][2 if not await_first else 1] == 0, "the position is forgotten"
    assert published[0] == "a"
    assert published[-1] == "c"
    gap = script.asked[2][0] - script.asked[1][0]
    assert await_first or 0.25 <= gap <= 0.5


async def test_what_was_not_taken_to_the_end_is_news_again(autojump_clock: MockClock) -> None:
    script = Script(answer("a", 5), answer("a", 5))
    watch, published = watching(script)
    bugs = [KeyError("a bug")]

    def publish(value: str) -> None:
        if bugs:
            raise bugs.pop()
        published.append(value)

    watch.publish = publish
    await follow(watch)
    assert published == ["a"]


async def test_an_exit_goes_on(autojump_clock: MockClock) -> None:
    watch, _ = watching(Script(answer("a", 5)))

    def give_up(_: str) -> None:
        raise Exit(ExitCode.FAILED, "another service")

    watch.publish = give_up
    with pytest.raises(Exit):
        await watch.follow(clock, Random(7))
