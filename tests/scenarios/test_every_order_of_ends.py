"""Two ends in every order, by either side, before and after the first byte each way: what comes of it.

An orderly end is nobody's fault, whatever follows it. Only a far side that breaks off before it has said a
byte or an end is charged, and only if our app has said nothing either is another instance asked.
"""

from __future__ import annotations

import socket
import struct
from contextlib import ExitStack
from dataclasses import dataclass, replace
from enum import Enum, StrEnum
from itertools import product

import pytest
import trio
from OpenSSL import SSL

from agent.net.handshake import server_handshake
from agent.outbound.reasons import OutboundReason
from agent.relay.splice import Ending
from tests.support.socket_pairs import listener
from tests.support.two_sidecars import Mesh, endpoint, mesh, one, until

RESET = struct.pack("ii", 1, 0)


class End(Enum):
    """One end of a leg, as a side makes it."""

    APP_FIN = "app_fin"
    APP_RESET = "app_reset"
    FAR_CLOSE_NOTIFY = "far_close_notify"
    FAR_TRUNCATION = "far_truncation"
    FAR_RESET = "far_reset"
    FAR_GARBAGE = "far_garbage"


BY_APP = {End.APP_FIN, End.APP_RESET}
ORDERLY = {End.APP_FIN, End.FAR_CLOSE_NOTIFY}
BREAKS = {
    End.APP_RESET: Ending.PLAIN_RESET,
    End.FAR_TRUNCATION: Ending.TLS_TRUNCATED,
    End.FAR_RESET: Ending.TLS_RESET,
    End.FAR_GARBAGE: Ending.TLS_FAILED,
}


@dataclass(frozen=True, slots=True)
class Case:
    """Who has spoken before, and the ends in their order."""

    app_spoke: bool
    far_spoke: bool
    ends: tuple[End, End]

    def __str__(self) -> str:
        words = f"{'app' * self.app_spoke}{'far' * self.far_spoke}" or "silence"
        return f"{words}-{self.ends[0].value}-{self.ends[1].value}"

    @property
    def ending(self) -> Ending:
        """How the relay ends; what a far side does after its orderly end is not read, but a reset shows."""
        first, second = self.ends
        if first in BREAKS:
            return BREAKS[first]
        unread = {End.FAR_TRUNCATION, End.FAR_GARBAGE} if first is End.FAR_CLOSE_NOTIFY else set()
        return BREAKS[second] if second in BREAKS.keys() - unread else Ending.CLEAN

    @property
    def charged(self) -> bool:
        """Whether the far side is to blame: it broke off first, and had not said a byte."""
        return self.ends[0] in BREAKS.keys() - BY_APP and not self.far_spoke

    @property
    def retried(self) -> bool:
        """Whether another instance is asked: our app has said nothing, and is still there."""
        return self.charged and not self.app_spoke and self.ends[1] is not End.APP_RESET

    @property
    def told(self) -> StrEnum:
        """The reason in the ledger of the way out."""
        if self.retried:
            return Ending.CLEAN
        if not self.charged:
            return self.ending
        return OutboundReason.REFUSED_BY_PEER if self.app_spoke else Ending.PLAIN_RESET

    def as_seen(self) -> tuple[Case, ...]:
        """A break and what comes with it are two events of one poll, in either order."""
        if self.ends[0] in BREAKS and self.ends[1] is not End.APP_FIN:
            return self, replace(self, ends=self.ends[::-1])
        return (self,)


def follows(first: End, second: End) -> bool:
    """Whether a side can still make the second end after the first."""
    return first is not second and not (first in BREAKS and (first in BY_APP) is (second in BY_APP))


CASES = [
    Case(app, far, (first, second))
    for app, far, first, second in product((False, True), (False, True), End, End)
    if follows(first, second)
]


@dataclass(slots=True)
class Leg:
    """The TLS side that the test plays: an instance of the upstream, or a caller."""

    sock: socket.socket
    tls: SSL.Connection

    def end(self, how: End) -> None:
        if how is End.FAR_CLOSE_NOTIFY:
            self.tls.shutdown()
        elif how is End.FAR_TRUNCATION:
            self.sock.shutdown(socket.SHUT_WR)
        elif how is End.FAR_GARBAGE:
            self.sock.send(b"GET / HTTP/1.1\r\n\r\n")
        else:
            self.sock.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, RESET)
            self.sock.close()

    async def hear(self) -> bytes | Ending:
        """The next bytes, or how the other side has ended."""
        while True:
            try:
                return self.tls.recv(100)
            except SSL.WantReadError:
                await trio.lowlevel.wait_readable(self.sock)
            except SSL.ZeroReturnError:
                return Ending.CLEAN
            except SSL.SysCallError as error:
                return Ending.TLS_TRUNCATED if error.args[0] == -1 else Ending.TLS_RESET


