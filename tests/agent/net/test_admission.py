"""Who has a place, who waits in line and who gives way, in virtual time and without a socket."""

from __future__ import annotations

from agent.net.admission import GRACE, OWN_GRACE, PRESSED_SECONDS, Admission, Displaced, Overflow, Slot

A, B, C = "192.0.2.1", "192.0.2.2", "192.0.2.3"


class Bench:
    """A listener with so many places, and a clock to turn."""

    def __init__(self, places: int, limit: int | None = None, *, fair: bool = True) -> None:
        self.now = 100.0
        self.admission = Admission(limit, places, fair=fair, clock=lambda: self.now)
        self.unread: set[int] = set()  # places that have sent what we have not read

    def enter(self, source: str, *, begun: bool = False, pressed: bool = False) -> Slot | None:
        """One of that source, if there is a place."""
        if self.admission.obstacle(source, pressed=pressed) is not None:
            return None
        place = self.admission.enter(source, lambda: id(place) not in self.unread)
        if begun:
            place.begin()
        return place

    def fill(self, *sources: str, begun: bool = False) -> list[Slot]:
        places = [self.enter(source, begun=begun) for source in sources]
        assert None not in places
        return [place for place in places if place is not None]


def gone(places: list[Slot]) -> list[bool]:
    """Which of them have given way."""
    return [place.scope.cancel_called for place in places]


async def test_the_oldest_silent_one_gives_way_to_a_caller_from_elsewhere() -> None:
    bench = Bench(4)
    places = bench.fill(A, B, A, B)
    assert bench.enter(C) is None  # for a moment: it may be about to say something
    bench.now = bench.admission.next_to_yield()
    assert bench.enter(C)
    assert gone(places) == [True, False, False, False]
    assert bench.admission.displaced == {Displaced.SILENT: 1}
    assert (bench.admission.unsettled, bench.admission.live, bench.admission.admitted) == (4, 4, 5)


async def test_those_who_have_said_nothing_take_no_place_from_those_who_have() -> None:
    bench = Bench(4)
    first, second = bench.fill(A, B, begun=True)
    silent = bench.fill(A, B)
    for last in range(10):
        bench.now += GRACE
        assert bench.enter(f"198.51.100.{last}")
    assert gone([first, second]) == [False, False]
    assert gone(silent) == [True, True]


async def test_the_silent_have_no_grace_when_the_line_is_full() -> None:
    bench = Bench(4)
    begun = bench.fill(A, B, begun=True)
    silent = bench.fill(A, B)
    assert [bench.enter(C, pressed=True) is not None for _ in range(3)] == [True] * 3
    assert gone(silent) == [True, True]
    assert gone(begun) == [False, False]


async def test_one_who_stopped_amid_its_handshake_gives_way_after_a_moment_the_longest_begun_first() -> None:
    bench = Bench(4)
    places = bench.fill(A, B, A, begun=True)
    bench.now += GRACE / 2
    places += bench.fill(B, begun=True)
    assert bench.enter(C) is None
    assert bench.admission.next_to_yield() == 100.0 + GRACE
    bench.now = bench.admission.next_to_yield()
    assert bench.enter(C)
    assert gone(places) == [True, False, False, False]
    assert bench.admission.displaced == {Displaced.STALLED: 1}


async def test_one_who_waits_for_us_keeps_its_place_however_long_that_takes() -> None:
    bench = Bench(2)
    slow, stalled = bench.fill(A, B, begun=True)
    bench.unread.add(id(slow))
    bench.now += 10 * GRACE
    assert bench.enter(C)
    assert gone([slow, stalled]) == [False, True]
    assert bench.enter(A) is None


async def test_one_who_has_spoken_though_we_have_not_looked_is_not_silent() -> None:
    bench = Bench(2)
    spoken, silent = bench.fill(A, B)
    bench.unread.add(id(spoken))
    bench.now += GRACE
    assert bench.enter(C)
    assert gone([spoken, silent]) == [False, True]


async def test_a_source_has_its_share_and_displaces_its_own_beyond_it() -> None:
    bench = Bench(4)
    mine = bench.fill(A, A)
    (other,) = bench.fill(B)
    assert bench.admission.crowded(A)
    bench.now += GRACE
    assert bench.enter(A) is None  # it may be as slow as the host it is
    bench.now += OWN_GRACE
    assert bench.enter(A)
    assert gone([*mine, other]) == [True, False, False]


