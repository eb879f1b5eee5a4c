"""Waits for the relay's descriptors and for trio's in one call of the kernel, while no task can run.

Theory of operation. trio ends each of its turns by waiting in an epoll, and calls `before_io_wait` ahead of
that. An epoll is itself a descriptor, readable while a descriptor in it is ready: so the relay's epoll has
trio's in it, and this instrument waits there. Bytes are moved within that wait, again and again; trio goes on
as soon as one of its own descriptors is ready. To wake a task for each turn of the relay, as any other
descriptor would, cost more CPU than the turn itself.

* trio has decided how long it waits when it calls us. A task that became runnable meanwhile, and a deadline
  for which we have waited in its place, must not wait once more: a bell, a descriptor for which a task waits,
  is then made readable, so that trio's own wait ends at once.
* trio does not say which epoll is its own. The kernel does: the one that watches the bell (the `tfd` lines of
  proc_pid_fdinfo(5)). Where they cannot be read, and where another relay of the same run waits so already,
  a task waits for the relay's epoll, and the wait itself is trio's.
* An instrument must not raise. A bug is raised by the task that answers the bell, and ends the run.
"""

from __future__ import annotations

import os
import time
from collections.abc import Callable
from pathlib import Path

import trio

# Seconds that bytes wait for the long work of tasks, and tasks that can run for bytes. At 0 the median
# latency of live connections beside a flood of new ones is halved, and there are a twentieth fewer new ones,
# for each turn serves fewer legs.
PATIENCE = 0.002
_FDINFO = Path("/proc/self/fdinfo")
_waiting: trio.lowlevel.RunVar[IdleWait | None] = trio.lowlevel.RunVar("the relay that waits", None)


class IdleWait(trio.abc.Instrument):
    """Calls `turn` in trio's waits, from `begin` to `end`, and `due` before them.

    `turn(seconds)` waits that long for the relay's descriptors, serves what is ready and returns how many
    were. `watch(fd, call)` adds a descriptor to them.
    """

    def __init__(
        self,
        turn: Callable[[float], int],
        due: Callable[[], None],
        watch: Callable[[int, Callable[[int], None]], None],
    ) -> None:
        self._turn = turn
        self._due = due
        self._watch = watch
        self._epoll = self._bell = -1
        self._answering, self._waking = trio.CancelScope(), trio.CancelScope()
        self._rung = False
        self._scheduled = False  # a task has become runnable
        self._called = False  # a descriptor of trio's is ready
        self._waits = self._sought = False  # this is what waits, for trio too
        self._failure: Exception | None = None

    def begin(self, epoll: int) -> None:
        """Begin, inside trio. `epoll`: the relay's."""
        self._epoll = epoll
        self._bell = os.eventfd(0, os.EFD_NONBLOCK | os.EFD_CLOEXEC)
        # System tasks, since the relay must outlive the nurseries of all connections; a bug ends the process.
        trio.lowlevel.spawn_system_task(self._answer, name="relay")
        trio.lowlevel.add_instrument(self)

    def end(self) -> None:
        """End, before the epoll is closed."""
        trio.lowlevel.remove_instrument(self)
        self._answering.cancel()
        self._waking.cancel()
        if _waiting.get() is self:
            _waiting.set(None)

    # --- trio.abc.Instrument ---

    def task_scheduled(self, _task: trio.lowlevel.Task) -> None:
        """Note that trio has something to do."""
        self._scheduled = True

    def before_io_wait(self, timeout: float) -> None:
        """Serve the relay instead of waiting, until trio has something to do."""
        try:
            self._wait(timeout)
        except Exception as error:  # noqa: BLE001 - a bug, which the task raises
            self._failure = error
            self._ring()

    def _wait(self, timeout: float) -> None:
        self._scheduled = self._called = False
        self._due()
        if not timeout:  # a task can run; or the clock is virtual and jumps, unless bytes are there
            until = time.monotonic() + PATIENCE
            while self._turn(0) and not self._called and time.monotonic() < until:
                pass
            return
        if not self._sought:
            self._seek()
        if self._waits:
            until = time.monotonic() + timeout
            while not (self._scheduled or self._called) and (left := until - time.monotonic()) > 0:
                self._turn(left)
        else:
            self._turn(0)
        if not self._called and (self._scheduled or (self._waits and _a_deadline_is_over())):
            self._ring()

    def _ring(self) -> None:
        if not self._rung:
            self._rung = True
            os.eventfd_write(self._bell, 1)

    def _on_trio(self, _events: int) -> None:
        self._called = True

    def _seek(self) -> None:
        """Wait for trio too from now on, if that can be."""
        self._sought = True
        found = epoll_of(self._bell) if _waiting.get() is None else None
        if found is None:
            trio.lowlevel.spawn_system_task(self._wake_trio, name="relay, waited for")
            return
        _waiting.set(self)
        self._waits = True
        self._watch(found, self._on_trio)

    async def _answer(self) -> None:
        with self._answering:
            try:
                while not self._answering.cancel_called:
                    await trio.lowlevel.wait_readable(self._bell)
                    os.eventfd_read(self._bell)
                    self._rung = False
                    if self._failure is not None:
                        raise self._failure
            finally:
                os.close(self._bell)

    async def _wake_trio(self) -> None:
        """End trio's wait when the relay has something: it has its turn before the next one."""
        with self._waking:
            while not self._waking.cancel_called:  # later the epoll may be closed
                await trio.lowlevel.wait_readable(self._epoll)


def _a_deadline_is_over() -> bool:
    return trio.lowlevel.current_statistics().seconds_to_next_deadline <= 0


def epoll_of(fd: int) -> int | None:
    """Return the descriptor of the epoll in this process that watches `fd`, or None: proc_pid_fdinfo(5)."""
    for place in _FDINFO.glob("*"):
        try:
            lines = place.read_text().splitlines()
        except OSError:  # closed meanwhile, or not for us to read
            continue
        if any(line.startswith("tfd:") and int(line.split()[1]) == fd for line in lines):
            return int(place.name)
    return None
