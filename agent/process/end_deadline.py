"""Ends the process if its own end takes too long.

What is cancelled may not end: after a want of memory a task was seen that no cancellation reached, and the
process answered nobody and stayed. The service manager's watchdog ends such a process, where there is one.
The deadline is a signal: there may be no memory for a thread, and the event loop may be what waits.
"""

from __future__ import annotations

import os
import signal
from collections.abc import Callable

from agent.base.exits import ExitCode


class EndDeadline:
    """Ends the process by ExitCode.FAILED, `seconds` after `begin`. `last_words` is called ahead of it."""

    def __init__(self, seconds: float, last_words: Callable[[], None]) -> None:
        self._seconds = seconds
        self._last_words = last_words

    def begin(self) -> None:
        """Begin, in the main thread: SIGALRM is taken."""
        signal.signal(signal.SIGALRM, self._over)
        signal.setitimer(signal.ITIMER_REAL, self._seconds)

    def _over(self, *_signal: object) -> None:
        try:
            self._last_words()
        finally:
            os._exit(ExitCode.FAILED)
