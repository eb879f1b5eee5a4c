"""A stream of a tunnel for what reads requests, in trio (agent.relay.streams.WatchedStream)."""

from __future__ import annotations

import socket
from collections.abc import Callable

import trio

from agent.h2.faults import ErrorCode
from agent.h2.header_blocks import Fields
from agent.h2.stream import Stream
from agent.relay.relay import Relay
from agent.relay.splice import READ, Ending, Progress, Transfer
from agent.relay.streams import StreamBroken
from agent.tunnel.carrier import Carrier
from agent.tunnel.leg import Leg


class TunnelStream:
    """A stream's owner (agent.h2.stream.StreamOwner). One task may receive while another sends."""

    __slots__ = (
        *("_broken", "_ended", "_fed", "_inbox", "_news", "_progress", "_room", "_tunnel", "_watching"),
        "stream",
    )

    def __init__(self, tunnel: Carrier, stream: Stream, progress: Progress) -> None:
        self._tunnel = tunnel
        self._progress = progress
        self._inbox = bytearray()
        self._ended = False
        self._fed = False  # `deliver` will be called
        self._watching: tuple[Callable[[int], None], Callable[[Exception], None]] | None = None
        self._broken: tuple[Ending, str] | None = None
        self._news = trio.Event()  # something has come
        self._room = trio.Event()  # the stream may take bytes again
        self.stream = stream

    # --- CallerStream ---

    async def receive(self) -> bytes:
        """Return bytes, or b"" at the end. Raises StreamBroken."""
        await trio.lowlevel.checkpoint()
        while not self._inbox:
            self._raise_if_broken()
            if self._ended:
                return b""
            self._news = trio.Event()
            await self._news.wait()
        return self._taken()

    async def send(self, data: bytes) -> None:
        """Send all of `data`. Raises StreamBroken."""
        await trio.lowlevel.checkpoint()
        rest = memoryview(data)
        while True:
            rest = rest[self.send_nowait(rest) :]
            self._raise_if_broken()
            if not rest:
                return
            self._room = trio.Event()
            if not self.stream.starved:
                self._tunnel.waiting.append(self)
            await self._room.wait()

    def send_nowait(self, data: memoryview) -> int:
        """Send what goes without waiting; return how many bytes."""
        tunnel, sent = self._tunnel, 0
        while sent < len(data) and self._broken is None and not tunnel.congested:
            room = tunnel.h2.room(self.stream)
            if not room:
                break
            piece = bytes(data[sent : sent + room])  # the caller's buffer serves others before it goes out
            tunnel.h2.send(self.stream, piece)
            sent += len(piece)
        if sent:
            self._progress.add_tls(sent)
            tunnel.wake()
        return sent

    def has_come(self) -> bool:
        """See WatchedStream."""
        return bool(self._inbox) or self._ended or self._broken is not None

    def watch(
        self, relay: Relay, on_ready: Callable[[int], None], on_failure: Callable[[Exception], None]
    ) -> None:
        """See WatchedStream."""
        self._watching = on_ready, on_failure
        if self.has_come():  # while nothing watched: the tunnel will not tell of it again
            relay.after_turn(self.deliver)

    def unwatch(self) -> None:
        """See WatchedStream."""
        self._watching = None

    def receive_nowait(self) -> bytes | None:
        """See WatchedStream."""
        if not self._inbox:
            return b"" if self._ended or self._broken is not None else None
        return self._taken()

    def _taken(self) -> bytes:
        data = bytes(self._inbox)
        self._inbox.clear()
        self._tunnel.h2.consumed(self.stream, len(data))
        self._tunnel.wake()
        return data

    async def send_end(self) -> None:
        """Send END_STREAM. Raises StreamBroken."""
        await trio.lowlevel.checkpoint()
        self._raise_if_broken()
        if not self.stream.local_ended:
            self._tunnel.h2.end(self.stream)
            self._tunnel.wake()

    async def relay(self, _relay: Relay, app: socket.socket, progress: Progress) -> Transfer:
        """Copy between the stream and that socket until both are over."""
        await trio.lowlevel.checkpoint_if_cancelled()
        over = trio.Event()
        leg = Leg(self._tunnel, app, progress, lambda _: over.set())
        leg.stream = self.stream
        if self._broken is not None:
            leg.lose(*self._broken)
        else:
            self.stream.owner = leg
            if self._inbox:
                leg.on_data(bytes(self._inbox))
                self._inbox.clear()
            if self._ended:
                leg.on_end()
            leg.start(self.stream)
            leg.deliver()
        try:
            await over.wait()
        except trio.Cancelled:
            leg.cut(ErrorCode.CANCEL)
            raise
        if leg.failure is not None:
            raise leg.failure
        return leg.transfer()

    def close(self, code: ErrorCode) -> None:
        """End the stream if it is not over; what has come and was not read is thrown away."""
        if self._inbox:
            self._tunnel.h2.give_back(len(self._inbox))
            self._inbox.clear()
        if not isinstance(self.stream.owner, Leg):
            self._tunnel.h2.reset(self.stream, code)
        self._tunnel.wake()

    def _raise_if_broken(self) -> None:
        if self._broken is not None:
            raise StreamBroken(*self._broken)

    # --- StreamOwner, and what the tunnel calls as it calls a leg ---

    def on_response(self, _status: int, _fields: Fields) -> None:
        """See StreamOwner: a server gets none."""

    def on_data(self, data: bytes | memoryview) -> None:
        """See StreamOwner."""
        self._inbox += data
        self._news.set()
        self._feed()

    def on_end(self) -> None:
        """See StreamOwner."""
        self._ended = True
        self._news.set()
        self._feed()

    def _feed(self) -> None:
        if self._watching is not None and not self._fed:
            self._fed = True
            self._tunnel.fed.append(self)

    def deliver(self) -> None:
        """Tell what watches that something has come; called once the tunnel has read what there is."""
        self._fed = False
        if self._watching is not None:
            on_ready, on_failure = self._watching
            try:
                on_ready(READ)
            except Exception as error:  # noqa: BLE001 - a bug; raised in the task of the stream, and there alone
                on_failure(error)

    def on_reset(self, _code: int, detail: str) -> None:
        """See StreamOwner."""
        self.lose(Ending.TLS_RESET, detail)

    def on_room(self) -> None:
        """See StreamOwner."""
        self._room.set()

    def resume(self) -> None:
        """Send again from now on."""
        self._room.set()

    def lose(self, ending: Ending, detail: str) -> None:
        """End the stream with its tunnel, or by a reset."""
        self._broken = ending, detail
        self._news.set()
        self._room.set()
        self.deliver()
