"""Wakes those who wait for a change of a topic: only its own, and a few at a time.

A root that changes wakes every sidecar's reads at once. Were all of them woken in one turn of the loop,
nothing else would be answered until the last has its answer (a few milliseconds each). So a few are woken,
and each of them, once it runs, wakes the next.
"""

from __future__ import annotations

import contextlib
from collections import deque
from collections.abc import Iterable, Iterator

import trio

AT_ONCE = 8  # woken in one turn of the loop


class Waiters:
    """Who waits for which topics, in the order of their coming."""

    __slots__ = ("_by_topic", "_line")

    def __init__(self) -> None:
        self._by_topic: dict[str, dict[trio.Event, None]] = {}
        self._line: deque[trio.Event] = deque()  # to be woken

    @contextlib.contextmanager
    def registered(self, topics: Iterable[str]) -> Iterator[trio.Event]:
        """Yield an event that is set after a change of one of these topics; wait for it within the block."""
        woken, distinct = trio.Event(), set(topics)
        for topic in distinct:
            self._by_topic.setdefault(topic, {})[woken] = None
        try:
            yield woken
        finally:
            for topic in distinct:
                del self._by_topic[topic][woken]
                if not self._by_topic[topic]:
                    del self._by_topic[topic]
            if woken.is_set():
                self._wake(1)

    def wake(self, topics: Iterable[str]) -> None:
        """Wake the waiters of any of these topics."""
        waiting = dict.fromkeys(event for topic in topics for event in self._by_topic.get(topic, ()))
        under_way = bool(self._line)  # then one that is awake wakes the next
        self._line.extend(waiting)
        if not under_way:
            self._wake(AT_ONCE)

    def _wake(self, most: int) -> None:
        while self._line and most:
            event = self._line.popleft()
            if event.statistics().tasks_waiting and not event.is_set():
                event.set()
                most -= 1
