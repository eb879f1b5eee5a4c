"""The relay: one loop, one epoll, and every byte of every connection.

Theory of operation. trio runs what happens once per connection. A message would cost two task switches and
half a dozen calls there, so messages are moved in one loop of few calls: epoll names the ready descriptor, a
dictionary gives its bound method, and the method reads and writes until one side would block.

* One wait for both. While no task can run, the relay waits in trio's place, for its own descriptors and for
  trio's (`idle.py`): a message wakes no task. One turn serves every ready leg, so a message costs less the
  busier the relay is.
* No thread. An earlier version ran the loop in one, which passed the interpreter lock to and fro with trio's:
  some twenty futex calls for each new connection, and a fifth of its time. Long work in trio's tasks delays
  the bytes either way (a thread waits for the lock); more cores are used by more processes on SO_REUSEPORT.
* Ownership moves, and nothing is shared. From the call of `run` until it returns or raises, only the relay
  touches both sockets and the TLS connection; before and after, only the caller does. Both are of one
  thread and the relay does not await within a turn, so a cancelled caller has its sockets back at once.
* epoll is level-triggered, so a pump may stop at any point and be called again. Two things do not wake epoll,
  and the pump looks for them: bytes that OpenSSL has already decrypted (the pump reads until a read is short,
  and once when it takes a connection over), and a close_notify already received.
* EPOLLERR and EPOLLHUP wake epoll whatever the mask is. An error ends the connection. A hang-up without an
  error, while bytes of that leg wait for the other leg to take more, would spin; the descriptor is then
  parked outside the epoll until its bytes are wanted.
* A batch of events may name a descriptor whose connection ended earlier in the same batch; it has no handler
  any more. New connections are added between batches only: their descriptors may reuse a number just closed.
* A turn is bounded, in events (`TURN`) and in what one event may move (`pump.BURSTS`). After each turn every
  other runnable task runs. A step of a handshake takes as long as twenty messages, and dozens may be due at
  once; so a handshake lets the relay run before each step if it has not run for `PATIENCE` (`serve_relay`).
  Otherwise all live connections would wait for all new ones.
* A tunnel has one TLS leg and many plain ones, which `attach` adds one by one. What a turn gives all of its
  streams to send goes out in one write at the end of the turn (`after_turn`).
* An idle connection owns no buffer: all connections share one read buffer, and bytes that a blocked leg did
  not take are copied into its splice.
"""

from __future__ import annotations

import math
import select
import socket
from collections.abc import Callable
from types import TracebackType
from typing import Self

import trio
from OpenSSL import SSL

from agent.relay.idle import PATIENCE, IdleWait
from agent.relay.pump import BUFFER, Pump
from agent.relay.splice import NONE, READ, Progress, Splice, Transfer

TURN = 64  # events handled at once: at most some tens of milliseconds, if all are bulk transfers
_ABSENT = -1  # not in the epoll


class RelayClosed(Exception):
    """The relay has ended and relays nothing."""


class Watching:
    """The registration of one descriptor in the epoll (agent.relay.pump.Watch)."""

    __slots__ = ("_epoll", "_fd", "_mask", "_parked")

    def __init__(self, epoll: select.epoll, fd: int) -> None:
        self._epoll = epoll
        self._fd = fd
        self._mask = _ABSENT
        self._parked = False

    def want(self, mask: int) -> None:
        """Watch for `mask`; NONE watches for errors alone, and leaves a parked descriptor parked."""
        if mask == self._mask or (self._parked and mask == NONE):
            return
        if self._mask == _ABSENT:
            self._epoll.register(self._fd, mask)
            self._parked = False
        else:
            self._epoll.modify(self._fd, mask)
        self._mask = mask

    def park(self) -> None:
        """Watch for nothing, not even errors."""
        self._parked = True
        if self._mask != _ABSENT:
            self._epoll.unregister(self._fd)
            self._mask = _ABSENT


class _Run:
    """One call of `Relay.run`, until it returns."""

    __slots__ = ("failure", "fds", "progress", "pump", "splice", "task", "watches")

    def __init__(
        self,
        plain: socket.socket,
        tls: SSL.Connection,
        *,
        epoll: select.epoll,
        buffer: memoryview,
        progress: Progress,
    ) -> None:
        self.task = trio.lowlevel.current_task()
        self.fds = (plain.fileno(), tls.fileno())
        self.watches = (Watching(epoll, self.fds[0]), Watching(epoll, self.fds[1]))
        self.progress = progress
        self.splice = Splice()
        self.pump = Pump(
            plain, tls, watches=self.watches, buffer=buffer, splice=self.splice, progress=progress
        )
        self.failure: Exception | None = None


