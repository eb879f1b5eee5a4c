"""An unforeseen exception ends the task it was raised in, and is logged and counted.

Exit and cancellation pass.
"""

from __future__ import annotations

from itertools import pairwise

import pytest
import trio
from trio.testing import MockClock

from agent.base.containment import CEILING_SECONDS, FLOOR_SECONDS, Kept, Where, contained, kept_up
from agent.base.exits import Exit, ExitCode
from tests.support.faults import Faults


async def fail(error: BaseException) -> None:
    await trio.lowlevel.checkpoint()
    raise error


async def test_its_own_end_is_no_failure() -> None:
    faults = Faults()
    assert await contained(faults, Where.TASK, "x", trio.lowlevel.checkpoint)
    await kept_up(faults, Where.TASK, "x", trio.lowlevel.checkpoint)
    assert not faults.told


@pytest.mark.parametrize(
    "error", [ValueError("x"), RecursionError("x"), MemoryError(), AssertionError(), OSError(5, "x")]
)
async def test_an_exception_ends_it_told_and_counted(error: Exception) -> None:
    faults = Faults()
    assert not await contained(faults, Where.CONNECTION, "a caller", fail, error)
    assert faults.told == [(Where.CONNECTION, "a caller", error)]
    assert faults.internal_errors == {"connection": 1}


@pytest.mark.parametrize("error", [Exit(ExitCode.FAILED, "enough"), KeyboardInterrupt(), SystemExit()])
async def test_an_end_that_was_asked_for_goes_on(error: BaseException) -> None:
    faults = Faults()
    with pytest.raises(type(error)):
        await contained(faults, Where.TASK, "x", fail, error)
    assert not faults.told


async def test_of_a_group_only_what_nobody_foresaw_stays() -> None:
    faults, bug, asked = Faults(), ValueError("bug"), Exit(ExitCode.FAILED, "enough")
    group = BaseExceptionGroup("both", [ExceptionGroup("inner", [bug]), ExceptionGroup("other", [asked])])
    with pytest.raises(BaseExceptionGroup) as caught:
        await contained(faults, Where.TASK, "x", fail, group)
    assert caught.value.subgroup(ValueError) is None
    assert caught.value.subgroup(Exit) is not None
    (told,) = faults.told
    assert isinstance(told[2], BaseExceptionGroup)
    assert told[2].subgroup(ValueError) is not None


async def test_a_failure_while_it_is_cancelled_is_told_and_the_cancellation_goes_on() -> None:
    faults = Faults()

    async def clean_up_badly() -> None:
        try:
            await trio.sleep_forever()
        finally:
            raise ValueError("in the end")

    async def several() -> None:
        async with trio.open_nursery() as nursery:
            nursery.start_soon(trio.sleep_forever)
            nursery.start_soon(clean_up_badly)

    with trio.move_on_after(0) as scope:
        await contained(faults, Where.TASK, "x", several)
        raise AssertionError("the cancellation was swallowed")
    assert scope.cancelled_caught
    assert faults.internal_errors == {"task": 1}


async def test_it_is_begun_again_later_and_later(autojump_clock: MockClock) -> None:
    faults, times = Faults(), list[float]()

    async def run() -> None:
        times.append(trio.current_time())
        await fail(ValueError("again"))

    with trio.move_on_after(1000):
        await kept_up(faults, Where.WATCH, "roots", run)
    gaps = [after - before for before, after in pairwise(times)]
    assert gaps[:4] == [FLOOR_SECONDS * 2**number for number in range(4)]
    assert gaps[-1] == CEILING_SECONDS
    assert len(faults.told) == len(times)


async def test_after_a_long_time_of_running_it_is_begun_again_soon(autojump_clock: MockClock) -> None:
    faults, times = Faults(), list[float]()

    async def run() -> None:
        times.append(trio.current_time())
        await trio.sleep(CEILING_SECONDS + 1)
        await fail(ValueError("again"))

    with trio.move_on_after(1000):
        await kept_up(faults, Where.WATCH, "roots", run)
    gaps = {after - before for before, after in pairwise(times)}
    assert gaps == {CEILING_SECONDS + 1 + FLOOR_SECONDS}


async def test_one_of_several_takes_no_other_along(autojump_clock: MockClock) -> None:
    faults, alive = Faults(), list[float]()

    async def live() -> None:
        while True:
            await trio.sleep(1)
            alive.append(trio.current_time())

    with trio.move_on_after(10.5):
        async with trio.open_nursery() as nursery:
            kept = Kept(nursery, faults)
            kept.begin(Where.TASK, "bad", fail, ValueError("x"))
            kept.begin(Where.TASK, "good", live)
    assert len(alive) == 10
    assert {name for _, name, _ in faults.told} == {"bad"}
