"""More callers than places, at a real listening socket: who is begun, who waits, who is turned away."""

from __future__ import annotations

import socket
from collections.abc import Callable

import pytest
import trio
import trio.testing

from agent.net import accept as accept_module
from agent.net.accept import LOOK, accept_all
from agent.net.admission import Admission, Displaced, Overflow, Slot
from agent.relay.close import reset
from tests.agent.net.test_accept import Told
from tests.support.socket_pairs import listener


class Slow:
    """A handler whose handshakes last until a test ends them; `begun` has the callers in order."""

    def __init__(self) -> None:
        self.begun: list[object] = []
        self.places: list[Slot] = []

    async def __call__(self, sock: socket.socket, place: Slot) -> None:
        with sock:
            self.begun.append(sock.getpeername())
            self.places.append(place)
            await trio.sleep_forever()


class Rush:
    """A listener with slow handshakes and few places, and its callers."""

    def __init__(self, nursery: trio.Nursery, sock: socket.socket, admission: Admission) -> None:
        self.handler, self.told, self.admission, self.sock = Slow(), Told(), admission, sock
        self.callers: list[socket.socket] = []
        self.first = b""
        self.replaced = False
        nursery.start_soon(self._run, nursery)

    def end(self, nursery: trio.Nursery) -> None:
        nursery.cancel_scope.cancel()
        for caller in self.callers:
            caller.close()

    async def _run(self, nursery: trio.Nursery) -> None:
        await accept_all(
            [self.sock],
            self.handler,
            purpose="tests",
            connections=nursery,
            admission=self.admission,
            events=self.told,
            replaced=lambda: self.replaced,
        )

    def speak(self) -> None:
        """Whoever comes from now on says something at once."""
        self.first = b"\x16"

    async def stand(self, count: int, address: str = "127.0.0.1") -> None:
        """So many callers, from that address."""
        for _ in range(count):
            caller = socket.create_connection(self.sock.getsockname(), source_address=(address, 0))
            caller.send(self.first)
            self.callers.append(caller)
            await trio.lowlevel.checkpoint()

    async def until(self, condition: Callable[[], bool]) -> None:
        """Look until it is so."""
        with trio.fail_after(10):
            while not condition():  # noqa: ASYNC110 - a test looks
                await trio.sleep(0.001)

    async def settle_all(self) -> None:
        """End every handshake as soon as it has begun, for ever."""
        while True:
            for place in self.handler.places:
                place.settle()
            await trio.sleep(0.001)

    async def come(self, count: int) -> list[object]:
        """So many callers, one after the other; their names when the listener has dealt with all."""
        dealt = self.admission.admitted + self.admission.overflow + count
        new = [socket.create_connection(self.sock.getsockname()) for _ in range(count)]
        self.callers += new
        for caller in new:
            caller.send(self.first)
        with trio.fail_after(10):
            while self.admission.admitted + self.admission.overflow < dealt:  # noqa: ASYNC110 - a test looks
                await trio.sleep(0.001)
        return [caller.getsockname() for caller in new]


async def test_callers_of_our_app_beyond_the_places_wait_in_line_and_are_served_in_order() -> None:
    with listener() as sock:
        async with trio.open_nursery() as nursery:
            rush = Rush(nursery, sock, Admission(None, 4))
            await rush.stand(10)
            names = [caller.getsockname() for caller in rush.callers]
            await rush.until(lambda: rush.admission.waiting == 6)
            assert (rush.admission.admitted, rush.admission.overflow, rush.told.overflows) == (4, 0, [])
            for begun in range(4, 11):
                await rush.until(lambda: len(rush.handler.places) == begun)  # noqa: B023 - at once
                for _ in range(2):  # said twice, counted once
                    rush.handler.places[begun - 4].settle()
            for place in rush.handler.places[7:]:
                place.settle()
            assert (set(rush.handler.begun[:4]), rush.handler.begun[4:]) == (set(names[:4]), names[4:])
            assert (rush.admission.waiting, rush.admission.overflow) == (0, 0)
            assert (rush.admission.live, rush.admission.unsettled) == (10, 0)
            rush.end(nursery)
    assert (rush.admission.live, rush.admission.unsettled, rush.admission.most_unsettled) == (0, 0, 4)


