"""The relay between real sockets: whatever two ends do, no byte is lost, added or moved.

Every story is one connection. The ends write, read, stall, end in order, or break; the kernel has little room
or much, so that the relay blocks on either side. Afterwards each end must have heard what the other one said:
all of it, or after a break a beginning of it, and a break must never look like an end.
"""

from __future__ import annotations

import socket
from dataclasses import dataclass, field
from enum import Enum, auto
from hashlib import shake_128
from typing import Protocol

import trio
from hypothesis import event, example, given, settings
from hypothesis import strategies as st
from OpenSSL import SSL

from agent.relay.close import close_both, reset
from agent.relay.pump import BUFFER, COLLECT
from agent.relay.relay import Relay
from agent.relay.splice import Ending, Transfer
from tests.certs.authority import Issuer
from tests.support.relayed_pairs import Wire, relaying, wirings
from tests.support.socket_pairs import contexts_of

MOST_HELD = max(BUFFER, COLLECT)  # bytes that a blocked direction may keep
WORDS = {name: shake_128(name.encode()).digest(8 << 20) for name in ("app", "peer")}
SECONDS = 30.0  # a long story takes a hundredth of that
CONTEXTS = contexts_of((ROOT := Issuer.root()).leaf(), ROOT)


class Deed(Enum):
    """What an end does next."""

    SAY = auto()
    HEAR = auto()
    END = auto()
    RESET = auto()
    VANISH = auto()  # TCP ends; on the TLS leg without a close_notify


@dataclass(frozen=True)
class Moment:
    """`turns` of all other tasks pass before the next one; 0: it follows at once."""

    by_app: bool
    deed: Deed
    size: int
    turns: int


class Wait(Exception):
    """Nothing can be done yet."""


class Mouth(Protocol):
    """One end's sockets, non-blocking. Raises Wait; OSError or SSL.Error if the other side is gone."""

    sock: socket.socket

    def say(self, words: bytes) -> int: ...
    def hear(self, size: int) -> bytes: ...
    def end(self) -> None: ...


class AppMouth:
    def __init__(self, wire: Wire) -> None:
        self.sock = wire.app

    def say(self, words: bytes) -> int:
        try:
            return self.sock.send(words)
        except BlockingIOError:
            raise Wait from None

    def hear(self, size: int) -> bytes:
        try:
            return self.sock.recv(size)
        except BlockingIOError:
            raise Wait from None

    def end(self) -> None:
        self.sock.shutdown(socket.SHUT_WR)


class PeerMouth:
    def __init__(self, wire: Wire) -> None:
        self.sock, self._tls = wire.peer_sock, wire.peer

    def say(self, words: bytes) -> int:
        try:
            return self._tls.send(words)
        except SSL.WantWriteError:
            raise Wait from None

    def hear(self, size: int) -> bytes:
        try:
            return self._tls.recv(size)
        except SSL.WantReadError:
            raise Wait from None
        except SSL.ZeroReturnError:
            return b""

    def end(self) -> None:
        try:
            self._tls.shutdown()
        except SSL.WantWriteError:
            raise Wait from None


@dataclass
class End:
    """One end's part in the story. Each deed answers whether anything came of it."""

    words: bytes
    mouth: Mouth
    said: int = 0
    pending: int = 0  # a write that OpenSSL wants repeated with the very same bytes
    heard: bytearray = field(default_factory=bytearray)
    ended: bool = False
    heard_end: bool = False
    left: bool = False  # it broke the connection itself
    lost: bool = False  # it found the connection broken

    def say(self, size: int) -> bool:
        if self.ended or self.left or self.lost:
            return False
        self.pending = self.pending or min(size, len(self.words) - self.said)
        with self._noticing():
            self.said += self.mouth.say(self.words[self.said : self.said + self.pending])
            self.pending = 0
            return True
        return False

    def hear(self, size: int) -> bool:
        if self.heard_end or self.left or self.lost:
            return False
        with self._noticing():
            data = self.mouth.hear(size)
            self.heard += data
            self.heard_end = not data
            return True
        return False

    def end(self) -> bool:
        if self.ended or self.left or self.lost:
            return False
        if self.pending:
            return self.say(self.pending)
        with self._noticing():
            self.mouth.end()
            self.ended = True
        return self.ended

    def leave(self, *, with_reset: bool) -> bool:
        if not self.left:
            self.left = True
            # A plain stream that is closed has ended in order, unless something it was sent was unread.
            resets = with_reset and self.mouth.sock.family != socket.AF_UNIX
            self.ended |= isinstance(self.mouth, AppMouth) and not resets
            reset(self.mouth.sock) if with_reset else self.mouth.sock.close()
        return True

    def do(self, moment: Moment) -> bool:
        match moment.deed:
            case Deed.SAY:
                goal = self.said + moment.size
                while self.said < goal and self.say(goal - self.said):
                    pass
                return self.said == goal
            case Deed.HEAR:
                return self.hear(moment.size)
            case Deed.END:
                return self.end()
            case _:
                return self.leave(with_reset=moment.deed is Deed.RESET)

    def _noticing(self) -> _Noticing:
        return _Noticing(self)


