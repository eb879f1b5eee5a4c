"""The relay: one thread, one epoll, and every byte of every connection.

Theory of operation. trio does what happens once per connection; what happens per message would cost it two
task switches and half a dozen calls each time, so it is done here, in one loop of few calls: epoll says which
descriptor is ready, a dictionary says which bound method that is, the method reads and writes until one side
would block.

* Ownership moves and nothing is shared. From the moment `run` is called until it returns or raises, only this
  thread touches both sockets and the TLS connection; before and after, only trio does. The hand-over goes
  through an inbox, one way by eventfd, the other way by the trio token, once per batch of events.
* Cancelling takes two steps. The abort function cannot take the sockets back, the thread may be amid a write;
  so it asks, reports Abort.FAILED, and `Cancelled` is raised when the thread has confirmed. If the connection
  came to its own end first, that ending is returned and the cancellation strikes at the caller's next
  checkpoint.
* epoll is level-triggered, so a pump may stop whenever it likes and be called again. Two things do not wake
  epoll, and are seen to by the pump: bytes that OpenSSL has already decrypted (read until a read comes back
  short, and once when the connection is taken over), and a close_notify already received.
* EPOLLERR and EPOLLHUP wake epoll whatever is watched for. An error ends the connection. A hang-up without
  an error, while bytes of that leg wait for the other leg to take more, would spin: the descriptor is then
  parked outside the epoll until they are wanted.
* A batch of events may name a descriptor whose connection ended earlier in the same batch; it has no handler
  any more. New connections are taken in only between batches: theirs may bear the number just closed.
* Handling one event is bounded (`pump.BURSTS`), and an idle connection owns no buffer: one read buffer is
  shared by all, and what a blocked leg did not take is copied to its splice.
* One relay per process, ever. Two threads of this kind fight for the interpreter lock and halve each other;
  more cores are more processes on SO_REUSEPORT.
"""

from __future__ import annotations

import os
import select
import socket
import threading
from collections import deque
from collections.abc import Callable
from functools import partial
from types import TracebackType
from typing import NoReturn, Protocol, Self

import trio
from OpenSSL import SSL

from agent.pump import BUFFER, Pump
from agent.splice import NONE, Progress, Splice, Transfer

_ABSENT = -1  # not in the epoll


class RelayClosed(Exception):
    """The relay's thread has ended; nothing can be relayed."""


class _RaiseCancel(Protocol):
    def __call__(self) -> NoReturn: ...


class _Watch:
    """One descriptor's place in the epoll."""

    __slots__ = ("_epoll", "_fd", "_mask", "_parked")

    def __init__(self, epoll: select.epoll, fd: int) -> None:
        self._epoll = epoll
        self._fd = fd
        self._mask = _ABSENT
        self._parked = False

    def want(self, mask: int) -> None:
        """Watch for `mask`, or for errors alone. A parked one returns only when something is wanted."""
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
    """One call of `Relay.run`, from the request to its answer."""

    __slots__ = (
        "failure",
        "fds",
        "progress",
        "pump",
        "raise_cancel",
        "splice",
        "task",
        "transfer",
        "watches",
    )

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
        self.watches = (_Watch(epoll, self.fds[0]), _Watch(epoll, self.fds[1]))
        self.progress = progress
        self.splice = Splice()
        self.pump = Pump(
            plain, tls, watches=self.watches, buffer=buffer, splice=self.splice, progress=progress
        )
        self.transfer: Transfer | None = None
        self.failure: Exception | None = None
        self.raise_cancel: _RaiseCancel | None = None


