"""Streams of one tunnel between real sockets: whatever their ends do, each hears what the other one has said.

Every story has a few streams. Their ends write pieces of any size, read or do not, end in order, or break;
the kernel has little room or much, so that the tunnel blocks, and readers that do not read hold their
windows. Afterwards each end must have heard all of it, or after a break a beginning of it, and a break must
never look like an end. What the tunnel holds meanwhile stays within what docs/tunnels.md promises.
"""

from __future__ import annotations

import socket
from dataclasses import dataclass, field
from enum import Enum, auto
from hashlib import shake_128

import trio
from hypothesis import event, given, settings
from hypothesis import strategies as st

from agent.h2.core import MOST_STREAM_WINDOW, WINDOW
from agent.h2.frames import MAX_FRAME
from agent.relay.close import reset
from agent.tunnel import records
from agent.tunnel.leg import QUANTUM, Leg
from agent.tunnel.tunnel import MOST_QUEUED, Tunnel
from tests.certs.authority import Issuer
from tests.support.socket_pairs import contexts_of
from tests.support.tunnels import Ends, tunnelled

CONTEXTS = contexts_of((ROOT := Issuer.root()).leaf(), ROOT)
WORDS = {name: shake_128(name.encode()).digest(4 << 20) for name in ("caller", "app")}
MOST_WAITING = (
    MOST_QUEUED + records.MOST * MAX_FRAME + QUANTUM
)  # bytes of output, when a read was the last straw
SECONDS = 30.0  # a long story takes a hundredth of that


class Deed(Enum):
    """What an end does next."""

    SAY = auto()
    HEAR = auto()
    END = auto()
    RESET = auto()


@dataclass(frozen=True)
class Moment:
    """`turns` of the relay pass before the next one; 0: it follows at once."""

    stream: int
    by_app: bool
    deed: Deed
    size: int
    turns: int


@dataclass
class End:
    """One end of a stream."""

    name: str
    sock: socket.socket
    said: int = 0
    heard: bytearray = field(default_factory=bytearray)
    ended: bool = False  # it says no more
    over: bool = False  # it has heard the end, or a break
    broke: bool = False

    def do(self, deed: Deed, size: int) -> None:
        if self.broke:
            return
        try:
            self._do(deed, size)
        except BlockingIOError:
            pass
        except OSError:
            self.over = self.broke = True

    def _do(self, deed: Deed, size: int) -> None:
        if deed is Deed.SAY and not self.ended:
            self.said += self.sock.send(WORDS[self.name][self.said : self.said + size])
        elif deed is Deed.HEAR and not self.over:
            data = self.sock.recv(size)
            self.heard += data
            self.over = not data
        elif deed is Deed.END and not self.ended:
            self.sock.shutdown(socket.SHUT_WR)
            self.ended = True
        elif deed is Deed.RESET:
            reset(self.sock)
            self.ended = self.over = self.broke = True


@dataclass
class Story:
    """The streams of one tunnel."""

    ends: Ends
    little_room: bool
    streams: dict[int, tuple[End, End]] = field(default_factory=dict)
    broken: set[int] = field(default_factory=set)  # streams of which an end has broken

    async def stream(self, number: int) -> tuple[End, End]:
        if number not in self.streams:
            caller, app = await self.ends.open()
            legs = [list(tunnel.h2.streams.values())[-1].owner for tunnel in (self.ends.near, self.ends.far)]
            plain = [leg.sock for leg in legs if isinstance(leg, Leg)]
            for sock in (caller, app, *plain) if self.little_room else ():
                squeeze(sock)
            self.streams[number] = End("caller", caller), End("app", app)
        return self.streams[number]

    async def live(self, moment: Moment) -> None:
        end = (await self.stream(moment.stream))[moment.by_app]
        end.do(moment.deed, moment.size)
        if moment.deed is Deed.RESET:
            self.broken.add(moment.stream)
        for _ in range(moment.turns):
            await trio.lowlevel.checkpoint()
            self.look()

    async def finish(self) -> None:
        """Let every end say that it is done, and hear what is left."""
        everybody = [end for pair in self.streams.values() for end in pair]
        for end in everybody:
            end.do(Deed.END, 0)
        with trio.fail_after(SECONDS):
            while not all(end.over for end in everybody):
                for end in everybody:
                    end.do(Deed.HEAR, 1 << 20)
                await trio.lowlevel.checkpoint()
                self.look()

    def look(self) -> None:
        """Nothing is held beyond its bound."""
        for tunnel in (self.ends.near, self.ends.far):
            assert tunnel.h2.queued <= MOST_WAITING
            held = [held_by(stream.owner) for stream in tunnel.h2.streams.values()]
            assert max(held, default=0) <= MOST_STREAM_WINDOW
            assert sum(held) <= WINDOW

    def check(self) -> None:
        for number, (caller, app) in self.streams.items():
            for said, heard in ((caller, app), (app, caller)):
                whole = WORDS[said.name][: said.said]
                assert whole.startswith(heard.heard)
                if number not in self.broken:
                    assert not heard.broke, "no end has broken"
                if not heard.broke:
                    assert heard.heard == whole, "an end was heard before all that was said"


def held_by(owner: object) -> int:
    assert isinstance(owner, Leg)
    return sum(map(len, owner._inbox)) + len(owner._rest or b"")


def squeeze(sock: socket.socket) -> None:
    for option in (socket.SO_SNDBUF, socket.SO_RCVBUF):
        sock.setsockopt(socket.SOL_SOCKET, option, 4096)


def squeeze_tunnel(tunnel: Tunnel) -> None:
    squeeze(tunnel._sock)


moments = st.builds(
    Moment,
    stream=st.integers(0, 7),
    by_app=st.booleans(),
    deed=st.sampled_from([*[Deed.SAY] * 6, *[Deed.HEAR] * 3, Deed.END, Deed.RESET]),
    size=st.sampled_from([1, 100, 16375, 16384, 65500, 300_000, 1_500_000]),
    turns=st.integers(0, 3),
)


@settings(max_examples=60, deadline=None)
@given(story=st.lists(moments, min_size=1, max_size=60), little_room=st.booleans())
def test_each_end_hears_what_the_other_one_has_said(story: list[Moment], *, little_room: bool) -> None:
    async def tell() -> None:
        async with tunnelled(CONTEXTS) as ends:
            if little_room:
                squeeze_tunnel(ends.near)
                squeeze_tunnel(ends.far)
            told = Story(ends, little_room)
            for moment in story:
                await told.live(moment)
            await told.finish()
            told.check()
            event(f"{len(told.streams)} streams, {len(told.broken)} broken")

    trio.run(tell)
