"""Answers of the past, or for want of rights, that a watch does not believe."""

from __future__ import annotations

from dataclasses import replace

import pytest
from trio.testing import MockClock

from agent.consul.api import Answer
from agent.consul.errors import ConsulReason
from agent.consul.watch import DENIED_FLOOR, AnswerRejected, WatchReason
from tests.agent.consul.test_watch import EPOCH, Script, answer, error, follow, watching


async def test_an_answer_with_a_lower_index_is_no_news_and_is_asked_for_again_from_0(
    autojump_clock: MockClock,
) -> None:
    """Consul 1.18 ends a pending question so when its token expires; what comes next is the refusal."""
    script = Script(answer("a", 26), answer("", 1), error(ConsulReason.DENIED, 403))
    watch, published = watching(script)
    await follow(watch, seconds=1)
    assert published == ["a"]
    assert [at.index for _, at in script.asked] == [0, 26, 0]
    assert watch.status.answers == 1
    assert watch.status.failures == {"index_went_back": 1, "denied": 1}
    assert watch.status.failing_since == EPOCH


@pytest.mark.parametrize("lower", [3, 1, 0, None])
async def test_a_server_that_was_restored_is_believed_when_it_says_so_again(
    autojump_clock: MockClock, lower: int | None
) -> None:
    script = Script(answer("a", 26), answer("b", lower), answer("b", lower), answer("c", 27))
    watch, published = watching(script)
    await follow(watch)
    assert published == ["a", "b", "c"]
    assert [at.index for _, at in script.asked] == [0, 26, 0, lower or 1, 27]
    assert watch.status.failing is None


async def test_a_doubtful_answer_to_a_question_that_blocked_is_confirmed_first(
    autojump_clock: MockClock,
) -> None:
    """A token that has lost its rights is answered with nothing, without a sign, while it blocks."""
    refused = error(ConsulReason.DENIED, 403)
    script = Script(answer("a", 5), answer("", 5), refused, answer("a", 6), answer("", 7), answer("", 7))
    watch, published = watching(script)
    watch.doubtful = lambda value: not value
    await follow(watch)
    assert published == ["a", ""]
    assert [at.index for _, at in script.asked] == [0, 5, 0, 0, 6, 0, 7]
    assert watch.status.failures == {"denied": 1}
    assert watch.status.answers == 3


async def test_what_has_been_confirmed_is_not_doubted_again(autojump_clock: MockClock) -> None:
    script = Script(answer("", 5), answer("", 6), answer("", 7))
    watch, published = watching(script)
    watch.doubtful = lambda value: not value
    await follow(watch)
    assert published == [""]
    assert [at.index for _, at in script.asked] == [0, 5, 6, 7]


async def test_a_list_that_is_empty_for_want_of_rights_is_not_asked_for_by_index(
    autojump_clock: MockClock,
) -> None:
    """The answer to a question that blocks would not have the sign."""
    script = Script(answer("filtered", 5), answer("filtered", 5), answer("a", 6))
    watch, published = watching(script)

    def shorten(reply: Answer[str]) -> str:
        if reply.value == "filtered":
            raise AnswerRejected(WatchReason.FILTERED, "no rights")
        return reply.value

    watch.read = shorten
    await follow(watch)
    assert published == ["a"]
    assert [at.index for _, at in script.asked] == [0, 0, 0, 6]
    gaps = [b - a for (a, _), (b, _) in zip(script.asked, script.asked[1:], strict=False)]
    assert DENIED_FLOOR / 2 <= gaps[0] <= DENIED_FLOOR <= gaps[1]


async def test_answers_that_lack_something_are_told_when_they_begin_and_when_they_end(
    autojump_clock: MockClock,
) -> None:
    """What blocks has no sign: news in answer to such a question is taken, and looked at once more."""
    short = replace(answer("a", 5), filtered=True)
    script = Script(short, answer("a", 6), answer("a b", 7), answer("a b", 7))
    watch, published = watching(script)
    heard: list[bool] = []
    watch.on_filtered = lambda status: heard.append(status.filtered)
    await follow(watch)
    assert published == ["a", "a b"]
    assert heard == [True, False]
    assert [at.index for _, at in script.asked] == [0, 5, 6, 0, 7]
