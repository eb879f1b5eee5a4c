"""Every ending is one named reason, counted once; whatever leaves the block takes the connection out."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta

import pytest
import trio
import trio.testing

from agent.connections.connection import Connection
from agent.connections.ledger import RECENT, Ledger
from agent.connections.records import Audited, CloseReason, Direction, FailedAttempt, Finished
from agent.net.dial import DialReason
from agent.net.handshake import HandshakeReason
from agent.relay.splice import Ending

START = datetime(2026, 1, 1, tzinfo=UTC)


class Clock:
    """Stands still until it is put on."""

    def __init__(self) -> None:
        self.now = START

    def __call__(self) -> datetime:
        return self.now


class Told:
    """Keeps what it is told, in order."""

    def __init__(self) -> None:
        self.events: list[tuple[str, object]] = []

    def opened(self, connection: Connection, /) -> None:
        self.events.append(("opened", connection.id))

    def closed(self, finished: Finished, /) -> None:
        self.events.append(("closed", finished.id))

    def refused(self, finished: Finished, /) -> None:
        self.events.append(("refused", finished.id))

    def tunnel_opened(self, tunnel: Connection, /) -> None:
        self.events.append(("tunnel_opened", tunnel.id))

    def tunnel_ended(self, finished: Finished, /) -> None:
        self.events.append(("tunnel_ended", finished.id))

    def attempt_failed(self, connection: Connection, attempt: FailedAttempt, /) -> None:
        self.events.append(("attempt_failed", attempt.reason))

    def audited(self, connection: Connection, audited: Audited, /) -> None:
        self.events.append(("audited", audited.reason))

    def exposed_refused(self, caller: str, path: str, refused: object, /) -> None:
        self.events.append(("exposed_refused", path))

    def request_refused(self, connection: Connection, refused: object, /) -> None:
        self.events.append(("request_refused", connection.id))


@pytest.fixture
def clock() -> Clock:
    return Clock()


@pytest.fixture
def told() -> Told:
    return Told()


@pytest.fixture
def ledger(clock: Clock, told: Told) -> Ledger:
    return Ledger(clock, told)


async def test_one_that_was_relayed(
    ledger: Ledger, clock: Clock, told: Told, autojump_clock: trio.testing.MockClock
) -> None:
    with ledger.open(Direction.OUTBOUND, "127.0.0.1:5", "db@dc2") as connection:
        assert ledger.live() == (connection,)
        assert repr(ledger) == "<Ledger live=1>"
        connection.dialled = "10.0.0.1:8080 (wan_tag)"
        connection.relaying()
        connection.relaying()  # a second candidate opens nothing anew
        connection.queue_seconds = 0.5
        connection.progress.add_tls(20)
        await trio.sleep(1)
        connection.progress.add_plain(4)
        await trio.sleep(1)
        connection.progress.add_plain(6)
        assert ledger.bytes(Direction.OUTBOUND) == (10, 20)
        clock.now += timedelta(seconds=3)
        connection.end(Ending.CLEAN)
        connection.end(Ending.TLS_RESET, "the first name stays")
    assert ledger.live() == ()
    (finished,) = ledger.recent()
    assert finished == Finished(
        id=connection.id,
        direction=Direction.OUTBOUND,
        reason=Ending.CLEAN,
        detail="",
        opened=True,
        caller="127.0.0.1:5",
        upstream="db@dc2",
        dialled="10.0.0.1:8080 (wan_tag)",
        since=START,
        until=START + timedelta(seconds=3),
        seconds=2,
        to_plain=10,
        to_tls=20,
        queue_seconds=0.5,
        first_byte_seconds=1.5,
    )
    assert ledger.counters() == {(Direction.OUTBOUND, "clean"): 1}
    assert ledger.bytes(Direction.OUTBOUND) == (10, 20)
    assert ledger.bytes(Direction.INBOUND) == (0, 0)
    assert told.events == [("opened", 1), ("closed", 1)]


async def test_one_that_was_refused(ledger: Ledger, told: Told) -> None:
    with ledger.open(Direction.INBOUND, "somebody") as connection:
        connection.end(HandshakeReason.NO_CERTIFICATE, "peer did not return a certificate")
    assert ledger.counters() == {(Direction.INBOUND, "no_certificate"): 1}
    assert told.events == [("refused", 1)]
    assert ledger.recent()[0].detail == "peer did not return a certificate"


async def test_a_probe_is_only_counted_apart(ledger: Ledger, told: Told) -> None:
    with ledger.open(Direction.INBOUND, "check") as connection:
        ledger.probe(connection)
    assert (ledger.probes, ledger.counters(), ledger.recent(), told.events) == (1, {}, (), [])


async def test_closed_from_outside_the_block_ends_and_nothing_is_raised(ledger: Ledger, told: Told) -> None:
    with ledger.open(Direction.INBOUND, "somebody") as connection:
        connection.relaying()
        connection.close(CloseReason.INTENTION_WITHDRAWN, "web => db (deny)")
        connection.close(CloseReason.DRAIN_DEADLINE, "the first reason stays")
        await trio.sleep(10)
    (finished,) = ledger.recent()
    assert (finished.reason, finished.detail) == (CloseReason.INTENTION_WITHDRAWN, "web => db (deny)")
    assert told.events == [("opened", 1), ("closed", 1)]


async def test_an_end_that_came_before_the_close_is_the_reason(ledger: Ledger) -> None:
    with ledger.open(Direction.INBOUND, "somebody") as connection:
        connection.end(Ending.CLEAN)
        connection.close(CloseReason.DRAIN_DEADLINE)
    assert ledger.recent()[0].reason is Ending.CLEAN


async def test_cancelled_with_everything_else(ledger: Ledger) -> None:
    with trio.CancelScope() as scope, ledger.open(Direction.INBOUND, "somebody"):
        scope.cancel()
        await trio.sleep(10)
    assert scope.cancelled_caught
    assert ledger.counters() == {(Direction.INBOUND, "shutdown"): 1}


async def test_a_bug_is_counted_and_raised(ledger: Ledger) -> None:
    with pytest.raises(ZeroDivisionError), ledger.open(Direction.INBOUND, "somebody"):
        raise ZeroDivisionError
    assert ledger.counters() == {(Direction.INBOUND, "internal_error"): 1}
    assert ledger.live() == ()


async def test_a_cancellation_from_outside_is_a_shutdown_and_no_bug(ledger: Ledger) -> None:
    with trio.CancelScope() as outer, ledger.open(Direction.INBOUND, "web"):
        outer.cancel()
        await trio.sleep_forever()
    assert ledger.counters() == {(Direction.INBOUND, "shutdown"): 1}


async def test_a_block_that_names_no_ending(ledger: Ledger) -> None:
    with ledger.open(Direction.INBOUND, "somebody"):
        pass
    assert ledger.counters() == {(Direction.INBOUND, "shutdown"): 1}


async def test_failed_attempts_have_their_own_counters(ledger: Ledger, told: Told) -> None:
    attempt = FailedAttempt(
        endpoint="db-1 on node-1 in dc2", address="10.0.0.1:1", reason=DialReason.REFUSED, detail="refused"
    )
    with ledger.open(Direction.OUTBOUND, "app", "db") as connection:
        ledger.attempt_failed(connection, attempt)
        connection.end(Ending.CLEAN)
    assert ledger.failed_attempts() == {"connect_refused": 1}
    assert told.events[0] == ("attempt_failed", DialReason.REFUSED)
    assert str(attempt) == "db-1 on node-1 in dc2 at 10.0.0.1:1: connect_refused: refused"


async def test_closing_all_of_one_direction(ledger: Ledger) -> None:
    with ledger.open(Direction.INBOUND, "a") as inbound, ledger.open(Direction.OUTBOUND, "b") as outbound:
        assert ledger.live(Direction.INBOUND) == (inbound,)
        assert ledger.close_all(CloseReason.DRAIN_DEADLINE, Direction.INBOUND) == 1
        assert (inbound.closing, outbound.closing) == (CloseReason.DRAIN_DEADLINE, None)
        assert ledger.close_all(CloseReason.SHUTDOWN) == 2
        assert (inbound.closing, outbound.closing) == (CloseReason.DRAIN_DEADLINE, CloseReason.SHUTDOWN)


async def test_waiting_until_it_is_empty(ledger: Ledger, autojump_clock: trio.testing.MockClock) -> None:
    await ledger.empty()  # nothing lives

    async def live(direction: Direction, seconds: float) -> None:
        with ledger.open(direction, "somebody") as connection:
            await trio.sleep(seconds)
            connection.end(Ending.CLEAN)

    async with trio.open_nursery() as nursery:
        nursery.start_soon(live, Direction.INBOUND, 1)
        nursery.start_soon(live, Direction.INBOUND, 2)
        nursery.start_soon(live, Direction.OUTBOUND, 5)
        await trio.testing.wait_all_tasks_blocked()
        began = trio.current_time()
        await ledger.empty(Direction.INBOUND)
        assert trio.current_time() - began == 2
        await ledger.empty()
        assert trio.current_time() - began == 5


async def test_only_the_last_ones_are_remembered(ledger: Ledger) -> None:
    for number in range(RECENT + 10):
        with ledger.open(Direction.INBOUND, str(number)) as connection:
            connection.end(Ending.CLEAN)
    assert len(ledger.recent()) == RECENT
    assert ledger.recent()[-1].caller == str(RECENT + 9)
    assert ledger.counters() == {(Direction.INBOUND, "clean"): RECENT + 10}


async def test_a_connection_shows_who_it_is(ledger: Ledger) -> None:
    with ledger.open(Direction.INBOUND, "somebody") as connection:
        assert repr(connection) == "<Connection 1 inbound peer=None>"
