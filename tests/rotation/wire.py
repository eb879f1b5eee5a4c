"""The wire between two datacenters, in a test's hands: records every byte, can be cut, can hold an answer."""

from __future__ import annotations

import trio


class Wire:
    """Forwards a loopback port to another one. HTTP is plain here, so what is recorded is readable."""

    def __init__(self, target: int) -> None:
        self._target = target
        self._cut = False
        self._severed = trio.Event()
        self._watched: bytes | None = None
        self.seen = trio.Event()  # the watched bytes went over the wire; their answer does not come back
        self.recorded = bytearray()
        self.port = 0

    async def run(self, *, task_status: trio.TaskStatus[None]) -> None:
        """Listen on a port of the kernel's choice, for ever."""
        (listener,) = await trio.open_tcp_listeners(0, host="127.0.0.1")
        self.port = listener.socket.getsockname()[1]
        task_status.started()
        await trio.serve_listeners(self._carry, [listener])

    def cut(self) -> None:
        """Break what there is; whoever comes is turned away."""
        self._cut = True
        self._severed.set()

    def heal(self) -> None:
        """As before."""
        self._cut, self._severed = False, trio.Event()

    def hold_answer_to(self, request: bytes) -> None:
        """Let the next request that contains this through, and keep its answer for ever."""
        self._watched, self.seen = request, trio.Event()

    async def _carry(self, near: trio.SocketStream) -> None:
        if self._cut:
            await trio.aclose_forcefully(near)
            return
        try:
            far = await trio.open_tcp_stream("127.0.0.1", self._target)
        except OSError:  # that process is dead: so is the connection
            await trio.aclose_forcefully(near)
            return
        async with near, far, trio.open_nursery() as nursery:
            held = trio.Event()
            nursery.start_soon(self._pump, near, far, held, nursery.cancel_scope)
            nursery.start_soon(self._pump_back, far, near, held, nursery.cancel_scope)
            nursery.start_soon(self._break_off, self._severed, nursery.cancel_scope)

    async def _pump(
        self, source: trio.SocketStream, sink: trio.SocketStream, held: trio.Event, scope: trio.CancelScope
    ) -> None:
        try:
            async for chunk in source:
                self.recorded += chunk
                if self._watched is not None and self._watched in chunk:
                    self._watched = None
                    held.set()
                await sink.send_all(chunk)
        except trio.BrokenResourceError:
            pass  # one end was killed: the test's doing
        scope.cancel()

    async def _pump_back(
        self, source: trio.SocketStream, sink: trio.SocketStream, held: trio.Event, scope: trio.CancelScope
    ) -> None:
        try:
            async for chunk in source:
                self.recorded += chunk
                if held.is_set():
                    self.seen.set()
                    await trio.sleep_forever()
                await sink.send_all(chunk)
        except trio.BrokenResourceError:
            pass  # as above
        scope.cancel()

    async def _break_off(self, severed: trio.Event, scope: trio.CancelScope) -> None:
        await severed.wait()
        scope.cancel()