@dataclass(slots=True)
class App:
    """Our app's side, or that of the app behind an inbound half."""

    stream: trio.SocketStream

    async def end(self, how: End) -> None:
        if how is End.APP_FIN:
            await self.stream.send_eof()
        else:
            self.stream.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, RESET)
            self.stream.socket.close()

    async def hear(self) -> bytes | Ending:
        """What it hears next: bytes, or how the stream has ended."""
        try:
            return await self.stream.receive_some(100) or Ending.CLEAN
        except trio.BrokenResourceError:
            return Ending.PLAIN_RESET


async def play(case: Case, app: App, far: Leg) -> None:
    """Words; the first end, awaited by the other side if it is orderly; the second."""
    if case.app_spoke:
        await app.stream.send_all(b"question")
        assert await far.hear() == b"question"
    if case.far_spoke:
        far.tls.send(b"answer")
        assert await app.hear() == b"answer"
    for end in case.ends:
        if end is End.APP_FIN and end is not case.ends[0] and case.ends[0] in BREAKS:
            return  # all is over, or begins anew
        if end in BY_APP:
            await app.end(end)
        else:
            far.end(end)
        if end is case.ends[0] and end in ORDERLY:
            assert await (far.hear() if end in BY_APP else app.hear()) is Ending.CLEAN


class Instances:
    """Two of the upstream's, in the test's hands."""

    def __init__(self, m: Mesh, held: ExitStack) -> None:
        self._m = m
        self._held = held
        self._socks = [held.enter_context(listener()) for _ in range(2)]
        ports = [sock.getsockname()[1] for sock in self._socks]
        m.endpoints.publish(one(*(endpoint(port, name=f"db-{port}") for port in ports)))

    async def answer(self) -> Leg:
        """Whichever is asked next."""
        contexts = self._m.db.contexts.value
        assert contexts is not None
        callers: list[socket.socket] = []
        await until(lambda: bool(callers) or self._accept(callers))
        return Leg(callers[0], await server_handshake(callers[0], lambda: contexts.server, 5))

    def asked_again(self) -> bool:
        """Whether one has a caller that was not answered."""
        return self._accept([])

    def _accept(self, callers: list[socket.socket]) -> bool:
        for sock in self._socks:
            try:
                caller, _ = sock.accept()
            except BlockingIOError:
                continue
            caller.setblocking(False)
            callers.append(self._held.enter_context(caller))
            return True
        return False


async def serve_the_rest(instances: Instances, app: App) -> None:
    """The other instance serves our app, to an orderly end."""
    far = await instances.answer()
    far.tls.send(b"here")
    assert await app.hear() == b"here"
    await app.end(End.APP_FIN)
    assert await far.hear() is Ending.CLEAN
    far.end(End.FAR_CLOSE_NOTIFY)


@pytest.mark.parametrize("case", CASES, ids=str)
async def test_on_the_way_out(case: Case) -> None:
    async with mesh(nothing) as m:
        with ExitStack() as held:
            instances = Instances(m, held)
            app = App(await m.connect())
            held.callback(app.stream.socket.close)
            far = await instances.answer()
            await until(lambda: m.web.ledger.live()[0].opened)
            await play(case, app, far)
            if case.retried:
                await serve_the_rest(instances, app)
            elif case.ending is Ending.CLEAN and End.APP_FIN not in case.ends:
                await app.end(End.APP_FIN)
            finished = await m.web.finished()
            assert not instances.asked_again()
        seen = (finished.reason, bool(m.targets.failures.ejected()))
        assert seen in {(one.told, one.charged) for one in case.as_seen()}


async def nothing(stream: trio.SocketStream) -> None:
    raise AssertionError("the app must not be reached")


@pytest.mark.parametrize("case", CASES, ids=str)
async def test_on_the_way_in(case: Case) -> None:
    """The caller's end is what the app hears, and the other way round: a break as a break."""
    apps: list[App] = []
    done = trio.Event()

    async def behind(stream: trio.SocketStream) -> None:
        apps.append(App(stream))
        await done.wait()

    async with mesh(behind) as m:
        assert m.web.contexts.value is not None
        caller = Leg(*await m.call(m.web.contexts.value.client))
        with caller.sock:
            await until(lambda: bool(apps))
            (app,) = apps
            await play(case, app, caller)
            if case.ending is Ending.CLEAN and End.APP_FIN not in case.ends:
                await app.end(End.APP_FIN)
            assert (await m.db.finished()).reason in {one.ending for one in case.as_seen()}
            if case.ends[0] in BREAKS and End.APP_RESET not in case.ends:
                assert await app.hear() is Ending.PLAIN_RESET
            elif case.ends == (End.FAR_CLOSE_NOTIFY, End.APP_RESET):
                assert await caller.hear() in {Ending.TLS_TRUNCATED, Ending.TLS_RESET}
        done.set()
