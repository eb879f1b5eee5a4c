"""Memory that was freed goes back to the system when there is enough of it.

The C library keeps what is freed in the middle of its heap, and the sessions of a thousand connections are in
the middle. glibc gives back every free page of it when asked to.

The interpreter's own allocator would not: it takes a megabyte at a time, and keeps each in which anything is
left, if only the record of a connection that has ended. Two thousand connections left it 27 MB more than
before, for good. Therefore the unit has `PYTHONMALLOC=malloc`, which leaves all to the C library. Even so the
interpreter holds on to thousands of small objects for their next use, at worst a page each; collecting lets
go of them.
"""

from __future__ import annotations

import ctypes
import gc
from collections.abc import Callable

import trio

CALM_LOOKS = 5  # with a tenth of the connections or fewer
LOOK_SECONDS = 1.0
WORTH_IT = 200  # connections fewer than at the last flood: some megabytes


def trim() -> None:
    """Ask glibc to give back every page that nobody uses; other C libraries need no asking."""
    ask = getattr(ctypes.CDLL(None), "malloc_trim", None)  # trio has loaded ctypes long before
    if ask is not None:
        ask(0)


def tidy() -> None:
    """Let go of what the interpreter keeps for its next use, then trim.

    It looks through all objects made since the start: a matter for a quiet moment, when they are few.
    """
    gc.collect()
    trim()


class AfterFlood:
    """Notices when a flood of connections has gone: calls `ebbed` as it goes, and `calmed` when all is calm.

    Whatever a connection has left among the last ones to go is only then given back.
    """

    __slots__ = ("_calm", "_calmed", "_ebbed", "_high", "_owed")

    def __init__(self, ebbed: Callable[[], None] = trim, calmed: Callable[[], None] = tidy) -> None:
        self._ebbed = ebbed
        self._calmed = calmed
        self._high = 0
        self._owed = False
        self._calm = 0

    def look(self, live: int) -> None:
        """Take note of how many live; called now and then."""
        if self._high - live >= max(WORTH_IT, self._high // 2):
            self._high, self._calm, self._owed = live, 0, True
            self._ebbed()
        elif self._owed and live <= self._high // 10:
            self._calm += 1
            if self._calm >= CALM_LOOKS:
                self._high, self._owed = live, False
                self._calmed()
        self._high = max(self._high, live)


async def give_back(live: Callable[[], int], tide: AfterFlood | None = None) -> None:
    """Look at how many connections live, until cancelled; give memory back when a flood of them has gone."""
    tide = tide or AfterFlood()
    while True:
        tide.look(live())
        await trio.sleep(LOOK_SECONDS)


def settle() -> None:
    """What was made until now lives to the end: the collector need not look at it again.

    What starting has left unused in the C library's heap, some three megabytes, goes back to the system.
    """
    gc.collect()
    gc.freeze()
    trim()