class Relay:
    """The thread and its door. Use it as a context manager, inside trio and outside every connection.

    with Relay() as relay:
        transfer = await relay.run(plain, tls)
    """

    def __init__(self) -> None:
        self._epoll = select.epoll()
        self._wake = os.eventfd(0, os.EFD_NONBLOCK | os.EFD_CLOEXEC)
        self._epoll.register(self._wake, select.EPOLLIN)
        self._handlers: dict[int, Callable[[int], bool]] = {self._wake: self._woken}
        self._runs: dict[int, _Run] = {}  # by either descriptor
        self._inbox: deque[Callable[[], None]] = deque()
        self._done: deque[_Run] = deque()
        self._buffer = memoryview(bytearray(BUFFER))
        self._open = False
        self._token: trio.lowlevel.TrioToken | None = None
        # A daemon: a crash of the main thread must not hang the process on live connections.
        self._thread = threading.Thread(target=self._main, name="relay", daemon=True)

    def __enter__(self) -> Self:
        self._token = trio.lowlevel.current_trio_token()
        self._open = True
        self._thread.start()
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        self._post(self._close)
        self._thread.join()
        self._epoll.close()
        os.close(self._wake)

    def __repr__(self) -> str:
        return f"<Relay connections={self.connections}>"

    @property
    def connections(self) -> int:
        """How many connections it holds now."""
        return len(self._runs) // 2

    async def run(
        self, plain: socket.socket, tls: SSL.Connection, progress: Progress | None = None
    ) -> Transfer:
        """Copy both ways until both sides have ended or one has failed; say how it went.

        `plain` is a non-blocking stdlib socket, TCP or unix; `tls` a handshaken connection over another one.
        Both stay open and are the caller's again when this returns or raises. `progress` may be read
        meanwhile. Raises RelayClosed when there is no thread to do it.
        """
        await trio.lowlevel.checkpoint_if_cancelled()
        if not self._open:
            raise RelayClosed("the relay is closed")
        run = _Run(plain, tls, epoll=self._epoll, buffer=self._buffer, progress=progress or Progress())
        self._post(partial(self._adopt, run))
        await trio.lowlevel.wait_task_rescheduled(partial(self._cancel, run))
        if run.failure is not None:
            raise run.failure
        if run.transfer is None:
            assert run.raise_cancel is not None  # only a cancelled run ends with neither
            run.raise_cancel()
        return run.transfer

    async def ping(self) -> None:
        """Return once the thread has come round to its inbox; never, if it is stuck. Raises RelayClosed."""
        token = self._token
        if not self._open or token is None:
            raise RelayClosed("the relay is closed")
        answered = trio.Event()
        self._post(lambda: token.run_sync_soon(answered.set))
        await answered.wait()

    # On trio's thread.

    def _post(self, message: Callable[[], None]) -> None:
        self._inbox.append(message)
        os.eventfd_write(self._wake, 1)

    def _cancel(self, run: _Run, raise_cancel: _RaiseCancel) -> trio.lowlevel.Abort:
        run.raise_cancel = raise_cancel
        self._post(partial(self._abandon, run))
        return trio.lowlevel.Abort.FAILED

    def _deliver(self) -> None:
        while self._done:
            trio.lowlevel.reschedule(self._done.popleft().task)

    # On the relay's thread.

    def _main(self) -> None:
        try:
            while self._open:
                self._turn()
        finally:  # after a crash too, nobody may wait for a thread that is gone
            self._close()
            self._take_in()

    def _turn(self) -> None:
        handlers = self._handlers
        for fd, events in self._epoll.poll():
            handler = handlers.get(fd)
            if handler is None:
                continue  # its connection ended earlier in this batch
            try:
                if handler(events):
                    self._retire(self._runs[fd])
            except Exception as error:  # noqa: BLE001 - a bug; raised in the task that awaits the run
                self._retire(self._runs[fd], error)
        if self._inbox or self._done:
            self._take_in()

    def _take_in(self) -> None:
        while self._inbox:
            self._inbox.popleft()()
        if self._done and self._token is not None:
            self._token.run_sync_soon(self._deliver, idempotent=True)

    def _woken(self, _events: int) -> bool:
        os.eventfd_read(self._wake)
        return False

    def _adopt(self, run: _Run) -> None:
        if not self._open:
            self._retire(run, RelayClosed("the relay was closed"))
            return
        plain_fd, tls_fd = run.fds
        self._runs[plain_fd] = self._runs[tls_fd] = run
        self._handlers[plain_fd] = run.pump.on_plain
        self._handlers[tls_fd] = run.pump.on_tls
        try:
            if run.pump.start():
                self._retire(run)
        except Exception as error:  # noqa: BLE001 - a bug; raised in the task that awaits the run
            self._retire(run, error)

    def _abandon(self, run: _Run) -> None:
        """Give a cancelled run back, unless it has ended by itself."""
        if self._runs.get(run.fds[0]) is run:
            self._release(run)
            self._done.append(run)

    def _retire(self, run: _Run, failure: Exception | None = None) -> None:
        """A run is over: let go of its sockets, then tell its task."""
        self._release(run)
        run.failure = failure
        if failure is None:
            run.transfer = run.splice.transfer(run.progress)
        self._done.append(run)

    def _release(self, run: _Run) -> None:
        for fd, watch in zip(run.fds, run.watches, strict=True):
            watch.park()
            self._handlers.pop(fd, None)
            self._runs.pop(fd, None)

    def _close(self) -> None:
        self._open = False
        for run in set(self._runs.values()):
            self._retire(run, RelayClosed("the relay was closed"))
