"""Properties of two HTTP/2 machines: whatever is done and however it is cut, no byte is lost or doubled."""

from __future__ import annotations

from collections.abc import Callable
from itertools import pairwise
from random import Random

from hypothesis import given, settings
from hypothesis import strategies as st

from agent.h2.core import WINDOW
from agent.h2.faults import ConnectionFault
from agent.h2.frames import DEFAULT_WINDOW, PREFACE
from agent.h2.frames import settings as settings_frame
from agent.h2.stream import Stream
from tests.support.h2_machines import Side, greeted, pair, pour

ACTIONS = ("open", "send", "answer", "end", "end_far", "reset", "reset_far", "stall", "read", "carry")


def cutting(rng: Random) -> Callable[[bytes], list[bytes]]:
    """Return a function that cuts bytes at random."""

    def cut(data: bytes) -> list[bytes]:
        places = sorted(rng.sample(range(len(data) + 1), min(len(data) + 1, rng.randrange(8))))
        ends = [0, *places, len(data)]
        return [data[a:b] for a, b in pairwise(ends)]

    return cut


class Play:
    """Two machines, and what was written into each stream."""

    def __init__(self, rng: Random) -> None:
        self.rng = rng
        self.cut = cutting(rng)
        self.near, self.far = pair()
        self.written: dict[tuple[str, int], bytearray] = {}
        self.reset: set[int] = set()

    def carry(self) -> None:
        for here, there in ((self.near, self.far), (self.far, self.near)):
            for piece in self.cut(here.machine.take()):
                there.machine.receive(piece)

    def write(self, side: Side, name: str, number: int) -> None:
        stream = side.machine.streams.get(number)
        if stream is None or stream.local_ended:
            return
        data = self.rng.randbytes(self.rng.choice((1, 100, 16384, 70000)))
        rest = pour(side, stream, data)
        self.written.setdefault((name, number), bytearray()).extend(data[: len(data) - len(rest)])

    def act(self, action: str) -> None:
        number = self.rng.choice(list(self.near.owners) or [0])
        side, name = (self.near, "near") if "far" not in action and action != "answer" else (self.far, "far")
        stream = side.machine.streams.get(number)
        if action == "open":
            self.near.connect()
        elif action in ("send", "answer"):
            self.write(side, name, number)
        elif action in ("end", "end_far"):
            if stream is not None and not stream.local_ended:
                side.machine.end(stream)
        elif action in ("reset", "reset_far"):
            self.forget(side, number, stream)
        elif action in ("stall", "read"):
            self.reading(number, slow=action == "stall")
        else:
            self.carry()

    def forget(self, side: Side, number: int, stream: Stream | None) -> None:
        if stream is None:
            return
        self.reset.add(number)
        side.machine.reset(stream, 8)  # type: ignore[arg-type]  # CANCEL
        if (owner := side.owners.get(number)) is not None:
            owner.read()

    def reading(self, number: int, *, slow: bool) -> None:
        for side in (self.near, self.far):
            if (owner := side.owners.get(number)) is not None:
                owner.slow = slow
                if not slow:
                    owner.read()

    def finish(self) -> None:
        for side in (self.near, self.far):
            for number in side.owners:
                self.reading(number, slow=False)
        while self.near.machine.out or self.far.machine.out:
            self.carry()


@settings(max_examples=150, deadline=None)
@given(st.lists(st.sampled_from(ACTIONS), min_size=5, max_size=80), st.integers(0, 2**32))
def test_every_byte_arrives_once_and_in_order_and_no_side_holds_more_than_its_windows(
    actions: list[str], seed: int
) -> None:
    play = Play(Random(seed))
    play.act("open")
    for action in actions:
        play.act(action)
        for side in (play.near, play.far):
            held = sum(owner.held for owner in side.owners.values())
            assert held <= WINDOW
            assert all(
                owner.held <= max(DEFAULT_WINDOW, owner.stream.target if owner.stream else 0)
                for owner in side.owners.values()
            )
    play.finish()
    for (name, number), data in play.written.items():
        there = play.far if name == "near" else play.near
        owner = there.owners.get(number)
        got = bytes(owner.got) if owner is not None else b""
        if number in play.reset:
            assert bytes(data).startswith(got)
        else:
            assert got == bytes(data)
    for side in (play.near, play.far):
        assert side.machine.receive_window + side.machine.unreturned == WINDOW


@settings(max_examples=300, deadline=None)
@given(st.binary(max_size=400), st.integers(0, 2**32))
def test_any_bytes_are_taken_or_end_the_connection_by_name(data: bytes, seed: int) -> None:
    whole, cut = greeted(), greeted()
    results: list[object] = []
    for side, pieces in ((whole, [data]), (cut, cutting(Random(seed))(data))):
        try:
            for piece in pieces:
                side.machine.receive(piece)
            results.append(None)
        except ConnectionFault as fault:
            results.append(fault.reason)
    assert results[0] == results[1]


def test_the_greeting_may_come_in_single_bytes() -> None:
    side = Side(client=False)
    for byte in PREFACE + settings_frame({}):
        side.machine.receive(bytes([byte]))
    assert side.machine.settled
