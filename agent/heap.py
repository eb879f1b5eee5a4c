"""Memory that was freed goes back to the system when there is enough of it.

The C library keeps what is freed in the middle of its heap, and the sessions of a thousand connections are in
the middle. glibc gives it back when asked to.
"""

from __future__ import annotations

import ctypes
from collections.abc import Callable

WORTH_IT = 200  # connections fewer than at the last flood: some megabytes


def trim() -> None:
    """Ask glibc to give back every page that nobody uses; other C libraries need no asking."""
    ask = getattr(ctypes.CDLL(None), "malloc_trim", None)  # trio has loaded ctypes long before
    if ask is not None:
        ask(0)


class Tide:
    """Notices when a flood of connections has gone, and calls `ebbed` once for each."""

    __slots__ = ("_ebbed", "_high")

    def __init__(self, ebbed: Callable[[], None] = trim) -> None:
        self._ebbed = ebbed
        self._high = 0

    def look(self, live: int) -> None:
        """Take note of how many live; called now and then."""
        self._high = max(self._high, live)
        if self._high - live >= max(WORTH_IT, self._high // 2):
            self._high = live
            self._ebbed()
