"""The new program's end of the channel to the old one."""

from __future__ import annotations

import socket

import pytest

from agent.handover.predecessor import Predecessor, predecessor
from agent.handover.upgrade import VARIABLE, Complete, Failed, TakeOver, hear, tell
from agent.workers.channel import Channel, ChannelClosed


@pytest.mark.parametrize("value", ["", "x", None])
def test_a_plain_start_has_no_predecessor(value: str | None) -> None:
    environ = {"A": "b"} if value is None else {"A": "b", VARIABLE: value}
    assert predecessor(environ) is None
    assert environ == {"A": "b"}


def test_the_end_of_the_channel_comes_by_a_variable_which_is_removed() -> None:
    ours, theirs = socket.socketpair()
    ours.close()  # the old program has ended
    environ = {VARIABLE: str(theirs.detach())}
    found = predecessor(environ)
    assert found is not None
    assert (found.descriptors, environ) == ([], {})
    found._channel.close()


async def test_what_the_old_program_says_instead_of_giving_way_is_no_consent() -> None:
    ours, theirs = (Channel(end) for end in socket.socketpair())
    await tell(ours, Complete())
    with pytest.raises(ChannelClosed, match="Complete"):
        await Predecessor(theirs).take_over()
    ours.close()
    theirs.close()


async def test_a_failure_is_told_only_before_it_has_taken_over() -> None:
    ours, theirs = (Channel(end) for end in socket.socketpair())
    one = Predecessor(theirs)
    await one.fail("first")
    assert (await hear(ours))[0] == Failed("first")
    await tell(ours, TakeOver())
    await one.take_over()
    await hear(ours)
    await one.fail("late")
    theirs.close()
    with pytest.raises(ChannelClosed):
        await hear(ours)
    ours.close()


async def test_words_to_an_old_program_that_is_gone_are_lost() -> None:
    ours, theirs = (Channel(end) for end in socket.socketpair())
    one = Predecessor(theirs)
    ours.close()
    await one.drain(3)
    await one.fail("late")
    await one.gone()
    theirs.close()
