"""Whatever the chunks, the stalls and the order of events: bytes are conserved, and ends arrive in order."""

from __future__ import annotations

from dataclasses import dataclass
from hashlib import sha256

from hypothesis import given, settings
from hypothesis import strategies as st

from agent.relay.pump import BUFFER, RECORD
from agent.relay.splice import Ending
from tests.support.scripted_answers import MANY, Bench

SIZES = st.one_of(
    st.integers(1, 300),
    st.sampled_from([RECORD - 1, RECORD]),
    st.integers(1, RECORD),
)
PLAIN_SIZES = st.one_of(SIZES, st.sampled_from([BUFFER - 1, BUFFER, BUFFER + 1, 3 * BUFFER]))
ROOMS = st.one_of(st.just(0), st.integers(1, 4096), st.integers(1, 8 * RECORD), st.just(MANY))


@dataclass(frozen=True)
class Moment:
    """What happens next, before the pump gets its events."""

    from_plain: int = 0  # bytes that arrive
    from_tls: int = 0
    plain_room: int | None = None  # room that there is from now on
    tls_room: int | None = None
    plain_ends: bool = False
    tls_ends: bool = False
    read_wants_write: int = 0
    write_wants_read: int = 0
    tls_first: bool = False


MOMENTS = st.builds(
    Moment,
    from_plain=st.one_of(st.just(0), PLAIN_SIZES),
    from_tls=st.one_of(st.just(0), SIZES),
    plain_room=st.one_of(st.none(), ROOMS),
    tls_room=st.one_of(st.none(), ROOMS),
    plain_ends=st.integers(0, 9).map(lambda n: n == 0),
    tls_ends=st.integers(0, 9).map(lambda n: n == 0),
    read_wants_write=st.integers(0, 1),
    write_wants_read=st.integers(0, 1),
    tls_first=st.booleans(),
)


class Story:
    """Plays moments, and keeps what was said by either side."""

    def __init__(self) -> None:
        self.bench = Bench()
        self.said_by_plain = bytearray()
        self.said_by_tls = bytearray()

    def words(self, said: bytearray, size: int) -> bytes:
        """Bytes that tell their own place in the stream."""
        start = len(said)
        words = b"".join(
            sha256(block.to_bytes(8, "big")).digest()
            for block in range(start // 32, (start + size) // 32 + 1)
        )[start % 32 :][:size]
        said += words
        return words

    def play(self, moment: Moment) -> None:
        bench = self.bench
        if moment.from_plain and not bench.plain.in_ended:
            bench.plain.arrives(self.words(self.said_by_plain, moment.from_plain))
        if moment.from_tls and not bench.tls.in_ended:
            bench.tls.arrives(self.words(self.said_by_tls, moment.from_tls))
        bench.plain.in_ended |= moment.plain_ends
        bench.tls.in_ended |= moment.tls_ends
        if moment.plain_room is not None:
            bench.plain.room = moment.plain_room
        if moment.tls_room is not None:
            bench.tls.room = moment.tls_room
        bench.tls.read_wants_write = moment.read_wants_write
        # A write that wants a read needs a peer who still says something.
        bench.tls.write_wants_read = 0 if bench.tls.in_ended else moment.write_wants_read
        bench.turn(("tls", "plain") if moment.tls_first else ("plain", "tls"))

    def finish(self) -> None:
        """Both sides end, and there is room for everything."""
        bench = self.bench
        bench.plain.room = bench.tls.room = MANY
        bench.tls.write_wants_read = bench.tls.read_wants_write = 0
        bench.plain.in_ended = bench.tls.in_ended = True
        bench.run()

    def nothing_is_out_of_order(self) -> None:
        """So far, each side has got a beginning of what the other has said."""
        bench = self.bench
        assert self.said_by_plain.startswith(bench.tls.sent)
        assert self.said_by_tls.startswith(bench.plain.sent)
        assert bench.progress.to_tls == len(bench.tls.sent)
        assert bench.progress.to_plain == len(bench.plain.sent)
        if bench.tls.out_ended:
            assert bench.tls.sent == self.said_by_plain
        if bench.plain.out_ended:
            assert bench.plain.sent == self.said_by_tls


@given(st.lists(MOMENTS, max_size=40))
@settings(max_examples=150)
def test_bytes_are_conserved(moments: list[Moment]) -> None:
    story = Story()
    for moment in moments:
        story.play(moment)
        story.nothing_is_out_of_order()
    story.finish()
    assert story.bench.ended()
    assert story.bench.splice.ending is Ending.CLEAN
    assert story.bench.tls.sent == story.said_by_plain
    assert story.bench.plain.sent == story.said_by_tls
    assert story.bench.plain.out_ended
    assert story.bench.tls.out_ended


@given(st.lists(MOMENTS, max_size=20), st.booleans())
@settings(max_examples=100)
def test_a_break_ends_it_and_never_looks_like_an_end(moments: list[Moment], plain_breaks: bool) -> None:
    story = Story()
    for moment in moments:
        story.play(moment)
    bench = story.bench
    if bench.ended():
        return
    broken, other = (bench.plain, bench.tls) if plain_breaks else (bench.tls, bench.plain)
    broken.breaks()
    bench.tls.write_wants_read = bench.tls.read_wants_write = 0
    other.room = MANY  # a leg that has ended both ways is parked, and looked at when the other takes more
    bench.run()
    assert bench.ended()
    assert broken.in_ended or not other.out_ended
    assert story.said_by_plain.startswith(bench.tls.sent)
    assert story.said_by_tls.startswith(bench.plain.sent)
