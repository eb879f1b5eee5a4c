"""Memory that was freed goes back to the system when there is enough of it.

The C library keeps what is freed in the middle of its heap, and the sessions of a thousand connections are in
the middle. glibc gives it back when asked to.
"""

from __future__ import annotations

import ctypes
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


class Tide:
    """Notices when a flood of connections has gone: calls `ebbed` as it goes, and once more when all is calm.

    Whatever a connection has left among the last ones to go is only then given back.
    """

    __slots__ = ("_calm", "_ebbed", "_high", "_owed")

    def __init__(self, ebbed: Callable[[], None] = trim) -> None:
        self._ebbed = ebbed
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
                self._ebbed()
        self._high = max(self._high, live)


async def give_back(live: Callable[[], int], ebbed: Callable[[], None] = trim) -> None:
    """Look at how many connections live, until cancelled, and trim the heap when a flood of them has gone."""
    tide = Tide(ebbed)
    while True:
        tide.look(live())
        await trio.sleep(LOOK_SECONDS)
