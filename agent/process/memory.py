"""Gives freed memory back to the operating system once a flood of connections has ended.

The C library keeps memory that is freed in the middle of its heap, and the sessions of a thousand connections
lie there. glibc gives back every free page of the heap when asked to.

The interpreter's own allocator cannot do so: it takes a megabyte at a time, and keeps each one in which
a single object is left, such as the record of an ended connection. Two thousand connections left the process
27 MB larger than before, for good. Therefore the unit sets `PYTHONMALLOC=malloc`, which leaves all allocation
to the C library. Even so the interpreter holds on to thousands of small objects for their next use, at worst
a page each; a garbage collection releases them.

The collector walks in one piece, and every connection waits so long. So what a full collection has left is
exempt from the next ones, and many objects that come at once are walked a part at a time (`Exemption`).
"""

from __future__ import annotations

import ctypes
import gc
from collections.abc import Callable, Mapping

import trio

from agent.base.clock import monotonic

CALM_LOOKS = 5  # looks in a row at a tenth of the peak or fewer
LOOK_SECONDS = 1.0
# Collections of the younger objects until one of all. Of 500 upstreams reports and changed registrations
# caused one in 1.5 s by the default, 10.
FULL_AFTER = 100
PART = 20_000  # objects that have outlived two collections, until one of all: some 5 ms
COUNT_SECONDS = 60.0  # between two counts of the exempt objects, each of which is a walk too
GROWTH = 1.5  # of the exempt objects until a collection walks them too
ALL_SECONDS = 600.0  # from one such walk, which is the longest of all, to the next
_OLDEST = 2  # the generation whose collection is a full one
WORTH_IT = 200  # connections: fewer at the peak than this leave some megabytes at most


def trim() -> None:
    """Ask glibc to give every free page back to the system; other C libraries have no such call."""
    ask = getattr(ctypes.CDLL(None), "malloc_trim", None)  # trio has loaded ctypes long before
    if ask is not None:
        ask(0)


def tidy() -> None:
    """Release the objects that the interpreter keeps for their next use, then trim.

    The collection walks all objects made since the start, so it belongs in a quiet moment, when they are few.
    """
    gc.collect()
    trim()


class AfterFlood:
    """Calls `ebbed` when a flood of connections falls to half of its peak, and `calmed` when it has ended.

    Memory that the last few connections pinned can be given back only by the second call.
    """

    __slots__ = ("_calm", "_calmed", "_ebbed", "_high", "_owed")

    def __init__(self, ebbed: Callable[[], None] = trim, calmed: Callable[[], None] = tidy) -> None:
        self._ebbed = ebbed
        self._calmed = calmed
        self._high = 0
        self._owed = False
        self._calm = 0

    def look(self, live: int) -> None:
        """Note the number of live connections; called once a `LOOK_SECONDS`."""
        if self._high - live >= max(WORTH_IT, self._high // 2):
            self._high, self._calm, self._owed = live, 0, True
            self._ebbed()
        elif self._owed and live <= self._high // 10:
            self._calm += 1
            if self._calm >= CALM_LOOKS:
                self._high, self._owed = live, False
                self._calmed()
        self._high = max(self._high, live)


async def give_back(live: Callable[[], int], after_flood: AfterFlood | None = None) -> None:
    """Count the live connections until cancelled, and give memory back when a flood of them has ended."""
    after_flood = after_flood or AfterFlood()
    while True:
        after_flood.look(live())
        await trio.sleep(LOOK_SECONDS)


class Exemption:
    """A callback of the collector that exempts what a full collection has left from the next full ones.

    A full one follows once there is a `PART` to be walked, however many objects come at once.

    Exempt objects are still freed with their last reference, but not those that only refer to each other. So
    a full collection walks all objects, exempt or not, if they are half as many again as the fewest that were
    exempt since the last such walk, and that was `ALL_SECONDS` ago.
    """

    __slots__ = ("_all", "_clock", "_counts_at", "_fewest", "_since")

    def __init__(self, clock: Callable[[], float] = monotonic) -> None:
        self._clock = clock
        self._since = clock()
        self._counts_at = self._since + COUNT_SECONDS
        self._fewest = gc.get_freeze_count()
        self._all = False

    def __call__(self, phase: str, info: Mapping[str, int]) -> None:
        if info["generation"] == _OLDEST:
            if phase == "start":
                self._begin()
            else:
                self._end()
        elif (phase, info["generation"]) == ("stop", _OLDEST - 1) and _waiting() >= PART:
            _walk_all_after(0)

    def _begin(self) -> None:
        if self._clock() < self._counts_at:
            return
        self._counts_at = self._clock() + COUNT_SECONDS
        exempt = gc.get_freeze_count()
        self._fewest = min(self._fewest, exempt)
        self._all = exempt > self._fewest * GROWTH and self._clock() - self._since >= ALL_SECONDS
        if self._all:
            gc.unfreeze()

    def _end(self) -> None:
        gc.freeze()
        _walk_all_after(FULL_AFTER)
        if self._all:
            self._fewest, self._since, self._all = gc.get_freeze_count(), self._clock(), False


def _waiting() -> int:
    """Return how many objects the next full collection will walk, but for the youngest."""
    return len(gc.get_objects(generation=_OLDEST))


def _walk_all_after(collections: int) -> None:
    """Let a full collection follow after that many of the younger objects."""
    gc.set_threshold(*gc.get_threshold()[:2], collections)


def settle() -> None:
    """Exempt all objects made until now from garbage collection, for they live as long as the process.

    The memory that the start left unused in the C library's heap, some three megabytes, goes back to the
    system. Later collections of everything are made ten times more rarely than by default, and what they have
    left is exempt too.
    """
    gc.collect()
    gc.freeze()
    gc.collect()  # of nothing: the next full one is due for a quarter of what the last one has left
    _walk_all_after(FULL_AFTER)
    gc.callbacks.append(Exemption())
    trim()
