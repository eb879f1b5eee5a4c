"""An unforeseen exception ends one connection, watch or task, and not the agent (docs/failures.md).

`contained` runs what ends by itself, such as a connection; `kept_up` runs what must last, such as a watch.
The tasks that enforce a verdict are not contained: if one of them fails, verdicts may no longer hold for open
connections, and the process ends.
"""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Mapping
from enum import StrEnum
from typing import Protocol, TypeVarTuple

import trio

from agent.base.exits import Exit

# The pause before a restart doubles with each failure in a row.
FLOOR_SECONDS, CEILING_SECONDS = 0.5, 60.0

Args = TypeVarTuple("Args")


class Where(StrEnum):
    """What the exception has ended."""

    WATCH = "watch"
    CONNECTION = "connection"
    WARM_CONNECTION = "warm_connection"
    LISTENER = "listener"
    ADMIN = "admin"
    WORKER = "worker"  # the control process's link to a worker
    TASK = "task"


class FaultEvents(Protocol):
    """Counts and logs unforeseen exceptions; must not block."""

    @property
    def internal_errors(self) -> Mapping[str, int]:
        """How many exceptions there have been, by `Where`."""

    def internal_error(self, where: Where, name: str, error: BaseException, /) -> None:
        """Count and log an unforeseen exception that has ended `name`."""


async def contained(
    events: FaultEvents,
    where: Where,
    name: str,
    run: Callable[[*Args], Awaitable[object]],
    *args: *Args,
) -> bool:
    """Run `run` to its end; return whether it ended without an unforeseen exception.

    `Exit`, and exceptions that are no `Exception` (a cancellation, an interrupt), pass through.
    """
    try:
        await run(*args)
    except BaseExceptionGroup as group:
        _settle(events, where, name, group)
        return False
    except Exit:
        raise
    except Exception as error:  # noqa: BLE001 - the one place that contains a task's bug: logged and counted
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
    """Run `run`, and again after a pause each time an unforeseen exception has ended it."""
    failures = 0
    while True:
        began = trio.current_time()
        if await contained(events, where, name, run, *args):
            return
        failures = 1 if trio.current_time() - began > CEILING_SECONDS else failures + 1
        await trio.sleep(min(CEILING_SECONDS, FLOOR_SECONDS * 2.0 ** min(failures - 1, 16)))


class Kept:
    """Runs tasks in one nursery and restarts each one that an unforeseen exception has ended."""

    def __init__(self, nursery: trio.Nursery, events: FaultEvents) -> None:
        self._nursery = nursery
        self._events = events

    def begin(self, where: Where, name: str, run: Callable[[*Args], Awaitable[object]], *args: *Args) -> None:
        """Start one more task."""
        self._nursery.start_soon(kept_up, self._events, where, name, run, *args)


def _settle(events: FaultEvents, where: Where, name: str, group: BaseExceptionGroup) -> None:
    """Report the unforeseen part of the group; raise the rest: an exit, a cancellation, an interrupt."""
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