async def test_callers_of_our_app_wait_so_long_and_no_longer() -> None:
    with listener() as sock:
        async with trio.open_nursery() as nursery:
            rush = Rush(nursery, sock, Admission(None, 2, patience=3 * LOOK))
            began = trio.current_time()
            await rush.stand(5)
            await rush.until(lambda: rush.admission.overflow == 3)
            assert trio.current_time() - began >= 3 * LOOK
            assert rush.admission.refused == {Overflow.HANDSHAKES: 3}
            assert rush.told.overflows == [Overflow.HANDSHAKES]  # told once
            assert [caller.recv(1) for caller in rush.callers[2:]] == [b""] * 3  # and no reset
            rush.handler.places[0].settle()
            await rush.stand(2)
            await rush.until(lambda: rush.admission.overflow == 4)
            assert rush.told.overflows == [Overflow.HANDSHAKES] * 2  # told again after there was room
            rush.end(nursery)


async def test_a_full_line_of_our_app_leaves_the_others_in_the_backlog(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(accept_module, "LINE", 4)
    with listener() as sock:
        async with trio.open_nursery() as nursery:
            rush = Rush(nursery, sock, Admission(None, 1))
            await rush.stand(1)
            await rush.until(lambda: rush.admission.admitted == 1)
            await rush.stand(8)
            await rush.until(lambda: rush.admission.waiting == 4)
            await trio.testing.wait_all_tasks_blocked(LOOK / 5)
            assert (rush.admission.waiting, rush.admission.overflow) == (4, 0)
            async with trio.open_nursery() as ending:
                ending.start_soon(rush.settle_all)
                await rush.until(lambda: rush.admission.admitted == 9)
                ending.cancel_scope.cancel()
            assert rush.admission.overflow == 0
            rush.end(nursery)


@pytest.mark.parametrize("fair", [False, True])
async def test_a_process_that_is_replaced_takes_only_those_whom_it_can_begin(fair: bool) -> None:
    with listener() as sock:
        async with trio.open_nursery() as nursery:
            rush = Rush(nursery, sock, Admission(None, 4, fair=fair))
            rush.replaced, rush.first = True, b"\x16"
            await rush.stand(4, "127.0.0.1")
            await rush.stand(6, "127.0.0.2")
            begun = 4 if not fair else 2
            await rush.until(lambda: rush.admission.admitted >= begun)
            await trio.testing.wait_all_tasks_blocked(LOOK)
            assert rush.admission.waiting <= 1
            taken = rush.admission.admitted + rush.admission.waiting
            rush.handler.places[0].settle()
            await rush.until(lambda: rush.admission.admitted + rush.admission.waiting > taken)
            left = 10 - rush.admission.admitted - rush.admission.waiting
            nursery.cancel_scope.cancel()
        for _ in range(left):  # for the next process
            sock.accept()[0].close()
        with pytest.raises(BlockingIOError):
            sock.accept()
        for caller in rush.callers:
            caller.close()


async def test_the_limit_of_live_ones_is_another_reason() -> None:
    with listener() as sock:
        async with trio.open_nursery() as nursery:
            rush = Rush(nursery, sock, Admission(2, 2))
            await rush.come(3)
            assert rush.admission.refused == {Overflow.CONNECTIONS: 1}
            assert rush.told.overflows == [Overflow.CONNECTIONS]
            rush.end(nursery)


async def test_those_beyond_the_places_wait_in_line_and_none_is_turned_away() -> None:
    with listener() as sock:
        async with trio.open_nursery() as nursery:
            rush = Rush(nursery, sock, Admission(None, 8, fair=True))
            rush.speak()
            await rush.stand(10)
            await rush.until(
                lambda: rush.admission.waiting == 6
            )  # four have places: a source has half of them
            for ended in range(1, 11):
                assert rush.admission.admitted == min(10, ended + 3)
                rush.handler.places[ended - 1].settle()
                await rush.until(lambda: rush.admission.admitted == min(10, ended + 4))  # noqa: B023 - at once
            assert (rush.admission.waiting, rush.admission.overflow) == (0, 0)
            rush.end(nursery)


async def test_silent_ones_give_way_to_those_who_come_after_them() -> None:
    with listener() as sock:
        async with trio.open_nursery() as nursery:
            rush = Rush(nursery, sock, Admission(None, 8, fair=True))
            for last in range(1, 13):
                await rush.stand(1, f"127.0.0.{last}")
            await rush.until(lambda: rush.admission.admitted == 12)
            assert (rush.admission.unsettled, rush.admission.displaced) == (8, {Displaced.SILENT: 4})
            rush.end(nursery)


async def test_one_who_left_while_it_stood_in_line_costs_no_handshake() -> None:
    with listener() as sock:
        async with trio.open_nursery() as nursery:
            rush = Rush(nursery, sock, Admission(None, 2, fair=True))
            rush.speak()
            await rush.stand(2)
            await rush.until(lambda: rush.admission.waiting == 1)
            rush.callers[1].close()
            await trio.sleep(2 * LOOK)
            rush.handler.places[0].settle()
            await rush.until(lambda: rush.admission.left == 1)
            assert (rush.admission.admitted, rush.admission.waiting) == (1, 0)
            rush.end(nursery)


async def test_an_app_that_ended_its_side_in_line_is_served_and_one_that_was_reset_is_not(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(accept_module, "LOOK", -1.0)  # each has waited for longer than that
    with listener() as sock:
        async with trio.open_nursery() as nursery:
            callers = [socket.create_connection(sock.getsockname()) for _ in range(2)]
            for caller in callers:
                caller.send(b"GET / HTTP/1.0\r\n\r\n")
                caller.shutdown(socket.SHUT_WR)
            reset(callers.pop())
            rush = Rush(nursery, sock, Admission())
            await rush.until(lambda: rush.admission.left == 1)
            assert rush.admission.admitted == 1
            rush.callers += callers
            rush.end(nursery)


async def test_where_no_more_can_live_those_in_line_are_told_at_once() -> None:
    with listener() as sock:
        async with trio.open_nursery() as nursery:
            rush = Rush(nursery, sock, Admission(1, 8, fair=True))
            rush.speak()
            await rush.come(4)
            assert rush.admission.refused == {Overflow.CONNECTIONS: 3}
            assert rush.told.overflows == [Overflow.CONNECTIONS]
            rush.end(nursery)


async def test_when_the_line_is_full_the_backlog_holds_and_a_source_beyond_its_share_is_turned_away(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(accept_module, "LINE", 4)
    with listener() as sock:
        async with trio.open_nursery() as nursery:
            rush = Rush(nursery, sock, Admission(None, 2, fair=True))
            rush.speak()
            await rush.stand(1, "127.0.0.1")
            await rush.until(lambda: rush.admission.admitted == 1)
            await rush.stand(2, "127.0.0.1")
            await rush.until(lambda: rush.admission.waiting == 2)
            await rush.stand(1, "127.0.0.1")  # one beyond its share
            await rush.until(lambda: rush.admission.overflow == 1)
            await rush.stand(1, "127.0.0.2")
            await rush.until(lambda: rush.admission.admitted == 2)
            await rush.stand(2, "127.0.0.2")
            await rush.until(lambda: rush.admission.waiting == 4)
            for last in range(3, 8):
                await rush.stand(1, f"127.0.0.{last}")  # who wait where nobody looks
            await trio.testing.wait_all_tasks_blocked(LOOK / 5)
            assert (rush.admission.waiting, rush.admission.admitted) == (4, 2)
            async with trio.open_nursery() as ending:
                ending.start_soon(rush.settle_all)
                await rush.until(lambda: rush.admission.admitted == 11)
                ending.cancel_scope.cancel()
            assert (rush.admission.refused, rush.told.overflows) == (
                {Overflow.HANDSHAKES: 1},
                [Overflow.HANDSHAKES],
            )
            rush.end(nursery)


async def test_a_slot_says_how_long_its_caller_has_waited_for_it() -> None:
    with listener() as sock:
        async with trio.open_nursery() as nursery:
            rush = Rush(nursery, sock, Admission(None, 1))
            await rush.stand(2)
            await rush.until(lambda: rush.admission.waiting == 1)
            await trio.sleep(0.05)
            rush.handler.places[0].settle()
            await rush.until(lambda: len(rush.handler.places) == 2)
            first, second = rush.handler.places
            assert first.waited < second.waited
            assert second.waited >= 0.05
            rush.end(nursery)