class _Noticing:
    """Takes note of a connection that is gone."""

    def __init__(self, end: End) -> None:
        self._end = end

    def __enter__(self) -> None: ...

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, _: object) -> bool:
        if isinstance(error, OSError | SSL.Error):
            self._end.lost = True
            return True
        return isinstance(error, Wait)


@dataclass
class Story:
    """The two ends, what they hold, and how the relay says it went."""

    app: End
    peer: End
    relay: Relay
    transfers: list[Transfer]
    unix: bool

    async def play(self, moments: list[Moment]) -> None:
        for moment in moments:
            (self.app if moment.by_app else self.peer).do(moment)
            for _ in range(moment.turns):
                await trio.lowlevel.checkpoint()
            assert self.held() <= MOST_HELD

    def held(self) -> int:
        """Bytes the relay keeps for the fuller direction."""
        runs = self.relay._runs.values()
        return max((max(len(r.splice.plain_rest), len(r.splice.tls_rest)) for r in runs), default=0)

    async def finish(self) -> None:
        """Both ends listen to the end, and end."""
        while not self.transfers:
            moved = False
            for end in (self.app, self.peer):
                moved |= end.hear(65536)
                moved |= end.end()
            await trio.sleep(0 if moved else 0.0002)

    async def listen(self) -> None:
        """To what still stands in the kernel after both legs have been closed."""
        for end in (self.app, self.peer):
            while not (end.heard_end or end.left or end.lost):
                if not end.hear(65536):
                    await trio.lowlevel.wait_readable(end.mouth.sock)

    def judge(self) -> None:
        """Whoever breaks a connection may lose bytes, but nobody is told that it was an end."""
        (transfer,) = self.transfers
        for one, other in ((self.app, self.peer), (self.peer, self.app)):
            assert one.heard == other.words[: len(one.heard)]
            assert len(one.heard) <= other.said + other.pending
            if one.heard_end and not (self.unix and one is self.app):  # a unix socket conveys no reset
                assert other.ended
                assert len(one.heard) == other.said
        if not (self.app.left or self.peer.left):
            assert transfer.ending is Ending.CLEAN
            assert self.app.heard_end
            assert self.peer.heard_end
            assert (transfer.to_tls, transfer.to_plain) == (self.app.said, self.peer.said)


@dataclass(frozen=True)
class Legs:
    """`rooms`: of the kernel, in bytes, for the plain leg and for the TLS leg."""

    unix: bool
    rooms: tuple[int, int]


async def told(moments: list[Moment], legs: Legs) -> Story:
    """Play a story to its end."""
    async with wirings(CONTEXTS) as wiring:
        wire = await wiring(unix=legs.unix)
        for sock in (wire.app, wire.plain, wire.tls_sock, wire.peer_sock):
            for option in (socket.SO_SNDBUF, socket.SO_RCVBUF):
                room = legs.rooms[sock in (wire.tls_sock, wire.peer_sock)]
                sock.setsockopt(socket.SOL_SOCKET, option, room)
        with Relay() as relay, trio.fail_after(SECONDS):
            async with relaying(relay, wire) as transfers:
                app = End(WORDS["app"], AppMouth(wire))
                peer = End(WORDS["peer"], PeerMouth(wire))
                story = Story(app, peer, relay, transfers, legs.unix)
                await story.play(moments)
                await story.finish()
            close_both(wire.plain, wire.tls_sock, transfers[0].ending)
            await story.listen()
        return story


SIZES = st.one_of(st.integers(1, 300), st.integers(1, 70_000), st.integers(1, 1 << 20))
ORDERLY = st.sampled_from([Deed.SAY] * 6 + [Deed.HEAR] * 3 + [Deed.END])
ANY = st.sampled_from([Deed.SAY] * 6 + [Deed.HEAR] * 5 + [Deed.END, Deed.RESET, Deed.VANISH])
ROOMS = st.sampled_from([16384, 65536, 1 << 20])
LEGS = st.builds(Legs, unix=st.booleans(), rooms=st.tuples(ROOMS, ROOMS))


def moments_of(deeds: st.SearchStrategy[Deed]) -> st.SearchStrategy[list[Moment]]:
    turns = st.sampled_from([0, 1, 2, 5])
    return st.lists(st.builds(Moment, by_app=st.booleans(), deed=deeds, size=SIZES, turns=turns), max_size=60)


def flood(*, by_app: bool) -> list[Moment]:
    """Much more than the kernel takes, and nobody listens at the other end."""
    return [Moment(by_app, Deed.SAY, 1 << 20, turns) for turns in (0, 5)]


@example(flood(by_app=True), Legs(unix=False, rooms=(1 << 20, 65536)))
@example(flood(by_app=False), Legs(unix=False, rooms=(65536, 1 << 20)))
@given(moments_of(ORDERLY), LEGS)
@settings(max_examples=60)
def test_what_is_said_arrives_whole(moments: list[Moment], legs: Legs) -> None:
    story = trio.run(told, moments, legs)
    event(f"more than the relay may hold: {max(story.app.said, story.peer.said) > MOST_HELD}")
    story.judge()


@given(moments_of(ANY), LEGS)
@settings(max_examples=120)
def test_a_break_loses_the_end_at_most_and_is_never_taken_for_one(moments: list[Moment], legs: Legs) -> None:
    story = trio.run(told, moments, legs)
    event(f"{story.transfers[0].ending}")
    story.judge()