class Relay:
    """The relay's loop. Use it as a context manager, inside trio and outside every connection.

    with Relay() as relay:
        transfer = await relay.run(plain, tls)
    """

    def __init__(self) -> None:
        self._epoll = select.epoll()
        self._handlers: dict[int, Callable[[int], bool | None]] = {}  # true: the run is over
        self._runs: dict[int, _Run] = {}  # by either descriptor
        self._buffer = memoryview(bytearray(BUFFER))
        self._attached: dict[int, Callable[[Exception], None]] = {}  # what hears of a handler's failure
        # The same, of what was detached in this turn.
        self._detached: dict[int, Callable[[Exception], None]] = {}
        self._due: list[Callable[[], None]] = []  # called at the end of the turn, or before the next wait
        self._wait = IdleWait(self._turn, self._end_turn, self._watch)
        self._open = False
        self._turned = -math.inf  # when the last turn began, by trio's clock

    def __enter__(self) -> Self:
        self._open = True
        self._wait.begin(self._epoll.fileno())
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        self._open = False
        for run in set(self._runs.values()):
            self._retire(run, RelayClosed("the relay was closed"))
        for on_failure in tuple(self._attached.values()):
            on_failure(RelayClosed("the relay was closed"))
        self._wait.end()
        self._epoll.close()

    def __repr__(self) -> str:
        return f"<Relay connections={self.connections}>"

    @property
    def turned(self) -> float:
        """When the present turn has begun, or the last one, by trio's clock."""
        return self._turned

    @property
    def connections(self) -> int:
        """How many connections the relay holds now."""
        return len(self._runs) // 2

    async def run(
        self, plain: socket.socket, tls: SSL.Connection, progress: Progress | None = None
    ) -> Transfer:
        """Copy in both directions until both sides have ended or one has failed; return the transfer.

        `plain` is a non-blocking stdlib socket, TCP or unix; `tls` is a connection over another one, after
        its handshake. Both stay open and belong to the caller again when this returns or raises. The caller
        may read `progress` meanwhile. Raises RelayClosed when the relay has ended.
        """
        await trio.lowlevel.checkpoint_if_cancelled()
        if not self._open:
            raise RelayClosed("the relay is closed")
        run = _Run(plain, tls, epoll=self._epoll, buffer=self._buffer, progress=progress or Progress())
        if self._begin(run):
            await trio.lowlevel.cancel_shielded_checkpoint()
            return run.splice.transfer(run.progress)

        def cancel(_: object) -> trio.lowlevel.Abort:
            self._release(run)
            return trio.lowlevel.Abort.SUCCEEDED

        await trio.lowlevel.wait_task_rescheduled(cancel)
        if run.failure is not None:
            raise run.failure
        return run.splice.transfer(run.progress)

    def attach(
        self, fd: int, handler: Callable[[int], None], on_failure: Callable[[Exception], None]
    ) -> Watching:
        """Let `handler` take the events of a descriptor until `detach`; the caller says which are wanted.

        `on_failure` hears what the handler has raised, and RelayClosed; it must detach the descriptor. It is
        called of a detached one too, for what was raised in the same turn.
        """
        if not self._open:
            raise RelayClosed("the relay is closed")
        self._handlers[fd] = handler
        self._attached[fd] = on_failure
        return Watching(self._epoll, fd)

    def detach(self, fd: int, watch: Watching) -> None:
        """Give an attached descriptor back; may be called again."""
        if (on_failure := self._attached.pop(fd, None)) is not None:
            self._detached[fd] = on_failure
            del self._handlers[fd]
            watch.park()

    def after_turn(self, call: Callable[[], None]) -> None:
        """Call that at the end of this turn, or soon, if this is none. It must not raise."""
        self._due.append(call)

    def _end_turn(self) -> None:
        self._detached.clear()
        while self._due:
            due, self._due = self._due, []
            for call in due:
                call()

    async def serve_relay(self) -> None:
        """Serve ready legs if they have waited for `PATIENCE`; called before each piece of long work."""
        if self._open and trio.current_time() - self._turned >= PATIENCE:
            self._turn()

    def _turn(self, seconds: float = 0) -> int:
        """Wait that long for ready legs and serve `TURN` events at most; return how many.

        The rest keeps the epoll readable.
        """
        ready = self._epoll.poll(seconds, TURN)
        self._turned = trio.current_time()
        handlers = self._handlers
        for fd, events in ready:
            handler = handlers.get(fd)
            if handler is None:
                continue  # its connection ended earlier in this batch
            try:
                if handler(events):
                    self._retire(self._runs[fd])
            except Exception as error:  # noqa: BLE001 - a bug; raised in the task that awaits the run
                self._failed(fd, error)
        self._end_turn()
        return len(ready)

    def _watch(self, fd: int, call: Callable[[int], None]) -> None:
        self._handlers[fd] = call
        self._epoll.register(fd, READ)

    def _failed(self, fd: int, error: Exception) -> None:
        if (run := self._runs.get(fd)) is not None:
            self._retire(run, error)
        elif (on_failure := self._attached.get(fd) or self._detached.get(fd)) is not None:
            on_failure(error)

    def _begin(self, run: _Run) -> bool:
        """Take the sockets over; return whether the connection is over already."""
        plain_fd, tls_fd = run.fds
        self._runs[plain_fd] = self._runs[tls_fd] = run
        self._handlers[plain_fd] = run.pump.on_plain
        self._handlers[tls_fd] = run.pump.on_tls
        over = True
        try:
            over = run.pump.start()
        finally:
            if over:
                self._release(run)
        return over

    def _retire(self, run: _Run, failure: Exception | None = None) -> None:
        """Release the sockets of an ended run, then wake its task."""
        self._release(run)
        run.failure = failure
        trio.lowlevel.reschedule(run.task)

    def _release(self, run: _Run) -> None:
        for fd, watch in zip(run.fds, run.watches, strict=True):
            watch.park()
            self._handlers.pop(fd, None)
            self._runs.pop(fd, None)
