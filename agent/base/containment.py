"""An exception that nobody foresaw ends what it happened in, and not the agent (docs/failures.md).

`contained` is for what ends of itself, such as a connection; `kept_up` for what is to run for ever, such as a
watch. What enforces a verdict is run bare: if it fails, nobody knows whether verdicts still hold, and the
process ends.
"""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Mapping
from enum import StrEnum
from typing import Protocol, TypeVarTuple

import trio

from agent.base.exits import Exit

FLOOR_SECONDS, CEILING_SECONDS = 0.5, 60.0  # before what has ended is begun again: doubling

Args = TypeVarTuple("Args")


class Where(StrEnum):
    """What was ended."""

    WATCH = "watch"
    CONNECTION = "connection"
    WARM_CONNECTION = "warm_connection"
    LISTENER = "listener"
    ADMIN = "admin"
    WORKER = "worker"  # the link to one
    TASK = "task"


class FaultEvents(Protocol):
    """Who hears of it, and counts; must not block."""

    @property
    def internal_errors(self) -> Mapping[str, int]:
        """How many there have been, by where."""

    def internal_error(self, where: Where, name: str, error: BaseException, /) -> None:
        """An exception that nobody foresaw has ended this."""


async def contained(
    events: FaultEvents,
    where: Where,
    name: str,
    run: Callable[[*Args], Awaitable[object]],
    *args: *Args,
) -> bool:
    """Run it to its end; return whether that was no exception that nobody foresaw.

    An exit that was asked for, and what is no Exception, goes on.
    """
    try:
        await run(*args)
    except BaseExceptionGroup as group:
        _settle(events, where, name, group)
        return False
    except Exit:
        raise
    except Exception as error:  # noqa: BLE001 - told and counted
        events.internal_error(where, name, error)
        return False
    return True


async def kept_up(
    events: FaultEvents,
    where: Where,
    name: str,
    run: Callable[[*Args], Awaitable[object]],
    *args: *Args,
) -> None:
    """Run it, and again after a pause when an exception that nobody foresaw has ended it."""
    failures = 0
    while True:
        began = trio.current_time()
        if await contained(events, where, name, run, *args):
            return
        failures = 1 if trio.current_time() - began > CEILING_SECONDS else failures + 1
        await trio.sleep(min(CEILING_SECONDS, FLOOR_SECONDS * 2.0 ** min(failures - 1, 16)))


class Kept:
    """Whatever runs for ever in one nursery, each kept up."""

    def __init__(self, nursery: trio.Nursery, events: FaultEvents) -> None:
        self._nursery = nursery
        self._events = events

    def begin(self, where: Where, name: str, run: Callable[[*Args], Awaitable[object]], *args: *Args) -> None:
        """Begin one more."""
        self._nursery.start_soon(kept_up, self._events, where, name, run, *args)


def _settle(events: FaultEvents, where: Where, name: str, group: BaseExceptionGroup) -> None:
    """Tell what nobody foresaw; raise the rest: an exit, a cancellation, an interrupt."""
    unforeseen, rest = group.split(_is_unforeseen)
    try:
        if unforeseen is not None:
            events.internal_error(where, name, unforeseen)
        if rest is not None:
            raise rest
    finally:
        del group, unforeseen, rest  # or their tracebacks would keep this frame, and all above it, alive


def _is_unforeseen(error: BaseException) -> bool:
    return isinstance(error, Exception) and not isinstance(error, (BaseExceptionGroup, Exit))