async def test_a_source_with_its_share_waits_while_another_finds_a_place() -> None:
    bench = Bench(4)
    bench.fill(A, A, begun=True)
    assert bench.enter(A) is None
    assert bench.enter(B)


async def test_who_settles_goes_on_living_and_makes_room_at_once() -> None:
    bench, told = Bench(2), list[int]()
    bench.admission.on_room = lambda: told.append(bench.admission.unsettled)
    first, _ = bench.fill(A, B, begun=True)
    for _ in range(2):  # told twice, counted once
        first.settle()
    assert (bench.admission.live, bench.admission.unsettled, told) == (2, 1, [1])
    assert bench.enter(A)
    first.leave()
    assert bench.admission.live == 2


async def test_a_settled_one_never_gives_way() -> None:
    bench = Bench(8, limit=2)
    first, second = bench.fill(A, B)
    first.settle()
    second.settle()
    bench.now += 10 * GRACE
    assert bench.admission.obstacle(C) is Overflow.CONNECTIONS
    assert gone([first, second]) == [False, False]


async def test_a_silent_one_gives_way_where_the_limit_of_live_ones_is_reached() -> None:
    bench = Bench(8, limit=2)
    settled, silent = bench.fill(A, B)
    settled.settle()
    assert bench.enter(C)
    assert gone([settled, silent]) == [False, True]


async def test_one_who_gave_way_is_gone_at_once_and_leaves_but_once() -> None:
    bench = Bench(1)
    (first,) = bench.fill(A)
    bench.now += GRACE
    assert bench.admission.give_way()
    assert not bench.admission.give_way()
    first.settle()
    first.leave()
    assert (bench.admission.live, bench.admission.unsettled) == (0, 0)


async def test_where_our_own_app_calls_nobody_gives_way_and_there_is_no_share() -> None:
    bench = Bench(2, fair=False)
    places = bench.fill(A, A)
    bench.now += 10 * GRACE
    assert bench.admission.obstacle(B) is Overflow.HANDSHAKES
    assert not bench.admission.give_way()
    assert gone(places) == [False, False]


async def test_without_a_limit_there_is_no_obstacle() -> None:
    admission = Admission(fair=True, clock=lambda: 0.0)
    for _ in range(100):
        assert admission.obstacle(A) is None
        admission.enter(A)
    assert repr(admission) == "<Admission live=100 limit=None overflow=0>"


async def test_what_joins_a_settled_caller_is_counted_and_bounded_and_outlives_its_slot() -> None:
    bench = Bench(4, limit=3)
    rooms: list[int] = []
    bench.admission.on_room = lambda: rooms.append(bench.admission.live)
    (caller,) = bench.fill(A, begun=True)
    caller.settle()
    rooms.clear()
    assert [caller.join() for _ in range(3)] == [True, True, False]
    assert (bench.admission.live, bench.admission.most, bench.admission.admitted) == (3, 3, 3)
    assert bench.admission.refused == {Overflow.CONNECTIONS: 1}
    caller.leave()
    caller.part()
    caller.part()
    assert rooms == [2, 1, 0]
    assert bench.admission.full is None


async def test_who_joins_a_caller_takes_the_slot_of_a_silent_one() -> None:
    bench = Bench(4, limit=2)
    (caller,) = bench.fill(A, begun=True)
    caller.settle()
    (silent,) = bench.fill(B)
    assert caller.join()
    assert gone([silent]) == [True]
    assert bench.admission.live == 2


async def test_the_source_of_a_caller_that_was_turned_away_is_told_of_for_a_while() -> None:
    bench = Bench(4)
    assert bench.admission.pressure == ""
    bench.admission.turn_away(Overflow.CONNECTIONS, A)
    assert bench.admission.pressure == ""
    bench.admission.turn_away(Overflow.HANDSHAKES, A)
    said = "192.0.2.1 has its share of the handshakes, 2 of 4, and its further callers are turned away"
    assert bench.admission.pressure == said
    bench.now += PRESSED_SECONDS + 1
    assert bench.admission.pressure == ""
    app = Bench(4, fair=False)
    app.admission.turn_away(Overflow.HANDSHAKES, A)
    assert app.admission.pressure == "4 of 4 handshakes are under way, and further callers are turned away"
