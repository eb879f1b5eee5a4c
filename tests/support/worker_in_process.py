"""Workers without processes: each serves in the test's own loop, over a true pair of sockets."""

from __future__ import annotations

import io
import socket

import trio

from agent.workers.channel import Channel
from agent.workers.worker import serve
from tests.support.agent_parts import virtual


class InLoop:
    """A worker as a task (agent.workers.process.Process). Killed, it leaves as a process does: at once."""

    def __init__(self, pid: int, sock: socket.socket) -> None:
        self.pid = pid
        self.returncode: int | None = None
        self.err = io.StringIO()
        self._channel = Channel(sock)
        self._scope = trio.CancelScope()
        self._gone = trio.Event()

    async def run(self) -> None:
        code = -9
        try:
            with self._scope:
                code = int(await serve(self._channel, self.err, virtual))
        finally:
            self._channel.close()
            self.returncode = code
            self._gone.set()

    def kill(self) -> None:
        self._scope.cancel()

    async def wait(self) -> int:
        await self._gone.wait()
        assert self.returncode is not None
        return self.returncode


class Nursery:
    """Begins such workers, and remembers them. `refuse`: so many are not to be had."""

    def __init__(self, nursery: trio.Nursery) -> None:
        self._nursery = nursery
        self.begun: list[InLoop] = []
        self.refuse = 0

    async def __call__(self, end: socket.socket) -> InLoop:
        await trio.lowlevel.checkpoint()
        if self.refuse:
            self.refuse -= 1
            raise OSError(11, "Resource temporarily unavailable")
        worker = InLoop(1000 + len(self.begun), end.dup())
        self.begun.append(worker)
        self._nursery.start_soon(worker.run)
        return worker
